//! A tree as a tar archive, in the format of POSIX (pax): what has no room in the old header is in records before it.
//!
//! Names are relative to the top of the tree. Attributes are records `SCHILY.xattr.…`, as GNU tar and others read them. Holes become zeros.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

use ::tar::{Builder, EntryType, Header};
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle as Runtime;

use super::entry::{Attributes, Device, Entry, File, Kind, Time};
use super::look::{self, write_zeros};
use super::{ContentReader, Error, Incidents, TreePath};
use crate::{Repository, TableRef};

/// The unit of an archive, in bytes.
const BLOCK_LEN: u64 = 512;
/// The longest name that goes into the old header, in bytes.
const NAME_LEN: usize = 100;
/// The greatest owner of a file that goes into the old header.
const MOST_ID: u32 = 0o7_777_777;
/// The greatest size and time that go into the old header.
const MOST_NUMBER: u64 = 0o77_777_777_777;
/// How many files are remembered that have their first name outside of the part that is written. Further ones are written as files of their
/// own: a path may have some KiB, and memory must not grow with the tree.
const MOST_MOVED: usize = 10_000;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TarSummary {
    /// Entries of any kind.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What an archive cannot hold.
    pub left_out: Incidents,
}

/// Writes the entry of that path and everything below it as an archive; every byte is verified before it is written.
pub async fn write_tar(
    repository: &Repository,
    root: &TableRef,
    path: &TreePath,
    out: impl Write + Send + 'static,
) -> Result<TarSummary, Error> {
    if look::entry(repository, root, path).await?.is_none() {
        return Err(Error::NoSuchEntry { path: path.to_string() });
    }
    let (repository, root, path) = (repository.clone(), *root, path.clone());
    let runtime = Runtime::current();
    let write = move || {
        let entries = look::entries(&repository, &root, &path).boxed();
        let contents = ContentReader::new(&repository);
        let (builder, moved, summary) =
            (Builder::new(Gate { out, shut: false }), HashMap::new(), TarSummary::default());
        Archive { repository, root, part: path, runtime, contents, builder, moved, summary }.write(entries)
    };
    tokio::task::spawn_blocking(write).await?
}

struct Archive<W: Write> {
    repository: Repository,
    root: TableRef,
    /// What is written of the tree.
    part: TreePath,
    runtime: Runtime,
    contents: ContentReader,
    builder: Builder<Gate<W>>,
    /// Where files are whose first name is not in the part.
    moved: HashMap<TreePath, TreePath>,
    summary: TarSummary,
}

/// Lets nothing through any more once it was shut.
struct Gate<W> {
    out: W,
    shut: bool,
}

impl<W: Write> Write for Gate<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shut { Err(io::ErrorKind::BrokenPipe.into()) } else { self.out.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is written, in order.
type Entries = BoxStream<'static, Result<(TreePath, Entry), Error>>;

/// The records before a header.
type Records = Vec<(String, Vec<u8>)>;

impl<W: Write> Archive<W> {
    fn write(mut self, entries: Entries) -> Result<TarSummary, Error> {
        if let Err(error) = self.all(entries) {
            // The builder ends an archive when it is dropped, and what is not whole must not look so.
            self.builder.get_mut().shut = true;
            return Err(error);
        }
        let failed = |source| failed(&TreePath::root(), source);
        self.builder.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
        Ok(self.summary)
    }

    fn all(&mut self, mut entries: Entries) -> Result<(), Error> {
        let runtime = self.runtime.clone();
        while let Some((path, entry)) = runtime.block_on(entries.try_next())? {
            self.entry(&path, &entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let Kind::HardLink { first } = &entry.kind else { return self.thing(path, entry) };
        if *first == self.part || first.is_below(&self.part) {
            return self.link(path, &entry.attributes, first);
        }
        if let Some(first) = self.moved.get(first).cloned() {
            return self.link(path, &entry.attributes, &first);
        }
        if self.moved.len() < MOST_MOVED {
            self.moved.insert(first.clone(), path.clone());
        }
        let found = self.runtime.block_on(look::entry(&self.repository, &self.root, first))?;
        match found {
            Some(found) if !matches!(found.kind, Kind::HardLink { .. } | Kind::Directory) => self.thing(path, &found),
            _ => Err(Error::damaged(path, "its first name is not that of a file")),
        }
    }

    fn link(&mut self, path: &TreePath, attributes: &Attributes, first: &TreePath) -> Result<(), Error> {
        // What is set on a link is set on the file, which has its attributes already.
        let (mut header, mut records) = self.header(path, attributes, EntryType::Link);
        set_target(&mut header, &mut records, &name(first, false)).map_err(|source| failed(path, source))?;
        self.put(path, &mut header, &records)
    }

    /// Writes anything that is not a further name.
    fn thing(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let attributes = &entry.attributes;
        let kind = match &entry.kind {
            Kind::Directory => EntryType::Directory,
            Kind::File(_) | Kind::HardLink { .. } => EntryType::Regular,
            Kind::Symlink { .. } => EntryType::Symlink,
            Kind::Fifo => EntryType::Fifo,
            Kind::CharacterDevice(_) => EntryType::Char,
            Kind::BlockDevice(_) => EntryType::Block,
        };
        let (mut header, mut records) = self.header(path, attributes, kind);
        self.extended_attributes(path, attributes, &mut records);
        match &entry.kind {
            Kind::File(file) => return self.file(path, file, header, records),
            Kind::Symlink { target } => set_target(&mut header, &mut records, target),
            Kind::CharacterDevice(device) | Kind::BlockDevice(device) => set_device(&mut header, *device),
            Kind::Directory | Kind::Fifo | Kind::HardLink { .. } => Ok(()),
        }
        .map_err(|source| failed(path, source))?;
        self.put(path, &mut header, &records)
    }

    fn file(&mut self, path: &TreePath, file: &File, mut header: Header, mut records: Records) -> Result<(), Error> {
        header.set_size(file.size);
        if file.size > MOST_NUMBER {
            records.push(("size".to_owned(), file.size.to_string().into_bytes()));
        }
        self.put(path, &mut header, &records)?;
        let out = self.builder.get_mut();
        let mut written = 0;
        self.contents.read(path, file, |offset, bytes| {
            let write = write_zeros(&mut *out, offset - written).and_then(|()| out.write_all(bytes));
            written = offset + bytes.len() as u64;
            write.map_err(|source| failed(path, source))
        })?;
        let padding = file.size.next_multiple_of(BLOCK_LEN) - file.size;
        write_zeros(out, file.size - written + padding).map_err(|source| failed(path, source))?;
        self.summary.bytes += file.size;
        Ok(())
    }

    /// The header and the records of what every kind has.
    fn header(&self, path: &TreePath, attributes: &Attributes, kind: EntryType) -> (Header, Records) {
        let (mut header, mut records) = (Header::new_ustar(), Records::new());
        header.set_entry_type(kind);
        header.set_mode(attributes.mode);
        header.set_size(0);
        header.set_uid(attributes.uid.min(MOST_ID).into());
        header.set_gid(attributes.gid.min(MOST_ID).into());
        for (key, id) in [("uid", attributes.uid), ("gid", attributes.gid)] {
            if id > MOST_ID {
                records.push((key.to_owned(), id.to_string().into_bytes()));
            }
        }
        let Time { seconds, nanoseconds } = attributes.mtime;
        let whole = u64::try_from(seconds).unwrap_or_default().min(MOST_NUMBER);
        header.set_mtime(whole);
        if nanoseconds > 0 || i64::try_from(whole) != Ok(seconds) {
            records.push(("mtime".to_owned(), decimal(attributes.mtime).into_bytes()));
        }
        let name = name(path, kind == EntryType::Directory);
        if name.len() > NAME_LEN || !name.is_ascii() {
            mark_bytes(&mut records, &name);
            records.push(("path".to_owned(), name.clone()));
        }
        if let Some(old) = header.as_ustar_mut() {
            let len = name.len().min(NAME_LEN);
            old.name[..len].copy_from_slice(&name[..len]);
        }
        (header, records)
    }

    fn extended_attributes(&mut self, path: &TreePath, attributes: &Attributes, records: &mut Records) {
        for attribute in &attributes.xattrs {
            // Percent and equals sign are written as GNU tar does, since an equals sign ends a key.
            match std::str::from_utf8(&attribute.name) {
                Ok(name) => {
                    let key = name.replace('%', "%25").replace('=', "%3D");
                    records.push((format!("SCHILY.xattr.{key}"), attribute.value.clone()));
                }
                Err(_) => {
                    let what = format!("its attribute {} has a name that is no text", attribute.name.escape_ascii());
                    self.summary.left_out.add(path, what);
                }
            }
        }
    }

    fn put(&mut self, path: &TreePath, header: &mut Header, records: &Records) -> Result<(), Error> {
        header.set_cksum();
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        let written =
            self.builder.append_pax_extensions(records).and_then(|()| self.builder.append(header, io::empty()));
        self.summary.entries += 1;
        written.map_err(|source| failed(path, source))
    }
}

/// The name in the archive; that of a directory ends with a slash.
fn name(path: &TreePath, is_directory: bool) -> Vec<u8> {
    let mut name = path.components().collect::<Vec<_>>().join(&b'/');
    if name.is_empty() {
        name.push(b'.');
    }
    if is_directory {
        name.push(b'/');
    }
    name
}

fn set_target(header: &mut Header, records: &mut Records, target: &[u8]) -> io::Result<()> {
    if target.len() > NAME_LEN || !target.is_ascii() {
        mark_bytes(records, target);
        records.push(("linkpath".to_owned(), target.to_vec()));
    }
    header.set_link_name_literal(&target[..target.len().min(NAME_LEN)])
}

fn set_device(header: &mut Header, device: Device) -> io::Result<()> {
    header.set_device_major(device.major)?;
    header.set_device_minor(device.minor)
}

/// Says that names in the records are bytes, where one is no text; must come before them.
fn mark_bytes(records: &mut Records, name: &[u8]) {
    let marked = records.first().is_some_and(|(key, _)| key == "hdrcharset");
    if !marked && std::str::from_utf8(name).is_err() {
        records.insert(0, ("hdrcharset".to_owned(), b"BINARY".to_vec()));
    }
}

/// A time as a decimal number of seconds, which rounds nothing.
fn decimal(time: Time) -> String {
    match (time.seconds, time.nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        // The nanoseconds count forward from the second before.
        (seconds, nanoseconds) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}

fn failed(path: &TreePath, source: io::Error) -> Error {
    Error::FileSystem { action: "write to the archive", path: PathBuf::from(path.to_string()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        let check = |seconds, nanoseconds, expected: &str| {
            assert_eq!(decimal(Time { seconds, nanoseconds }), expected);
        };
        check(1, 0, "1");
        check(1, 5, "1.000000005");
        check(-1, 0, "-1");
        check(-2, 500_000_000, "-1.500000000");
        check(-1, 999_999_999, "-0.000000001");
    }
}
