//! Many applications at once, in a played time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { cluster: 12, location: 8, node: 3 };
const PATIENCE: Duration = Duration::from_secs(16);
/// How often a run that waits asks by itself, in seconds.
const POLL: i64 = 8;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a small number of seconds is a timestamp")
}

fn room(namespace: &str, location: &str, node: Option<&str>) -> Room {
    Room { namespace: namespace.into(), location: location.into(), node: node.map(Into::into) }
}

fn id(namespace: &str, number: usize) -> Id {
    (namespace.into(), format!("mover-{number}"))
}

/// An application with one run.
#[derive(Clone, Debug)]
struct Application {
    begins: i64,
    volumes: usize,
    location: String,
    node: Option<String>,
    /// How long each of its movers works; one that hangs has no end.
    seconds: Option<i64>,
    started: usize,
    first: Option<i64>,
}

impl Application {
    fn new(begins: i64, volumes: usize, location: &str, seconds: Option<i64>) -> Self {
        Self { begins, volumes, location: location.into(), node: None, seconds, started: 0, first: None }
    }
}

struct World {
    applications: BTreeMap<String, Application>,
    movers: Movers,
    ends: BTreeMap<Id, i64>,
    book: Book,
    most: usize,
}

impl World {
    fn new(applications: impl IntoIterator<Item = (String, Application)>) -> Self {
        let applications = applications.into_iter().collect();
        Self { applications, movers: Movers::default(), ends: BTreeMap::new(), book: Book::default(), most: 0 }
    }

    /// A run looks at its volumes: as many as four of its movers work at once.
    fn look(&mut self, namespace: &str, now: i64) {
        let app = self.applications.get_mut(namespace).expect("it is there");
        let own = self.movers.working.values().filter(|room| room.namespace == namespace).count();
        for _ in own..4 {
            if app.started == app.volumes || now < app.begins {
                return;
            }
            let id = id(namespace, app.started);
            let room = room(namespace, &app.location, app.node.as_deref());
            let ask = Ask { id: id.clone(), room: room.clone(), run: namespace.into() };
            if self.book.ask(&self.movers, ask, (&BOUNDS, PATIENCE), at(now)).is_err() {
                return;
            }
            app.started += 1;
            app.first.get_or_insert(now);
            self.movers.working.insert(id.clone(), room);
            self.movers.known.insert(id.clone());
            if let Some(seconds) = app.seconds {
                self.ends.insert(id, now + seconds);
            }
        }
    }

    fn check(&mut self) {
        let working = &self.movers.working;
        let most = |of: &dyn Fn(&Room) -> Option<String>| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            working.values().filter_map(of).for_each(|what| *counts.entry(what).or_default() += 1);
            counts.into_values().max().unwrap_or(0)
        };
        assert!(working.len() <= BOUNDS.cluster, "{} in the cluster", working.len());
        assert!(most(&|room| Some(room.location.clone())) <= BOUNDS.location, "of one location: {working:?}");
        assert!(most(&|room| room.node.clone()) <= BOUNDS.node, "on one node: {working:?}");
        self.most = self.most.max(working.len());
    }

    /// Lets time pass until `end`, or until nobody has anything left to do; when that was.
    fn run(&mut self, end: i64) -> i64 {
        let names: Vec<String> = self.applications.keys().cloned().collect();
        for now in 0..end {
            let over: Vec<Id> = self.ends.iter().filter(|(_, end)| **end <= now).map(|(id, _)| id.clone()).collect();
            for id in over {
                self.ends.remove(&id);
                self.movers.working.remove(&id);
                // The end of a mover wakes its own run, and those that are next.
                let woken = self.book.next(&self.movers, &BOUNDS);
                for run in std::iter::once(id.0).chain(woken) {
                    self.look(&run, now);
                }
            }
            for (index, name) in names.iter().enumerate() {
                if (now + i64::try_from(index).expect("few")) % POLL == 0 {
                    self.look(name, now);
                }
            }
            self.check();
            let busy = |app: &Application| app.seconds.is_some() && app.started < app.volumes;
            if self.ends.is_empty() && !self.applications.values().any(busy) {
                return now;
            }
        }
        end
    }
}

#[test]
fn two_hundred_applications_take_as_long_as_their_movers_do() {
    let one = |number: i64| {
        let mut app = Application::new(0, 5, &format!("location-{}", number % 3), Some(2 + number % 9));
        app.node = Some(format!("node-{}", number % 10));
        (format!("app-{number:03}"), app)
    };
    let mut world = World::new((0..200).map(one));
    let work: i64 = (0..200).map(|number| 5 * (2 + number % 9)).sum();
    let took = world.run(10_000);
    let least = work / i64::try_from(BOUNDS.cluster).expect("few");
    assert_eq!(world.most, BOUNDS.cluster);
    assert!(took < least * 5 / 4, "{took} s, and {least} s is the least");
}

#[test]
fn movers_that_hang_hold_up_nobody_but_their_own_application() {
    let mut world = World::new([
        ("hangs".into(), Application::new(0, 100, "a", None)),
        ("large".into(), Application::new(0, 400, "a", Some(10))),
        ("late".into(), Application::new(60, 1, "a", Some(10))),
        ("elsewhere".into(), Application::new(60, 1, "b", Some(10))),
    ]);
    let took = world.run(5_000);
    let started = |name: &str| world.applications[name].first.expect("it has begun");
    assert!(took < 5_000);
    // A place is free when one of ten seconds has ended, and it is asked for at the next look.
    assert!(started("late") - 60 <= 10 + POLL, "{}", started("late"));
    assert!(started("elsewhere") - 60 <= POLL, "{}", started("elsewhere"));
    assert_eq!(world.applications["hangs"].started, 4);
}

#[test]
fn of_two_that_wait_the_one_with_fewer_movers_is_next_and_of_equals_the_older() {
    let bounds = Bounds { cluster: 2, location: 2, node: 2 };
    let mut book = Book::default();
    let mut movers = Movers::default();
    let mut ask = |movers: &Movers, namespace: &str, number, second| {
        let ask = Ask { id: id(namespace, number), room: room(namespace, "l", None), run: namespace.into() };
        book.ask(movers, ask, (&bounds, PATIENCE), at(second))
    };
    let work = |movers: &mut Movers, namespace: &str, number| {
        movers.working.insert(id(namespace, number), room(namespace, "l", None));
        movers.known.insert(id(namespace, number));
    };
    assert_eq!(ask(&movers, "a", 0, 0), Ok(()));
    assert_eq!(ask(&movers, "a", 1, 0), Ok(()));
    assert_eq!(ask(&movers, "a", 1, 0), Ok(()), "who was let in once is let in again");
    work(&mut movers, "a", 0);
    work(&mut movers, "a", 1);
    assert_eq!(ask(&movers, "a", 2, 1), Err(Wait::Location("l".into())));
    assert_eq!(ask(&movers, "b", 0, 2), Err(Wait::Location("l".into())));
    assert_eq!(ask(&movers, "c", 0, 3), Err(Wait::Location("l".into())));
    movers.working.remove(&id("a", 0));
    // One place is free; `a` has one mover at work, `b` has none and waits longer than `c`.
    assert!(ask(&movers, "a", 2, 4).is_err());
    assert!(ask(&movers, "c", 0, 4).is_err());
    assert_eq!(ask(&movers, "b", 0, 4), Ok(()));
    work(&mut movers, "b", 0);
    movers.working.remove(&id("a", 1));
    assert!(ask(&movers, "b", 1, 5).is_err());
    // `c` has gone; after a while nobody waits for it.
    assert_eq!(ask(&movers, "a", 2, 25), Ok(()));
}

#[test]
fn who_was_let_in_counts_until_he_is_seen_but_not_for_ever() {
    let bounds = Bounds { cluster: 1, location: 1, node: 1 };
    let mut book = Book::default();
    let movers = Movers::default();
    let mut ask = |namespace: &str, second| {
        let ask = Ask { id: id(namespace, 0), room: room(namespace, "l", Some("n")), run: namespace.into() };
        book.ask(&movers, ask, (&bounds, PATIENCE), at(second))
    };
    assert_eq!(ask("a", 0), Ok(()));
    assert_eq!(ask("b", 1), Err(Wait::Node("n".into())));
    assert_eq!(ask("b", 31), Ok(()), "the operator died before it made the first one, or its pod was refused");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The bounds hold at every moment (see `check`), and everything that ends is done at last.
    #[test]
    fn bounds_hold_and_all_get_their_turn(
        apps in prop::collection::vec((0..100_i64, 1..12_usize, 0..4_u8, 0..6_u8, prop::option::weighted(0.9, 1..30_i64)), 1..40)
    ) {
        let one = |(number, (begins, volumes, location, node, seconds)): (usize, (i64, usize, u8, u8, Option<i64>))| {
            // Few enough hang for the others to have places on every node and of every location.
            let seconds = if number > 1 { seconds.or(Some(5)) } else { seconds };
            let mut app = Application::new(begins, if seconds.is_none() { 1 } else { volumes }, &format!("l{location}"), seconds);
            app.node = (node < 5).then(|| format!("n{node}"));
            (format!("app-{number}"), app)
        };
        let mut world = World::new(apps.into_iter().enumerate().map(one));
        prop_assert!(world.run(20_000) < 20_000);
    }
}
