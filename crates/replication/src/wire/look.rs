//! Looks at snapshots, and what is seen, as bytes.

use super::answer::{put_ranges, ranges};
use super::frame::Builder;
use super::numbers::{Reader, cut};
use super::{Frame, Kind, MOST_RANGES, MOST_REASON, WireError};
use crate::look::{Look, Unseen};
use crate::message::Changed;
use crate::units::{Blocks, Epoch, HeldSnapshot, SnapshotId};
use bytes::Bytes;

pub(super) fn encode(look: &Look, version: u16) -> Frame {
    let (since, since_epoch) = look.since.unwrap_or((SnapshotId(0), Epoch(0)));
    Builder::new(Kind::Look)
        .put(look.of.0.0.to_le_bytes())
        .put(look.of.1.0.to_le_bytes())
        .put(since.0.to_le_bytes())
        .put(since_epoch.0.to_le_bytes())
        .put(look.blocks.start.to_le_bytes())
        .put(look.blocks.count.to_le_bytes())
        .put(look.most.to_le_bytes())
        .put(u16::from(look.since.is_some()).to_le_bytes())
        .put([0; 2])
        .frame(version, Bytes::new())
}

pub(super) fn decode(reader: &mut Reader<'_>, data: &[u8]) -> Result<Look, WireError> {
    let (of, since) = (snapshot(reader)?, snapshot(reader)?);
    let blocks = Blocks { start: reader.u64()?, count: reader.u64()? };
    let (most, flags, reserved) = (reader.u32()?, reader.u16()?, reader.u16()?);
    reader.zero("reserved field", reserved.into())?;
    reader.zero("length of data", data.len() as u64)?;
    if !(1..=MOST_RANGES).contains(&most) {
        return Err(reader.unfit("number of ranges", most));
    }
    let since = match flags {
        0 if since == (SnapshotId(0), Epoch(0)) => None,
        1 => Some(since),
        _ => return Err(reader.unfit("flags", flags)),
    };
    Ok(Look { of, since, blocks, most })
}

fn snapshot(reader: &mut Reader<'_>) -> Result<HeldSnapshot, WireError> {
    Ok((SnapshotId(reader.u128()?), Epoch(reader.u64()?)))
}

pub(super) fn encode_seen(seen: &Result<Changed, Unseen>, version: u16) -> Frame {
    let (what, next, data) = match seen {
        Ok(changed) => (1_u16, changed.next, put_ranges(&changed.ranges)),
        Err(unseen) => {
            let (what, reason) = parts(unseen);
            (what, None, Bytes::copy_from_slice(cut(reason, MOST_REASON).as_bytes()))
        }
    };
    Builder::new(Kind::Seen)
        .put(what.to_le_bytes())
        .put(u16::from(next.is_some()).to_le_bytes())
        .put([0; 4])
        .put(next.unwrap_or(0).to_le_bytes())
        .frame(version, data)
}

fn parts(unseen: &Unseen) -> (u16, &str) {
    match unseen {
        Unseen::Absent(reason) => (65, reason),
        Unseen::Unrelated(reason) => (66, reason),
        Unseen::Damaged(reason) => (67, reason),
        Unseen::Failed(reason) => (68, reason),
    }
}

pub(super) fn decode_seen(reader: &mut Reader<'_>, data: &[u8]) -> Result<Result<Changed, Unseen>, WireError> {
    let (what, flags, reserved, next) = (reader.u16()?, reader.u16()?, reader.u32()?, reader.u64()?);
    reader.zero("reserved field", reserved.into())?;
    if flags > 1 || (flags == 1 && what != 1) {
        return Err(reader.unfit("flags", flags));
    }
    if flags == 0 {
        reader.zero("first block", next)?;
    }
    let reason = || reader.text("reason", data, MOST_REASON);
    Ok(match what {
        1 => Ok(Changed { ranges: ranges(reader, data)?, next: (flags == 1).then_some(next) }),
        65 => Err(Unseen::Absent(reason()?)),
        66 => Err(Unseen::Unrelated(reason()?)),
        67 => Err(Unseen::Damaged(reason()?)),
        68 => Err(Unseen::Failed(reason()?)),
        _ => return Err(reader.unfit("kind of answer", what)),
    })
}
