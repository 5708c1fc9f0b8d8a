//! The parsers, for the fuzz targets.

use crate::intake::{Incoming, Intake, Step};
use crate::options::{Asked, context_queries};
use crate::request::{Command, Terms};
use crate::transmission::Room;
use block::{BlockSizes, Description, Features, Pool};
use std::ops::Range;
use std::sync::LazyLock;

const SIZE: u64 = 1 << 20;

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(8 << 20));

/// An option of the handshake: its number, then its data.
pub fn option(bytes: &[u8]) {
    let Some((code, data)) = bytes.split_first() else { return };
    if let Ok(Asked::Contexts { queries, set, .. }) = Asked::decode(u32::from(*code), data) {
        assert!(set || queries.is_empty() || !context_queries(&queries, set).is_empty());
    }
}

/// What a client sends after the handshake, in pieces of a length that the first byte tells.
pub fn requests(bytes: &[u8]) {
    let Some((piece, mut rest)) = bytes.split_first() else { return };
    let blocks = BlockSizes { minimum: 512, preferred: 4096, maximum: 1 << 16 };
    let description = Description { size: SIZE, blocks, features: Features::ALL };
    let terms = Terms { description: &description, structured: piece & 1 == 0, contexts: usize::from(piece & 2 == 0) };
    let room = Room::new(16, 1 << 20);
    let mut intake = Intake::new(&[], POOL.clone());
    loop {
        match intake.next(&terms, &room) {
            Err(_) | Ok(Step::Disconnect) => return,
            Ok(Step::Request(request)) => look(&request),
            Ok(Step::Refused(..)) => {}
            Ok(Step::Full) => unreachable!("nothing is in flight"),
            Ok(Step::Starved) if rest.is_empty() => return,
            Ok(Step::Starved) => {
                let space = intake.space();
                let len = space.len().min(rest.len()).min(usize::from(*piece) + 1);
                space[..len].copy_from_slice(&rest[..len]);
                intake.filled(len);
                rest = &rest[len..];
            }
        }
    }
}

fn look(request: &Incoming) {
    let inside = |range: &Range<u64>| assert!(range.start < range.end && range.end <= SIZE, "{range:?}");
    match &request.command {
        Command::Read { range, .. }
        | Command::Trim { range, .. }
        | Command::WriteZeroes { range, .. }
        | Command::BlockStatus { range, .. } => inside(range),
        Command::Write { range, .. } => {
            inside(range);
            let payload = request.payload.as_ref().expect("a write has bytes");
            assert_eq!(payload.len() as u64, range.end - range.start);
        }
        Command::Flush | Command::Disconnect => {}
    }
}
