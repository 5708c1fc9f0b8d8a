//! Replicated volumes: the protocol between those who serve a volume, its replicas, and its record.
//!
//! ```text
//! whoever uses the volume ──► Attachment ───── requests, answers ─────► Replica ──► store
//!                                 │                                   (one on each of some nodes)
//!                                 └── compare-and-swap ──► record: epoch, attached, who is in sync
//! ```
//! [`attachment::Attachment`] and [`replica::Replica`] are state machines, `apply(event) -> actions`. Whoever runs them carries their messages, asks the record
//! store ([`record::store::RecordStore`]) and the store behind the replica ([`replica::store`]) what the actions say, and hands in what time it is.
//!
//! # Rules
//!
//! The code names them by these numbers; the simulation breaks each one and shows what is lost.
//!
//! 1. An attachment is a swap of the record to the next epoch; every in-sync replica seals that epoch durably before the first I/O. A replica refuses lower ones.
//! 2. A write is acknowledged when every in-sync replica has it. One that is late is taken out of the record first.
//! 3. The record store is not in the steady path. Where it is needed and away, or too few replicas are in sync, I/O waits; it does not fail.
//! 4. Leases come from the replicas: nothing is served unless every in-sync replica has confirmed the epoch within the lease time. Who attaches by force
//!    waits until the leases of the one before have ended.
//! 5. After an unclean end, replicas are made equal from one that has lost nothing, before anything is served. In what they are called equal already, that is durable.
//! 6. A returning replica gets what was born since it was complete, and what it has itself from then on; it counts when the copies compare equal.
//! 7. Who is stale, and since when, is what the record says. The replica is not asked.
//! 8. Reads are local where possible; replicas are added and retired while the volume is served.
//! 9. An attachment that goes on for the users of one before it ends if all in-sync replicas have lost their power meanwhile: users learn it who believe what
//!    was answered and not flushed.
//! 10. A snapshot has a place in the order of changes: those asked for before it are on every in-sync replica when these take it, and none that came later. It is
//!     in the record when all of them have it, durably and of one epoch; only then it exists, on those that the record names ([`record::snapshots`]).
//! 11. A volume grows on every in-sync replica first, then in its record, then for its user; it never becomes smaller.
//!
//! What survives what is told in [`attachment`]; in which order a replica makes things durable, in [`replica`].
//!
//! What is *absent*: clocks, randomness, sockets, threads, locks (but in the records in memory), a runtime; and a switch that breaks a rule in what is
//! shipped.

pub mod attachment;
pub mod limits;
pub mod look;
pub mod message;
pub mod record;
pub mod replica;
mod rules;
#[cfg(test)]
mod simulation;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod units;
pub mod wire;
