//! What the volumes of a run had in recovery points before it.

use std::collections::HashMap;

use api::VolumeBackup;
use mover::Form;
use repository::{PointEntry, PointId, Source, TableRef};

/// One volume, in the newest recovery point that has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parent {
    /// The recovery point.
    pub point: PointId,
    /// What it held: files, or of an image the segments that are not zeros only.
    pub held: u64,
    /// Older recovery points that have it, the newest first: the repository may refuse the newest as a parent for a while.
    pub older: Vec<PointId>,
}

/// Most older recovery points that a mover may fall back to.
const MOST_OLDER: usize = 8;

/// By `namespace/claim`, and the form: a claim for files may have been one for a device before, and they have nothing in common.
pub(super) type Parents = HashMap<(String, Form), Parent>;

/// By what the parent of a volume is found.
pub(super) fn key(volume: &VolumeBackup, form: Form) -> (String, Form) {
    (format!("{}/{}", volume.namespace, volume.claim), form)
}

/// What a content of a recovery point held; that of an image is known from its table, which has an entry for each segment with data.
pub(super) fn held(form: Form, files: u64, table: &TableRef) -> u64 {
    match form {
        Form::Files => files,
        Form::Image => table.entries,
    }
}

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
        for root in &point.roots {
            let Some(form) = Form::of(root.kind) else { continue };
            let held = held(form, root.files, &root.table);
            if held == 0 && !point.complete {
                continue;
            }
            let (key, mut older) = ((root.name.clone(), form), Vec::new());
            if let Some(before) = parents.remove(&key) {
                older.push(before.point);
                older.extend(before.older);
                older.truncate(MOST_OLDER);
            }
            parents.insert(key, Parent { point: point.id.clone(), held, older });
        }
    }
    parents
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use repository::{RecoveryPoint, Root, RootKind, Stats, TableRef};

    use super::*;

    fn tree() -> TableRef {
        let bytes = [1; TableRef::LEN];
        TableRef::decode(&mut repository::Fields::new(&bytes)).expect("a tree")
    }

    fn data(form: Form) -> (String, Form) {
        ("shop/data".to_owned(), form)
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
            let found = parents.get(&data(Form::Files)).map(|p| (p.point.to_string(), p.held));
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
        let older: Vec<_> = find(&many, "here")[&data(Form::Files)].older.iter().map(ToString::to_string).collect();
        assert_eq!(older, ["p18", "p17", "p16", "p15", "p14", "p13", "p12", "p11"]);
    }

    #[test]
    fn a_volume_that_was_one_of_files_is_no_parent_of_an_image() {
        let mut image = point(2, true, 0);
        let root = &mut image.point.as_mut().expect("a point").roots[0];
        root.kind = RootKind::Volume;
        let segments = root.table.entries;
        let parents = find(&[point(1, true, 5), image], "here");
        let of = |form| parents.get(&data(form)).map(|p| (p.point.to_string(), p.held, p.older.len()));
        assert_eq!(of(Form::Files), Some(("p1".into(), 5, 0)));
        assert_eq!(of(Form::Image), Some(("p2".into(), segments, 0)));
    }
}
