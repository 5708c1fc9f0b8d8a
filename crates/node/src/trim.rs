//! Gives back the room of blocks that are all zeros.

use crate::crypt::{DataKey, Encrypted};
use crate::device::{NoNames, Stored};
use crate::error::{Error, Kind, Result, stored};
use crate::node::Node;
use crate::proto;
use crate::volumes::id_of;
use block::{Buffer, Device, Done};
use std::sync::{Arc, mpsc};
use volume::{BLOCK, Blocks};

/// Blocks that are looked at in one go.
const STEP: u64 = 1024;

impl Node {
    /// Looks at all data of a volume that is not attached, so that nobody writes where zeros were found a moment ago. On one that is mounted, `fstrim`
    /// knows more: what the file system does not use, zeros or not.
    pub(crate) fn trim(&self, name: &str, secret: &[u8]) -> Result<u64> {
        let _changing = self.change();
        self.refuse_attached(name, "trim")?;
        let target = self.target(name)?;
        let (store, volume) = self.volume(name)?;
        let key = self.unwrap_key(store, id_of(target.state), name, secret)?;
        let device = plain(Arc::new(Stored::new(store.pool.clone(), target.state, Arc::new(NoNames))), key)?;
        let mut found = Vec::new();
        self.diff(name, "", 0, |ranges| {
            found.extend(ranges);
            Ok(())
        })?;
        let mut freed = 0;
        for range in found {
            let range: proto::Range = range;
            let (mut at, end) = (range.offset / BLOCK as u64, (range.offset + range.length) / BLOCK as u64);
            while at < end {
                let count = STEP.min(end - at);
                for zeros in zeros(&*device, Blocks { start: at, count }, name)? {
                    let (sender, receiver) = mpsc::channel();
                    store.pool.discard(volume.id, zeros, false, move |done| drop(sender.send(done)));
                    let done = receiver.recv().unwrap_or(Err(volume::Error::Closed));
                    done.map_err(stored(format!("give back zeros of {name}")))?;
                    freed += zeros.count * BLOCK as u64;
                }
                at += count;
            }
        }
        let (sender, receiver) = mpsc::channel();
        store.pool.flush(move |done| drop(sender.send(done)));
        receiver.recv().unwrap_or(Err(volume::Error::Closed)).map_err(stored(format!("give back zeros of {name}")))?;
        Ok(freed)
    }
}

fn plain(stored: Arc<dyn Device>, key: Option<DataKey>) -> Result<Arc<dyn Device>> {
    let Some(key) = key else { return Ok(stored) };
    let encrypted = Encrypted::new(stored, &key);
    Ok(Arc::new(encrypted.map_err(|e| Error::new(Kind::Failed, "decrypt what is looked at").because(e))?))
}

/// The runs of zeros in a range.
fn zeros(device: &dyn Device, blocks: Blocks, name: &str) -> Result<Vec<Blocks>> {
    let (sender, receiver) = mpsc::channel();
    let len = usize::try_from(blocks.count).unwrap_or(0) * BLOCK;
    device.read(blocks.start * BLOCK as u64, Buffer::zeroed(len), Done::new(move |read| drop(sender.send(read))));
    let failed = || Error::new(Kind::Failed, format!("look for zeros in {name}"));
    let bytes = receiver.recv().map_err(|e| failed().because(e))?.map_err(|e| failed().because(e))?;
    let mut runs: Vec<Blocks> = Vec::new();
    for (block, bytes) in (blocks.start..).zip(bytes.chunks(BLOCK)) {
        if bytes.iter().any(|byte| *byte != 0) {
            continue;
        }
        match runs.last_mut().filter(|run| run.end() == block) {
            Some(run) => run.count += 1,
            None => runs.push(Blocks { start: block, count: 1 }),
        }
    }
    Ok(runs)
}
