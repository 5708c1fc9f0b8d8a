//! Scheduling without threads and without a clock: seeds choose disks, volumes and what they want, and what they got is compared with what they
//! should have got. `ORLOP_SIM_SEED` runs one seed, `ORLOP_SIM_SEEDS` more of them than usual.
//!
//! Each check is also run with a rule broken, and must notice it.

mod world;

use super::Limits;
use super::machine::Bounds;
use super::rules::Rule;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::num::NonZeroU64;
use world::{Client, Disk, World};

/// Worlds of each check.
const SEEDS: u64 = 10;

type Check = fn(u64, Option<Rule>) -> Result<String, String>;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn holds(check: Check) {
    let seeds = match number("ORLOP_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ORLOP_SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        match check(seed, None) {
            Ok(what) => println!("seed {seed}: {what}"),
            Err(what) => panic!("seed {seed} (ORLOP_SIM_SEED={seed} repeats it): {what}"),
        }
    }
}

fn is_noticed(check: Check, rule: Rule) {
    let noticed = (0..SEEDS).find_map(|seed| check(seed, Some(rule)).err().map(|what| (seed, what)));
    match noticed {
        Some((seed, what)) => println!("without {rule:?}, seed {seed}: {what}"),
        None => panic!("{rule:?} can be broken without anybody noticing it, in {SEEDS} seeds"),
    }
}

fn within(name: &str, value: u64, expected: u64, percent: u64) -> Result<(), String> {
    let off = value.abs_diff(expected) * 100;
    (off <= expected * percent)
        .then_some(())
        .ok_or_else(|| format!("{name}: {value}, and not {expected} give or take {percent} %"))
}

fn limits(iops: u64, bytes_per_second: u64) -> Limits {
    Limits { iops: NonZeroU64::new(iops), bytes_per_second: NonZeroU64::new(bytes_per_second) }
}

const UNLIMITED: Limits = Limits { iops: None, bytes_per_second: None };

/// A disk that is never what holds a volume up.
const FAST: Disk = Disk { channels: 64, request: 200_000, kib: 100 };

/// A volume gets its limit, and no more than a second's worth above it, also after it was idle and after the limit was changed.
fn limits_are_kept(seed: u64, broken: Option<Rule>) -> Result<String, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed, FAST, Bounds::default(), broken);
    let bytes = 4096 << random.random_range(0..5_u32);
    let depth = random.random_range(1..=64);
    let most = (1000 * depth as u64).min(8_000);
    let (first, second) = (random.random_range(20..most), random.random_range(20..most));
    // One of the two limits is the one that counts; the other leaves half as much again.
    let by_bytes = random.random();
    let of = |iops: u64| if by_bytes { limits(iops * 3 / 2, iops * bytes) } else { limits(iops, iops * bytes * 3 / 2) };
    let client = world.add(Client { depth, bytes, limits: of(first) });
    let other = world.add(Client { depth: 1, bytes: 4096, limits: UNLIMITED });
    world.run_to(8);
    within("a steady second", world.started(client, 3, 8), 5 * first, 5)?;
    world.rest(client, true);
    world.run_to(40);
    world.rest(client, false);
    world.run_to(45);
    let burst = world.started(client, 40, 45);
    if burst > 6 * first + depth as u64 {
        return Err(format!("after a rest {burst} requests in 5 seconds, where {first} are allowed in one"));
    }
    within("five seconds after a rest", burst, 6 * first, 5)?;
    world.limit(client, of(second));
    world.run_to(52);
    within("a second after the change", world.started(client, 47, 52), 5 * second, 5)?;
    if world.started(other, 0, 52) < 52 * 4_000 {
        return Err("the other volume is held up by a limit that is not its own".to_owned());
    }
    world.limit(client, UNLIMITED);
    world.run_to(53);
    if world.started(client, 52, 53) < second.max(depth as u64 * 1_000) {
        return Err("the limit was lifted, and still counts".to_owned());
    }
    Ok(format!("{first}, then {second} requests of {bytes} bytes a second, {depth} open"))
}

/// Two volumes that both want more than half get half each; one that wants less gets nearly what it would get alone.
fn shares_are_equal(seed: u64, broken: Option<Rule>) -> Result<String, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let channels = random.random_range(1..=8);
    let disk = Disk { channels, request: 0, kib: 250_000 };
    let bounds = Bounds { requests: channels, bytes: 8 << 20 };
    let mut told = Vec::new();
    for depth in 1..=8 {
        let small = Client { depth, bytes: 4096, limits: UNLIMITED };
        let mut world = World::new(seed, disk, bounds, broken);
        let (one, other) = (world.add(small), world.add(Client { depth: 256, ..small }));
        world.run_to(6);
        let (got, rest) = (world.bytes(one, 1, 6), world.bytes(other, 1, 6));
        let mut alone = World::new(seed, disk, bounds, None);
        let client = alone.add(small);
        alone.run_to(6);
        let solo = alone.bytes(client, 1, 6);
        let half = u64::midpoint(got, rest);
        told.push(format!("{depth}: {} %", got * 100 / (got + rest)));
        if 2 * depth > channels {
            within(&format!("depth {depth} of {channels}"), got, half, 5)?;
        } else {
            // It waits for one of the channels, and then has it.
            let channels = channels as u64;
            let least = solo * channels / (channels + 1) * 95 / 100;
            if got < least {
                return Err(format!("depth {depth} of {channels}: {got} bytes, alone {solo}"));
            }
        }
    }
    Ok(format!("{channels} channels; {}", told.join(", ")))
}

/// Volumes share by bytes, whatever the lengths of their requests.
fn shares_are_of_bytes(seed: u64, broken: Option<Rule>) -> Result<String, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let channels = random.random_range(1..=8);
    let disk = Disk { channels, request: 0, kib: 100_000 };
    let mut world = World::new(seed, disk, Bounds { requests: channels, bytes: 8 << 20 }, broken);
    let volumes = random.random_range(2..=5);
    let shifts: Vec<u32> =
        (0..volumes).map(|volume| if volume == 0 { 0 } else { random.random_range(0..=8) }).collect();
    let clients: Vec<_> =
        shifts.iter().map(|shift| world.add(Client { depth: 256, bytes: 4096 << shift, limits: UNLIMITED })).collect();
    world.run_to(22);
    let got: Vec<_> = clients.iter().map(|client| world.bytes(*client, 2, 22)).collect();
    let mean = got.iter().sum::<u64>() / volumes;
    for (got, shift) in got.iter().zip(&shifts) {
        within(&format!("requests of {} bytes among {shifts:?}", 4096 << shift), *got, mean, 6)?;
    }
    Ok(format!("{got:?} of requests of 4 KiB << {shifts:?}"))
}

/// Greedy volumes, and a light one, which has one short request at a time.
struct Crowd {
    world: World,
    heavy: Vec<usize>,
    light: usize,
    /// Nanoseconds that a request of the light one waits at most.
    bound: u64,
}

impl Crowd {
    fn new(seed: u64, broken: Option<Rule>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let channels = random.random_range(1..=16);
        let disk = Disk { channels, request: 200_000, kib: 4_000 };
        let bounds = Bounds { requests: 2 * channels, bytes: 1 << 20 };
        let mut world = World::new(seed, disk, bounds, broken);
        let greedy: u64 = random.random_range(1..=6);
        let heavy = (0..greedy)
            .map(|_| {
                let bytes = 4096 << random.random_range(0..=8_u32);
                world.add(Client { depth: random.random_range(8..=256), bytes, limits: UNLIMITED })
            })
            .collect();
        let light = world.add(Client { depth: 1, bytes: 4096, limits: UNLIMITED });
        world.run_to(3);
        // What is under way when it comes, and then a request of each other volume.
        let longest: u64 = 4096 << 8;
        let bytes = bounds.bytes + longest + greedy * longest;
        let requests = bounds.requests as u64 + greedy;
        let bound = (bytes / 1024 * disk.kib + requests * disk.request) * 11 / 10;
        Self { world, heavy, light, bound }
    }

    /// Requests that the light one has started a second, some time later.
    fn later(&mut self) -> u64 {
        self.world.run_to(7);
        self.world.started(self.light, 5, 7) / 2
    }
}

/// A request waits for no more than what is under way and a turn of each other volume; and a volume that gets no answers is, after a little more
/// than a second, as if it was not there.
fn nobody_starves(seed: u64, broken: Option<Rule>) -> Result<String, String> {
    let mut crowd = Crowd::new(seed, broken);
    let (waited, bound) = (crowd.world.account(crowd.light).longest, crowd.bound);
    if waited > bound || crowd.world.started(crowd.light, 0, 3) == 0 {
        return Err(format!("{waited} ns among {} others; the bound is {bound}", crowd.heavy.len()));
    }
    let mut without = Crowd::new(seed, None);
    without.world.rest(without.heavy[0], true);
    let free = without.later();
    crowd.world.stick(crowd.heavy[0]);
    let stuck = crowd.later();
    if stuck * 100 < free * 95 {
        return Err(format!("{free} requests a second without another volume, {stuck} when that gets no answers"));
    }
    let Crowd { world, heavy, .. } = &mut crowd;
    world.free(heavy[0]);
    world.run_to(10);
    let again = world.bytes(heavy[0], 8, 10);
    if heavy.get(1).is_some_and(|other| again * 2 < world.bytes(*other, 8, 10)) {
        return Err(format!("a volume that gets answers again gets {again} bytes"));
    }
    Ok(format!("{waited} ns of {bound} at most; {free} a second without another, {stuck} when that is stuck"))
}

#[test]
fn volumes_keep_to_their_limits() {
    holds(limits_are_kept);
}

#[test]
fn volumes_get_equal_shares_whatever_their_depths() {
    holds(shares_are_equal);
}

#[test]
fn volumes_get_equal_shares_whatever_their_lengths() {
    holds(shares_are_of_bytes);
}

#[test]
fn every_request_gets_its_turn() {
    holds(nobody_starves);
}

macro_rules! broken {
    ($($name:ident: $check:ident without $rule:ident,)*) => {
        $(
            #[test]
            fn $name() {
                is_noticed($check, Rule::$rule);
            }
        )*
    };
}

broken! {
    a_bucket_that_does_not_fill_is_noticed: limits_are_kept without Refill,
    a_bucket_without_a_brim_is_noticed: limits_are_kept without Burst,
    turns_by_requests_are_noticed: shares_are_of_bytes without Deficit,
    a_volume_that_keeps_its_turn_is_noticed: shares_are_equal without Turns,
    a_volume_that_is_not_given_its_turn_is_noticed: nobody_starves without Turns,
    a_disk_that_is_given_everything_is_noticed: shares_are_equal without Room,
    requests_that_never_end_are_noticed: nobody_starves without GiveUp,
    a_suspended_volume_that_takes_room_again_is_noticed: nobody_starves without OneAtATime,
}
