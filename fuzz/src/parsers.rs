//! Parsers that the library offers to everybody.

use repository::tree::TreePath;
use repository::tree::entry::Entry;
use repository::volume::{Changes, Segment};
use repository::{RecoveryPoint, StoreConfig};

/// The value of an entry of a tree; what is read is written as the same bytes.
pub fn entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
    }
    if let Ok(path) = TreePath::from_key(bytes) {
        assert_eq!(path.as_key(), bytes);
        for name in bytes.split(|byte| *byte == 0).filter(|_| !bytes.is_empty()) {
            assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'), "{path:?}");
        }
    }
}

/// Key and value of an entry of a table of segments.
pub fn segment(bytes: &[u8]) {
    let Some((key, value)) = bytes.split_at_checked(Segment::KEY_LEN) else { return };
    if let Ok(segment) = Segment::decode(key, value) {
        assert_eq!((&segment.encode_key()[..], &segment.encode_value()[..]), (key, value));
    }
}

/// The document of a recovery point; it survives being written again.
pub fn point(bytes: &[u8]) {
    if let Ok(point) = serde_json::from_slice::<RecoveryPoint>(bytes) {
        let text = serde_json::to_vec(&point).expect("it was read");
        assert_eq!(serde_json::from_slice::<RecoveryPoint>(&text).expect("it was written"), point);
    }
}

/// A list of changed ranges; what is taken lies in the volume, in order, and apart.
pub fn changes(bytes: &[u8]) {
    let Some((size, text)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    if let Ok(changes) = Changes::parse(&String::from_utf8_lossy(text), size) {
        assert!(changes.spans().iter().all(|span| span.start < span.end && span.end <= size));
        assert!(changes.spans().windows(2).all(|pair| pair[0].end < pair[1].start));
    }
}

/// Where a store is.
pub fn url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (url, value) = text.split_once('\n').unwrap_or((&text, ""));
    let file = |name: &str| name.contains("FILE") || name.contains("BUNDLE") || name.contains("CREDENTIALS");
    // Variables that name a file would have it read.
    let env = |name: &str| (!file(name)).then(|| value.to_owned());
    if let Ok(config) = StoreConfig::from_url(url, &env) {
        let json = serde_json::to_string(&config).expect("it has only texts");
        assert_eq!(serde_json::from_str::<StoreConfig>(&json).expect("it was written"), config);
    }
}
