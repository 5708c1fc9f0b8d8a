//! The repository, and what must be true of it whatever was killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;

use crate::support::place::{Place, flip};

/// Bytes that a pack has besides its blobs, at the most, for each blob and for itself; see the format.
const PACK_BESIDES: u64 = 40 + 16 + 20 + 4;
const BLOB_BESIDES: u64 = 45;

/// What was backed up, byte for byte: files by their names, or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Tree(BTreeMap<String, blake3::Hash>),
    Image(blake3::Hash),
}

impl State {
    pub(crate) fn of(path: &Path) -> Self {
        if !path.is_dir() {
            return Self::Image(hash(path));
        }
        let (mut files, mut folders) = (BTreeMap::new(), vec![path.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let found = entry.unwrap().path();
                if found.is_dir() {
                    folders.push(found);
                } else {
                    let name = found.strip_prefix(path).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, hash(&found));
                }
            }
        }
        Self::Tree(files)
    }
}

fn hash(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut File::open(path).unwrap(), &mut hasher).unwrap();
    hasher.finalize()
}

pub(crate) fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => drop(fs::remove_file(path)),
    }
}

pub(crate) struct World {
    pub(crate) place: Place,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { place: Place::new() }
    }

    /// What comes back of a recovery point, into a target in which an earlier restore may have left something.
    pub(crate) fn restored(&self, id: &str, target: &Path) -> State {
        self.place.run(&["restore", id, target.to_str().unwrap(), "--replace"]).good();
        let state = State::of(target);
        remove(target);
        state
    }

    /// Wants exactly these recovery points, each byte for byte, and a check of all bytes that finds nothing. Nobody else may be at work.
    pub(crate) fn everything_is_there<'a>(&self, points: impl Iterator<Item = (&'a str, &'a State)>) {
        let points: BTreeMap<_, _> = points.collect();
        let listed = self.place.run(&["list", "-o", "name"]).good();
        let mut listed: Vec<_> = listed.lines().collect();
        listed.sort_unstable();
        assert_eq!(listed, points.keys().copied().collect::<Vec<_>>(), "what is there is not what was reported");
        for (id, state) in points {
            assert!(self.restored(id, &self.place.path("comparison")) == *state, "{id} comes back otherwise");
        }
        self.place.run(&["check", "--read-data"]).good();
    }

    /// Prunes for the last time, and wants no more in the repository than its recovery points need.
    pub(crate) fn only_what_is_needed_is_left(&self, points: usize) {
        let before = self.stats()["packBytes"].as_u64().unwrap();
        // The second one is for what the first was not sure of, because it began with a collection of an earlier one.
        for _ in 0..2 {
            self.place.run(&["prune", "--dead-after", "0s"]).good();
        }
        let stats = self.stats();
        let number = |name: &str| stats[name].as_u64().unwrap();
        println!(
            "the last prunes made {before} bytes in packs {}, of which {} are needed and {} dead beside those",
            number("packBytes"),
            number("storedBytes"),
            number("deadBytes")
        );
        assert_eq!((number("unusedPacks"), number("missingBytes")), (0, 0), "{stats}");
        let besides = number("packs") * PACK_BESIDES + number("blobs") * BLOB_BESIDES;
        let most = number("storedBytes") + number("deadBytes") + besides;
        let packs = self.place.objects("domains/default/packs");
        let there: u64 = packs.iter().map(|pack| fs::metadata(pack).unwrap().len()).sum();
        assert!(there <= most && there < before, "{there} bytes of packs, {most} at most: {stats}");
        assert_eq!(self.place.objects("domains/default/sessions").len(), points, "sessions of the dead stay");
        for folder in ["domains/default/beats", "unfinished"] {
            assert_eq!(self.place.objects(folder), [] as [std::path::PathBuf; 0], "{folder}");
        }
    }

    fn stats(&self) -> Value {
        self.place.run(&["stats", "-o", "json"]).json()["repository"].clone()
    }

    /// The judge of all this can say no.
    pub(crate) fn damage_would_be_noticed(&self) {
        flip(&self.place.object("domains/default/packs"), 1000);
        self.place.run(&["check", "--read-data"]).ended(1);
    }
}
