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

/// How many packs are read at once; each is in memory as a whole.
const READS: usize = 2;

/// Reads all packs; gives how many bytes they have.
pub(super) async fn read_packs(
    repo: &Repository,
    survey: &Survey,
    progress: &dyn Progress,
    findings: &mut Findings,
) -> Result<u64> {
    let packs = survey.packs().map(|id| survey.pack_len(&id).unwrap_or_default());
    progress.total(packs.fold(Counters::default(), |sum, bytes| Counters {
        files: sum.files + 1,
        bytes: sum.bytes + bytes,
        ..sum
    }));
    let mut reads = stream::iter(survey.packs().map(|id| read_pack(repo, id))).buffer_unordered(READS);
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

/// Reads all index runs. They may name packs that a collector has deleted.
pub(super) async fn read_runs(repo: &Repository, survey: &Survey, findings: &mut Findings) -> Result<u64> {
    let mut total = 0;
    for id in survey.runs() {
        let name = layout::run(&id);
        match read_run(repo, id).await? {
            Ok(len) => total += len,
            Err(what) => findings.add(&name, &what.to_string(), None),
        }
    }
    Ok(total)
}

/// The length of a run.
async fn read_run(repo: &Repository, id: RunId) -> Result<Result<u64, Malformed>> {
    let bytes = match get(repo, &layout::run(&id), MAX_RUN_LEN).await? {
        Ok(bytes) => bytes,
        Err(what) => return Ok(Err(what)),
    };
    let key = repo.keys().run(&id);
    background::run(move || {
        index::decode(&bytes, &id, &key)?;
        Ok(bytes.len() as u64)
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
