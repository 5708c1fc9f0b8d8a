//! Reading packs back, to know that what was written is there.

use crate::background;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::layout;
use crate::pack::{self, MAX_PACK_LEN, PackDamage};
use crate::progress::{Counters, NoProgress, Progress};
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use crate::writer::PackInfo;
use futures::{StreamExt, TryStreamExt, stream};

/// How many packs are read at once; each is in memory as a whole.
const READS: usize = 2;

impl Repository {
    /// Reads every named pack back as a whole, and checks every blob in it down to its identity.
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

    async fn verify_and_tell(&self, info: PackInfo, progress: &dyn Progress) -> Result<()> {
        self.verify_pack(info).await?;
        progress.add(Counters { files: 1, bytes: info.bytes, new_bytes: 0 });
        Ok(())
    }

    async fn verify_pack(&self, info: PackInfo) -> Result<()> {
        let name = layout::pack(&info.id);
        let bytes = match self.store().get(&name, MAX_PACK_LEN).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return Err(Error::Missing { object: name });
            }
            Err(error) => return Err(error.into()),
        };
        if bytes.len() as u64 != info.bytes {
            let what = format!("it has {} bytes instead of {}", bytes.len(), info.bytes);
            return Err(Malformed::new(what).in_object(name));
        }
        let repo = self.clone();
        let (_, damage) = background::run(move || pack::verify(&bytes, info.id, repo.keys())).await?;
        match damage.into_iter().next() {
            Some(PackDamage { what, .. }) => Err(what.in_object(name)),
            None => Ok(()),
        }
    }
}
