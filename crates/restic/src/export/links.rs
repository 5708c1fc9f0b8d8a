//! Files with several names.
//!
//! restic makes names of one file from nodes that are equal but for the name and say how many names there are. Orlop stores the content with
//! the first name and only then meets the others; so they are counted beforehand, and the node of the first is put aside, in a file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ::repository::tree::TreePath;

use crate::format::Id;

/// How many files with several names are remembered; some 40 MiB. Further names of others become files of their own.
const MOST_FILES: usize = 1 << 19;

/// The first bytes of the SHA-256 of a path.
type Key = [u8; 16];

/// What is known of a file with several names.
#[derive(Debug, Clone, Copy, Default)]
struct Linked {
    /// Names beside the first.
    others: u32,
    /// Where its node is put aside.
    offset: u64,
    len: u32,
}

/// Files with several names.
pub(super) struct Links {
    files: HashMap<Key, Linked>,
    aside: File,
    end: u64,
}

impl Links {
    pub(super) fn new(aside: File) -> Self {
        Self { files: HashMap::new(), aside, end: 0 }
    }

    /// Counts a further name of the file whose first name that is.
    pub(super) fn count(&mut self, first: &TreePath) {
        let key = key(first);
        if self.files.len() < MOST_FILES || self.files.contains_key(&key) {
            let file = self.files.entry(key).or_default();
            file.others = file.others.saturating_add(1);
        }
    }

    /// How many names a file has, by its first.
    pub(super) fn names(&self, first: &TreePath) -> u64 {
        let others = self.files.get(&key(first)).map_or(0, |file| file.others);
        u64::from(others) + 1
    }

    /// Puts the node of a file with several names aside.
    pub(super) fn put(&mut self, first: &TreePath, body: &[u8]) -> io::Result<()> {
        if let Some(file) = self.files.get_mut(&key(first)) {
            self.aside.write_all_at(body, self.end)?;
            file.offset = self.end;
            file.len = u32::try_from(body.len()).map_err(io::Error::other)?;
            self.end += body.len() as u64;
        }
        Ok(())
    }

    /// The node of the file with this first name, if it was put aside.
    pub(super) fn get(&self, first: &TreePath) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.files.get(&key(first)).filter(|file| file.len > 0) else { return Ok(None) };
        let mut body = vec![0; file.len as usize];
        self.aside.read_exact_at(&mut body, file.offset)?;
        Ok(Some(body))
    }
}

fn key(path: &TreePath) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&Id::of(path.as_key()).as_bytes()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_files_with_several_names_are_put_aside() {
        let mut links = Links::new(tempfile::tempfile().expect("a file"));
        let path = |name: &[u8]| TreePath::root().child(name);
        links.count(&path(b"a"));
        links.count(&path(b"a"));
        links.count(&path(b"b"));
        assert_eq!([b"a", b"b", b"c"].map(|name| links.names(&path(name))), [3, 2, 1]);
        for (name, body) in [(b"b", b"node b"), (b"a", b"node a"), (b"c", b"node c")] {
            links.put(&path(name), body).expect("write");
        }
        assert_eq!(links.get(&path(b"a")).expect("read").as_deref(), Some(&b"node a"[..]));
        assert_eq!(links.get(&path(b"b")).expect("read").as_deref(), Some(&b"node b"[..]));
        assert_eq!(links.get(&path(b"c")).expect("read"), None);
    }
}
