//! Recovery points and bytes as tests want them: everything that does not matter is the same in all.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use jiff::Timestamp;
use repository::{PackInfo, PointId, RecoveryPoint, Root, RootKind, SessionId, Source, Stats, TableRef, Tags};

pub(crate) const PASSED: &str = "2026-11-22T10:00:00Z";

/// A time that has passed, the same for all who do not care.
pub(crate) fn passed() -> Timestamp {
    PASSED.parse().unwrap()
}

/// A content that was stored in no time.
pub(crate) fn root(name: &str, kind: RootKind, table: TableRef, (files, bytes): (u64, u64), time: Timestamp) -> Root {
    Root {
        name: name.to_owned(),
        kind,
        table,
        files,
        bytes,
        changed_while_read: 0,
        started: time,
        finished: time,
        claim: None,
    }
}

/// A complete recovery point of one session.
pub(crate) fn point(
    id: PointId,
    created: Timestamp,
    roots: Vec<Root>,
    session: SessionId,
    packs: Vec<PackInfo>,
) -> RecoveryPoint {
    RecoveryPoint {
        version: RecoveryPoint::VERSION,
        id,
        created,
        source: Source::Paths { host: "ship".to_owned() },
        tags: Tags::default(),
        complete: true,
        objects: None,
        ledger: None,
        roots,
        sessions: vec![session],
        packs,
        stats: Stats::default(),
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
