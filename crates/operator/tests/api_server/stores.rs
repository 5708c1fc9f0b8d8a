//! Stores that are full, or that go away in the middle of a run: the run ends, says why, and leaves nothing behind.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::{ADMIN, PASSPHRASE, World, start, until};
use api::{BackupLocation, LocationPhase, Phase};
use bytes::Bytes;
use kube::Api;
use kube::api::{Patch, PatchParams};
use operator::Stores;
use operator::repositories::LocationSecrets;
use repository::store::{ObjectAccess, ObjectInfo};
use repository::{RetryPolicy, Store, StoreConfig, StoreError, StoreErrorKind};

const WORKS: u8 = 0;
const FULL: u8 = 1;
const AWAY: u8 = 2;
/// Takes everything but recovery points.
const UNPUBLISHED: u8 = 3;

/// A store that does what its mood says.
#[derive(Debug)]
struct Moody {
    inner: Store,
    mood: Arc<AtomicU8>,
}

impl Moody {
    fn read(&self, name: &str) -> Result<(), StoreError> {
        match self.mood.load(Ordering::SeqCst) {
            AWAY => Err(StoreError::new(StoreErrorKind::Unreachable, "reach", name)),
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str) -> Result<(), StoreError> {
        match self.mood.load(Ordering::SeqCst) {
            FULL => Err(StoreError::new(StoreErrorKind::NoSpace, "write", name)),
            UNPUBLISHED if name.contains("/points/") => {
                Err(StoreError::new(StoreErrorKind::Unreachable, "write", name))
            }
            _ => self.read(name),
        }
    }
}

#[async_trait::async_trait]
impl ObjectAccess for Moody {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(name)?;
        self.inner.put_new(name, bytes).await
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        self.read(name)?;
        self.inner.get(name, limit).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read(name)?;
        self.inner.get_range(name, range).await
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        self.read(name)?;
        self.inner.head(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.read(prefix)?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.read(name)?;
        self.inner.delete(name).await
    }
}

/// Moody for the operator; movers reach the folder itself.
struct MoodyStores {
    buckets: PathBuf,
    mood: Arc<AtomicU8>,
}

impl Stores for MoodyStores {
    fn locate(&self, location: &BackupLocation, _: &LocationSecrets) -> StoreConfig {
        StoreConfig::FileSystem { path: self.buckets.join(&location.spec.path) }
    }

    fn open(&self, config: &StoreConfig, _: RetryPolicy) -> Result<Store, StoreError> {
        let inner = config.open(RetryPolicy::never())?;
        let moody = Moody { inner, mood: self.mood.clone() };
        Ok(Store::new(moody, "a moody store", RetryPolicy::never()))
    }
}

async fn world() -> (World, Arc<AtomicU8>, crate::support::Operator) {
    let world = World::new().await;
    let mood = Arc::new(AtomicU8::new(WORKS));
    let mut config = world.config();
    config.stores = Arc::new(MoodyStores { buckets: world.buckets(), mood: mood.clone() });
    let operator = start(world.client.clone(), config);
    world.location(ADMIN).await;
    world.application().await;
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    (world, mood, operator)
}

/// Condition `Complete` of a backup that ended.
async fn failed(world: &World, name: &str) -> (Phase, String, String) {
    let status = world.finished(name).await.status.unwrap();
    let complete = status.conditions.into_iter().find(|c| c.type_ == "Complete").unwrap();
    (status.phase, complete.reason, complete.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_space_fails_the_run_and_the_probe() {
    sandbox::require_assets!();
    let (world, mood, operator) = world().await;
    mood.store(FULL, Ordering::SeqCst);
    world.backup("full").await;
    let (phase, reason, message) = failed(&world, "full").await;
    assert_eq!((phase, reason.as_str()), (Phase::Failed, "NoSpace"), "{message}");
    assert!(message.contains("free space"), "it says what to do: {message}");
    let location = world.location_phase(ADMIN, "main", LocationPhase::Unavailable).await;
    assert_eq!(location.status.unwrap().conditions[0].reason, "NoSpace");
    mood.store(WORKS, Ordering::SeqCst);
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    world.backup("again").await;
    assert_eq!(world.finished("again").await.status.unwrap().phase, Phase::Succeeded);
    assert_eq!(world.repository().await.points().await.unwrap().len(), 1);
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_waited_for_but_not_for_ever() {
    sandbox::require_assets!();
    let (world, mood, operator) = world().await;
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    mood.store(AWAY, Ordering::SeqCst);
    world.backup("patient").await;
    until("the run to wait", || async {
        let status = api.get("patient").await.unwrap().status?;
        status.conditions.iter().any(|c| c.type_ == "Blocked" && c.status == "True").then_some(())
    })
    .await;
    mood.store(WORKS, Ordering::SeqCst);
    assert_eq!(world.finished("patient").await.status.unwrap().phase, Phase::Succeeded);
    mood.store(AWAY, Ordering::SeqCst);
    world.backup("in-vain").await;
    let (phase, reason, message) = failed(&world, "in-vain").await;
    assert_eq!((phase, reason.as_str()), (Phase::Failed, "Unreachable"), "{message}");
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_passphrase_fails_the_run_at_once() {
    sandbox::require_assets!();
    let (world, _, operator) = world().await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = world.api(ADMIN);
    let wrong = serde_json::json!({"stringData": {"passphrase": "wrong"}});
    secrets.patch("keys", &PatchParams::default(), &Patch::Merge(wrong)).await.unwrap();
    world.backup("locked-out").await;
    let (phase, reason, message) = failed(&world, "locked-out").await;
    assert_eq!((phase, reason.as_str()), (Phase::Failed, "WrongPassphrase"), "{message}");
    assert!(!message.contains(PASSPHRASE), "no secret in a message: {message}");
    operator.stop().await;
}

/// The packs in the bucket.
fn packs(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let count = |path: PathBuf| match path.is_dir() {
        true => packs(&path),
        false => usize::from(path.components().any(|part| part.as_os_str() == "packs")),
    };
    entries.map(count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_cannot_be_published_is_given_up_in_the_end_and_is_stored_once() {
    sandbox::require_assets!();
    let (world, mood, operator) = world().await;
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    mood.store(UNPUBLISHED, Ordering::SeqCst);
    world.backup("b").await;
    until("the run to wait", || async {
        let status = api.get("b").await.unwrap().status?;
        status.conditions.iter().any(|c| c.type_ == "Blocked" && c.status == "True").then_some(())
    })
    .await;
    let stored = packs(&world.buckets());
    let (phase, reason, message) = failed(&world, "b").await;
    assert_eq!((phase, reason.as_str()), (Phase::Failed, "Unreachable"), "{message}");
    assert!(message.contains("it was waited for since"), "{message}");
    assert!(stored > 0 && packs(&world.buckets()) == stored, "it was stored again");
    operator.stop().await;
}
