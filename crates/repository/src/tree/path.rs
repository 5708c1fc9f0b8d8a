//! Paths inside a file tree, as they are written in the keys of its table.

use std::fmt;

use super::Error;

/// Longest file name that Linux knows, in bytes (`NAME_MAX`).
const NAME_LIMIT_BYTES: usize = 255;

/// Separates two components of a path. No file name can hold it, and no byte sorts before it.
const SEPARATOR: u8 = 0;

/// A path relative to the root of a tree: its components, separated by a zero byte. The root itself is empty.
///
/// The byte order of paths is the order of a walk: a directory is followed by everything below it before its next
/// sibling comes, because the separator sorts before every byte that a name can hold. A slash would not do:
/// `a.b` would come between `a` and `a/c`. Names are bytes, not text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of a tree.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads the key of an entry. Every component is a valid file name in the result, so that a path made from it
    /// cannot lead out of the tree.
    pub fn from_key(key: &[u8]) -> Result<Self, Error> {
        let path = Self(key.to_vec());
        if path.components().all(is_file_name) {
            Ok(path)
        } else {
            Err(Error::damaged(&path, "its name is not a file name"))
        }
    }

    /// The path of the entry `name` of this directory.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.0.is_empty() {
            bytes.extend_from_slice(&self.0);
            bytes.push(SEPARATOR);
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// Goes on to the entry `name` of this directory.
    pub(super) fn push(&mut self, name: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(SEPARATOR);
        }
        self.0.extend_from_slice(name);
    }

    /// Goes back to the directory whose key has this length.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// The directory and the name in it; nothing for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|&byte| byte == SEPARATOR) {
            None => (Self::root(), &self.0),
            Some(at) => (Self(self.0[..at].to_vec()), &self.0[at + 1..]),
        })
    }

    /// The names from the root down to this path.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        let count = if self.0.is_empty() { 0 } else { usize::MAX };
        self.0.split(|&byte| byte == SEPARATOR).take(count)
    }

    /// Whether this path lies below `directory`.
    #[must_use]
    pub fn is_below(&self, directory: &Self) -> bool {
        if directory.0.is_empty() {
            return !self.0.is_empty();
        }
        self.0.len() > directory.0.len() && self.0.starts_with(&directory.0) && self.0[directory.0.len()] == SEPARATOR
    }

    /// The path as the key of its entry.
    #[must_use]
    pub fn as_key(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the path for people: with slashes, and with everything that is not printable text escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str(".");
        }
        for (index, name) in self.components().enumerate() {
            if index > 0 {
                out.write_str("/")?;
            }
            for chunk in name.utf8_chunks() {
                for letter in chunk.valid().chars() {
                    match letter.is_control() || letter == '\\' {
                        true => write!(out, "{}", letter.escape_default())?,
                        false => write!(out, "{letter}")?,
                    }
                }
                for byte in chunk.invalid() {
                    write!(out, "\\x{byte:02x}")?;
                }
            }
        }
        Ok(())
    }
}

fn is_file_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_LIMIT_BYTES && !name.contains(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(components: &[&[u8]]) -> TreePath {
        components.iter().fold(TreePath::root(), |path, name| path.child(name))
    }

    #[test]
    fn byte_order_is_walk_order() {
        let walk: [&[&[u8]]; 8] = [
            &[],
            &[b"a"],
            &[b"a", b"\x01"],
            &[b"a", b"b"],
            &[b"a", b"b", b"c"],
            &[b"a", b"b.c"],
            &[b"a\x01"],
            &[b"a.b"],
        ];
        let keys: Vec<_> = walk.iter().map(|components| path(components)).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[test]
    fn a_path_is_taken_apart_as_it_was_put_together() {
        let deep = path(&[b"a", b"\xff b", b"c\n"]);
        assert_eq!(deep.components().collect::<Vec<_>>(), [&b"a"[..], b"\xff b", b"c\n"]);
        assert_eq!(deep.split(), Some((path(&[b"a", b"\xff b"]), &b"c\n"[..])));
        assert_eq!(path(&[b"a"]).split(), Some((TreePath::root(), &b"a"[..])));
        assert_eq!(TreePath::root().split(), None);
        assert_eq!(TreePath::root().components().count(), 0);
        assert_eq!(deep.to_string(), "a/\\xff b/c\\n");
    }

    #[test]
    fn below_is_not_beside() {
        let check = |inner: &[&[u8]], outer: &[&[u8]], expected| {
            assert_eq!(path(inner).is_below(&path(outer)), expected, "{inner:?} in {outer:?}");
        };
        check(&[b"a", b"b"], &[b"a"], true);
        check(&[b"a"], &[], true);
        check(&[b"ab"], &[b"a"], false);
        check(&[b"a"], &[b"a"], false);
        check(&[], &[], false);
    }

    #[test]
    fn keys_that_could_lead_out_of_the_tree_are_refused() {
        let check = |key: &[u8], expected: bool| {
            assert_eq!(TreePath::from_key(key).is_ok(), expected, "{}", key.escape_ascii());
        };
        check(b"", true);
        check(b"a\0b", true);
        check(b"...", true);
        check(b".", false);
        check(b"..", false);
        check(b"a\0..\0b", false);
        check(b"a/b", false);
        check(b"/etc", false);
        check(b"\0", false);
        check(b"a\0", false);
        check(b"a\0\0b", false);
        check(&[b'x'; 255], true);
        check(&[b'x'; 256], false);
    }
}
