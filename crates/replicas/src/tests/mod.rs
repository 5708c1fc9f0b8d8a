//! Real connections and real pools, in one process and over several.

mod cluster;
mod copies;
mod failover;
mod hostile;
mod identity;
mod load;
mod looks;
mod processes;
mod proxy;
mod registers;
mod serving;
mod snapshots;
