//! The writer that nobody kills. A prune may take it for dead, which it must be told; nothing else may go wrong.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::kills::world::{State, World};
use crate::support::place::noise;

/// Recovery points that it keeps.
const KEPT: usize = 3;
const FILES: u32 = 8;

pub(crate) struct Beside<'a> {
    world: &'a World,
    random: StdRng,
    number: u32,
    points: BTreeMap<String, State>,
    published: u32,
    revoked: u32,
    forgotten: u32,
}

impl<'a> Beside<'a> {
    pub(crate) fn new(world: &'a World, seed: u64) -> Self {
        fs::create_dir(world.place.path("beside")).unwrap();
        let random = StdRng::seed_from_u64(seed ^ 0xbe51de);
        Self { world, random, number: 0, points: BTreeMap::new(), published: 0, revoked: 0, forgotten: 0 }
    }

    pub(crate) fn points(&self) -> &BTreeMap<String, State> {
        &self.points
    }

    /// Whether it has published while others were killed, and has forgotten some of it.
    pub(crate) fn has_worked(&self) -> bool {
        self.published > 0 && self.forgotten > 0
    }

    pub(crate) fn told(&self) -> String {
        format!("{} published, {} forgotten, {} revoked", self.published, self.forgotten, self.revoked)
    }

    pub(crate) fn go_on_until(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.backup();
            if self.points.len() > KEPT {
                let (oldest, _) = self.points.pop_first().unwrap();
                self.world.place.run(&["forget", &oldest]).good();
                self.forgotten += 1;
            }
        }
    }

    fn backup(&mut self) {
        for _ in 0..3 {
            let name = format!("beside/file-{}", self.random.random_range(0..FILES));
            let bytes = noise(self.random.random_range(0..1_000_000), u64::from(self.random.next_u32()));
            fs::write(self.world.place.path(&name), bytes).unwrap();
        }
        self.number += 1;
        let (id, folder) = (format!("beside-{:06}", self.number), self.world.place.path("beside"));
        let state = State::of(&folder);
        let ran = self.world.place.run(&["backup", folder.to_str().unwrap(), "--id", &id, "-o", "name"]);
        assert!(!ran.stderr.contains("has lost something"), "{id} had a parent that it must not have: {}", ran.stderr);
        if ran.code == 1 && ran.stderr.contains("was revoked: it will never be published") {
            self.revoked += 1;
            return;
        }
        assert_eq!(ran.good(), format!("{id}\n"));
        self.points.insert(id, state);
        self.published += 1;
    }
}
