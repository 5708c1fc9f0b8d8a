//! What is attached, in a file that outlives this process but not this machine's running: with it the next process serves the same again.
//!
//! An entry is written before a device is made and removed after it is gone. A crash in between so leaves one too many at worst, which is attached again
//! and can be detached.

use crate::crypt::{DataKey, kept};
use crate::error::{Error, Kind, Result};
use replication::units::{AttachmentId, VolumeId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What `statfs` says of file systems that are memory: tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
const NAME: &str = "attached.json";

/// How something is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FrontEnd {
    Device,
    /// On a unix socket.
    Nbd,
    /// Over TCP, at this address.
    Tcp(SocketAddr),
}

impl FrontEnd {
    /// Whether what is served like this is what was asked for. Port 0 asks for any.
    pub(super) fn is_as(self, wanted: Self) -> bool {
        match (self, wanted) {
            (Self::Tcp(here), Self::Tcp(wanted)) => {
                here.ip() == wanted.ip() && [0, here.port()].contains(&wanted.port())
            }
            _ => self == wanted,
        }
    }
}

/// Something that is attached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) pool: String,
    /// VOLUME, or VOLUME@SNAPSHOT.
    pub(crate) name: String,
    pub(crate) front_end: FrontEnd,
    /// What its block device or socket is called. Without, it is the one of a program before this one, whose names did not have the folder in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    /// Of an encrypted volume. The secret that it is wrapped with is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "kept")]
    pub(crate) key: Option<DataKey>,
    /// Of a replicated volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replicated: Option<Served>,
}

/// What is to be known of a replicated volume that was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Served {
    /// Its id: 32 hexadecimal digits.
    volume: String,
    /// The attachment that has served it, the same way; none if it had been taken over by another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// The size of its device.
    pub(crate) bytes: u64,
}

impl Served {
    pub(super) fn new(volume: VolumeId, by: Option<AttachmentId>, bytes: u64) -> Self {
        Self { volume: format!("{:032x}", volume.0), by: by.map(|by| format!("{:032x}", by.0)), bytes }
    }

    /// The same with another size.
    pub(super) fn grown(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// The volume; none if somebody has changed the file.
    pub(crate) fn volume(&self) -> Option<VolumeId> {
        u128::from_str_radix(&self.volume, 16).ok().map(VolumeId)
    }

    pub(crate) fn by(&self) -> Option<AttachmentId> {
        u128::from_str_radix(self.by.as_deref()?, 16).ok().map(AttachmentId)
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    folder_id: u32,
    is_in_memory: bool,
    entries: Vec<Entry>,
}

impl Journal {
    /// Reads what an earlier process has left in the folder, which is made if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let error = |what: &str| {
            let what = format!("{what} {}", folder.display());
            move |source: io::Error| Error::new(Kind::Failed, what).because(source)
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(error("make the folder"))?;
        let system =
            File::open(folder).and_then(|folder| Ok(rustix::fs::fstatfs(folder)?)).map_err(error("look at"))?;
        let about = fs::metadata(folder).map_err(error("look at"))?;
        let place = [about.dev().to_le_bytes(), about.ino().to_le_bytes()].concat();
        let is_in_memory = u64::try_from(system.f_type).is_ok_and(|kind| IN_MEMORY.contains(&kind));
        let entries = match fs::read(folder.join(NAME)).map(Zeroizing::new) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| {
                let what = format!(
                    "understand {}; remove it if nothing of this node is attached",
                    folder.join(NAME).display()
                );
                Error::new(Kind::Failed, what).because(e)
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(error("read the list of what is attached in")(e)),
        };
        Ok(Self { folder: folder.to_owned(), folder_id: crc32c::crc32c(&place), is_in_memory, entries })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tells the folder from others on this machine, by whatever path and in whatever container they are seen.
    pub(crate) fn folder_id(&self) -> u32 {
        self.folder_id
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds an entry, in place of one of the same name.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<()> {
        if entry.key.is_some() && !self.is_in_memory {
            let what = format!(
                "attach {}: its key would be kept in {}, which is on a disk here; start the node with a --runtime-dir in memory, where a tmpfs is mounted, such as /run or /dev/shm on most machines",
                entry.name,
                self.folder.display()
            );
            return Err(Error::new(Kind::Precondition, what));
        }
        let mut entries = self.entries.clone();
        entries.retain(|other| other.name != entry.name);
        entries.push(entry);
        self.write(entries)
    }

    /// Removes the entry of this name.
    pub(crate) fn remove(&mut self, name: &str) -> Result<()> {
        let mut entries = self.entries.clone();
        entries.retain(|other| other.name != name);
        self.write(entries)
    }

    fn write(&mut self, entries: Vec<Entry>) -> Result<()> {
        let (path, new) = (self.folder.join(NAME), self.folder.join(format!("{NAME}.new")));
        let write = || {
            let json = Zeroizing::new(serde_json::to_vec_pretty(&entries)?);
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|e| Error::new(Kind::Failed, format!("write {}", path.display())).because(e))?;
        self.entries = entries;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry(name: &str, key: Option<DataKey>) -> Entry {
        Entry { pool: "p".into(), name: name.into(), front_end: FrontEnd::Device, label: None, key, replicated: None }
    }

    fn names(journal: &Journal) -> Vec<&str> {
        journal.entries().iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn what_is_added_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new/one");
        let mut journal = Journal::open(&folder).unwrap();
        for name in ["a", "b", "a"] {
            journal.add(entry(name, None)).unwrap();
        }
        assert_eq!(names(&Journal::open(&folder).unwrap()), ["b", "a"]);
        let mode = fs::metadata(folder.join(NAME)).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, fs::metadata(&folder).unwrap().permissions().mode() & 0o777), (0o600, 0o700));
        journal.remove("b").unwrap();
        journal.remove("never there").unwrap();
        assert_eq!(names(&Journal::open(&folder).unwrap()), ["a"]);
    }

    #[test]
    fn a_folder_is_the_same_by_whatever_path_and_another_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let id = |path: &Path| Journal::open(path).unwrap().folder_id();
        let first = id(&one);
        std::os::unix::fs::symlink(&one, folder.path().join("link")).unwrap();
        assert_eq!((id(&one), id(&folder.path().join("link"))), (first, first));
        assert_ne!(id(&other), first);
    }

    #[test]
    fn a_list_of_a_program_before_this_one_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let list = r#"[{ "pool": "p", "name": "data", "frontEnd": "device" }]"#;
        fs::write(folder.path().join(NAME), list).unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        assert!(matches!(journal.entry("data"), Some(Entry { label: None, front_end: FrontEnd::Device, .. })));
        assert!(journal.entry("other").is_none());
    }

    #[test]
    fn a_key_is_kept_in_memory_alone() {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut journal = Journal::open(memory.path()).unwrap();
        assert!(journal.is_in_memory, "/dev/shm is");
        journal.add(entry("a", Some(DataKey::random().unwrap()))).unwrap();
        assert!(Journal::open(memory.path()).unwrap().entries()[0].key.is_some());
        journal.is_in_memory = false;
        let error = journal.add(entry("b", Some(DataKey::random().unwrap()))).unwrap_err();
        assert!(error.kind() == Kind::Precondition && error.to_string().contains("/run"), "{error}");
        assert_eq!(names(&journal), ["a"]);
    }

    #[test]
    fn a_file_that_is_not_understood_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "[{]").unwrap();
        let error = Journal::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}
