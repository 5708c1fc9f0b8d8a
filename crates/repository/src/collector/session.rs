//! A session that has begun: its name, its signs of life, and its parents.

use super::driver::Driver;
use super::look::Silence;
use super::machine::Machine;
use super::process;
use super::report::CollectOptions;
use super::rules::Rules;
use super::sessions::{Begin, NotBegun, Parents, begin, parents};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{PointId, SessionId};
use crate::layout;
use crate::point::RecoveryPoint;
use crate::progress::NoProgress;
use crate::repository::Repository;
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How long it is from one sign of life to the next: a request of no bytes, 96 a day.
const BEAT_EVERY: Duration = Duration::from_secs(15 * 60);

/// Gives signs of life for a session as long as it, or a clone of it, is kept.
#[derive(Debug, Clone)]
pub struct Heart {
    _beating: Arc<AbortOnDropHandle<()>>,
}

impl Heart {
    fn start(repo: Repository, id: SessionId, every: Duration) -> Self {
        Self { _beating: Arc::new(AbortOnDropHandle::new(tokio::spawn(beat(repo, id, every)))) }
    }
}

/// A session that may write.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    heart: Heart,
    /// What may be a parent, once it is known that it is all, or else what the collection of its epoch lists.
    parents: tokio::sync::Mutex<Option<Arc<Parents>>>,
}

impl Session {
    /// Begins a session for a recovery point; `alone` says that no other process works for that.
    pub(crate) async fn begin(repo: &Repository, point: &PointId, alone: bool) -> Result<Self> {
        let wanted = Begin {
            point: point.clone(),
            host: if alone { process::host_of_process() } else { process::host() },
            started: Timestamp::now(),
            alone: !repo.store().refuses_what_exists(),
            silence: Silence { after: CollectOptions::DEAD_AFTER, ended: process::has_ended },
        };
        let machine = Machine::new(move |port| begin(port, Rules::default(), wanted));
        let begun = Driver::new(repo, &NoProgress).run(machine).await?;
        let id = begun.map_err(|why| refused(why, point))?;
        let heart = Heart::start(repo.clone(), id, BEAT_EVERY);
        Ok(Self { id, heart, parents: tokio::sync::Mutex::default() })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn heart(&self) -> Heart {
        self.heart.clone()
    }

    /// Reads a recovery point that the session may take as a parent; none if there is no such point, or if it must not.
    ///
    /// What is allowed is found out before the point is read: so a point that is allowed because the collection is over counted after it was.
    pub(crate) async fn parent(&self, repo: &Repository, id: &PointId) -> Result<Option<RecoveryPoint>> {
        let allowed = self.allowed(repo).await?;
        match repo.point(id).await {
            Ok(point) => Ok(allowed.allow(id, &point.sessions, self.id).then_some(point)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged | ErrorKind::Newer) => {
                tracing::debug!(%error, "a recovery point is no parent");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn allowed(&self, repo: &Repository) -> Result<Arc<Parents>> {
        let mut known = self.parents.lock().await;
        if let Some(known) = known.as_ref() {
            return Ok(Arc::clone(known));
        }
        let id = self.id;
        let machine = Machine::new(move |port| parents(port, Rules::default(), id));
        let found = Arc::new(Driver::new(repo, &NoProgress).run(machine).await?);
        Ok(Arc::clone(known.insert(found)))
    }
}

fn refused(why: NotBegun, point: &PointId) -> Error {
    let id = point.clone();
    match why {
        NotBegun::NoEpoch => Error::Missing { object: layout::epoch(1) },
        NotBegun::Revoked => Error::Revoked { id },
        NotBegun::PointExists => Error::PointExists { id },
        NotBegun::Busy { point, host } => Error::Busy { id: point, host: process::shown(&host) },
        NotBegun::TooOften => Error::Interrupted("a session could not begin, however often it was tried".to_owned()),
    }
}

/// Gives a sign of life now and then. One that fails is no harm: what is said by it is said by the next.
async fn beat(repo: Repository, id: SessionId, every: Duration) {
    for number in 1.. {
        tokio::time::sleep(every).await;
        if let Err(error) = repo.store().put_new(&layout::beat(&id, number), Bytes::new()).await {
            tracing::warn!(%error, session = %id, "a sign of life of the session was not stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WriterId;
    use crate::secret::Passphrase;
    use crate::store::{RetryPolicy, StoreConfig};

    #[tokio::test]
    async fn signs_of_life_come_as_long_as_somebody_keeps_the_heart() {
        let store = StoreConfig::Memory.open(RetryPolicy::never()).unwrap();
        let repo = Repository::create(store.clone(), &Passphrase::new("secret")).await.unwrap();
        let id = SessionId { epoch: 1, writer: WriterId([7; 12]) };
        let beats = async || store.list(&layout::domain_folder("beats")).await.unwrap().len();
        let heart = Heart::start(repo, id, Duration::from_millis(1));
        let kept = heart.clone();
        drop(heart);
        while beats().await < 3 {
            tokio::task::yield_now().await;
        }
        let beating = Arc::downgrade(&kept._beating);
        drop(kept);
        assert!(beating.upgrade().is_none(), "the task was aborted with the last clone");
        let first = store.list(&layout::domain_folder("beats")).await.unwrap().remove(0);
        assert_eq!((first.name, first.size), (layout::beat(&id, 1), 0));
    }
}
