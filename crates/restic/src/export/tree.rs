//! A file tree as listings.

use ::repository::tree::entry::{Attributes, Device, Entry, Kind, Time};
use ::repository::tree::{self, EntryReader, TreePath};
use ::repository::{Root, TableRef};
use jiff::Timestamp;

use super::links::Links;
use super::stack::Stack;
use super::{Error, Finished, Run};
use crate::format::{self, Attribute, Node, NodeKind};

/// The first and the last second that restic can write: of the years 0 and 9999.
const TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_207_200 - 1;

impl Run<'_> {
    /// Stores a tree; gives its top.
    pub(super) fn tree(&mut self, root: &Root) -> Result<Finished, Error> {
        let table = root.table;
        let mut links = self.count_links(&table)?;
        let (mut entries, mut stack) = (EntryReader::new(self.source, &table), Stack::default());
        while let Some((path, entry)) = entries.next_entry()? {
            self.check_cancelled()?;
            let name = path.split().map(|(_, name)| name.to_vec()).unwrap_or_default();
            // The reader has seen to it that the folder of the entry is one of those that are open.
            stack.close(self, path.components().count())?;
            self.look_at(&path, &entry.attributes);
            match entry.kind {
                Kind::Directory => stack.open(&name, entry.attributes),
                Kind::HardLink { ref first } => {
                    let body = self.further_name(&table, &links, &path, first)?;
                    stack.put(&name, &body)?;
                }
                _ => {
                    let body = self.entry(&path, &entry, links.names(&path))?;
                    links.put(&path, &body).map_err(|error| self.aside(error))?;
                    stack.put(&name, &body)?;
                }
            }
        }
        let empty = || Error::Damaged { what: root.name.clone(), why: "the tree is empty".to_owned() };
        stack.close(self, 0)?.ok_or_else(empty)
    }

    fn aside(&self, source: std::io::Error) -> Error {
        let path = self.options.path.clone();
        Error::Target(format::Error::Io { action: "use a temporary file in", path, source })
    }

    fn count_links(&mut self, table: &TableRef) -> Result<Links, Error> {
        let mut links = Links::new(self.target.scratch()?);
        let mut entries = EntryReader::new(self.source, table);
        while let Some((_, entry)) = entries.next_entry()? {
            self.check_cancelled()?;
            if let Kind::HardLink { first } = &entry.kind {
                links.count(first);
            }
        }
        Ok(links)
    }

    /// Notes what of an entry restic cannot hold.
    fn look_at(&mut self, path: &TreePath, attributes: &Attributes) {
        if !TIMES.contains(&attributes.mtime.seconds) {
            self.note(path, "its time is not in the years 0 to 9999, and was brought there");
        }
        if let Some(attribute) =
            attributes.xattrs.iter().find(|attribute| std::str::from_utf8(&attribute.name).is_err())
        {
            self.note(path, format!("its attribute {} has a name that is no text", attribute.name.escape_ascii()));
        }
    }

    /// The node of anything but a folder or a further name.
    fn entry(&mut self, path: &TreePath, entry: &Entry, links: u64) -> Result<Vec<u8>, Error> {
        let kind = match &entry.kind {
            Kind::File(file) => NodeKind::File { size: file.size, content: self.file_content(path, file)? },
            Kind::Symlink { target } => NodeKind::Symlink { target: target.clone() },
            Kind::Fifo => NodeKind::Fifo,
            Kind::CharacterDevice(device) => NodeKind::CharacterDevice { number: number(*device) },
            Kind::BlockDevice(device) => NodeKind::BlockDevice { number: number(*device) },
            Kind::Directory | Kind::HardLink { .. } => {
                return Err(damaged(path, "its first name is that of a folder or of a link"));
            }
        };
        Ok(self.node(&entry.attributes, kind, links).body()?)
    }

    fn further_name(
        &mut self,
        table: &TableRef,
        links: &Links,
        path: &TreePath,
        first: &TreePath,
    ) -> Result<Vec<u8>, Error> {
        if let Some(body) = links.get(first).map_err(|error| self.aside(error))? {
            return Ok(body);
        }
        let found = self.runtime.block_on(tree::entry(self.source, table, first))?;
        let entry = found.ok_or_else(|| damaged(path, "its first name is missing"))?;
        self.note(path, "it was another name of a file, and became a file of its own: there are too many such files");
        self.entry(path, &entry, 1)
    }

    /// A node; `links` is how many names it has.
    pub(super) fn node(&self, attributes: &Attributes, kind: NodeKind, links: u64) -> Node {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let extended = attributes.xattrs.iter();
        Node {
            kind,
            mode: attributes.mode,
            modified: time(attributes.mtime),
            changed: time(attributes.ctime),
            uid: attributes.uid,
            gid: attributes.gid,
            inode: attributes.inode,
            device: number(attributes.device),
            links,
            attributes: extended
                .filter_map(|one| text(&one.name).map(|name| Attribute { name, value: one.value.clone() }))
                .collect(),
        }
    }
}

/// A time as far as restic knows it.
fn time(time: Time) -> Timestamp {
    let seconds = time.seconds.clamp(*TIMES.start(), *TIMES.end());
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or_default();
    Timestamp::new(seconds, nanoseconds).unwrap_or_default()
}

/// The number of a device as Linux has it.
fn number(device: Device) -> u64 {
    rustix::fs::makedev(device.major, device.minor)
}

fn damaged(path: &TreePath, why: &str) -> Error {
    Error::Damaged { what: format!("the entry {path}"), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_in_the_years_that_restic_can_write() {
        let text = |seconds, nanoseconds| time(Time { seconds, nanoseconds }).to_string();
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(-2, 500_000_000), "1969-12-31T23:59:58.5Z");
        assert_eq!(text(i64::MIN, 0), "0000-01-01T00:00:00Z");
        assert!(text(i64::MAX, 0).starts_with("9999-12-30"));
        assert_eq!(text(1_764_112_345, 93_840_100), "2025-11-25T23:12:25.0938401Z");
    }
}
