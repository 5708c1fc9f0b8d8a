//! Space: what each recovery point takes, what forgetting it would free, and what nothing needs any more.
//!
//! The tables of all recovery points are followed at once; each page is read once, however many of them share it. In memory are
//! 16 to 32 bytes for each blob that is needed, and the pages that are waited for.

mod classes;
mod marks;
mod walk;

use crate::error::{Error, Result};
use crate::ids::{PackId, PointId};
use crate::layout::{self, ObjectName};
use crate::pack;
use crate::references;
use crate::repository::Repository;
use crate::retention::GroupBy;
use classes::Classes;
use jiff::Timestamp;
use marks::Mark;
use std::collections::HashMap;
use walk::Walk;

/// The space of one recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointSpace {
    /// Which.
    pub id: PointId,
    /// When it was taken.
    pub created: Timestamp,
    /// Bytes of what was backed up, holes included.
    pub source_bytes: u64,
    /// Bytes in packs that a restore of it may need: blobs, each once, with the pages of its tables.
    pub reachable_bytes: u64,
    /// Those among them that no other recovery point needs.
    pub unique_bytes: u64,
    /// Bytes of whole packs that no other recovery point needs anything of: what collecting frees as soon as this one alone is
    /// forgotten. The unique bytes in other packs become dead.
    pub freed_bytes: u64,
}

impl PointSpace {
    /// Bytes that other recovery points need as well.
    pub fn shared_bytes(&self) -> u64 {
        self.reachable_bytes - self.unique_bytes
    }
}

/// The space of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositorySpace {
    /// Objects of all kinds.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs among them.
    pub packs: u64,
    /// The bytes of the packs.
    pub pack_bytes: u64,
    /// Blobs that a recovery point needs.
    pub blobs: u64,
    /// Their plain bytes.
    pub plain_bytes: u64,
    /// Their bytes in packs.
    pub stored_bytes: u64,
    /// Bytes of what was backed up, over all recovery points.
    pub source_bytes: u64,
    /// Packs of which no recovery point needs anything: of recovery points that were forgotten, of runs that died, or of one that
    /// is going on.
    pub unused_packs: u64,
    /// The bytes of these packs: what collecting can free.
    pub unused_pack_bytes: u64,
    /// Bytes that the other packs would be shorter by without the blobs in them that no recovery point needs.
    pub dead_bytes: u64,
    /// Bytes that recovery points need of packs that are not there, and that the index does not know elsewhere: damage.
    pub missing_bytes: u64,
}

impl RepositorySpace {
    /// How many plain bytes one byte in a pack stands for; none if nothing is stored.
    pub fn compression(&self) -> Option<f64> {
        ratio(self.plain_bytes, self.stored_bytes)
    }

    /// How many bytes of what was backed up one plain byte stands for; none if nothing is stored.
    pub fn deduplication(&self) -> Option<f64> {
        ratio(self.source_bytes, self.plain_bytes)
    }
}

fn ratio(whole: u64, part: u64) -> Option<f64> {
    (part > 0).then(|| whole as f64 / part as f64)
}

/// What was found out about space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The recovery points, the oldest first.
    pub points: Vec<PointSpace>,
    /// The repository as a whole.
    pub repository: RepositorySpace,
    /// Pages of tables that were read.
    pub pages_read: u64,
}

/// Measures all recovery points.
///
/// One that cannot be read is an error, and so is a damaged page: what it shares with the others would be unknown, and every
/// number a guess.
pub async fn measure(repo: &Repository) -> Result<Space> {
    let mut read = Vec::new();
    for entry in repo.points().await? {
        match entry.point {
            Ok(point) => read.push(point),
            // Forgotten since it was listed.
            Err(Error::NoSuchPoint { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // Those of one source side by side, so that the sets of points that share something are ranges.
    read.sort_by_cached_key(|point| (GroupBy::Source.group(point), point.created, point.id.clone()));
    // The points before the packs: so each pack is listed that a point which is looked at needs.
    let (lens, mut repository) = survey(repo).await?;
    let mut walk = Walk::new(&lens);
    for (place, point) in (0..).zip(&read) {
        let class = walk.classes.of_one(place);
        for (table, values) in references::tables_of(point) {
            walk.add_table(&table, values, class);
        }
    }
    let points = read.into_iter().map(|point| PointSpace {
        id: point.id,
        created: point.created,
        source_bytes: point.stats.bytes,
        reachable_bytes: 0,
        unique_bytes: 0,
        freed_bytes: 0,
    });
    let points: Vec<_> = points.collect();
    repository.source_bytes = points.iter().map(|point| point.source_bytes).sum();
    walk.run(repo).await?;
    let pages_read = walk.pages;
    let (marks, mut classes) = (walk.marks, walk.classes);
    let packs = marks.into_packs(&mut classes);
    let mut sums = Sums { points, repository };
    sums.add_packs(packs, lens, &mut classes);
    sums.points.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Ok(Space { points: sums.points, repository: sums.repository, pages_read })
}

/// The lengths of all packs, and the sums over all objects.
async fn survey(repo: &Repository) -> Result<(HashMap<PackId, u64>, RepositorySpace)> {
    let (mut lens, mut space) = (HashMap::new(), RepositorySpace::default());
    let store = repo.store();
    let mut objects = store.list("domains/").await?;
    objects.extend(store.list(layout::EPOCHS).await?);
    let config = store.head(layout::CONFIG).await?;
    (space.objects, space.bytes) = (1, config);
    for object in objects {
        match layout::parse(&object.name) {
            ObjectName::Foreign => continue,
            ObjectName::Pack(id) => {
                lens.insert(id, object.size);
                space.packs += 1;
                space.pack_bytes += object.size;
            }
            _ => {}
        }
        space.objects += 1;
        space.bytes += object.size;
    }
    Ok((lens, space))
}

/// What adds up while the packs are gone through.
struct Sums {
    /// By their places.
    points: Vec<PointSpace>,
    repository: RepositorySpace,
}

impl Sums {
    fn add_packs(&mut self, packs: Vec<(PackId, Vec<Mark>)>, mut lens: HashMap<PackId, u64>, classes: &mut Classes) {
        let mut by_class = HashMap::<_, u64>::new();
        for (id, marks) in packs {
            let mut union = None;
            for mark in &marks {
                *by_class.entry(mark.class).or_default() += u64::from(mark.stored_len);
                union = Some(union.map_or(mark.class, |union| classes.union(union, mark.class)));
            }
            let only = union.and_then(|union| classes.only(union));
            self.add_pack(&marks, lens.remove(&id), only.and_then(|place| usize::try_from(place).ok()));
        }
        self.repository.unused_packs = lens.len() as u64;
        self.repository.unused_pack_bytes = lens.values().sum();
        for (class, bytes) in by_class {
            for (first, end) in classes.ranges(class) {
                self.points[*first as usize..*end as usize].iter_mut().for_each(|point| point.reachable_bytes += bytes);
            }
            if let Some(place) = classes.only(class) {
                self.points[place as usize].unique_bytes += bytes;
            }
        }
    }

    /// Adds a pack of which something is needed; `only` is who needs it, if that is one alone.
    fn add_pack(&mut self, marks: &[Mark], len: Option<u64>, only: Option<usize>) {
        let sum = |of: fn(&Mark) -> u32| marks.iter().map(|mark| u64::from(of(mark))).sum::<u64>();
        let stored = sum(|mark| mark.stored_len);
        self.repository.blobs += marks.len() as u64;
        self.repository.plain_bytes += sum(|mark| mark.plain_len);
        self.repository.stored_bytes += stored;
        let Some(len) = len else {
            self.repository.missing_bytes += stored;
            return;
        };
        self.repository.dead_bytes += len.saturating_sub(pack::len_with(marks.len() as u64, stored));
        if let Some(place) = only {
            self.points[place].freed_bytes += len;
        }
    }
}
