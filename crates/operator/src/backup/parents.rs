//! What the volumes of a run had in recovery points before it.

use std::collections::HashMap;

use repository::{PointEntry, PointId, RootKind, Source};

/// One volume, in the newest recovery point that has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parent {
    /// The recovery point.
    pub point: PointId,
    /// Files it had.
    pub files: u64,
    /// Older recovery points that have it, the newest first: the repository may refuse the newest as a parent for a while.
    pub older: Vec<PointId>,
}

/// Most older recovery points that a mover may fall back to.
const MOST_OLDER: usize = 8;

/// By `namespace/claim`.
pub(super) type Parents = HashMap<String, Parent>;

/// Finds the parents among recovery points, in any order. A point that cannot be read is no parent; the location's status names it. One
/// that lacks something is: a volume that it has is as good as any. But a volume that it has as empty may be what it was missed for, so
/// that tells nothing of what the volume should hold.
pub(super) fn find(entries: &[PointEntry], cluster: &str) -> Parents {
    let of_this_cluster =
        |source: &Source| matches!(source, Source::Application { cluster_id, .. } if cluster_id == cluster);
    let mut points: Vec<_> = entries.iter().filter_map(|e| e.point.as_ref().ok()).collect();
    points.retain(|point| of_this_cluster(&point.source));
    points.sort_by_key(|point| point.created);
    let mut parents = Parents::new();
    for point in points {
        let trees = point.roots.iter().filter(|root| root.kind == RootKind::Tree);
        for root in trees.filter(|root| point.complete || root.files > 0) {
            let mut older = Vec::new();
            if let Some(before) = parents.remove(&root.name) {
                older.push(before.point);
                older.extend(before.older);
                older.truncate(MOST_OLDER);
            }
            parents.insert(root.name.clone(), Parent { point: point.id.clone(), files: root.files, older });
        }
    }
    parents
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use repository::{RecoveryPoint, Root, Stats, TableRef};

    use super::*;

    fn tree() -> TableRef {
        let bytes = [1; TableRef::LEN];
        TableRef::decode(&mut repository::Fields::new(&bytes)).expect("a tree")
    }

    /// A recovery point of the cluster `here` with that many files in the volume `shop/data`.
    fn point(second: i64, complete: bool, files: u64) -> PointEntry {
        let created = Timestamp::from_second(second).expect("a small number of seconds is a timestamp");
        let id: PointId = format!("p{second}").parse().expect("a name");
        let root = Root {
            name: "shop/data".into(),
            kind: RootKind::Tree,
            table: tree(),
            files,
            bytes: files,
            changed_while_read: 0,
            started: created,
            finished: created,
            claim: None,
        };
        let point = RecoveryPoint {
            version: RecoveryPoint::VERSION,
            id: id.clone(),
            created,
            source: Source::Application {
                cluster_id: "here".into(),
                cluster_name: None,
                backup: String::new(),
                namespaces: Vec::new(),
            },
            tags: repository::Tags::default(),
            complete,
            objects: None,
            ledger: None,
            roots: vec![root],
            sessions: Vec::new(),
            packs: Vec::new(),
            stats: Stats::default(),
        };
        PointEntry { id, point: Ok(point) }
    }

    #[test]
    fn a_volume_is_measured_by_the_last_point_that_tells_something_of_it() {
        let check = |points: &[PointEntry], expected: Option<(&str, u64)>| {
            let parents = find(points, "here");
            let found = parents.get("shop/data").map(|p| (p.point.to_string(), p.files));
            assert_eq!(found, expected.map(|(id, files)| (id.to_owned(), files)));
        };
        check(&[point(2, true, 7), point(1, true, 5)], Some(("p2", 7)));
        check(&[point(1, false, 5)], Some(("p1", 5)));
        check(&[point(1, true, 5), point(2, false, 6)], Some(("p2", 6)));
        check(&[point(1, false, 5), point(2, false, 0)], Some(("p1", 5)));
        check(&[point(1, true, 0)], Some(("p1", 0)));
        check(&[point(1, false, 0)], None);
        assert!(find(&[point(1, true, 5)], "elsewhere").is_empty());
        let many: Vec<_> = (1..20).map(|second| point(second, true, 5)).collect();
        let older: Vec<_> = find(&many, "here")["shop/data"].older.iter().map(ToString::to_string).collect();
        assert_eq!(older, ["p18", "p17", "p16", "p15", "p14", "p13", "p12", "p11"]);
    }
}
