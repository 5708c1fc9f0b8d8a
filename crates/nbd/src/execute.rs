//! Doing what a request asks of a device, and looking that the device did what the trait says.

use crate::device::{Device, Failure, FailureKind, Piece, Status};
use crate::limits::MAX_STATUSES;
use crate::reply::{self, Style};
use crate::request::Command;
use bytes::Bytes;
use std::ops::Range;

/// The contexts of a connection by the numbers that its client knows them by.
pub(crate) type Contexts = [(u32, String)];

/// Does what is asked; the reply, also to what failed.
pub(crate) async fn execute(
    device: &dyn Device,
    command: Command,
    payload: Bytes,
    cookie: u64,
    style: Style,
    contexts: &Contexts,
) -> Vec<Piece> {
    let done = match command {
        Command::Read { range, in_one } => {
            let start = range.start;
            read(device, range).await.map(|pieces| style.read(cookie, start, pieces, in_one))
        }
        Command::BlockStatus { range, only_one } => {
            let most = if only_one { 1 } else { MAX_STATUSES };
            block_status(device, range, most, contexts).await.map(|states| reply::block_status(cookie, &states))
        }
        Command::Write { range, durable } => {
            device.write(range.start, payload, durable).await.map(|()| style.done(cookie))
        }
        Command::Flush => device.flush().await.map(|()| style.done(cookie)),
        Command::Trim { range, durable } => device.trim(range, durable).await.map(|()| style.done(cookie)),
        Command::WriteZeroes { range, mode } => device.write_zeroes(range, mode).await.map(|()| style.done(cookie)),
        Command::Disconnect => Ok(Vec::new()),
    };
    done.unwrap_or_else(|failure| style.error(cookie, failure.kind.errno(), &failure.message))
}

async fn read(device: &dyn Device, range: Range<u64>) -> Result<Vec<Piece>, Failure> {
    let wanted = range.end - range.start;
    let mut pieces = device.read(range).await?;
    pieces.retain(|piece| !piece.is_empty());
    let found = pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.len()));
    // A reply of another length would make the client take data for headers.
    if found == Some(wanted) { Ok(pieces) } else { Err(defect("read", wanted)) }
}

async fn block_status(
    device: &dyn Device,
    range: Range<u64>,
    most: usize,
    contexts: &Contexts,
) -> Result<Vec<(u32, Vec<Status>)>, Failure> {
    let mut all = Vec::new();
    for (id, name) in contexts {
        let mut left = range.end - range.start;
        let mut statuses = device.block_status(name, range.clone(), most).await?;
        statuses.truncate(most);
        // The client may be told of what is beyond his range, but need not; what is told must fit into 32 bits.
        statuses.retain_mut(|status| {
            status.len = status.len.min(left);
            left -= status.len;
            status.len > 0
        });
        if statuses.is_empty() {
            return Err(defect("tell the states of", left));
        }
        all.push((*id, statuses));
    }
    Ok(all)
}

fn defect(what: &str, len: u64) -> Failure {
    Failure::new(FailureKind::Io, format!("the device did not {what} {len} bytes; this is a defect of the server"))
}
