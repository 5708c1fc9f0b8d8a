//! Answers as bytes.

use super::frame::Builder;
use super::numbers::{Reader, cut};
use super::{Frame, Kind, MOST_RANGES, MOST_REASON, WireError};
use crate::message::{Answer, Changed, Refusal, Reply};
use crate::units::{AttachmentId, Blocks, Digest, Epoch, Incarnation, Sequence, Session};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a range in the data of an answer.
pub(super) const RANGE: usize = 16;

/// What follows what every answer has.
#[derive(Default)]
struct Fields {
    body: u16,
    flag: bool,
    /// A block, or an epoch.
    start: u64,
    count: u64,
    data: Bytes,
}

fn plain(body: u16) -> Fields {
    Fields { body, ..Fields::default() }
}

fn text(body: u16, reason: &str) -> Fields {
    Fields { data: Bytes::copy_from_slice(cut(reason, MOST_REASON).as_bytes()), ..plain(body) }
}

fn fields(body: &Result<Reply, Refusal>) -> Fields {
    match body {
        Ok(Reply::Sealed { is_whole }) => Fields { flag: *is_whole, ..plain(1) },
        Ok(Reply::Done) => plain(2),
        Ok(Reply::Data(data)) => Fields { data: data.clone(), ..plain(3) },
        Ok(Reply::Changed(changed)) => {
            let (flag, start) = (changed.next.is_some(), changed.next.unwrap_or(0));
            Fields { flag, start, data: put_ranges(&changed.ranges), ..plain(4) }
        }
        Ok(Reply::Digest(digest)) => Fields { data: Bytes::copy_from_slice(&digest.0), ..plain(5) },
        Err(Refusal::LowerEpoch { sealed }) => Fields { start: sealed.0, ..plain(65) },
        Err(Refusal::NotSealed) => plain(66),
        Err(Refusal::EarlierSession) => plain(67),
        Err(Refusal::TooMany) => plain(68),
        Err(Refusal::Unfit { reason }) => text(69, reason),
        Err(Refusal::Damaged { blocks, reason }) => {
            Fields { start: blocks.start, count: blocks.count, ..text(70, reason) }
        }
        Err(Refusal::Failed { reason }) => text(71, reason),
    }
}

pub(super) fn encode(answer: &Answer, version: u16) -> Frame {
    let fields = fields(&answer.body);
    Builder::new(Kind::Answer)
        .put(answer.attachment.0.to_le_bytes())
        .put(answer.epoch.0.to_le_bytes())
        .put(answer.session.0.to_le_bytes())
        .put(answer.sequence.0.to_le_bytes())
        .put(answer.incarnation.0.to_le_bytes())
        .put(fields.body.to_le_bytes())
        .put(u16::from(fields.flag).to_le_bytes())
        .put([0; 4])
        .put(fields.start.to_le_bytes())
        .put(fields.count.to_le_bytes())
        .frame(version, fields.data)
}

pub(super) fn decode(reader: &mut Reader<'_>, data: Bytes) -> Result<Answer, WireError> {
    let attachment = AttachmentId(reader.u128()?);
    let epoch = Epoch(reader.u64()?);
    let session = Session(reader.u64()?);
    let sequence = Sequence(reader.u64()?);
    let incarnation = Incarnation(reader.u128()?);
    let (body, flags, reserved) = (reader.u16()?, reader.u16()?, reader.u32()?);
    let (start, count) = (reader.u64()?, reader.u64()?);
    reader.zero("reserved field", reserved.into())?;
    if flags > 1 {
        return Err(reader.unfit("flags", flags));
    }
    let fields = Fields { body, flag: flags == 1, start, count, data };
    let body = decode_body(reader, fields)?;
    Ok(Answer { attachment, sequence, epoch, session, incarnation, body })
}

/// Only the fields that a kind of answer has may be other than zero.
fn check_unused(reader: &Reader<'_>, fields: &Fields) -> Result<(), WireError> {
    let Fields { body, flag, start, count, data } = fields;
    if !matches!(body, 1 | 4) {
        reader.zero("flags", u64::from(*flag))?;
    }
    let has_block = matches!(body, 65 | 70) || (*body == 4 && *flag);
    if !has_block {
        reader.zero("first block", *start)?;
    }
    if *body != 70 {
        reader.zero("number of blocks", *count)?;
    }
    if matches!(body, 1 | 2 | 65..=68) { reader.zero("length of data", data.len() as u64) } else { Ok(()) }
}

fn decode_body(reader: &Reader<'_>, fields: Fields) -> Result<Result<Reply, Refusal>, WireError> {
    check_unused(reader, &fields)?;
    let Fields { body, flag, start, count, data } = fields;
    let reason = |data: &[u8]| reader.text("reason", data, MOST_REASON);
    Ok(match body {
        1 => Ok(Reply::Sealed { is_whole: flag }),
        2 => Ok(Reply::Done),
        3 => Ok(Reply::Data(data)),
        4 => Ok(Reply::Changed(Changed { ranges: ranges(reader, &data)?, next: flag.then_some(start) })),
        5 => match data.first_chunk() {
            Some(digest) if data.len() == digest.len() => Ok(Reply::Digest(Digest(*digest))),
            _ => return Err(reader.unfit("length of data", data.len())),
        },
        65 => Err(Refusal::LowerEpoch { sealed: Epoch(start) }),
        66 => Err(Refusal::NotSealed),
        67 => Err(Refusal::EarlierSession),
        68 => Err(Refusal::TooMany),
        69 => Err(Refusal::Unfit { reason: reason(&data)? }),
        70 => Err(Refusal::Damaged { blocks: Blocks { start, count }, reason: reason(&data)? }),
        71 => Err(Refusal::Failed { reason: reason(&data)? }),
        _ => return Err(reader.unfit("kind of answer", body)),
    })
}

pub(super) fn put_ranges(ranges: &[Blocks]) -> Bytes {
    let mut data = BytesMut::with_capacity(ranges.len() * RANGE);
    for range in ranges {
        data.put_u64_le(range.start);
        data.put_u64_le(range.count);
    }
    data.freeze()
}

pub(super) fn ranges(reader: &Reader<'_>, data: &[u8]) -> Result<Vec<Blocks>, WireError> {
    let (ranges, rest) = data.as_chunks::<RANGE>();
    if !rest.is_empty() || ranges.len() > MOST_RANGES as usize {
        return Err(reader.unfit("length of data", data.len()));
    }
    let half = |range: &[u8; RANGE], at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&range[at..at + 8]);
        u64::from_le_bytes(number)
    };
    Ok(ranges.iter().map(|range| Blocks { start: half(range, 0), count: half(range, 8) }).collect())
}
