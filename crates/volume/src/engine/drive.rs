//! Driving an engine without threads: each request to the disk is done before the next.

use super::{Answers, Done, Engine, Io, IoId, Loaded, Notice, Output, World};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::superblock::NoSuperblock;
use crate::units::Run;
use std::collections::VecDeque;

/// How often opening is tried again around places that the device does not write.
const MOST_TRIES: usize = 16;

/// What has come out meanwhile.
pub(crate) struct Driven<W: World> {
    pub(crate) answers: Answers<W>,
    pub(crate) notices: Vec<Notice>,
}

/// Does all that an engine wants until it wants nothing.
#[cfg(test)]
pub(crate) fn drive<W: World>(engine: &mut Engine<W>, disk: &dyn Disk, first: Output<W>) -> Driven<W> {
    drive_until(engine, disk, first, true)
}

/// The same without deleting what may be deleted meanwhile.
pub(crate) fn drive_ios<W: World>(engine: &mut Engine<W>, disk: &dyn Disk, first: Output<W>) -> Driven<W> {
    drive_until(engine, disk, first, false)
}

fn drive_until<W: World>(engine: &mut Engine<W>, disk: &dyn Disk, first: Output<W>, works: bool) -> Driven<W> {
    let mut driven = Driven { answers: Vec::new(), notices: Vec::new() };
    let mut ios: VecDeque<(IoId, Io<W::Memory>)> = VecDeque::new();
    let mut out = first;
    loop {
        driven.answers.append(&mut out.answers);
        driven.notices.append(&mut out.notices);
        ios.extend(out.ios);
        out = match ios.pop_front() {
            Some((id, io)) => {
                let done: Done<W::Memory> = io.perform(disk);
                engine.finished(id, done)
            }
            None if out.more && works => engine.work(),
            None => return driven,
        };
    }
}

/// Opens a pool: loads it, brings it up to its log, and makes that a checkpoint. What is to be noticed of that comes with the first request. If the device does not take that at some place, it is done
/// again around it.
pub(crate) fn open<W: World>(disk: &dyn Disk, cache: usize) -> Result<Engine<W>, OpenError> {
    // What is read may be in the cache of the device only, left by a process that was killed; what is done next relies on it.
    disk.flush().map_err(OpenError::disk("flush the pool before it is opened"))?;
    let mut avoided: Vec<Run> = Vec::new();
    loop {
        let mut loaded: Loaded = super::load::<W>(disk)?;
        let replayed = std::mem::take(&mut loaded.replayed);
        let mut engine = Engine::<W>::new(loaded, cache);
        let first = engine.replay(replayed, avoided.clone());
        let driven = drive_ios(&mut engine, disk, first);
        engine.out.notices.extend(driven.notices);
        match engine.opened() {
            Some(Ok(())) => return restore_superblocks(engine, disk),
            Some(Err(error)) => match engine.refused_place().filter(|_| avoided.len() < MOST_TRIES) {
                Some(place) => {
                    avoided.push(Run {
                        start: place,
                        count: 4_u32.saturating_pow(u32::try_from(avoided.len()).unwrap_or(0)),
                    });
                }
                None => return Err(OpenError::Unfit(format!("the pool cannot be brought up to its log: {error}"))),
            },
            None => return Err(OpenError::Unfit("the pool cannot be brought up to its log".into())),
        }
    }
}

/// A superblock that was torn by a crash, or has rotted, is made anew by one more checkpoint, so that there are always two that can be lost.
fn restore_superblocks<W: World>(mut engine: Engine<W>, disk: &dyn Disk) -> Result<Engine<W>, OpenError> {
    if super::read_superblocks(disk)?.contains(&Err(NoSuperblock::Damaged)) {
        let notices = std::mem::take(&mut engine.out.notices);
        let out = engine.make_checkpoint();
        let driven = drive_ios(&mut engine, disk, out);
        engine.out.notices.extend(notices.into_iter().chain(driven.notices));
    }
    Ok(engine)
}
