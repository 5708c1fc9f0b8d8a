//! Following a record in a store whose watches end: by their time, with their connection, or because what they were to begin with is forgotten.
//!
//! ```text
//!         begun: what is there now is read          an event
//!  begin ───────────────────────────────► following ────────► following
//!    ▲                                        │
//!    └──── it is over, or has failed ─────────┘
//! ```
//! Invariant: each begin reads what is there, and not out of a cache, so that nothing that happened between two watches is missed for long; and
//! [`Watch::next`] can be given up at any point, since what is known is in the watch itself and is kept before anything is told.

use crate::patience::{Patience, Pauses};
use replication::record::store::{StoreError, Version, Versioned, Watch};

/// What one watch of a store gives.
#[derive(Debug)]
pub(crate) enum Event {
    /// The record has become this.
    Is(Option<Versioned>),
    /// Nothing that matters.
    Nothing,
    /// The watch is to be begun anew.
    Over,
}

/// A record in a store that can be watched for some time.
pub(crate) trait Source: Send + Sync {
    /// A watch that is open.
    type Events: Send;

    /// What is there now, and what comes after exactly that.
    fn begin(&self) -> impl Future<Output = Result<(Option<Versioned>, Self::Events), StoreError>> + Send;

    /// Waits for what comes next. It may be given up without losing anything.
    fn next(&self, events: &mut Self::Events) -> impl Future<Output = Result<Event, StoreError>> + Send;
}

/// Follows a record for as long as it is kept.
pub(crate) struct Follower<S: Source> {
    source: S,
    patience: Patience,
    events: Option<S::Events>,
    told: Option<Option<Version>>,
    pauses: Pauses,
}

impl<S: Source> Follower<S> {
    pub(crate) fn new(source: S, patience: Patience) -> Self {
        Self { source, patience, events: None, told: None, pauses: Pauses::default() }
    }

    /// One step; what is there, if that is known now.
    async fn step(&mut self) -> Result<Option<Option<Versioned>>, StoreError> {
        let Some(events) = &mut self.events else {
            self.pauses.pass().await;
            let (found, events) = self.source.begin().await?;
            self.events = Some(events);
            return Ok(Some(found));
        };
        match self.source.next(events).await? {
            Event::Is(found) => {
                self.pauses.succeeded();
                Ok(Some(found))
            }
            Event::Nothing => {
                self.pauses.succeeded();
                Ok(None)
            }
            Event::Over => {
                self.has_ended();
                Ok(None)
            }
        }
    }

    /// However it has ended, the next one begins after a pause; these grow as long as watches end before they have told anything.
    fn has_ended(&mut self) {
        self.events = None;
        self.pauses.failed(&self.patience);
    }
}

impl<S: Source> Watch for Follower<S> {
    async fn next(&mut self) -> Result<Option<Versioned>, StoreError> {
        loop {
            let found = match self.step().await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    self.has_ended();
                    return Err(error);
                }
            };
            let version = found.as_ref().map(|found| found.version.clone());
            if self.told.as_ref() != Some(&version) {
                self.told = Some(version);
                return Ok(found);
            }
        }
    }
}
