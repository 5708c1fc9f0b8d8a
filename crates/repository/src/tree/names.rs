//! The names in one directory.

use rustix::io::Errno;

/// The names that are still to come, in the order of their bytes, each once, and all of them in one piece of memory: a directory may
/// have millions.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    /// Where each is, the last first.
    places: Vec<Place>,
}

/// Takes names in any order.
#[derive(Debug, Default)]
pub(super) struct NamesBuilder {
    names: Names,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    /// A file name has at most 255 bytes.
    len: u8,
}

impl NamesBuilder {
    /// Fails where the names of a directory take more than 4 GiB, or one of them is none.
    pub(super) fn push(&mut self, name: &[u8]) -> Result<(), Errno> {
        let start = u32::try_from(self.names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
        let len = u8::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        self.names.bytes.extend_from_slice(name);
        self.names.places.push(Place { start, len });
        Ok(())
    }

    /// A name that comes twice counts once: a directory that is changed while it is listed may give it again.
    pub(super) fn finish(self) -> Names {
        let Names { bytes, mut places } = self.names;
        places.sort_unstable_by(|one, other| other.of(&bytes).cmp(one.of(&bytes)));
        places.dedup_by(|one, other| one.of(&bytes) == other.of(&bytes));
        Names { bytes, places }
    }
}

impl Place {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..][..usize::from(self.len)]
    }
}

impl Names {
    pub(super) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        self.places.retain(|place| keep(place.of(&self.bytes)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl Iterator for Names {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.places.pop().map(|place| place.of(&self.bytes).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_order_and_each_once() {
        let mut builder = NamesBuilder::default();
        for name in [&b"b"[..], b"a.b", b"\xff", b"b", b"a", b"a\x01", b"b"] {
            builder.push(name).unwrap();
        }
        let mut names = builder.finish();
        names.retain(|name| name != b"a.b");
        assert!(!names.is_empty());
        assert_eq!(names.collect::<Vec<_>>(), [&b"a"[..], b"a\x01", b"b", b"\xff"]);
    }

    #[test]
    fn what_is_no_file_name_is_refused() {
        assert_eq!(NamesBuilder::default().push(&[b'x'; 256]), Err(Errno::NAMETOOLONG));
    }
}
