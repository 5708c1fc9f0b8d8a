//! Secrets that do not end up in logs.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A value that prints as `[secret]` and is wiped from memory when it is dropped.
///
/// It serialises as the value itself, because a job carries it to a mover inside of a Kubernetes Secret.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The passphrase that opens a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Passphrase(Secret<String>);

impl Passphrase {
    /// Takes the text as it is: no trimming, no normalisation.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Secret::new(text.into()))
    }

    /// Takes the content of a file or of another place that holds a passphrase: without the line breaks (CR and LF) at its end, and
    /// otherwise as it is. What is not taken is wiped.
    pub fn from_content(mut content: Zeroizing<Vec<u8>>) -> Result<Self, NoPassphrase> {
        let len = content.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        content.truncate(len);
        if content.is_empty() {
            return Err(NoPassphrase::Empty);
        }
        match String::from_utf8(std::mem::take(&mut *content)) {
            Ok(text) => Ok(Self::new(text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                error.into_bytes().zeroize();
                Err(NoPassphrase::NotText { at })
            }
        }
    }

    /// The text, for what else it is to open.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.expose().as_bytes()
    }
}

/// Why content cannot be a passphrase. It does not say what the content was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPassphrase {
    /// There is nothing in it but line breaks.
    #[error("it is empty")]
    Empty,
    /// It is not UTF-8.
    #[error("a passphrase is text in UTF-8, and its byte {at} is not")]
    NotText {
        /// Counted from zero.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_at_the_end_do_not_belong_to_a_passphrase() {
        let check = |content: &[u8], expected: Result<&str, NoPassphrase>| {
            let taken = Passphrase::from_content(Zeroizing::new(content.to_vec()));
            assert_eq!(taken, expected.map(Passphrase::new), "{content:?}");
        };
        check(b"a b\n", Ok("a b"));
        check(b" a\n\r\n\n", Ok(" a"));
        check(b"a\nb", Ok("a\nb"));
        check(b"\r\n", Err(NoPassphrase::Empty));
        check(b"", Err(NoPassphrase::Empty));
        check(b"ab\xff", Err(NoPassphrase::NotText { at: 2 }));
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Passphrase::new("open sesame")), "Passphrase([secret])");
    }
}
