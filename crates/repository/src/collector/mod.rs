//! Sessions, forgetting, and collecting what nobody needs, so that no clock, no lease and no stall can lose data.
//!
//! Epochs are counted. A **session** belongs to the epoch in which it began, and has an object that says so before it writes its first
//! pack. A **collection** ends an epoch `F`: it says which points there are and which packs none of them refers to (the candidates), and
//! opens epoch `F+1`. A **recovery point** names its sessions, and counts only while the objects of all of them exist.
//!
//! ```text
//!  sessions of epoch ≤ F   ──── begin ─────── write ──────── publish, or a tombstone ───┐
//!                                                                                       ▼
//!  collector     list packs, mark ── collection F+1 ── open epoch F+1 ── wait or revoke ── mark again ── over? ── delete ── over!
//!                                                           │
//!  sessions of epoch > F                                    └── begin ── parents: only what the collection lists, or what is newer
//! ```
//!
//! # Why nothing is deleted that a recovery point refers to
//!
//! Let a collector delete the candidate `c`, and let `t` be the moment in which it began its second listing of points.
//!
//! 1. *At `t`, all sessions of epoch ≤ F have ended*: their points exist, or have tombstones. A session counts from its second reading of
//!    the epochs, which showed none after its own; so its object existed before epoch F+1 was opened, and the collector, which lists
//!    sessions afterwards, has seen it. A tombstone and a point have the same name, and who creates it first has decided.
//! 2. *At `t`, no point that counts refers to `c`*, because `c` was not marked; and points that do not count never will again, because
//!    the object of a session never comes back.
//! 3. *No point that is published after `t` refers to `c`.* By 1 its sessions are of epochs > F. None of them wrote `c`, which is of an epoch
//!    ≤ F. So the first point that refers to `c` would do so through a parent, which counted when it was read, and refers to `c` too: it
//!    must have been published before `t`, and be forgotten by `t`. If the session read it while collection F+1 was not over, the collection
//!    lists it; but the points that it lists do not refer to candidates; or all its sessions are of epochs > F, and it is itself a
//!    point of this kind. If the session read it when the collection was over, that was after `t`, because the collector looked
//!    after `t` and found that the collection was not over: so the parent counted at `t`, which contradicts 2.
//!
//! The argument names no time. It holds for any number of collectors, and for one that sleeps for days between `t` and its deletions.
//! Times decide only whether it is worth revoking a run: a clock that is wrong costs a backup, which is told that it was revoked.
//! Each [`rules::Rule`] says what breaks without it, and the simulation shows that.

mod collect;
mod driver;
mod look;
mod machine;
mod mark;
mod objects;
mod points;
mod process;
mod report;
mod rules;
mod session;
mod sessions;
#[cfg(test)]
mod simulation;

pub use report::{CollectOptions, CollectReport, CollectState, Run};
pub use session::Heart;

pub(crate) use driver::{ForgetRequest, forget, publish};
pub(crate) use mark::Marker;
pub(crate) use objects::{Collection, MAX_COLLECTION_LEN, SessionRecord, Tombstone, verify_collected};
pub(crate) use session::Session;
