//! Storing the objects and the ledger, and reading all of it back.
//!
//! The ledger has every wanted object and every wanted volume exactly once. Both come in the order of their keys, so that nothing but the
//! claims (which the volumes need) is held in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::{VolumeBackup, VolumeStage};
use application::{
    Capture, CaptureError, Captured, Found, LedgerEntry, LedgerSummary, ObjectKey, Outcome, Patience, canonical,
};
use futures::TryStreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use repository::table::{Builder, Reader};
use repository::{Claim, Heart, PackInfo, RecoveryPoint, Repository, Root, Source, Stats, TableRef, Writer};
use serde_json::Value;

use super::gather::Gathered;
use super::outcome::Moved;
use super::validate::selection;
use crate::conditions::shorten;
use crate::context::Context;
use crate::error::Error;

/// Group of the ledger's entries for volumes.
const VOLUME_GROUP: &str = api::GROUP;
/// Kind of the ledger's entries for volumes.
const VOLUME_KIND: &str = "Volume";

/// Why nothing could be stored, or what was stored could not be published.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] repository::Error),
    /// The objects.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] application::Failure),
    /// What was read back of the ledger is not a ledger.
    #[error("read the ledger back: {0}")]
    Ledger(#[from] application::BadEntry),
    /// What a mover handed over, and the status kept, cannot be read.
    #[error("read what the mover of {volume} handed over from the status: {source}; create the backup again")]
    Kept {
        /// `namespace/claim`.
        volume: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A recovery point that is stored, and not published.
pub(super) struct Draft {
    /// The recovery point.
    pub point: RecoveryPoint,
    /// The packs that the operator wrote; movers have read their own back.
    pub own_packs: Vec<PackInfo>,
    /// Keeps the run from being taken for dead while the draft waits to be published.
    _heart: Heart,
}

/// What is read of a published recovery point.
#[derive(Debug)]
pub(super) struct Report {
    /// The recovery point.
    pub point: RecoveryPoint,
    /// Its ledger in figures.
    pub ledger: api::LedgerSummary,
}

/// A volume that was moved.
struct MovedVolume<'a> {
    volume: &'a VolumeBackup,
    moved: Moved,
}

/// Stores the objects and the ledger; the volumes have been stored by their movers.
pub(super) async fn store(
    context: &Context,
    gathered: &Gathered,
    repository: &Repository,
) -> Result<Draft, StoreError> {
    let moved = moved_volumes(gathered.volumes())?;
    let patience = Patience::default();
    let catalog = Arc::new(application::discover(&context.client, &patience).await?);
    let selection = selection(&gathered.run);
    let namespaces = selection.namespaces.clone();
    let mut capture = Capture::start(context.client.clone(), catalog, selection, patience).await?;
    let writer = repository.writer(&gathered.point_id).await?;
    let mut tables = Tables::new(&writer, gathered.volumes());
    while let Some(captured) = capture.next().await? {
        tables.take(captured).await?;
    }
    let Stored { objects, ledger, summary, count, claims } = tables.finish().await?;
    let written = writer.finish().await?;
    let (mut packs, mut sessions) = (written.packs.clone(), vec![written.session]);
    for volume in &moved {
        sessions.extend(&volume.moved.sessions);
        packs.extend(volume.moved.packs.read(repository).await?);
    }
    packs.sort_by_key(|pack| pack.id.encode());
    packs.dedup_by_key(|pack| pack.id.encode());
    // Movers of several volumes may say that they had one session: then only the numbers of these volumes are wrong.
    sessions.sort_unstable();
    sessions.dedup();
    let total = |of: fn(&Moved) -> u64| moved.iter().map(|v| of(&v.moved)).fold(0, u64::saturating_add);
    let point = RecoveryPoint {
        version: RecoveryPoint::VERSION,
        id: gathered.point_id.clone(),
        created: gathered.now,
        source: source(context, gathered, namespaces),
        tags: repository::Tags::default(),
        complete: summary.is_complete(),
        objects: Some(objects),
        ledger: Some(ledger),
        stats: Stats {
            objects: count,
            files: total(|m| m.files),
            bytes: total(|m| m.bytes),
            new_bytes: total(|m| m.new_bytes).saturating_add(written.stats.new_bytes),
            stored_bytes: packs.iter().map(|pack| pack.bytes).fold(0, u64::saturating_add),
        },
        roots: moved.into_iter().map(|v| root(v, &claims, gathered.now)).collect(),
        sessions,
        packs,
    };
    Ok(Draft { point, own_packs: written.packs, _heart: written.heart })
}

fn source(context: &Context, gathered: &Gathered, namespaces: Vec<String>) -> Source {
    let run = &gathered.run;
    Source::Application {
        cluster_id: context.cluster_id.clone(),
        cluster_name: None,
        backup: format!("{}/{}", run.namespace().unwrap_or_default(), run.name_any()),
        namespaces,
    }
}

fn moved_volumes(volumes: &[VolumeBackup]) -> Result<Vec<MovedVolume<'_>>, StoreError> {
    let kept = volumes.iter().filter_map(|volume| Some((volume, volume.result.as_deref()?)));
    kept.map(|(volume, text)| match Moved::decode(text) {
        Ok(moved) => Ok(MovedVolume { volume, moved }),
        Err(source) => Err(StoreError::Kept { volume: name(volume), source }),
    })
    .collect()
}

fn name(volume: &VolumeBackup) -> String {
    format!("{}/{}", volume.namespace, volume.claim)
}

fn root(moved: MovedVolume<'_>, claims: &Claims, now: Timestamp) -> Root {
    let MovedVolume { volume, moved } = moved;
    let claim = claims.get(&name(volume)).map(|object| Claim {
        namespace: volume.namespace.clone(),
        name: volume.claim.clone(),
        object: object.clone(),
    });
    Root {
        name: name(volume),
        kind: moved.form.kind(),
        table: moved.root,
        files: moved.files,
        bytes: moved.bytes,
        changed_while_read: moved.changed_while_read,
        started: volume.started_at.as_ref().map_or(now, |t| t.0),
        finished: volume.finished_at.as_ref().map_or(now, |t| t.0),
        claim,
    }
}

/// The claims that were captured, by `namespace/name`.
type Claims = BTreeMap<String, Value>;

/// The two tables of a recovery point while they are written.
struct Tables<'a> {
    objects: Builder,
    ledger: Builder,
    summary: LedgerSummary,
    count: u64,
    claims: Claims,
    volumes: &'a [VolumeBackup],
    /// The ledger's lines of the volumes; made when all claims have passed.
    lines: Option<VecDeque<LedgerEntry>>,
}

struct Stored {
    objects: TableRef,
    ledger: TableRef,
    summary: LedgerSummary,
    count: u64,
    claims: Claims,
}

impl<'a> Tables<'a> {
    fn new(writer: &Writer, volumes: &'a [VolumeBackup]) -> Self {
        Self {
            objects: Builder::new(writer),
            ledger: Builder::new(writer),
            summary: LedgerSummary::default(),
            count: 0,
            claims: Claims::new(),
            volumes,
            lines: None,
        }
    }

    async fn take(&mut self, captured: Captured) -> Result<(), StoreError> {
        self.volumes_before(Some(&captured.key)).await?;
        self.note(&captured.ledger_entry()).await?;
        if let Found::Stored(object) = captured.found {
            self.objects.push(&captured.key.encode(), &canonical::to_bytes(&object)).await?;
            self.count += 1;
            if captured.key.is("", "PersistentVolumeClaim") {
                let namespace = captured.key.namespace.as_deref().unwrap_or_default();
                self.claims.insert(format!("{namespace}/{}", captured.key.name), object);
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Stored, StoreError> {
        self.volumes_before(None).await?;
        let (objects, ledger) = (self.objects.finish().await?, self.ledger.finish().await?);
        Ok(Stored { objects, ledger, summary: self.summary, count: self.count, claims: self.claims })
    }

    async fn note(&mut self, entry: &LedgerEntry) -> Result<(), StoreError> {
        self.summary.add(&entry.outcome);
        let (key, value) = entry.encode();
        Ok(self.ledger.push(&key, &value).await?)
    }

    /// Writes the lines of the volumes that sort before `next`, all of them if there is none. The claims have passed by then, because
    /// their group sorts before that of the volumes.
    async fn volumes_before(&mut self, next: Option<&ObjectKey>) -> Result<(), StoreError> {
        if next.is_some_and(|key| *key < first_volume_key()) {
            return Ok(());
        }
        let mut lines = self.lines.take().unwrap_or_else(|| volume_lines(self.volumes, &self.claims).into());
        while let Some(line) = lines.pop_front_if(|line| next.is_none_or(|key| line.key < *key)) {
            self.note(&line).await?;
        }
        self.lines = Some(lines);
        Ok(())
    }
}

fn volume_key(namespace: &str, claim: &str) -> ObjectKey {
    ObjectKey {
        group: VOLUME_GROUP.into(),
        version: api::VERSION.into(),
        kind: VOLUME_KIND.into(),
        namespace: Some(namespace.into()),
        name: claim.into(),
    }
}

/// Sorts before the keys of all volumes.
fn first_volume_key() -> ObjectKey {
    volume_key("", "")
}

/// The ledger's lines of the volumes, in order. A claim that came or went while the backup ran is a hole: its object and its data do not
/// belong together.
fn volume_lines(volumes: &[VolumeBackup], claims: &Claims) -> Vec<LedgerEntry> {
    let mut lines: BTreeMap<String, LedgerEntry> = BTreeMap::new();
    for full in claims.keys() {
        let Some((namespace, claim)) = full.split_once('/') else { continue };
        let reason = "the claim was made after the volumes were listed, so its data was not read".to_owned();
        let line = LedgerEntry { key: volume_key(namespace, claim), outcome: Outcome::Missed { reason } };
        lines.insert(full.clone(), line);
    }
    for volume in volumes {
        let reason = || volume.reason.clone().unwrap_or_else(|| "no reason was kept".into());
        let outcome = match volume.stage {
            VolumeStage::Done if claims.contains_key(&name(volume)) => Outcome::Stored,
            VolumeStage::Done => {
                let reason = "its data is stored, but its claim was gone when the objects were read".to_owned();
                Outcome::Missed { reason }
            }
            VolumeStage::Skipped => Outcome::Skipped { rule: reason() },
            VolumeStage::Missed => Outcome::Missed { reason: reason() },
            VolumeStage::Pending | VolumeStage::Moving => Outcome::Missed { reason: "it was not read".into() },
        };
        lines.insert(name(volume), LedgerEntry { key: volume_key(&volume.namespace, &volume.claim), outcome });
    }
    let mut lines: Vec<LedgerEntry> = lines.into_values().collect();
    lines.sort_by(|a, b| a.key.cmp(&b.key));
    lines
}

/// Reads everything back that the recovery point stands on, then publishes it: the packs of the operator whole, every page of the tables,
/// and the root of every volume, whose packs the movers have read back.
pub(super) async fn publish(repository: &Repository, draft: &Draft) -> Result<(), StoreError> {
    repository.verify_packs(&draft.own_packs).await?;
    for table in draft.point.objects.iter().chain(&draft.point.ledger) {
        let reader = Reader::new(repository, *table);
        let mut entries = std::pin::pin!(reader.scan(&[]));
        while entries.try_next().await?.is_some() {}
    }
    for root in &draft.point.roots {
        repository.read_blob(&root.table.root).await?;
    }
    Ok(repository.publish(&draft.point).await?)
}

/// Reads the ledger of a published recovery point: what the status says comes from there and from nowhere else.
pub(super) async fn report(
    repository: &Repository,
    point: RecoveryPoint,
    missed_items: usize,
    reason_chars: usize,
) -> Result<Report, StoreError> {
    let mut summary = LedgerSummary::default();
    let mut items = Vec::new();
    if let Some(ledger) = point.ledger {
        let reader = Reader::new(repository, ledger);
        let mut entries = std::pin::pin!(reader.scan(&[]));
        while let Some((key, value)) = entries.try_next().await? {
            let entry = LedgerEntry::decode(&key, &value)?;
            summary.add(&entry.outcome);
            if let Outcome::Missed { reason } = &entry.outcome
                && items.len() < missed_items
            {
                items.push(api::Missed { item: entry.key.to_string(), reason: shorten(reason, reason_chars) });
            }
        }
    }
    let ledger = api::LedgerSummary {
        wanted: summary.wanted(),
        stored: summary.stored,
        skipped: summary.skipped.values().sum(),
        missed: summary.missed,
        missed_items: items,
    };
    Ok(Report { point, ledger })
}

impl StoreError {
    /// Whether the run is to try again: then this is no end, and the API server's troubles are no fault of the run.
    pub(super) fn into_retry(self) -> Result<Error, Self> {
        let doing = || "store the objects of the application".to_owned();
        match self {
            Self::Capture(CaptureError::Unreachable(failure)) | Self::Cluster(failure) => {
                Ok(Error::Application { doing: doing(), source: Box::new(failure) })
            }
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(claim: &str, stage: VolumeStage, reason: Option<&str>) -> VolumeBackup {
        VolumeBackup {
            namespace: "shop".into(),
            claim: claim.into(),
            stage,
            reason: reason.map(Into::into),
            ..VolumeBackup::default()
        }
    }

    #[test]
    fn every_volume_and_every_claim_has_one_line_in_order() {
        let volumes = [
            volume("done", VolumeStage::Done, None),
            volume("gone", VolumeStage::Done, None),
            volume("empty", VolumeStage::Skipped, Some("claim-has-no-volume")),
            volume("lost", VolumeStage::Missed, Some("evicted")),
        ];
        let claims = ["shop/done", "shop/empty", "shop/late", "shop/lost"].map(|c| (c.to_owned(), json!({}))).into();
        let lines = volume_lines(&volumes, &claims);
        let text: Vec<String> = lines
            .iter()
            .map(|l| {
                format!(
                    "{} {}",
                    l.key.name,
                    match &l.outcome {
                        Outcome::Stored => "stored".to_owned(),
                        Outcome::Skipped { rule } => format!("skipped {rule}"),
                        Outcome::Missed { reason } => format!("missed {reason}"),
                    }
                )
            })
            .collect();
        assert_eq!(
            text,
            [
                "done stored",
                "empty skipped claim-has-no-volume",
                "gone missed its data is stored, but its claim was gone when the objects were read",
                "late missed the claim was made after the volumes were listed, so its data was not read",
                "lost missed evicted",
            ]
        );
    }

    #[test]
    fn claims_sort_before_volumes() {
        let claim = ObjectKey {
            group: String::new(),
            version: "v1".into(),
            kind: "PersistentVolumeClaim".into(),
            namespace: Some("zoo".into()),
            name: "z".into(),
        };
        assert!(claim < first_volume_key());
    }
}
