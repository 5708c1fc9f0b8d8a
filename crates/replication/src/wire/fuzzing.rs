//! What the fuzz targets call.

use super::{Frames, Message};

/// What a peer sends, in pieces of a length that the first byte tells. What is taken is encoded to the bytes that it came as.
///
/// # Panics
/// If it is not.
pub fn frames(bytes: &[u8]) {
    let Some((piece, rest)) = bytes.split_first() else { return };
    let mut frames = Frames::new();
    frames.agreed(super::NEWEST);
    let mut taken = 0;
    for piece in rest.chunks(usize::from(*piece) + 1) {
        frames.room().extend_from_slice(piece);
        while let Ok(Some(message)) = frames.next_message() {
            let frame = message.encode(super::NEWEST);
            let front = frame.front();
            let is_first = matches!(message, Message::Hello(_) | Message::Welcome(_) | Message::Farewell(_));
            // (What a later version adds to the first messages is passed over.)
            let is_same = rest[taken..].starts_with(front) && rest[taken + front.len()..].starts_with(frame.data());
            assert!(is_first || is_same, "{message:?} came as other bytes");
            taken += frame.size();
        }
    }
}

/// The same behind a header that fits: the fields alone.
///
/// # Panics
/// If what is taken is not encoded to the bytes that it came as.
pub fn fields(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let kind = match kind & 3 {
        0 => super::Kind::Request,
        1 => super::Kind::Answer,
        2 => super::Kind::Look,
        _ => super::Kind::Seen,
    };
    let Some((head, data)) = rest.split_at_checked(kind.head()) else { return };
    if let Ok(message) = Message::decode(kind, head, bytes::Bytes::copy_from_slice(data)) {
        let frame = message.encode(super::NEWEST);
        assert_eq!((&frame.front()[super::HEADER..], &frame.data()[..]), (head, data));
    }
}
