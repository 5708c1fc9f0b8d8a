//! The folders that are open while a listing is walked: a folder is stored when all that is in it has been.

use ::repository::tree::entry::Attributes;

use super::{Error, Finished, Run};
use crate::format::{BlobKind, NodeKind, Tree};

/// A folder whose content is not complete yet.
struct Open {
    name: Vec<u8>,
    attributes: Attributes,
    tree: Tree,
}

/// Folders, each in the one before.
#[derive(Default)]
pub(super) struct Stack {
    open: Vec<Open>,
}

impl Stack {
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Begins a folder in the innermost one.
    pub(super) fn open(&mut self, name: &[u8], attributes: Attributes) {
        self.open.push(Open { name: name.to_vec(), attributes, tree: Tree::default() });
    }

    /// How many of the folders are those of `path`, from the top.
    pub(super) fn common(&self, path: &[Vec<u8>]) -> usize {
        self.open.iter().zip(path).take_while(|(open, name)| open.name == **name).count()
    }

    /// Puts something into the innermost folder.
    pub(super) fn put(&mut self, name: &[u8], body: &[u8]) -> Result<(), Error> {
        let no_folder =
            || Error::Damaged { what: "a file tree".to_owned(), why: "it does not begin with its top".to_owned() };
        Ok(self.open.last_mut().ok_or_else(no_folder)?.tree.push(name, body)?)
    }

    /// Stores folders until so many are open; what the outermost became if that was one of them.
    pub(super) fn close(&mut self, run: &mut Run<'_>, depth: usize) -> Result<Option<Finished>, Error> {
        while self.open.len() > depth {
            let Some(Open { name, attributes, tree }) = self.open.pop() else { break };
            let subtree = run.target.put(BlobKind::Tree, &tree.finish()?)?;
            let body = run.node(&attributes, NodeKind::Directory { subtree }, 1).body()?;
            if self.open.is_empty() {
                return Ok(Some(Finished { body, tree: Some(subtree) }));
            }
            self.put(&name, &body)?;
        }
        Ok(None)
    }
}
