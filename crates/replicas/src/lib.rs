//! Replicated volumes at work: what `replication` decides, done over TCP and on pools.
//!
//! ```text
//! front end ─► AttachedVolume ─► Attachment ─┬─ directly ───────────────► Replica ─► PoolStore ─► volume of a pool
//!              (block::Device)     │         └─ Link ─ TLS ─ Server ────► Replica ─► …  (on another node)
//!                                  └─ record store (Kubernetes, etcd: whoever implements the trait)
//! ```
//! The protocol's state machines have one owner each, who is told what happened and does what they say with no lock held ([`Replica`], [`Attachment`]). Here is what
//! they must not have: a clock, sockets, threads, and the order in which bytes become durable ([`PoolStore`]).
//!
//! # Rules
//!
//! * A peer is not trusted: what it sends costs an error or its connection, and never more memory than [`Limits`] say. It speaks for the node that its certificate names,
//!   and for no other.
//! * Nothing waits for a peer. What cannot be sent is dropped, and asked again by the protocol; so there is one place that decides how long anything may take.
//! * Nothing fails because replicas or the record store cannot be reached: whoever uses the volume waits, and [`Attachment::status`] says for what.
//!
//! What is *absent*: Kubernetes and every other record store; who is attached where, and which replicas there should be, which is decided by those who use this.

mod attachment;
mod clock;
mod identity;
mod looking;
mod net;
mod replica;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use attachment::{AttachError, AttachedVolume, Attachment, Listener, MemberStatus, Options, Status, Suspended};
pub use identity::{IdentityError, incarnation, session};
pub use looking::{LookError, Looking};
pub use net::{Addresses, Limits, Network, Security, ServeError, Server, Tls, TlsError};
pub use replica::{Replica, Replicas};
pub use store::{Answered, HeldSnapshot, PoolStore, Seen, Store, StoreError};
