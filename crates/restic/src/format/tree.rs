//! Listings of folders.

use std::ops::Range;

use super::error::{Error, Result};
use super::node::named;

const BEGIN: &[u8] = b"{\"nodes\":[";
/// The line end belongs to it: restic hashes it along.
const END: &[u8] = b"]}\n";

/// A listing that is being written: restic has one document for a folder, with all that is in it, so all of it is in memory.
#[derive(Debug)]
pub struct Tree {
    json: Vec<u8>,
    /// The name of each node, and where it is.
    nodes: Vec<(Vec<u8>, Range<usize>)>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { json: BEGIN.to_vec(), nodes: Vec::new() }
    }
}

impl Tree {
    /// Adds a node; they may come in any order.
    pub fn push(&mut self, name: &[u8], body: &[u8]) -> Result<()> {
        if !self.nodes.is_empty() {
            self.json.push(b',');
        }
        let start = self.json.len();
        named(name, body, &mut self.json)?;
        self.nodes.push((name.to_vec(), start..self.json.len()));
        Ok(())
    }

    /// The bytes of the blob, the nodes in the order of their names.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        if !self.nodes.is_sorted_by(|(a, _), (b, _)| a < b) {
            self.sort()?;
        }
        self.json.extend_from_slice(END);
        Ok(self.json)
    }

    fn sort(&mut self) -> Result<()> {
        self.nodes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let twice = self.nodes.windows(2).find(|pair| pair[0].0 == pair[1].0);
        if let Some([(name, _), _]) = twice {
            let what = format!("the name {}", name.escape_ascii());
            return Err(Error::DoesNotFit { what, why: "it is twice in one folder".to_owned() });
        }
        let nodes: Vec<_> = self.nodes.iter().map(|(_, range)| &self.json[range.clone()]).collect();
        self.json = [BEGIN, &nodes.join(&b',')].concat();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_in_the_order_of_their_names() {
        let tree = |names: &[&[u8]]| {
            let mut tree = Tree::default();
            names.iter().try_for_each(|name| tree.push(name, b"}")).expect("JSON");
            tree.finish().map(|bytes| String::from_utf8(bytes).expect("text"))
        };
        assert_eq!(tree(&[]).expect("it fits"), "{\"nodes\":[]}\n");
        let sorted = "{\"nodes\":[{\"name\":\"a\",},{\"name\":\"a-b\",},{\"name\":\"a.b\",}]}\n";
        assert_eq!(tree(&[b"a", b"a-b", b"a.b"]).expect("it fits"), sorted);
        assert_eq!(tree(&[b"a.b", b"a", b"a-b"]).expect("it fits"), sorted);
        assert!(tree(&[b"b", b"a", b"b"]).is_err());
        assert!(tree(&[b"a", b"a"]).is_err());
    }
}
