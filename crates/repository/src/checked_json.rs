//! Plain JSON objects that carry a checksum, for what must be readable before there is a key.
//!
//! One line: the object with `checksum` as its last field, whose 64 digits are the BLAKE3 of all bytes before them, then `"}`
//! and a line feed. So every byte is either hashed, part of the checksum, or fixed.

use crate::codec::{Malformed, to_hex};
use serde::Serialize;
use serde::de::DeserializeOwned;

const BEFORE: &str = ",\"checksum\":\"";
const AFTER: &str = "\"}\n";
const DIGITS: usize = 64;
/// How many bytes the checksum takes with what is around it.
pub(crate) const TAIL_LEN: usize = BEFORE.len() + DIGITS + AFTER.len();

/// Writes `value`, which must serialise as a JSON object with at least one field.
pub(crate) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, Malformed> {
    let json = serde_json::to_string(value).map_err(|error| Malformed::new(error.to_string()))?;
    let fields = json.strip_suffix('}').ok_or_else(|| Malformed::new("only an object can carry a checksum"))?;
    let mut text = format!("{fields}{BEFORE}");
    let checksum = blake3::hash(text.as_bytes());
    text.push_str(&to_hex(checksum.as_bytes()));
    text.push_str(AFTER);
    Ok(text.into_bytes())
}

/// Reads what [`write`] wrote; nothing else is accepted.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let wrong = || Malformed::new("its checksum is wrong");
    let end = bytes.len().checked_sub(DIGITS + AFTER.len()).ok_or_else(|| Malformed::new("it is cut off"))?;
    let (hashed, rest) = bytes.split_at(end);
    let (digits, after) = rest.split_at(DIGITS);
    if after != AFTER.as_bytes() || to_hex(blake3::hash(hashed).as_bytes()).as_bytes() != digits {
        return Err(wrong());
    }
    let fields = hashed.strip_suffix(BEFORE.as_bytes()).ok_or_else(wrong)?;
    let json = [fields, b"}"].concat();
    serde_json::from_slice(&json).map_err(|error| Malformed::new(format!("its fields are wrong: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_changed_byte_is_noticed() {
        let value = BTreeMap::from([("format".to_owned(), 1u32)]);
        let bytes = write(&value).unwrap();
        assert_eq!(read::<BTreeMap<String, u32>>(&bytes).unwrap(), value);
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                assert!(read::<BTreeMap<String, u32>>(&flipped).is_err(), "byte {position} bit {bit}");
            }
        }
        for cut in 0..bytes.len() {
            assert!(read::<BTreeMap<String, u32>>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
