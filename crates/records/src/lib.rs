//! Where the records of replicated volumes are kept: [`kubernetes`] or [`etcd`].
//!
//! Both are a [`RecordStore`](replication::record::store::RecordStore) and pass its suite. Both write the same text ([`form`]), so that a record can be carried
//! from one to the other and read by a person.
//!
//! # What holds
//!
//! * A [`Conflict`](replication::record::store::SwapError::Conflict) is certain: this swap was not done and never will be. So no swap is ever sent twice, not by
//!   the clients below either. What was sent and has no answer that says so is
//!   [`Unknown`](replication::record::store::SwapError::Unknown); whoever asked reads what is there.
//! * A read is answered by a majority of the store, not by a cache, and not by a member that was left behind.
//! * Each request ends in bounded time ([`Patience`]), whatever the server does.
//! * A record that is not there is told from a store that cannot say so: an API server without the custom resource is an error, and no volume without
//!   a record.
//!
//! What is *absent*: caches; a decision about what a record should say.

pub mod etcd;
mod follow;
pub mod form;
pub mod kubernetes;
mod patience;

pub use patience::Patience;

use replication::record::store::StoreError;
use replication::units::VolumeId;

fn unusable(volume: VolumeId, why: &form::Malformed) -> StoreError {
    StoreError { reason: format!("the record of volume {} cannot be used: {why}", form::name(volume)) }
}

/// An error with what has caused it, in one line: what clients tell first is often only that there is a cause.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors tell their cause themselves.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
