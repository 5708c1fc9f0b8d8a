//! The program is killed, again and again, at random points of a backup, a restore and a prune, beside a writer that goes on.
//!
//! The fault model: SIGKILL from outside, so a process ends between any two of its instructions, and what it had handed to the kernel stays.
//! (That a power failure takes nothing away that was reported either, is shown by `repository store::durability`.) The points are spread over
//! the whole of each run: a run that nobody disturbs shows how long each of its phases takes; then a phase is chosen that was hit least, and
//! in it a moment at random. Which phase a kill really hit is read from what it left.
//!
//! `ORLOP_KILLS` says how many kills (10), `ORLOP_SEED` from which seed. Each phase is hit at least once, however few they are.

mod beside;
mod phases;
mod victim;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rand::SeedableRng;
use rand::rngs::StdRng;

use beside::Beside;
use phases::Phase;
use victim::Victim;
use world::World;

/// Runs between two looks at everything.
const RUNS_EACH: usize = 15;
/// Runs for each kill that is wanted, at the most: some end before their kill comes, or are hit in another phase.
const ATTEMPTS: usize = 6;

/// Stops the writer beside, also when something has failed: it is waited for.
struct EndOfRound<'a>(&'a AtomicBool);

impl Drop for EndOfRound<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, and no number")))
}

#[test]
fn whatever_is_killed_what_was_reported_comes_back_and_the_space_of_the_dead_is_freed() {
    let kills = usize::try_from(number("ORLOP_KILLS").unwrap_or(10)).unwrap();
    let seed = number("ORLOP_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("ORLOP_SEED={seed} ORLOP_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new();
    let mut victim = Victim::new(&world, &mut random);
    let mut hit: BTreeMap<Phase, usize> = Phase::ALL.into_iter().map(|phase| (phase, 0)).collect();
    let mut beside = Beside::new(&world, seed);
    let mut misses = 0;
    // A kill may hit another phase than the one it was meant for, so it may take some more.
    let is_enough = |hit: &BTreeMap<_, _>| hit.values().sum::<usize>() >= kills && hit.values().all(|count| *count > 0);
    while !is_enough(&hit) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _ends = EndOfRound(&stop);
            scope.spawn(|| beside.go_on_until(&stop));
            for _ in 0..RUNS_EACH {
                let (least, _) = hit.iter().min_by_key(|(_, count)| **count).unwrap();
                match victim.kill_in(*least, &mut random) {
                    Some(phase) => *hit.get_mut(&phase).unwrap() += 1,
                    None => misses += 1,
                }
                if is_enough(&hit) {
                    break;
                }
            }
        });
        let points = victim.points().iter().chain(beside.points());
        world.everything_is_there(points.map(|(id, state)| (id.as_str(), state)));
        victim.forget_some();
        let attempts = misses + hit.values().sum::<usize>();
        assert!(attempts < ATTEMPTS * kills.max(Phase::ALL.len()), "{attempts} runs, and hit are only {hit:?}");
    }
    println!("killed in {hit:?}; {misses} runs ended before; beside: {}", beside.told());
    assert!(beside.has_worked(), "nothing was backed up beside: {}", beside.told());
    victim.dies_with_packs(&mut random);
    world.only_what_is_needed_is_left(victim.points().len() + beside.points().len());
    world.damage_would_be_noticed();
}
