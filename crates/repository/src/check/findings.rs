//! Findings as they come together: what is wrong first, whom it hits later.

use super::Finding;
use crate::codec::Malformed;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BlobRef, PackId, PointId};
use crate::layout;
use crate::pack::PackDamage;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many different findings are kept; further ones are only counted, because a repository with more is lost as a whole.
const MAX_FINDINGS: usize = 100_000;

/// Everything that is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    by_object: BTreeMap<(String, String), BTreeSet<PointId>>,
    all_points: BTreeSet<PointId>,
    packs: HashMap<PackId, PackFindings>,
    dropped: u64,
}

/// The damage of one pack, by what it hits.
#[derive(Debug, Clone, Default)]
struct PackFindings {
    /// Damage of the pack's own structure: it hits whoever refers to the pack.
    structure: Vec<String>,
    /// Damage of one blob, by its offset.
    blobs: HashMap<u32, String>,
}

/// The packs that are damaged, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct DamagedPacks {
    packs: HashMap<PackId, PackFindings>,
}

impl DamagedPacks {
    /// Which.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PackId> + '_ {
        self.packs.keys().copied()
    }

    /// Keeps those that `keep` says.
    pub(crate) fn retain(&mut self, keep: impl Fn(&PackId) -> bool) {
        self.packs.retain(|id, _| keep(id));
    }
}

impl Findings {
    /// Makes known that there is such a recovery point.
    pub(super) fn name_point(&mut self, id: PointId) {
        self.all_points.insert(id);
    }

    pub(super) fn add(&mut self, object: &str, what: &str, point: Option<&PointId>) {
        let key = (object.to_owned(), what.to_owned());
        if self.by_object.len() < MAX_FINDINGS || self.by_object.contains_key(&key) {
            self.by_object.entry(key).or_default().extend(point.cloned());
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn add_for_all(&mut self, object: &str, what: &str) {
        self.add(object, what, None);
        if let Some(points) = self.by_object.get_mut(&(object.to_owned(), what.to_owned())) {
            points.extend(self.all_points.iter().cloned());
        }
    }

    /// Adds an error that tells of damage; any other is given back, because it ends the check.
    pub(super) fn add_error(&mut self, object: &str, error: Error, point: Option<&PointId>) -> Result<()> {
        match error {
            Error::Damaged { object, what } => self.add(&object, &what, point),
            Error::Missing { object } => self.add(&object, "it is missing", point),
            error => match error.kind() {
                ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Newer => {
                    self.add(object, &error.to_string(), point)
                }
                _ => return Err(error),
            },
        }
        Ok(())
    }

    /// Adds that a pack cannot say what it has, which is damage of its structure; an error that is not damage is given back.
    pub(super) fn add_lost_directory(&mut self, id: PackId, error: Error) -> Result<()> {
        let what = match error {
            Error::Damaged { what, .. } => what,
            Error::Missing { .. } => "it is missing".to_owned(),
            Error::Store(error) if Error::from(error.clone()).kind() == ErrorKind::Damaged => error.what(),
            error => return Err(error),
        };
        self.add_pack_damage(id, vec![PackDamage { what: Malformed::new(what), blob: None }]);
        Ok(())
    }

    /// Adds the damage of a pack, whose points are not known yet.
    pub(super) fn add_pack_damage(&mut self, id: PackId, damage: Vec<PackDamage>) {
        for PackDamage { what, blob } in damage {
            let what = what.to_string();
            self.add(&layout::pack(&id), &what, None);
            let pack = self.packs.entry(id).or_default();
            match blob {
                Some(blob) => _ = pack.blobs.insert(blob.offset, what),
                None if pack.structure.contains(&what) => {}
                None => pack.structure.push(what),
            }
        }
    }

    /// Takes over the damage of packs that an earlier look has found.
    pub(super) fn take_packs(&mut self, damaged: &DamagedPacks) {
        for (id, pack) in &damaged.packs {
            for what in pack.structure.iter().chain(pack.blobs.values()) {
                self.add(&layout::pack(id), what, None);
            }
        }
        self.packs.clone_from(&damaged.packs);
    }

    /// The packs that are damaged.
    pub(super) fn damaged_packs(&self) -> DamagedPacks {
        DamagedPacks { packs: self.packs.clone() }
    }

    /// Whether something is wrong with a blob, or with the pack that it is in.
    pub(super) fn is_damaged(&self, blob: &BlobRef) -> bool {
        let pack = self.packs.get(&blob.pack);
        pack.is_some_and(|pack| !pack.structure.is_empty() || pack.blobs.contains_key(&blob.offset))
    }

    /// Whether anything is wrong with the pack that a blob is in.
    pub(super) fn is_in_damaged_pack(&self, blob: &BlobRef) -> bool {
        self.packs.contains_key(&blob.pack)
    }

    /// Lets a recovery point that refers to a blob be hit by what is wrong with it.
    pub(super) fn hit(&mut self, blob: &BlobRef, point: &PointId) {
        let Some(pack) = self.packs.get(&blob.pack) else {
            return;
        };
        let name = layout::pack(&blob.pack);
        for what in pack.structure.iter().chain(pack.blobs.get(&blob.offset)) {
            if let Some(points) = self.by_object.get_mut(&(name.clone(), what.clone())) {
                points.insert(point.clone());
            }
        }
    }

    /// Tells all findings; gives their number.
    pub(super) fn tell(self, on_finding: &mut dyn FnMut(Finding)) -> u64 {
        let count = self.by_object.len() as u64 + self.dropped;
        for ((object, what), points) in self.by_object {
            on_finding(Finding { object, what, points: points.into_iter().collect() });
        }
        count
    }
}
