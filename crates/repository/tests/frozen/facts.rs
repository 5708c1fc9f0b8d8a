//! What is in a repository, as it is written down beside it. `tools/reader/test_reader.py` makes the same of what it restores.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};
use futures::TryStreamExt;
use repository::table::Reader;
use repository::{Repository, RootKind, TableRef};
use serde::{Deserialize, Serialize};

/// The unit in which zeros of an image are passed over.
const CHUNK: usize = 64 << 10;

/// A whole fixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expected {
    /// Each of them opens it.
    pub(crate) passphrases: Vec<String>,
    /// All recovery points that count.
    pub(crate) points: BTreeMap<String, Point>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Point {
    pub(crate) tags: Vec<String>,
    /// The reason, if it is pinned.
    pub(crate) pinned: Option<String>,
    pub(crate) contents: BTreeMap<String, Content>,
    /// The tables of an application: how many entries each has, and the SHA-256 of all of them.
    pub(crate) tables: BTreeMap<String, (u64, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, tag = "kind")]
pub(crate) enum Content {
    /// Of each path, with bytes that are not printable ASCII as `\xNN`: type, mode, owner, links, size, time, attribute, and the SHA-256 of
    /// what it holds.
    Tree { entries: BTreeMap<String, String> },
    /// The length, and the SHA-256 of all chunks that are not only zeros, each after its number as `u64`.
    Image { bytes: u64, sha256: String },
}

impl Expected {
    pub(crate) fn read(path: &Path) -> Self {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, format!("{}\n", serde_json::to_string_pretty(self).unwrap())).unwrap();
    }
}

impl Content {
    pub(crate) fn of(kind: RootKind, target: &Path) -> Self {
        match kind {
            RootKind::Tree => Self::Tree { entries: tree(target) },
            RootKind::Volume | RootKind::Stream => image(target),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escaped(path: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'\\' | 0..0x20 | 0x7f.. => format!("\\x{byte:02x}"),
        _ => char::from(*byte).to_string(),
    };
    path.iter().map(escape).collect()
}

fn tree(top: &Path) -> BTreeMap<String, String> {
    let (mut entries, mut left) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let name = escaped(path.strip_prefix(top).unwrap().as_os_str().as_bytes());
        entries.insert(name, entry(&path, &about));
        if about.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    entries
}

fn entry(path: &Path, about: &fs::Metadata) -> String {
    let (kind, holds) = match about.file_type() {
        kind if kind.is_dir() => ("directory", String::new()),
        kind if kind.is_file() => ("file", hex(digest(&SHA256, &fs::read(path).unwrap()).as_ref())),
        kind if kind.is_symlink() => ("symlink", escaped(fs::read_link(path).unwrap().as_os_str().as_bytes())),
        kind if kind.is_fifo() => ("fifo", String::new()),
        kind if kind.is_char_device() => ("character-device", about.rdev().to_string()),
        kind => panic!("{} is {kind:?}", path.display()),
    };
    let mut value = [0; 256];
    let attribute = match rustix::fs::lgetxattr(path, "user.orlop", &mut value[..]) {
        Ok(len) => hex(&value[..len]),
        Err(_) => "-".to_owned(),
    };
    let (links, size) = if about.is_dir() { (0, 0) } else { (about.nlink(), about.size()) };
    let time = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
    let (mode, uid, gid) = (about.mode() & 0o7777, about.uid(), about.gid());
    format!("{kind} {mode:o} {uid}:{gid} {links} {size} {time} {attribute} {holds}")
}

fn image(path: &Path) -> Content {
    let (mut file, mut sum) = (File::open(path).unwrap(), Context::new(&SHA256));
    let (mut chunk, zeros) = (vec![0; CHUNK], vec![0; CHUNK]);
    for number in 0_u64.. {
        let mut len = 0;
        while len < CHUNK {
            match file.read(&mut chunk[len..]).unwrap() {
                0 => break,
                read => len += read,
            }
        }
        if len == 0 {
            break;
        }
        if chunk[..len] != zeros[..len] {
            sum.update(&number.to_le_bytes());
            sum.update(&chunk[..len]);
        }
    }
    Content::Image { bytes: file.metadata().unwrap().len(), sha256: hex(sum.finish().as_ref()) }
}

/// How many entries a table has, and the SHA-256 of keys and values, each after its length as `u64`.
pub(crate) async fn entries(repo: &Repository, table: TableRef) -> (u64, String) {
    let (mut count, mut sum) = (0, Context::new(&SHA256));
    let mut entries = std::pin::pin!(Reader::new(repo, table).scan(b""));
    while let Some((key, value)) = entries.try_next().await.unwrap() {
        count += 1;
        for part in [key, value] {
            sum.update(&(part.len() as u64).to_le_bytes());
            sum.update(&part);
        }
    }
    (count, hex(sum.finish().as_ref()))
}
