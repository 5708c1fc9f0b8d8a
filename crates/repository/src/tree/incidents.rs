//! What happened to single files while the rest went on.

use serde::{Deserialize, Serialize};

use super::TreePath;

/// Most paths of one list that are named; the rest is only counted. Enough to see a pattern, and a summary stays small.
pub const NAMED_PATHS: usize = 20;

/// Files that something happened to: all are counted, the first [`NAMED_PATHS`] are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Incidents {
    pub count: u64,
    pub first: Vec<Incident>,
}

/// One file and what happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Incident {
    /// Relative to the top of the tree, escaped for people.
    pub path: String,
    pub what: String,
}

impl Incidents {
    /// Counts one more.
    pub fn add(&mut self, path: &TreePath, what: impl Into<String>) {
        self.count += 1;
        if self.first.len() < NAMED_PATHS {
            self.first.push(Incident { path: path.to_string(), what: what.into() });
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
