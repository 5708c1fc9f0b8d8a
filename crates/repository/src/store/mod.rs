//! Stores: where the objects of a repository are kept.
//!
//! A store offers what every object store and every file system can do, and nothing more: create an object that must not
//! exist, read it, list, delete. Nothing is ever overwritten. [`Store`] adds to an [`ObjectAccess`] what is the same for all:
//! retries, the treatment of lost answers, and lengths that are checked.

mod azure;
mod client;
mod config;
mod disk;
#[cfg(test)]
mod durability;
mod error;
mod filesystem;
mod google;
mod lock;
mod object;
mod pace;
mod retry;
mod s3;

pub use azure::{AzureApplication, AzureLocation};
pub use config::StoreConfig;
pub use error::{StoreError, StoreErrorKind};
pub use google::GoogleLocation;
pub use lock::{Lock, LockMode, Retention};
pub use pace::RateLimits;
pub use retry::RetryPolicy;
pub use s3::{ContainerKeys, S3Location, WebIdentity};

pub(crate) use retry::Attempts;

use self::pace::Pace;
use crate::codec::to_hex;
use crate::layout;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Up to this length in bytes, an object whose creation was not answered is compared byte by byte.
///
/// Longer ones are packs and index runs, whose names are unique per writer: there the length tells enough, and reading them
/// again would double the traffic.
const COMPARED_LEN: u64 = 64 << 10;

/// Bytes of memory that a list of objects takes at most, unless a store is told otherwise: that of some 16 million, which as packs hold half a pebibyte. A store that lists without end
/// must not take all there is.
const MAX_LISTED: usize = 2 << 30;

/// An object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectInfo {
    /// Its name, relative to the store.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was created, by the clock of the store; none where the store does not tell.
    pub modified: Option<Timestamp>,
}

impl ObjectInfo {
    /// Bytes of memory that it takes.
    fn footprint(&self) -> usize {
        size_of::<Self>() + self.name.len()
    }
}

/// Access to objects by name; the one seam between the repository and the world of stores.
///
/// Implementations try once and report; they do not retry, because only [`Store`] knows what a second attempt means.
#[async_trait]
pub trait ObjectAccess: fmt::Debug + Send + Sync + 'static {
    /// Creates an object, whole and durable, unless one of this name exists ([`StoreErrorKind::AlreadyExists`]).
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Creates an object of a name that the caller found to be free, in a store that cannot refuse what exists.
    async fn put_where_nothing_is(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.put_new(name, bytes).await
    }

    /// Reads an object that is at most `limit` bytes long ([`StoreErrorKind::TooLarge`] if longer, without reading it).
    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError>;

    /// Reads a part of an object; where the object ends, fewer bytes or none.
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Tells the length of an object.
    async fn head(&self, name: &str) -> Result<u64, StoreError>;

    /// Lists all objects whose names begin with `prefix`, which is empty or ends with a slash.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;

    /// The same of no more than take `most` bytes of memory ([`StoreErrorKind::TooLarge`] if there are more). For those that ask a server, which may go on for ever.
    async fn list_up_to(&self, prefix: &str, _most: usize) -> Result<Vec<ObjectInfo>, StoreError> {
        self.list(prefix).await
    }

    /// Deletes an object; one that does not exist is an error or a success, as the store has it.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// Creates an object that cannot be deleted before a time; `conditional` as in [`Self::put_new`], else as in
    /// [`Self::put_where_nothing_is`].
    async fn put_locked(
        &self,
        name: &str,
        _bytes: Bytes,
        _retention: Retention,
        _conditional: bool,
    ) -> Result<(), StoreError> {
        Err(StoreError::new(StoreErrorKind::NotSupported, "lock", name))
    }

    /// Locks an object that exists, or extends its lock. A time before the one that it has is refused by the store.
    async fn retain(&self, name: &str, _retention: Retention) -> Result<(), StoreError> {
        Err(StoreError::new(StoreErrorKind::NotSupported, "lock", name))
    }

    /// Until when the store says that it refuses to delete an object; a time that is past, or nothing, if it would do it.
    async fn locked_until(&self, _name: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    /// Deletes an object that is not locked, with what a store would keep of it where these credentials may.
    async fn delete_for_good(&self, name: &str) -> Result<(), StoreError> {
        self.delete(name).await
    }

    /// Whether a process that dies while it creates an object leaves a part of it under [`crate::layout::UNFINISHED`].
    fn leaves_unfinished(&self) -> bool {
        false
    }

    /// Whether it is known that nobody writes such a part any more.
    async fn is_abandoned(&self, _unfinished: &str) -> bool {
        false
    }

    /// Tells what the store says about itself.
    async fn abilities(&self) -> Result<Abilities, StoreError> {
        Ok(Abilities::default())
    }
}

/// What a store says about itself, as far as it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Whether it keeps what is deleted or overwritten as versions; unknown where it does not say.
    pub versions: Option<bool>,
    /// Whether it can lock objects; nothing where it cannot, or does not say.
    pub object_lock: Option<ObjectLock>,
}

/// That a store can lock objects, and how it locks those for which nothing is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectLock {
    /// Who may end a lock that was not asked for; none where nothing is locked by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<LockMode>,
    /// How many days such a lock lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_days: Option<u32>,
}

/// What a store was found to be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFeatures {
    /// Creating an object that exists is refused; without this, only one writer at a time is safe.
    pub conditional_create: bool,
    /// These credentials may delete.
    pub delete: bool,
    /// What the store says about itself.
    pub abilities: Abilities,
}

/// A store of objects, with retries; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    access: Arc<dyn ObjectAccess>,
    place: Arc<str>,
    retry: RetryPolicy,
    conditional_create: bool,
    lock: Option<Lock>,
    clock: fn() -> Timestamp,
    pace: Arc<Pace>,
    max_listed: usize,
}

impl Store {
    /// Wraps `access`; `place` is what messages call the store.
    pub fn new(access: impl ObjectAccess, place: &str, retry: RetryPolicy) -> Self {
        let (access, place): (Arc<dyn ObjectAccess>, _) = (Arc::new(access), place.into());
        let pace = Arc::default();
        let (clock, max_listed) = (Timestamp::now as fn() -> Timestamp, MAX_LISTED);
        Self { access, place, retry, conditional_create: true, lock: None, clock, pace, max_listed }
    }

    /// Takes no lists that need more memory than so many bytes. For who has many stores and little memory.
    #[must_use]
    pub fn with_lists_up_to(mut self, bytes: usize) -> Self {
        self.max_listed = bytes;
        self
    }

    /// Keeps transfers below a rate.
    pub fn with_limits(mut self, limits: RateLimits) -> Self {
        self.pace = Arc::new(Pace::new(limits));
        self
    }

    /// What messages call the store.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Sets whether the store itself refuses to create what exists; if not, every creation looks first.
    pub(crate) fn with_conditional_create(mut self, conditional_create: bool) -> Self {
        self.conditional_create = conditional_create;
        self
    }

    /// Creates an object, whole and durable, unless one of this name exists.
    ///
    /// A creation whose answer was lost and that then meets the object it made is a success.
    pub async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        if !self.conditional_create && self.exists(name).await? {
            return Err(StoreError::new(StoreErrorKind::AlreadyExists, "create", name));
        }
        let mut attempts = self.retry.attempts();
        let mut maybe_created = false;
        loop {
            let error = match self.put_once(name, bytes.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.kind == StoreErrorKind::AlreadyExists && maybe_created && self.holds(name, &bytes).await? {
                return Ok(());
            }
            maybe_created = true;
            attempts.wait_after(error).await?;
        }
    }

    async fn put_once(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.pace.upload.pass(bytes.len() as u64).await;
        match (self.retention_of(name), self.conditional_create) {
            (Some(retention), conditional) => self.access.put_locked(name, bytes, retention, conditional).await,
            (None, true) => self.access.put_new(name, bytes).await,
            (None, false) => self.access.put_where_nothing_is(name, bytes).await,
        }
    }

    /// Creates an object with one request that is never repeated; gives whether it is known to have been created by this call.
    ///
    /// For names that must not come back: after one that failed, `attempts` lets time pass, and the caller chooses another name. Of an
    /// object that was created like this, and whose creation was answered, no further request is under way that could make it again after
    /// it was deleted.
    pub(crate) async fn create_once(
        &self,
        name: &str,
        bytes: Bytes,
        attempts: &mut Attempts,
    ) -> Result<bool, StoreError> {
        if !self.conditional_create && self.exists(name).await? {
            return Ok(false);
        }
        match self.put_once(name, bytes).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => Ok(false),
            Err(error) => attempts.wait_after(error).await.map(|()| false),
        }
    }

    /// Counts the attempts of what its caller tries more than once, by other names.
    pub(crate) fn attempts(&self) -> Attempts {
        self.retry.attempts()
    }

    /// Whether the store itself refuses to create what exists.
    pub(crate) fn refuses_what_exists(&self) -> bool {
        self.conditional_create
    }

    /// What time it is by the store's own clock: that of an object made and deleted now. None where the store does not tell.
    pub(crate) async fn now(&self) -> Result<Option<Timestamp>, StoreError> {
        let token = to_hex(&crate::crypto::random::<16>().map_err(|error| {
            StoreError::new(StoreErrorKind::Invalid, "draw random bytes for", "a probe").because(error)
        })?);
        let name = format!("{}{token}", layout::PROBES);
        self.put_new(&name, Bytes::from_static(b"now")).await?;
        let probes = self.list(layout::PROBES).await?;
        self.delete(&name).await?;
        Ok(probes.into_iter().find(|object| object.name == name).and_then(|object| object.modified))
    }

    async fn exists(&self, name: &str) -> Result<bool, StoreError> {
        match self.head(name).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the object is the one that this writer tried to create.
    async fn holds(&self, name: &str, bytes: &Bytes) -> Result<bool, StoreError> {
        let len = bytes.len() as u64;
        Ok(self.head(name).await? == len && (len > COMPARED_LEN || self.get(name, len).await? == *bytes))
    }

    /// Reads an object that is at most `limit` bytes long.
    pub async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        let mut attempts = self.retry.attempts();
        loop {
            match self.access.get(name, limit).await {
                Ok(bytes) if bytes.len() as u64 > limit => {
                    return Err(StoreError::new(StoreErrorKind::TooLarge, "read", name));
                }
                Ok(bytes) => {
                    // How long it is, is known only now.
                    self.pace.download.pass(bytes.len() as u64).await;
                    return Ok(bytes);
                }
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Reads a part of an object; fewer bytes than asked for are an error.
    ///
    /// When fewer bytes come, the length of the object tells whether there is anything to try again for.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let len = range.end.saturating_sub(range.start);
        let mut attempts = self.retry.attempts();
        loop {
            self.pace.download.pass(len).await;
            let error = match self.access.get_range(name, range.clone()).await {
                Ok(bytes) if bytes.len() as u64 == len => return Ok(bytes),
                Ok(_) if self.head(name).await? < range.end => {
                    return Err(StoreError::new(StoreErrorKind::TooShort, "read", name));
                }
                Ok(_) => StoreError::new(StoreErrorKind::Unreachable, "read all of", name),
                Err(error) => error,
            };
            attempts.wait_after(error).await?;
        }
    }

    /// Tells the length of an object.
    pub async fn head(&self, name: &str) -> Result<u64, StoreError> {
        let mut attempts = self.retry.attempts();
        loop {
            match self.access.head(name).await {
                Ok(size) => return Ok(size),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Lists all objects under a folder, in order of their names; the folder is empty or ends with a slash.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut attempts = self.retry.attempts();
        loop {
            match self.access.list_up_to(folder, self.max_listed).await {
                Ok(mut objects) => {
                    objects.sort_unstable_by(|one, other| one.name.cmp(&other.name));
                    return Ok(objects);
                }
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Deletes an object; one that is gone already is a success. In a repository with a lock, one that is locked still is refused
    /// ([`StoreErrorKind::Locked`]): the store would hide it, and say that it is deleted.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.refuse_if_locked(name).await?;
        let mut attempts = self.retry.attempts();
        loop {
            let deleted = match self.lock {
                Some(_) => self.access.delete_for_good(name).await,
                None => self.access.delete(name).await,
            };
            match deleted {
                Ok(()) => return Ok(()),
                Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(()),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// The parts of objects that processes left behind that died while they created them: that nobody has touched for so long, or that nobody is known to write.
    ///
    /// The time is that of this machine, because the store's own is had only by creating something, which a full disk refuses; and because
    /// nothing hangs on it: who loses such a file while he writes it begins again.
    pub(crate) async fn unfinished(&self, untouched_for: SignedDuration) -> Result<Vec<ObjectInfo>, StoreError> {
        if !self.access.leaves_unfinished() {
            return Ok(Vec::new());
        }
        let mut files = self.list(layout::UNFINISHED).await?;
        let now = (self.clock)();
        let is_old = |touched: Timestamp| now.duration_since(touched) >= untouched_for;
        files.retain(|file| layout::is_unfinished(&file.name));
        let mut left = Vec::new();
        for file in files {
            if file.modified.is_some_and(is_old) || self.access.is_abandoned(&file.name).await {
                left.push(file);
            }
        }
        Ok(left)
    }

    /// Finds out what the store can do, by creating an object twice, reading it and deleting it.
    pub async fn probe(&self) -> Result<StoreFeatures, StoreError> {
        let token = to_hex(&crate::crypto::random::<16>().map_err(|error| {
            StoreError::new(StoreErrorKind::Invalid, "draw random bytes for", "a probe").because(error)
        })?);
        let name = format!("{}{token}", layout::PROBES);
        let first = Bytes::from(token);
        let conditional_create = match self.put_new(&name, first.clone()).await {
            // The store does not know the condition, so nothing is lost by doing without.
            Err(error) if error.kind == StoreErrorKind::NotSupported && self.conditional_create => {
                self.clone().with_conditional_create(false).put_new(&name, first.clone()).await?;
                false
            }
            created => {
                created?;
                self.refuses_to_overwrite(&name).await?
            }
        };
        let read = self.get(&name, COMPARED_LEN).await?;
        if conditional_create && read != first {
            return Err(StoreError::new(StoreErrorKind::Invalid, "read back", name));
        }
        let delete = match self.delete(&name).await {
            Ok(()) => true,
            Err(error) if error.kind == StoreErrorKind::AccessDenied => false,
            Err(error) => return Err(error),
        };
        let abilities = self.abilities().await;
        Ok(StoreFeatures { conditional_create, delete, abilities })
    }

    /// What the store says about itself. One that has done all that was asked before, and fails at this, has said nothing.
    async fn abilities(&self) -> Abilities {
        let mut attempts = self.retry.attempts();
        loop {
            match self.access.abilities().await {
                Ok(abilities) => return abilities,
                Err(error) => match attempts.wait_after(error).await {
                    Ok(()) => {}
                    Err(_) => return Abilities::default(),
                },
            }
        }
    }

    /// Creates an object that exists. It goes past the retries of a creation, because there a refusal would look like a lost
    /// answer.
    async fn refuses_to_overwrite(&self, name: &str) -> Result<bool, StoreError> {
        let mut attempts = self.retry.attempts();
        loop {
            match self.access.put_new(name, Bytes::from_static(b"overwritten")).await {
                Ok(()) => return Ok(false),
                Err(error) if error.kind == StoreErrorKind::AlreadyExists => return Ok(true),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }
}
