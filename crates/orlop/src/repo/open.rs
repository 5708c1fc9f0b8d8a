//! Opening a repository, finding a recovery point and a content in it, and what errors mean.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use repository::keys::KeyRing;
use repository::store::RateLimits;
use repository::volume::{self, Map};
use repository::{
    ContentError, PointId, Recipient, RecoveryPoint, Repository, RetryPolicy, Root, RootKind, Store, StoreConfig,
};
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::secret::SecretArgs;
use crate::error::{Error, Result};

/// Names the newest recovery point wherever the name of one is asked for.
pub(super) const LATEST: &str = "latest";

/// What a location may look like.
const FORMS: &str = "file:///path, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix";

impl PlaceArgs {
    /// Another repository than the one that the command works on, opened with the passphrase in a file, or else with what opens this one.
    pub(super) async fn open_other(
        &self,
        location: &str,
        password_file: Option<&Path>,
        this: &Recipient,
    ) -> Result<Repository> {
        let (other, with) = match password_file {
            Some(file) => (Some(SecretArgs::of_file(file).recipient().await?), ""),
            None => (None, " with what opens this one"),
        };
        let (location, secret) = (Some(location.to_owned()), self.secret.clone());
        let place = Self { location, secret, backup_location: None, located: None, past_deletions: false, ..*self };
        let store = place.store()?;
        let what = format!("open the repository in {}{with}", store.place());
        Repository::open(store, other.as_ref().unwrap_or(this)).await.map_err(|e| explain(what, e))
    }

    /// The store. Nothing is asked of it yet.
    pub(super) fn store(&self) -> Result<Store> {
        let (place, config) = self.config()?;
        let opened = match self.past_deletions {
            true => config.open_past_deletions(RetryPolicy::default()),
            false => config.open(RetryPolicy::default()),
        };
        let limits = RateLimits { upload: self.limit_upload, download: self.limit_download };
        opened.map(|store| store.with_limits(limits)).map_err(|e| Error::usage(format!("use {place}")).because(e))
    }

    /// What it is called, and how it becomes a store.
    fn config(&self) -> Result<(&str, StoreConfig)> {
        if let (Some(name), Some(located)) = (&self.backup_location, &self.located) {
            return Ok((name, located.store.clone()));
        }
        let Some(url) = &self.location else {
            return Err(Error::usage("it is not said where the repository is")
                .next(format!("give --location or --backup-location, or set ORLOP_LOCATION: {FORMS}")));
        };
        let env = |name: &str| std::env::var(name).ok();
        let config = StoreConfig::from_url(url, &env).map_err(|e| {
            Error::usage("read the location")
                .because(e)
                .next(format!("write {FORMS}, and set the variables that it needs"))
        })?;
        Ok((url, config))
    }

    /// Who opens it.
    pub(super) async fn recipient(&self) -> Result<Recipient> {
        match &self.located {
            Some(located) => Ok(Recipient::from(&located.passphrase)),
            None => self.secret.recipient().await,
        }
    }

    /// Whether it is said who opens it.
    pub(super) fn has_recipient(&self) -> bool {
        self.located.is_some() || self.secret.is_given()
    }

    /// The repository, opened.
    pub(super) async fn open(&self) -> Result<Repository> {
        // The secret first: it can be seen to be missing without asking the store.
        self.open_with(&self.recipient().await?).await
    }

    /// The repository, opened with what was read already: a secret may come out of a pipe, or by a command that asks a person.
    pub(super) async fn open_with(&self, recipient: &Recipient) -> Result<Repository> {
        let store = self.store()?;
        let what = format!("open the repository in {}", store.place());
        Repository::open(store, recipient).await.map_err(|e| explain(what, e))
    }

    /// Its keys, to be changed.
    pub(super) async fn keys(&self) -> Result<KeyRing> {
        let (recipient, store) = (self.recipient().await?, self.store()?);
        let what = format!("open the repository in {}", store.place());
        KeyRing::open(store, &recipient).await.map_err(|e| explain(what, e))
    }
}

/// Says what an error of the repository means for what was being done.
pub(crate) fn explain(what: impl Into<String>, error: repository::Error) -> Error {
    let guidance = error.guidance();
    Error::new(what).because(error).next(guidance)
}

/// Whether a disk, or a quota of it, is used up.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The same for an error of a file tree.
pub(super) fn explain_tree(what: impl Into<String>, error: repository::tree::Error) -> Error {
    match error {
        repository::tree::Error::Repository(error) => explain(what, error),
        repository::tree::Error::FileSystem { ref source, .. } if is_full(source) => {
            Error::new(what).because(error).next(
                "make room there, or restore to another disk; with --replace it is restored again into the same folder",
            )
        }
        other => Error::new(what).because(other),
    }
}

/// The same for an error of a volume or a stream.
pub(super) fn explain_volume(what: impl Into<String>, error: volume::Error) -> Error {
    match error {
        volume::Error::Repository(error) => explain(what, error),
        volume::Error::Image { ref source, .. } | volume::Error::Stream { ref source, .. } if is_full(source) => {
            Error::new(what).because(error).next("make room there, or write to another disk, and run it again")
        }
        volume::Error::TargetExists { .. } => Error::new(what).because(error).next("--replace overwrites it"),
        other => Error::new(what).because(other),
    }
}

/// Reads a recovery point by its name, or the newest one.
pub(super) async fn point(repository: &Repository, name: &str) -> Result<RecoveryPoint> {
    let what = format!("read the recovery point {name}");
    let known = "orlop repo list shows the recovery points";
    let id: PointId = name.parse().map_err(|e| Error::usage(what.clone()).because(e).next(known))?;
    match repository.point(&id).await {
        Err(repository::Error::NoSuchPoint { .. }) if name == LATEST => newest(repository).await,
        Err(e @ repository::Error::NoSuchPoint { .. }) => Err(Error::new(what).because(e).next(known)),
        other => other.map_err(|e| explain(what, e)),
    }
}

async fn newest(repository: &Repository) -> Result<RecoveryPoint> {
    let points = repository.points().await.map_err(|e| explain("list the recovery points", e))?;
    let newest = points.into_iter().filter_map(|entry| entry.point.ok()).max_by_key(|point| point.created);
    newest.ok_or_else(|| Error::new("there is no recovery point yet that can be read"))
}

/// The contents that are meant: the one that is named, or all.
pub(super) fn roots<'a>(point: &'a RecoveryPoint, name: Option<&str>) -> Result<Vec<&'a Root>> {
    let Some(name) = name else { return Ok(point.roots.iter().collect()) };
    match point.root(name) {
        Some(root) => Ok(vec![root]),
        None => {
            Err(Error::new(format!("the recovery point {} has no volume or folder {name}", point.id))
                .next(names(point)))
        }
    }
}

/// The one content that is meant, where only one can be.
pub(super) fn root<'a>(point: &'a RecoveryPoint, name: Option<&str>) -> Result<&'a Root> {
    match roots(point, name)?[..] {
        [root] => Ok(root),
        [] => Err(Error::new(format!("the recovery point {} has no volume and no folder", point.id))),
        _ => Err(Error::usage(format!("the recovery point {} has more than one volume or folder", point.id))
            .next(format!("name one with --volume; {}", names(point)))),
    }
}

/// The map of a volume or a stream; nothing for a folder.
pub(super) fn map(repository: &Repository, root: &Root) -> Option<Map> {
    match root.kind {
        RootKind::Tree => None,
        RootKind::Volume => Some(Map::volume(repository, root.table, root.bytes)),
        RootKind::Stream => Some(Map::stream(repository, root.table, root.bytes)),
    }
}

/// Why a content cannot be relied on.
pub(super) struct Broken {
    /// Bytes in the repository are lost or changed.
    pub(super) damage: bool,
    pub(super) error: Error,
}

/// Looks that everything is there that a content refers to, without reading its data.
pub(super) async fn check_content(
    repository: &Repository,
    root: &Root,
    cancel: &CancellationToken,
) -> Result<(), Broken> {
    let what = format!("read back what was stored of {}", root.name);
    repository::check_content(repository, root, cancel).await.map_err(|error| {
        let damage = error.is_damage();
        let error = match error {
            ContentError::Tree(error) => explain_tree(what, error),
            ContentError::Volume(error) => explain_volume(what, error),
        };
        Broken { damage, error }
    })
}

/// Refuses what is no folder, where files of it are meant.
pub(super) fn has_files(root: &Root) -> Result<()> {
    let kind = match root.kind {
        RootKind::Tree => return Ok(()),
        RootKind::Volume => "a volume that was stored as an image",
        RootKind::Stream => "a stream",
    };
    Err(Error::usage(format!("{} is {kind}, and has no files that could be named", root.name))
        .next("orlop repo restore writes all of it into a file, orlop repo dump to standard output"))
}

fn names(point: &RecoveryPoint) -> String {
    let names: Vec<_> = point.roots.iter().map(|root| root.name.as_str()).collect();
    format!("it has: {}", names.join(", "))
}

/// A new name: the instant in UTC, so that names sort by time, and some letters that make it unique.
pub(super) fn new_id(now: Timestamp, unique: &str) -> Result<PointId> {
    let id = format!("{}-{unique}", now.strftime("%Y%m%d-%H%M%S"));
    id.parse().map_err(|e| Error::new("make up a name for the recovery point").because(e))
}
