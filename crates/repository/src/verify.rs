//! Reading packs back, to know that what was written is there.

use crate::background;
use crate::codec::Malformed;
use crate::collector::SessionRecord;
use crate::error::{Error, Result};
use crate::fetch;
use crate::ids::{BlobRef, PackId, PointId, SessionId};
use crate::layout;
use crate::pack::{self, MAX_PACK_LEN, PackDamage};
use crate::progress::{Counters, NoProgress, Progress};
use crate::repository::{MAX_PLAIN_OBJECT_LEN, Repository};
use crate::store::StoreErrorKind;
use crate::writer::PackInfo;
use futures::{StreamExt, TryStreamExt, stream};

/// How many packs are read at once.
const READS: usize = 2;
/// Up to this length in bytes a pack is read with one request.
const WHOLE_LEN: u64 = 4 << 20;
/// How many parts of a longer pack are read at once: at 2 MiB each, or a single blob that is longer.
const PARTS: usize = 2;

impl Repository {
    /// Reads every byte of every named pack back, and checks every blob in it down to its identity.
    ///
    /// The first damage ends it with an error that names the pack.
    pub async fn verify_packs(&self, packs: &[PackInfo]) -> Result<()> {
        self.verify_packs_with(packs, &NoProgress).await
    }

    /// As [`Repository::verify_packs`], and tells `progress` of each pack, as of a file.
    pub async fn verify_packs_with(&self, packs: &[PackInfo], progress: &dyn Progress) -> Result<()> {
        progress.total(Counters {
            files: packs.len() as u64,
            bytes: packs.iter().map(|info| info.bytes).sum(),
            new_bytes: 0,
        });
        let reads = packs.iter().map(|info| self.verify_and_tell(*info, progress));
        stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(READS).try_collect::<()>().await
    }

    /// Looks that sessions were begun for a recovery point, and that packs are of them. For who publishes what others say that they wrote: a point with other sessions
    /// would not count, and one with other packs is not taken.
    pub async fn verify_sessions(&self, point: &PointId, sessions: &[SessionId], packs: &[PackInfo]) -> Result<()> {
        for id in sessions {
            let name = layout::session(id);
            let bytes = match self.store().get(&name, MAX_PLAIN_OBJECT_LEN).await {
                Err(error) if error.kind == StoreErrorKind::NotFound => return Err(Error::Missing { object: name }),
                read => read?,
            };
            let record = SessionRecord::from_bytes(&bytes, id).map_err(|what| what.in_object(&name))?;
            if record.point != *point {
                return Err(Error::invalid(format!(
                    "{name} is of the recovery point {}, and not of {point}",
                    record.point
                )));
            }
        }
        let is_theirs = |pack: &PackId| sessions.contains(&SessionId { epoch: pack.epoch, writer: pack.writer });
        match packs.iter().find(|pack| !is_theirs(&pack.id)) {
            Some(pack) => Err(Error::invalid(format!("the pack {} is of none of the sessions that wrote it", pack.id))),
            None => Ok(()),
        }
    }

    async fn verify_and_tell(&self, info: PackInfo, progress: &dyn Progress) -> Result<()> {
        self.verify_pack(info).await?;
        progress.add(Counters { files: 1, bytes: info.bytes, new_bytes: 0 });
        Ok(())
    }

    async fn verify_pack(&self, info: PackInfo) -> Result<()> {
        let name = layout::pack(&info.id);
        let verified =
            if info.bytes <= WHOLE_LEN { self.verify_whole(info).await } else { self.verify_parts(info).await };
        verified.map_err(|error| match error {
            Error::Store(error) if error.kind == StoreErrorKind::NotFound => Error::Missing { object: name },
            error => error,
        })
    }

    async fn verify_whole(&self, info: PackInfo) -> Result<()> {
        let name = layout::pack(&info.id);
        let bytes = self.store().get(&name, MAX_PACK_LEN).await?;
        check_len(bytes.len() as u64, info, &name)?;
        let repo = self.clone();
        let (_, damage) = background::run(move || pack::verify(&bytes, info.id, repo.keys())).await?;
        match damage.into_iter().next() {
            Some(PackDamage { what, .. }) => Err(what.in_object(name)),
            None => Ok(()),
        }
    }

    /// The same for a pack that is too long to be in memory: header, directory and trailer, which say that the blobs fill all that is between
    /// them, and then these.
    async fn verify_parts(&self, info: PackInfo) -> Result<()> {
        let name = layout::pack(&info.id);
        check_len(self.store().head(&name).await?, info, &name)?;
        let entries = pack::read_directory(self.store(), info.id, info.bytes, self.keys()).await?;
        let blobs: Vec<BlobRef> = entries.into_iter().map(|entry| entry.blob).collect();
        let parts = fetch::requests(&blobs).into_iter().map(|blobs| self.verify_part(blobs, &name));
        stream::iter(parts.collect::<Vec<_>>()).buffer_unordered(PARTS).try_collect::<()>().await
    }

    /// Reads blobs that lie next to each other.
    async fn verify_part(&self, blobs: Vec<BlobRef>, name: &str) -> Result<()> {
        let (Some(first), Some(last)) = (blobs.first(), blobs.last()) else { return Ok(()) };
        let range = u64::from(first.offset)..u64::from(last.offset) + u64::from(last.stored_len);
        let sealed = self.store().get_range(name, range).await?;
        let repo = self.clone();
        let verified = background::run(move || {
            let key = repo.pack_key(&blobs[0].pack);
            let mut opener = pack::Opener::new(&key, repo.keys());
            blobs.iter().try_for_each(|blob| {
                let start = (blob.offset - blobs[0].offset) as usize;
                opener.open(blob, &sealed[start..start + blob.stored_len as usize]).map(drop)
            })
        });
        verified.await?.map_err(|what| what.in_object(name))
    }
}

fn check_len(len: u64, info: PackInfo, name: &str) -> Result<()> {
    if len == info.bytes {
        return Ok(());
    }
    Err(Malformed::new(format!("it has {len} bytes instead of {}", info.bytes)).in_object(name))
}
