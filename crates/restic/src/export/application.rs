//! The objects of an application and its ledger, as files that a person can read: canonical JSON.

use ::repository::tree::entry::{Attributes, Time};
use ::repository::{TableRef, canonical_json, table};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value};

use super::content::Cutter;
use super::places::file_name;
use super::stack::Stack;
use super::{Error, Finished, Run};
use crate::format::NodeKind;

/// The folder of the core group, whose name is empty; a group that has this name gets another folder.
const CORE: &str = "core";

/// What the key of an object says.
struct Key<'a> {
    in_namespace: bool,
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Key<'a> {
    fn decode(key: &'a [u8]) -> Result<Self, Error> {
        let damaged =
            || Error::Damaged { what: "the table of objects".to_owned(), why: "a key names no object".to_owned() };
        let text = std::str::from_utf8(key).map_err(|_| damaged())?;
        match text.split('\0').collect::<Vec<_>>()[..] {
            [scope @ ("a" | "c"), group, kind, namespace, name] => {
                Ok(Self { in_namespace: scope == "a", group, kind, namespace, name })
            }
            _ => Err(damaged()),
        }
    }

    /// The folders of the object, from `objects` on, and its file. Keys come in the order of these folders, so each is met once.
    fn place(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let scope = if self.in_namespace { "namespaced" } else { "cluster" };
        let group = match self.group {
            "" => CORE.into(),
            CORE => b"%63ore".to_vec(),
            group => file_name(group, ""),
        };
        let mut folders = vec![Vec::new(), scope.into(), group, file_name(self.kind, "")];
        if self.in_namespace {
            folders.push(file_name(self.namespace, ""));
        }
        (folders, file_name(self.name, ".json"))
    }
}

impl Run<'_> {
    /// Stores the objects, one file for each.
    pub(super) fn objects(&mut self, table: TableRef) -> Result<Finished, Error> {
        let mut stack = Stack::default();
        stack.open(b"", self.made_up(0o755));
        let mut entries = table::Reader::new(self.source, table).scan(&[]).boxed();
        while let Some((key, value)) = self.runtime.block_on(entries.try_next())? {
            let (folders, file) = Key::decode(&key)?.place();
            stack.close(self, stack.common(&folders))?;
            for folder in &folders[stack.depth()..] {
                stack.open(folder, self.made_up(0o755));
            }
            let body = self.small_file(&value)?;
            stack.put(&file, &body)?;
        }
        let empty = || Error::Damaged { what: "the table of objects".to_owned(), why: "it has no top".to_owned() };
        stack.close(self, 0)?.ok_or_else(empty)
    }

    /// Stores the ledger: a line for each thing that was wanted.
    pub(super) fn ledger(&mut self, table: TableRef) -> Result<Finished, Error> {
        let mut entries = table::Reader::new(self.source, table).scan(&[]).boxed();
        let mut cutter = Cutter::new();
        while let Some(entry) = self.runtime.block_on(entries.try_next())? {
            cutter.data(self, &line(&entry)?)?;
        }
        let (content, size) = cutter.finish(self)?;
        self.file_node(size, content)
    }

    /// Stores the recovery point itself.
    pub(super) fn document(&mut self) -> Result<Finished, Error> {
        let bytes = canonical_json::to_bytes(self.point)
            .map_err(|error| Error::Damaged { what: "the document".to_owned(), why: error.to_string() })?;
        let body = self.small_file(&bytes)?;
        Ok(Finished { body, tree: None })
    }

    fn small_file(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut cutter = Cutter::new();
        cutter.data(self, bytes)?;
        let (content, size) = cutter.finish(self)?;
        Ok(self.file_node(size, content)?.body)
    }

    /// What only the owner may read that holds Secrets.
    pub(super) fn file_node(&self, size: u64, content: Vec<crate::format::Id>) -> Result<Finished, Error> {
        let node = self.node(&self.made_up(0o600), NodeKind::File { size, content }, 1);
        Ok(Finished { body: node.body()?, tree: None })
    }

    /// The attributes of what was no file before: those of the recovery point's time, and of root.
    pub(super) fn made_up(&self, mode: u32) -> Attributes {
        let created = self.point.created;
        let nanoseconds = u32::try_from(created.subsec_nanosecond()).unwrap_or_default();
        let time = Time { seconds: created.as_second(), nanoseconds };
        Attributes { mode, mtime: time, ctime: time, ..Attributes::default() }
    }
}

/// An entry of the ledger with what it is about.
fn line((key, value): &(Bytes, Bytes)) -> Result<Vec<u8>, Error> {
    let damaged = |why: String| Error::Damaged { what: "the ledger".to_owned(), why };
    let about = Key::decode(key)?;
    let mut fields: Map<String, Value> = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
    let scope = if about.in_namespace { "namespaced" } else { "cluster" };
    let names = [
        ("scope", scope),
        ("group", about.group),
        ("kind", about.kind),
        ("namespace", about.namespace),
        ("name", about.name),
    ];
    fields.extend(names.map(|(name, value)| (name.to_owned(), Value::from(value))));
    let mut line = canonical_json::to_bytes(&fields).map_err(|error| damaged(error.to_string()))?;
    line.push(b'\n');
    Ok(line)
}
