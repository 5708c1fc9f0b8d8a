//! Reading every byte of packs and index runs.

use super::findings::Findings;
use super::survey::Survey;
use super::told;
use crate::background;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::index::{self, MAX_RUN_LEN};
use crate::layout::{self, RunId};
use crate::pack::{self, MAX_PACK_LEN, PackDamage};
use crate::progress::{Counters, Progress};
use crate::repository::Repository;
use crate::store::{StoreError, StoreErrorKind};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;

/// How many packs are read at once; each is in memory as a whole.
const READS: usize = 2;

/// Reads some packs; gives how many bytes they have.
pub(super) async fn read_packs(
    repo: &Repository,
    packs: &[(PackId, u64)],
    progress: &dyn Progress,
    findings: &mut Findings,
) -> Result<u64> {
    progress.total(packs.iter().fold(Counters::default(), |sum, (_, bytes)| Counters {
        files: sum.files + 1,
        bytes: sum.bytes + bytes,
        ..sum
    }));
    let reads: Vec<_> = packs.iter().map(|(id, _)| read_pack(repo, *id)).collect();
    let mut reads = stream::iter(reads).buffer_unordered(READS);
    let mut total = 0;
    while let Some((id, len, damage)) = reads.try_next().await? {
        total += len;
        progress.add(Counters { files: 1, bytes: len, new_bytes: 0 });
        findings.add_pack_damage(id, damage);
    }
    Ok(total)
}

async fn read_pack(repo: &Repository, id: PackId) -> Result<(PackId, u64, Vec<PackDamage>)> {
    let structural = |what| (id, 0, vec![PackDamage { what, blob: None }]);
    let bytes = match get(repo, &layout::pack(&id), MAX_PACK_LEN).await? {
        Ok(bytes) => bytes,
        Err(what) => return Ok(structural(what)),
    };
    let (len, reader) = (bytes.len() as u64, repo.clone());
    let (_, damage) = background::run(move || pack::verify(&bytes, id, reader.keys())).await?;
    Ok((id, len, damage))
}

/// Reads all index runs; gives their bytes, the packs that the whole ones name, and those that are damaged.
///
/// A run may name a pack that is gone: a collector has deleted it, what is needed of it is elsewhere, or its loss is found by following
/// references.
pub(super) async fn read_runs(repo: &Repository, survey: &Survey, findings: &mut Findings) -> Result<Runs> {
    let mut runs = Runs::default();
    for id in survey.runs() {
        match read_run(repo, id).await? {
            Ok((len, packs)) => {
                runs.bytes += len;
                runs.packs.extend(packs);
            }
            Err(what) => {
                findings.add(&layout::run(&id), &what.to_string(), None);
                runs.damaged.push(id);
            }
        }
    }
    Ok(runs)
}

/// What the index runs say.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub(super) bytes: u64,
    /// The packs that whole runs name, at 24 bytes each.
    pub(crate) packs: HashSet<PackId>,
    pub(crate) damaged: Vec<RunId>,
}

/// The length of a run, and the packs that it names.
async fn read_run(repo: &Repository, id: RunId) -> Result<Result<(u64, Vec<PackId>), Malformed>> {
    let bytes = match get(repo, &layout::run(&id), MAX_RUN_LEN).await? {
        Ok(bytes) => bytes,
        Err(what) => return Ok(Err(what)),
    };
    let key = repo.keys().run(&id);
    background::run(move || {
        let entries = index::decode(&bytes, &id, &key)?;
        let mut packs: Vec<_> = entries.iter().map(|entry| entry.blob.pack).collect();
        packs.sort_unstable();
        packs.dedup();
        Ok((bytes.len() as u64, packs))
    })
    .await
}

/// Reads an object; that it is gone, too long or cannot be read is damage, and other errors end the check.
async fn get(repo: &Repository, name: &str, limit: u64) -> Result<Result<Bytes, Malformed>> {
    match repo.store().get(name, limit).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(StoreError { kind: StoreErrorKind::NotFound, .. }) => Ok(Err(Malformed::new("it is missing"))),
        Err(StoreError { kind: StoreErrorKind::TooLarge, .. }) => {
            Ok(Err(Malformed::new(format!("it has more than {limit} bytes"))))
        }
        Err(error) => match told(repo, error.into()).await {
            Error::Damaged { what, .. } => Ok(Err(Malformed::new(what))),
            error => Err(error),
        },
    }
}
