//! Numbers in heads: little-endian, of fixed width.

use super::{Kind, WireError};
use std::fmt::Display;

/// Takes a head apart.
pub(super) struct Reader<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(kind: Kind, head: &'a [u8]) -> Self {
        Self { kind, rest: head }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.unfit("length", self.rest.len()));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireError> {
        self.take().map(u128::from_le_bytes)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.unfit("length", self.rest.len())) }
    }

    pub(super) fn unfit(&self, field: &'static str, value: impl Display) -> WireError {
        WireError::Field { kind: self.kind, field, value: value.to_string() }
    }

    /// What has no meaning here must be zero.
    pub(super) fn zero(&self, field: &'static str, value: u64) -> Result<(), WireError> {
        if value == 0 { Ok(()) } else { Err(self.unfit(field, value)) }
    }

    /// A text in the data of a frame.
    pub(super) fn text(&self, field: &'static str, data: &[u8], most: usize) -> Result<String, WireError> {
        match std::str::from_utf8(data) {
            Ok(text) if text.len() <= most => Ok(text.to_owned()),
            Ok(text) => Err(self.unfit(field, format_args!("{} bytes long", text.len()))),
            Err(error) => Err(self.unfit(field, error)),
        }
    }
}

/// As much of a text as may be sent.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
