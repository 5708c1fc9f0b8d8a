//! Locks: times before which a store refuses to delete an object, whoever asks.

use super::{Store, StoreError, StoreErrorKind};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The shortest lock, in seconds: an hour. A shorter one would end before a backup does.
const MIN_SECONDS: u64 = 60 * 60;
/// The longest lock, in seconds: a hundred years, which is what S3 takes.
const MAX_SECONDS: u64 = 100 * 365 * 24 * 60 * 60;

/// Who may end a lock before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Whoever has a right of its own for that, which the credentials of every day should not have.
    Governance,
    /// Nobody, not even the owner of the account.
    Compliance,
}

impl LockMode {
    /// What S3 calls it.
    pub(super) fn of_s3(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }

    pub(super) fn from_s3(text: &str) -> Option<Self> {
        [Self::Governance, Self::Compliance].into_iter().find(|mode| mode.of_s3() == text)
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        })
    }
}

/// The lock of a repository: for how long after it is published a recovery point cannot be destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// Who may end it before its time.
    pub mode: LockMode,
    /// How long it lasts, in seconds.
    pub seconds: u64,
}

impl Lock {
    /// Refuses what is too short to be of use, or too long for stores.
    pub fn new(mode: LockMode, seconds: u64) -> Result<Self, StoreError> {
        if (MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            Ok(Self { mode, seconds })
        } else {
            let what = format!("a lock lasts from one hour to 100 years, and not {seconds} s");
            Err(StoreError::configuration(what))
        }
    }

    /// Until when what is locked now is locked: half as long again as is promised. So an object that many recovery points need is
    /// extended once in half that time, and not for each of them.
    pub(crate) fn until(self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.span() + self.span() / 2).unwrap_or(Timestamp::MAX)
    }

    /// Until when an object that a recovery point needs must be locked if the point is published now.
    pub(crate) fn at_least_until(self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.span()).unwrap_or(Timestamp::MAX)
    }

    fn span(self) -> SignedDuration {
        SignedDuration::from_secs(i64::try_from(self.seconds.min(MAX_SECONDS)).unwrap_or(i64::MAX))
    }
}

/// A lock of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Who may end it before its time.
    pub mode: LockMode,
    /// When it ends by itself.
    pub until: Timestamp,
}

impl Store {
    /// The lock with which objects are created, if any.
    pub fn lock(&self) -> Option<Lock> {
        self.lock
    }

    /// Sets the lock with which objects of a repository are created.
    pub(crate) fn with_lock(mut self, lock: Option<Lock>) -> Self {
        self.lock = lock;
        self
    }

    /// Uses another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.clock = clock;
        self
    }

    /// The lock that an object of this name is created with now; none for what is not of lasting value.
    pub(super) fn retention_of(&self, name: &str) -> Option<Retention> {
        let lock = self.lock.filter(|_| crate::layout::is_lasting(name))?;
        Some(Retention { mode: lock.mode, until: lock.until((self.clock)()) })
    }

    /// Until when the store refuses to delete an object; nothing if it would do it now.
    pub async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let mut attempts = self.retry.attempts();
        loop {
            match self.access.locked_until(name).await {
                Ok(until) => return Ok(until.filter(|until| *until > (self.clock)())),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Sees to it that an object cannot be deleted for as long as a recovery point that is published now must last. Does nothing in
    /// a store without a lock, and asks for nothing that holds already.
    pub async fn hold(&self, name: &str) -> Result<(), StoreError> {
        let Some(lock) = self.lock else { return Ok(()) };
        let now = (self.clock)();
        if self.locked_until(name).await?.is_some_and(|until| until >= lock.at_least_until(now)) {
            return Ok(());
        }
        let retention = Retention { mode: lock.mode, until: lock.until(now) };
        let mut attempts = self.retry.attempts();
        loop {
            match self.access.retain(name, retention).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Refuses to delete what is locked, before the store has hidden it behind a deletion marker.
    pub(super) async fn refuse_if_locked(&self, name: &str) -> Result<(), StoreError> {
        if self.lock.is_none() {
            return Ok(());
        }
        match self.locked_until(name).await {
            Ok(None) => Ok(()),
            Ok(Some(until)) => Err(StoreError::new(StoreErrorKind::Locked { until }, "delete", name)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_outlasts_what_it_promises() {
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        let lock = Lock::new(LockMode::Governance, 30 * 86_400).unwrap();
        assert_eq!(lock.at_least_until(now).to_string(), "2026-12-25T00:00:00Z");
        assert_eq!(lock.until(now).to_string(), "2027-01-09T00:00:00Z");
        assert!(Lock::new(LockMode::Governance, 3_599).is_err() && Lock::new(LockMode::Compliance, u64::MAX).is_err());
    }
}
