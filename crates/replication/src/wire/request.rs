//! Requests as bytes.

use super::frame::Builder;
use super::numbers::Reader;
use super::{BLOCK, Frame, Kind, MOST_BLOCKS, MOST_RANGES, WireError};
use crate::message::{Body, Request};
use crate::units::{AttachmentId, Blocks, Epoch, Sequence, Session, SnapshotId};
use bytes::Bytes;

/// The numbers that follow what every request has.
#[derive(Default)]
struct Fields {
    body: u16,
    start: u64,
    count: u64,
    since: u64,
}

fn fields(body: &Body) -> Fields {
    let of = |body, blocks: Blocks| Fields { body, start: blocks.start, count: blocks.count, since: 0 };
    let plain = |body| Fields { body, ..Fields::default() };
    match body {
        Body::Seal => plain(1),
        Body::Renew => plain(2),
        Body::Write { blocks, .. } => of(3, *blocks),
        Body::Discard { blocks } => of(4, *blocks),
        Body::Read { blocks } => of(5, *blocks),
        Body::Flush => plain(6),
        Body::Confirm => plain(7),
        Body::Changed { since, from, most } => {
            Fields { body: 8, start: *from, count: u64::from(*most), since: since.0 }
        }
        Body::Digest { blocks } => of(9, *blocks),
        Body::Snapshot { id } => {
            let [low, high] = [id.0, id.0 >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
            Fields { body: 10, start: low, count: high, since: 0 }
        }
        Body::Grow { blocks } => Fields { count: *blocks, ..plain(11) },
    }
}

pub(super) fn encode(request: &Request, version: u16) -> Frame {
    let fields = fields(&request.body);
    let data = if let Body::Write { data, .. } = &request.body { data.clone() } else { Bytes::new() };
    let session = request.session.unwrap_or(Session(0)).0;
    Builder::new(Kind::Request)
        .put(request.attachment.0.to_le_bytes())
        .put(request.epoch.0.to_le_bytes())
        .put(session.to_le_bytes())
        .put(request.sequence.0.to_le_bytes())
        .put(request.done_below.0.to_le_bytes())
        .put(fields.body.to_le_bytes())
        .put(u16::from(request.session.is_some()).to_le_bytes())
        .put([0; 4])
        .put(fields.start.to_le_bytes())
        .put(fields.count.to_le_bytes())
        .put(fields.since.to_le_bytes())
        .frame(version, data)
}

pub(super) fn decode(reader: &mut Reader<'_>, data: Bytes) -> Result<Request, WireError> {
    let attachment = AttachmentId(reader.u128()?);
    let epoch = Epoch(reader.u64()?);
    let session = reader.u64()?;
    let (sequence, done_below) = (Sequence(reader.u64()?), Sequence(reader.u64()?));
    let (body, flags, reserved) = (reader.u16()?, reader.u16()?, reader.u32()?);
    let fields = Fields { body, start: reader.u64()?, count: reader.u64()?, since: reader.u64()? };
    reader.zero("reserved field", reserved.into())?;
    let session = match flags {
        0 => reader.zero("session", session).map(|()| None)?,
        1 => Some(Session(session)),
        _ => return Err(reader.unfit("flags", flags)),
    };
    if fields.body != 3 && !data.is_empty() {
        return Err(reader.unfit("length of data", data.len()));
    }
    let body = decode_body(reader, &fields, data)?;
    Ok(Request { attachment, epoch, session, sequence, done_below, body })
}

fn decode_body(reader: &Reader<'_>, fields: &Fields, data: Bytes) -> Result<Body, WireError> {
    let Fields { body, start, count, since } = *fields;
    if body != 8 {
        reader.zero("birth", since)?;
    }
    let blocks = Blocks { start, count };
    let few = |what: &'static str| if count <= MOST_BLOCKS { Ok(()) } else { Err(reader.unfit(what, count)) };
    let none = || reader.zero("first block", start).and_then(|()| reader.zero("number of blocks", count));
    Ok(match body {
        1 => none().map(|()| Body::Seal)?,
        2 => none().map(|()| Body::Renew)?,
        3 => {
            few("number of blocks that are written")?;
            if data.len() as u64 != count * BLOCK as u64 {
                return Err(reader.unfit("length of data", data.len()));
            }
            Body::Write { blocks, data }
        }
        4 => Body::Discard { blocks },
        5 => few("number of blocks that are read").map(|()| Body::Read { blocks })?,
        6 => none().map(|()| Body::Flush)?,
        7 => none().map(|()| Body::Confirm)?,
        8 => {
            let most = u32::try_from(count).ok().filter(|most| *most <= MOST_RANGES);
            let most = most.ok_or_else(|| reader.unfit("number of ranges", count))?;
            Body::Changed { since: Epoch(since), from: start, most }
        }
        9 => few("number of blocks that are hashed").map(|()| Body::Digest { blocks })?,
        10 => Body::Snapshot { id: SnapshotId(u128::from(start) | u128::from(count) << 64) },
        11 => reader.zero("first block", start).map(|()| Body::Grow { blocks: count })?,
        _ => return Err(reader.unfit("kind of request", body)),
    })
}
