//! What the volumes of a run had in recovery points before it.

use std::collections::HashMap;

use repository::{PointEntry, PointId, Source, TableRef};

/// One volume, in the newest complete recovery point that has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parent {
    /// The recovery point.
    pub point: PointId,
    /// Files it had.
    pub files: u64,
    /// Its tree.
    pub root: TableRef,
}

/// By `namespace/claim`.
pub(super) type Parents = HashMap<String, Parent>;

/// Finds the parents among recovery points, in any order. A point that cannot be read is no parent; the location's status names it.
pub(super) fn find(entries: &[PointEntry], cluster: &str) -> Parents {
    let of_this_cluster =
        |source: &Source| matches!(source, Source::Application { cluster_id, .. } if cluster_id == cluster);
    let mut points: Vec<_> = entries.iter().filter_map(|e| e.point.as_ref().ok()).collect();
    points.retain(|point| point.complete && of_this_cluster(&point.source));
    points.sort_by_key(|point| point.created);
    let mut parents = Parents::new();
    for point in points {
        for root in &point.roots {
            let parent = Parent { point: point.id.clone(), files: root.files, root: root.table };
            parents.insert(root.name.clone(), parent);
        }
    }
    parents
}
