//! Runs of the program that are killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::kills::phases::{Command, Phase, Watch};
use crate::kills::world::{State, World, remove};
use crate::support::place::noise;

/// How often it is looked how far a process is.
const LOOK_EVERY: Duration = Duration::from_micros(300);
const FILES: u32 = 24;
const IMAGE_LEN: u64 = 12 << 20;
/// Recovery points that are kept from one round to the next.
const KEPT: usize = 3;

pub(crate) struct Victim<'a> {
    world: &'a World,
    number: u32,
    /// What was published, told or not, and must come back.
    points: BTreeMap<String, State>,
    /// How long each phase takes when nobody disturbs.
    usual: BTreeMap<Phase, Duration>,
}

/// How a run ended.
struct Ended {
    /// Unset if it was killed.
    status: Option<ExitStatus>,
    /// The phase that it was in.
    phase: Phase,
    spent: BTreeMap<Phase, Duration>,
}

impl<'a> Victim<'a> {
    /// Goes once through everything, to see how long it takes.
    pub(crate) fn new(world: &'a World, random: &mut StdRng) -> Self {
        fs::create_dir_all(world.place.path("victim/below")).unwrap();
        for number in 0..FILES {
            write_file(world, number, random);
        }
        File::create(world.place.path("disk")).unwrap().set_len(IMAGE_LEN).unwrap();
        let mut victim = Self { world, number: 0, points: BTreeMap::new(), usual: BTreeMap::new() };
        for command in [Command::Backup, Command::Restore, Command::Prune] {
            let ended = victim.run(command, random, |_, _| false);
            assert!(ended.status.is_some_and(|status| status.success()), "{command:?}");
            victim.usual.extend(ended.spent);
        }
        println!("undisturbed: {:?}", victim.usual);
        victim
    }

    pub(crate) fn points(&self) -> &BTreeMap<String, State> {
        &self.points
    }

    pub(crate) fn forget_some(&mut self) {
        while self.points.len() > KEPT {
            let (id, _) = self.points.pop_first().unwrap();
            self.world.place.run(&["forget", &id]).good();
        }
    }

    /// Runs what has this phase, and kills it there; gives the phase that it was killed in, and none if it had ended.
    pub(crate) fn kill_in(&mut self, wanted: Phase, random: &mut StdRng) -> Option<Phase> {
        let usual = self.usual.get(&wanted).copied().unwrap_or_default();
        let moment = usual.mul_f64(random.random_range(0.0..1.0));
        let is_due = move |phase, since| phase > wanted || (phase == wanted && since >= moment);
        let ended = self.run(wanted.command(), random, is_due);
        ended.status.is_none().then_some(ended.phase)
    }

    /// Leaves packs that nothing needs.
    pub(crate) fn dies_with_packs(&mut self, random: &mut StdRng) {
        let dies = (0..20).any(|_| self.kill_in(Phase::BackupReadsBack, random) == Some(Phase::BackupReadsBack));
        assert!(dies, "it always ended before");
    }

    fn run(&mut self, command: Command, random: &mut StdRng, is_due: impl Fn(Phase, Duration) -> bool) -> Ended {
        match command {
            Command::Backup => self.backup(random, is_due),
            Command::Restore => self.restore(random, is_due),
            Command::Prune => self.prune(random, is_due),
        }
    }

    fn backup(&mut self, random: &mut StdRng, is_due: impl Fn(Phase, Duration) -> bool) -> Ended {
        self.number += 1;
        let (id, place) = (format!("victim-{:06}", self.number), &self.world.place);
        let (path, mut words) = match self.number.is_multiple_of(3) {
            false => {
                (0..FILES / 3).for_each(|_| write_file(self.world, random.random_range(0..FILES), random));
                (place.path("victim"), vec!["backup"])
            }
            true => {
                write_image(self.world, random);
                (place.path("disk"), vec!["backup", "--image"])
            }
        };
        words.extend([path.to_str().unwrap(), "--id", &id, "-o", "name"]);
        if random.random_range(0..3) == 0 {
            words.push("--no-parent");
        }
        let state = State::of(&path);
        let ended = watched(self.world, &words, Watch::backup(place, &id), is_due);
        let told = fs::read_to_string(place.path("told")).unwrap();
        if let Some(status) = ended.status {
            assert!(status.success() && told == format!("{id}\n"), "{id}: {status}: {}", said(self.world));
        }
        // What was published before the kill is a fact, whether it was told or not. What was told was published.
        assert!(told.is_empty() || ended.phase == Phase::BackupIsPublished, "{told} is told, and not there");
        if ended.phase == Phase::BackupIsPublished {
            self.points.insert(id, state);
        }
        ended
    }

    fn restore(&self, random: &mut StdRng, is_due: impl Fn(Phase, Duration) -> bool) -> Ended {
        let (id, state) = self.points.iter().nth(random.random_range(0..self.points.len())).unwrap();
        let target = self.world.place.path("target");
        let words = ["restore", id, target.to_str().unwrap()];
        let ended = watched(self.world, &words, Watch::restore(&target), is_due);
        if let Some(status) = ended.status {
            assert!(status.success(), "{id}: {status}: {}", said(self.world));
        }
        // An image has its name only when it is whole.
        if ended.status.is_some() || target.is_file() {
            assert!(State::of(&target) == *state, "{id} comes back otherwise");
        }
        assert!(self.world.restored(id, &target) == *state, "{id} comes back otherwise when it is restored again");
        let unfinished = PathBuf::from(format!("{}.orlop-unfinished", target.display()));
        assert!(!unfinished.exists(), "{} stays", unfinished.display());
        ended
    }

    fn prune(&mut self, random: &mut StdRng, is_due: impl Fn(Phase, Duration) -> bool) -> Ended {
        self.make_garbage();
        let place = &self.world.place;
        // The shortest gives up the writer beside too.
        let dead_after = ["0s", "0s", "1s", "20s"][random.random_range(0..4)];
        let words = ["prune", "--dead-after", dead_after];
        fs::write(place.path("said"), "").unwrap();
        let ended = watched(self.world, &words, Watch::prune(place, &place.path("said")), is_due);
        if let Some(status) = ended.status {
            let waits = status.code() == Some(4);
            assert!(status.success() || waits, "prune: {status}: {}", said(self.world));
        }
        ended
    }

    /// A recovery point that is forgotten, so that a prune finds something to delete.
    fn make_garbage(&mut self) {
        self.number += 1;
        let id = format!("garbage-{:06}", self.number);
        let words = ["backup", "--stdin", "x", "--id", &id];
        let ran = self.world.place.command().args(words).write_stdin(noise(1000, u64::from(self.number))).output();
        assert!(ran.unwrap().status.success(), "{id}");
        self.world.place.run(&["forget", &id]).good();
    }
}

fn write_file(world: &World, number: u32, random: &mut StdRng) {
    let folder = if number.is_multiple_of(2) { "victim" } else { "victim/below" };
    let bytes = noise(random.random_range(0..600_000), u64::from(random.next_u32()));
    fs::write(world.place.path(folder).join(format!("file-{number}")), bytes).unwrap();
}

fn write_image(world: &World, random: &mut StdRng) {
    let image = File::options().write(true).open(world.place.path("disk")).unwrap();
    for _ in 0..10 {
        let len = random.random_range(1..400_000);
        let bytes = noise(len, u64::from(random.next_u32()));
        image.write_all_at(&bytes, random.random_range(0..IMAGE_LEN - len)).unwrap();
    }
}

fn said(world: &World) -> String {
    fs::read_to_string(world.place.path("said")).unwrap_or_default()
}

fn start(world: &World, words: &[&str]) -> Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"));
    command.envs(world.place.environment()).env_remove("RUST_LOG").arg("repo").args(words);
    let file = |path: &Path| Stdio::from(File::create(path).unwrap());
    command.stdin(Stdio::null()).stdout(file(&world.place.path("told"))).stderr(file(&world.place.path("said")));
    command.spawn().unwrap()
}

/// Runs the program, and kills it when that is due: at a phase, so long after it began.
fn watched(world: &World, words: &[&str], mut watch: Watch<'_>, is_due: impl Fn(Phase, Duration) -> bool) -> Ended {
    if let Watch::Restore { targets } = &watch {
        targets.iter().for_each(|target| remove(target));
    }
    let mut child = start(world, words);
    let (mut phase, mut since, mut spent) = (watch.phase(), Instant::now(), BTreeMap::new());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let now = watch.phase();
        if now != phase {
            spent.insert(phase, since.elapsed());
            (phase, since) = (now, Instant::now());
        }
        if is_due(phase, since.elapsed()) {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        thread::sleep(LOOK_EVERY);
    };
    spent.insert(phase, since.elapsed());
    let killed = status.signal() == Some(9);
    Ended { status: (!killed).then_some(status), phase: watch.phase(), spent }
}
