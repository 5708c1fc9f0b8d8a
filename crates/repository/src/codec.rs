//! Fixed-width little-endian fields, read with bounds.
//!
//! Every decoder of the format goes through [`Fields`], so that a length is compared with the bytes that are there before
//! anything is allocated for it: a hostile repository costs an error, not memory.

use std::borrow::Cow;

/// Bytes that do not follow the format; says what is wrong with them.
///
/// It does not know the object it was met in; the caller adds that with [`Malformed::in_object`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    /// Describes what is wrong.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(what.into())
    }

    /// Names the object that holds the bytes.
    pub fn in_object(self, object: impl Into<String>) -> crate::Error {
        crate::Error::Damaged { object: object.into(), what: self.0.into_owned() }
    }
}

/// A cursor over bytes that takes fields from the front.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| Malformed::new(format!("a field of {len} bytes has only {} bytes", self.rest.len())))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| Malformed::new(format!("a field of {N} bytes has only {} bytes", self.rest.len())))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a `u32`.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a `u64`.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a `u32` that counts things of at least `min_len` bytes each, and refuses a count that cannot fit.
    pub fn count(&mut self, min_len: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count.saturating_mul(min_len) > self.rest.len() {
            return Err(Malformed::new(format!("{count} entries do not fit into {} bytes", self.rest.len())));
        }
        Ok(count)
    }

    /// Takes bytes that must be these.
    pub fn expect(&mut self, expected: &[u8], what: &'static str) -> Result<(), Malformed> {
        if self.bytes(expected.len())? == expected {
            Ok(())
        } else {
            Err(Malformed::new(format!("the {what} is wrong")))
        }
    }

    /// Ends; bytes that are left are an error.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::new(format!("{} bytes follow the end", self.rest.len())))
        }
    }
}

/// Formats bytes as lowercase hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

/// Reads exactly `N` bytes of lowercase hexadecimal digits; one spelling per value, so names compare as text.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_and_the_end_is_checked() {
        let mut fields = Fields::new(&[1, 2, 0, 0, 0, 9]);
        assert_eq!(fields.u8(), Ok(1));
        assert_eq!(fields.u32(), Ok(2));
        assert!(fields.clone().finish().is_err());
        assert_eq!(fields.u8(), Ok(9));
        assert!(fields.clone().u8().is_err());
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn a_count_larger_than_the_bytes_is_refused() {
        assert!(Fields::new(&[255, 255, 255, 255, 0]).count(1).is_err());
        assert_eq!(Fields::new(&[1, 0, 0, 0, 0]).count(1), Ok(1));
    }

    #[test]
    fn hexadecimal_has_one_spelling() {
        assert_eq!(to_hex(&[0, 0xaf, 0x10]), "00af10");
        assert_eq!(from_hex::<3>("00af10"), Some([0, 0xaf, 0x10]));
        for wrong in ["00AF10", "00af1", "00af1g", "00af1000"] {
            assert_eq!(from_hex::<3>(wrong), None, "{wrong}");
        }
    }
}
