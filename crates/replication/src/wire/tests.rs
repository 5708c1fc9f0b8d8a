//! Any message comes back as it was; nothing else comes at all.

use super::frame::HEADER;
use super::{
    BLOCK, ClusterId, Farewell, Frame, Frames, Hello, Kind, LOOKS, MOST_BLOCKS, MOST_DATA, MOST_NODE_NAME, MOST_RANGES,
    MOST_REASON, Message, NEWEST, OLDEST, Welcome, WireError, agree,
};
use crate::look::{Look, Unseen};
use crate::message::{Answer, Body, Changed, Refusal, Reply, Request};
use crate::units::{
    AttachmentId, Blocks, Digest, Epoch, Incarnation, ReplicaId, Sequence, Session, SnapshotId, VolumeId,
};
use bytes::Bytes;
use proptest::prelude::*;

fn blocks(most: u64) -> impl Strategy<Value = Blocks> {
    (any::<u64>(), 0..=most).prop_map(|(start, count)| Blocks { start, count })
}

fn body() -> impl Strategy<Value = Body> {
    let write = (any::<u64>(), 0..5_u64, any::<u8>()).prop_map(|(start, count, fill)| {
        let data = vec![fill; usize::try_from(count).unwrap() * BLOCK].into();
        Body::Write { blocks: Blocks { start, count }, data }
    });
    let changed = (any::<u64>(), any::<u64>(), 0..=MOST_RANGES);
    prop_oneof![
        Just(Body::Seal),
        Just(Body::Renew),
        Just(Body::Flush),
        Just(Body::Confirm),
        write,
        blocks(u64::MAX).prop_map(|blocks| Body::Discard { blocks }),
        blocks(MOST_BLOCKS).prop_map(|blocks| Body::Read { blocks }),
        blocks(MOST_BLOCKS).prop_map(|blocks| Body::Digest { blocks }),
        changed.prop_map(|(since, from, most)| Body::Changed { since: Epoch(since), from, most }),
        any::<u128>().prop_map(|id| Body::Snapshot { id: SnapshotId(id) }),
        any::<u64>().prop_map(|blocks| Body::Grow { blocks }),
    ]
}

fn request() -> impl Strategy<Value = Message> {
    let numbers = (any::<u128>(), any::<u64>(), any::<Option<u64>>(), any::<u64>(), any::<u64>());
    (numbers, body()).prop_map(|((attachment, epoch, session, sequence, done_below), body)| {
        Message::Request(Request {
            attachment: AttachmentId(attachment),
            epoch: Epoch(epoch),
            session: session.map(Session),
            sequence: Sequence(sequence),
            done_below: Sequence(done_below),
            body,
        })
    })
}

fn reply() -> impl Strategy<Value = Result<Reply, Refusal>> {
    let changed = (proptest::collection::vec(blocks(u64::MAX), 0..9), any::<Option<u64>>());
    let damaged = (blocks(u64::MAX), ".{0,60}");
    prop_oneof![
        any::<bool>().prop_map(|is_whole| Ok(Reply::Sealed { is_whole })),
        Just(Ok(Reply::Done)),
        (0..9000_usize, any::<u8>()).prop_map(|(len, fill)| Ok(Reply::Data(vec![fill; len].into()))),
        changed.prop_map(|(ranges, next)| Ok(Reply::Changed(Changed { ranges, next }))),
        any::<[u8; 16]>().prop_map(|digest| Ok(Reply::Digest(Digest(digest)))),
        any::<u64>().prop_map(|sealed| Err(Refusal::LowerEpoch { sealed: Epoch(sealed) })),
        Just(Err(Refusal::NotSealed)),
        Just(Err(Refusal::EarlierSession)),
        Just(Err(Refusal::TooMany)),
        ".{0,60}".prop_map(|reason| Err(Refusal::Unfit { reason })),
        damaged.prop_map(|(blocks, reason)| Err(Refusal::Damaged { blocks, reason })),
        ".{0,60}".prop_map(|reason| Err(Refusal::Failed { reason })),
    ]
}

fn answer() -> impl Strategy<Value = Message> {
    let numbers = (any::<u128>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u128>());
    (numbers, reply()).prop_map(|((attachment, epoch, session, sequence, incarnation), body)| {
        Message::Answer(Answer {
            attachment: AttachmentId(attachment),
            epoch: Epoch(epoch),
            session: Session(session),
            sequence: Sequence(sequence),
            incarnation: Incarnation(incarnation),
            body,
        })
    })
}

fn look() -> impl Strategy<Value = Message> {
    let held = || (any::<u128>(), any::<u64>()).prop_map(|(id, epoch)| (SnapshotId(id), Epoch(epoch)));
    (held(), proptest::option::of(held()), blocks(u64::MAX), 1..=MOST_RANGES)
        .prop_map(|(of, since, blocks, most)| Message::Look(Look { of, since, blocks, most }))
}

fn seen() -> impl Strategy<Value = Result<Changed, Unseen>> {
    let changed = (proptest::collection::vec(blocks(u64::MAX), 0..9), any::<Option<u64>>());
    prop_oneof![
        changed.prop_map(|(ranges, next)| Ok(Changed { ranges, next })),
        ".{0,60}".prop_map(|reason| Err(Unseen::Absent(reason))),
        ".{0,60}".prop_map(|reason| Err(Unseen::Unrelated(reason))),
        ".{0,60}".prop_map(|reason| Err(Unseen::Damaged(reason))),
        ".{0,60}".prop_map(|reason| Err(Unseen::Failed(reason))),
    ]
}

fn hello() -> impl Strategy<Value = Message> {
    let numbers = (1..9_u16, 0..9_u16, any::<u128>(), any::<u128>(), any::<u128>(), any::<u64>());
    (numbers, "[a-z.-]{0,99}").prop_map(|((oldest, more, cluster, volume, attachment, replica), node)| {
        Message::Hello(Hello {
            oldest,
            newest: oldest + more,
            cluster: ClusterId(cluster),
            volume: VolumeId(volume),
            replica: ReplicaId(replica),
            attachment: AttachmentId(attachment),
            node: node.as_str().into(),
        })
    })
}

fn farewell() -> impl Strategy<Value = Message> {
    (0..7_u8, ".{0,99}").prop_map(|(which, text)| {
        Message::Farewell(match which {
            0 => Farewell::Version(text),
            1 => Farewell::Cluster(text),
            2 => Farewell::NoReplica(text),
            3 => Farewell::Identity(text),
            4 => Farewell::Busy(text),
            5 => Farewell::Unclear(text),
            _ => Farewell::Other(text),
        })
    })
}

fn message() -> impl Strategy<Value = Message> {
    let welcome = any::<u16>().prop_map(|version| Message::Welcome(Welcome { version }));
    prop_oneof![4 => request(), 4 => answer(), 2 => look(), 2 => seen().prop_map(Message::Seen), 1 => hello(), 1 => farewell(), 1 => welcome]
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    [frame.front(), frame.data()].concat()
}

fn frames() -> Frames {
    let mut frames = Frames::new();
    frames.agreed(NEWEST);
    frames
}

/// Hands bytes over in pieces; gives what was taken, and why it ended.
fn take(frames: &mut Frames, bytes: &[u8], piece: usize) -> (Vec<Message>, Result<(), WireError>) {
    let mut taken = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        frames.room().extend_from_slice(piece);
        loop {
            match frames.next_message() {
                Ok(Some(message)) => taken.push(message),
                Ok(None) => break,
                Err(error) => return (taken, Err(error)),
            }
        }
    }
    (taken, Ok(()))
}

proptest! {
    #[test]
    fn messages_come_back_whatever_pieces_they_come_in(sent in proptest::collection::vec(message(), 0..6), piece in 1..9999_usize) {
        let bytes: Vec<u8> = sent.iter().flat_map(|message| bytes_of(&message.encode(NEWEST))).collect();
        let mut frames = frames();
        prop_assert_eq!(take(&mut frames, &bytes, piece), (sent, Ok(())));
        prop_assert!(frames.is_between());
    }

    #[test]
    fn a_message_that_is_cut_off_does_not_come(message in message(), at in any::<prop::sample::Index>()) {
        let bytes = bytes_of(&message.encode(NEWEST));
        let mut frames = frames();
        let cut = at.index(bytes.len());
        prop_assert_eq!(take(&mut frames, &bytes[..cut], 100), (vec![], Ok(())));
        prop_assert_eq!(frames.is_between(), cut == 0);
    }

    #[test]
    fn a_flipped_bit_is_noticed(message in message(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = bytes_of(&message.encode(NEWEST));
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        // (A length that grew within its bounds would wait for more, if its checksum did not tell.)
        let (taken, end) = take(&mut frames(), &bytes, bytes.len());
        prop_assert!(taken.is_empty() && end.is_err(), "byte {}: {:?}", at, end);
    }

    #[test]
    fn garbage_is_refused_and_costs_nothing(bytes in proptest::collection::vec(any::<u8>(), HEADER..300)) {
        let mut frames = frames();
        let (taken, end) = take(&mut frames, &bytes, 50);
        prop_assert!(taken.is_empty() && end.is_err());
        prop_assert!(frames.room().capacity() <= 1 << 20);
    }

    #[test]
    fn fields_have_one_form(kind in any::<bool>(), mut head in proptest::collection::vec(any::<u8>(), 80), body in 0..14_u8, clear in any::<u32>()) {
        // Mostly such that some of them fit.
        head[if kind { 48 } else { 56 }] = body;
        for (i, byte) in head.iter_mut().enumerate().skip(if kind { 49 } else { 57 }) {
            *byte = if clear >> (i % 32) & 1 == 0 { 0 } else { *byte };
        }
        let kind = if kind { Kind::Request } else { Kind::Answer };
        if let Ok(message) = Message::decode(kind, &head, Bytes::new()) {
            let frame = message.encode(NEWEST);
            prop_assert_eq!(&frame.front()[HEADER..], &head[..]);
        }
    }
}

proptest! {
    #[test]
    fn fields_of_looks_have_one_form(kind in any::<bool>(), mut head in proptest::collection::vec(any::<u8>(), 72), what in 60..72_u8, clear in any::<u32>()) {
        let kind = if kind { Kind::Look } else { Kind::Seen };
        head.truncate(kind.head());
        let fixed = if kind == Kind::Look { 64 } else { 0 };
        for (i, byte) in head.iter_mut().enumerate().skip(fixed) {
            *byte = if clear >> (i % 32) & 1 == 0 { 0 } else { *byte & 1 };
        }
        if kind == Kind::Seen {
            head[0] = if what % 2 == 0 { what } else { 1 };
        }
        if let Ok(message) = Message::decode(kind, &head, Bytes::new()) {
            let frame = message.encode(NEWEST);
            prop_assert_eq!(&frame.front()[HEADER..], &head[..]);
        }
    }
}

fn with_lengths(kind: u16, head: u32, data: u32) -> Vec<u8> {
    let mut header = b"OrRp".to_vec();
    header.extend(NEWEST.to_le_bytes());
    header.extend(kind.to_le_bytes());
    header.extend(head.to_le_bytes());
    header.extend(data.to_le_bytes());
    header.extend([0; 4]);
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    header
}

#[test]
fn lengths_that_cannot_be_are_refused_before_anything_of_them_has_come() {
    let most = u32::try_from(MOST_DATA).unwrap();
    for (kind, head, data) in [(4, 80, most + 1), (5, 80, u32::MAX), (4, 79, 0), (4, u32::MAX, 0), (4, 0, 0)] {
        let mut frames = frames();
        let (taken, end) = take(&mut frames, &with_lengths(kind, head, data), 99);
        assert!(taken.is_empty() && matches!(end, Err(WireError::Length { .. })), "{kind} {head} {data}: {end:?}");
        assert!(frames.room().capacity() <= 1 << 20);
    }
    assert_eq!(take(&mut frames(), &with_lengths(4, 80, most), 99), (vec![], Ok(())), "the most is possible");
    assert_eq!(take(&mut frames(), &with_lengths(9, 80, 0), 99).1, Err(WireError::Kind(9)));
}

#[test]
fn a_frame_of_another_version_is_refused() {
    let seal = Message::Welcome(Welcome { version: 1 });
    let answer = Message::Answer(Answer {
        attachment: AttachmentId(1),
        sequence: Sequence(1),
        epoch: Epoch(1),
        session: Session(1),
        incarnation: Incarnation(1),
        body: Ok(Reply::Done),
    });
    let (taken, end) = take(&mut frames(), &bytes_of(&answer.encode(NEWEST + 1)), 999);
    assert_eq!((taken, end), (vec![], Err(WireError::Version { found: NEWEST + 1, expected: NEWEST })));
    assert_eq!(take(&mut Frames::new(), &bytes_of(&seal.encode(7)), 999).0, [seal], "the first ones have none");
}

/// Whoever agreed to an older version does not know it.
#[test]
fn a_kind_of_frame_that_the_agreed_version_does_not_have_is_refused() {
    let held = (SnapshotId(1), Epoch(1));
    let look = Look { of: held, since: None, blocks: Blocks { start: 0, count: 1 }, most: 1 };
    for message in [Message::Look(look), Message::Seen(Ok(Changed::default()))] {
        let kind = if matches!(message, Message::Look(_)) { 6 } else { 7 };
        for (version, expected) in [(LOOKS - 1, Err(WireError::Kind(kind))), (LOOKS, Ok(()))] {
            let mut frames = Frames::new();
            frames.agreed(version);
            let (taken, end) = take(&mut frames, &bytes_of(&message.encode(version)), 999);
            assert_eq!((taken.is_empty(), &end), (end.is_err(), &expected), "version {version}");
        }
    }
    let none = Look { most: 0, ..look };
    let (taken, end) = take(&mut frames(), &bytes_of(&Message::Look(none).encode(NEWEST)), 999);
    assert!(taken.is_empty() && matches!(end, Err(WireError::Field { field: "number of ranges", .. })), "{end:?}");
}

#[test]
fn versions_are_agreed_or_refused() {
    let hello = |oldest, newest| {
        agree(&Hello {
            oldest,
            newest,
            cluster: ClusterId(1),
            volume: VolumeId(1),
            replica: ReplicaId(1),
            attachment: AttachmentId(1),
            node: "a".into(),
        })
    };
    assert_eq!(hello(OLDEST, NEWEST), Ok(NEWEST));
    assert_eq!(hello(OLDEST, NEWEST + 5), Ok(NEWEST), "a newer one speaks what is spoken here");
    assert!(matches!(hello(NEWEST + 1, NEWEST + 5), Err(Farewell::Version(_))));
}

#[test]
fn long_texts_are_cut_and_long_requests_refused() {
    let reason = "ä".repeat(MOST_REASON);
    let frame = Message::Farewell(Farewell::Other(reason)).encode(NEWEST);
    assert_eq!(frame.data().len(), MOST_REASON);
    let name = "n".repeat(MOST_NODE_NAME + 1);
    assert!(matches!(
        take(&mut frames(), &with_lengths(1, 72, u32::try_from(name.len()).unwrap()), 99).1,
        Err(WireError::Length { .. } | WireError::Version { .. })
    ));
    let read = Request {
        attachment: AttachmentId(1),
        epoch: Epoch(1),
        session: Some(Session(0)),
        sequence: Sequence(1),
        done_below: Sequence(1),
        body: Body::Read { blocks: Blocks { start: 0, count: MOST_BLOCKS + 1 } },
    };
    let bytes = bytes_of(&Message::Request(read).encode(NEWEST));
    assert!(matches!(take(&mut frames(), &bytes, 999).1, Err(WireError::Field { .. })));
}

/// The bytes of the document's examples: whoever changes one has made another version.
#[test]
fn the_bytes_are_those_of_the_document() {
    let request = Request {
        attachment: AttachmentId(0x0102),
        epoch: Epoch(3),
        session: Some(Session(4)),
        sequence: Sequence(5),
        done_below: Sequence(6),
        body: Body::Discard { blocks: Blocks { start: 7, count: 8 } },
    };
    let since = Some((SnapshotId(0x0708), Epoch(2)));
    let blocks = Blocks { start: 9, count: 10 };
    let look = Look { of: (SnapshotId(0x0506), Epoch(3)), since, blocks, most: 11 };
    let seen = Ok(Changed { ranges: vec![Blocks { start: 12, count: 1 }], next: Some(14) });
    let document = include_str!("../../../../docs/formats/replication-wire.md");
    for frame in
        [Message::Request(request).encode(1), Message::Look(look).encode(LOOKS), Message::Seen(seen).encode(LOOKS)]
    {
        let hex: Vec<String> =
            bytes_of(&frame).chunks(8).map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        for row in &hex {
            assert!(document.contains(row.as_str()), "{row} is not in the document; the frame is\n{}", hex.join("\n"));
        }
    }
}
