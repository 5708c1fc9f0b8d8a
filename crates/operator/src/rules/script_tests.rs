//! The scripts, in the shells of this machine.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// What a condition is waited for at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn limits(lease: u64, grace: u64) -> HookLimits {
    HookLimits { lease: Duration::from_secs(lease), grace: Duration::from_secs(grace), ..HookLimits::default() }
}

fn run_in(shell: &str, argv: &[String]) -> Told {
    let output = Command::new(shell).args(&argv[1..]).stdin(Stdio::null()).output().expect("a shell is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    read(&text).unwrap_or_else(|| panic!("{text:?}, {:?}", String::from_utf8_lossy(&output.stderr)))
}

/// A command under test; what it leaves goes with it.
struct Case {
    key: String,
    shell: &'static str,
}

impl Case {
    fn new(name: &str) -> Self {
        Self::within("sh", name)
    }

    fn within(shell: &'static str, name: &str) -> Self {
        Self { key: format!("test-{}-{shell}-{name}", std::process::id()), shell }
    }

    fn start(&self, command: &str, seconds: u64, background: bool, limits: &HookLimits) -> Told {
        let task = Task { key: &self.key, command, time_limit: Duration::from_secs(seconds), background };
        run_in(self.shell, &start(&task, limits))
    }

    fn look(&self) -> Told {
        run_in(self.shell, &look(&self.key))
    }

    fn until<T: std::fmt::Debug>(&self, look: impl Fn(&Self) -> T, wanted: impl Fn(&T) -> bool) -> T {
        let begun = Instant::now();
        loop {
            let told = look(self);
            if wanted(&told) {
                return told;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain; it is {told:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn directory(&self) -> std::path::PathBuf {
        format!("/dev/shm/.orlop-{}", self.key).into()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = Command::new("sh").args(&release(&self.key)[1..]).output();
        let _ = Command::new("sh").args(&forget(&self.key)[1..]).output();
    }
}

fn has_ended(told: &Told) -> bool {
    matches!(told, Told::Ended(..))
}

fn shells() -> Vec<&'static str> {
    let is_there = |shell: &&str| Command::new(shell).args(["-c", "exit 0"]).status().is_ok_and(|s| s.success());
    ["sh", "dash", "bash"].into_iter().filter(is_there).collect()
}

#[test]
fn a_command_ends_and_is_told_once_whoever_asks() {
    for shell in shells() {
        let case = Case::within(shell, "ends");
        let told = case.start("echo it is 'done' \"$((1 + 1))\"; exit 3", 10, false, &limits(60, 5));
        assert_eq!(told, Told::Ended(How::Code(3), "it is done 2".into()), "{shell}");
        let again = case.start("echo another", 10, false, &limits(60, 5));
        assert_eq!(again, told, "{shell}: it is not run again");
        run_forget(&case);
    }
}

fn run_forget(case: &Case) {
    let status = Command::new(case.shell).args(&forget(&case.key)[1..]).status().expect("a shell is there");
    assert!(status.success());
    // Without a pause: whenever it is looked for, it is whole or gone.
    let begun = Instant::now();
    while case.look() != Told::Nothing {
        assert!(begun.elapsed() < PATIENCE, "it is not removed");
    }
    let removed = || !case.directory().exists() && !case.directory().with_extension("gone").exists();
    case.until(|_| removed(), |removed| *removed);
}

#[test]
fn what_waits_holds_until_it_is_let_go_and_goes_on() {
    for shell in shells() {
        let case = Case::within(shell, "waits");
        let command = "echo locked; sh -c '${WAIT_CMD}'; echo free";
        assert_eq!(case.start(command, 60, true, &limits(60, 20)), Told::Holding, "{shell}");
        assert_eq!(case.look(), Told::Holding, "{shell}");
        let told = case.until(|case| run_in(case.shell, &release(&case.key)), has_ended);
        assert_eq!(told, Told::Ended(How::Code(0), "locked\nfree".into()), "{shell}");
    }
}

#[test]
fn what_only_runs_is_stopped_when_it_is_let_go() {
    let case = Case::new("stopped");
    assert_eq!(case.start("sleep 300", 60, true, &limits(60, 5)), Told::Holding);
    let told = case.until(|case| run_in(case.shell, &release(&case.key)), has_ended);
    assert_eq!(told, Told::Ended(How::Stopped, String::new()));
}

#[test]
fn a_command_that_hangs_is_ended_when_its_time_is_over_even_if_it_does_not_listen() {
    let case = Case::new("hangs");
    let command = "trap '' TERM; echo hangs; sleep 300 & wait; sleep 300";
    assert_eq!(case.start(command, 2, false, &limits(60, 5)), Told::Running);
    let told = case.until(Case::look, has_ended);
    assert_eq!(told, Told::Ended(How::TimedOut, "hangs".into()));
}

#[test]
fn what_is_not_looked_after_is_let_go() {
    let case = Case::new("abandoned");
    let freed = tempfile::tempdir().unwrap();
    let flag = freed.path().join("freed");
    let command = format!("${{WAIT_CMD}}; : > {}", flag.display());
    assert_eq!(case.start(&command, 300, true, &limits(2, 5)), Told::Holding);
    let begun = Instant::now();
    while !flag.exists() {
        assert!(begun.elapsed() < PATIENCE, "it is held for ever, although nobody looks after it");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(matches!(case.until(Case::look, has_ended), Told::Ended(How::Abandoned, _)));
}

#[test]
fn a_guard_that_is_stopped_with_all_others_holds_nothing_for_ever() {
    let case = Case::new("frozen");
    let scene = tempfile::tempdir().unwrap();
    let (frozen, thawed) = (scene.path().join("frozen"), scene.path().join("thawed"));
    // What stops everything in its container stops its guard: here the one process that has the directory in its words.
    let guard = format!(
        "pid=$(pgrep -f '^sh {}/guard'); kill -STOP $pid; : > {}",
        case.directory().display(),
        frozen.display()
    );
    let command = format!("{guard}; ${{WAIT_CMD}}; kill -CONT $pid; : > {}", thawed.display());
    assert_eq!(case.start(&command, 300, true, &limits(2, 5)), Told::Holding);
    let begun = Instant::now();
    while !thawed.exists() {
        assert!(begun.elapsed() < PATIENCE, "it is held for ever, although nothing looks after it");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(frozen.exists());
    assert_eq!(case.until(Case::look, has_ended), Told::Ended(How::Code(0), String::new()));
}

#[test]
fn what_is_looked_after_is_not_let_go() {
    let case = Case::new("kept");
    assert_eq!(case.start("${WAIT_CMD}", 300, true, &limits(2, 5)), Told::Holding);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        assert_eq!(case.look(), Told::Holding);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_does_not_end_when_it_is_let_go_is_ended() {
    let case = Case::new("stuck");
    assert_eq!(case.start("${WAIT_CMD}; sleep 300", 60, true, &limits(60, 1)), Told::Holding);
    let told = case.until(|case| run_in(case.shell, &release(&case.key)), has_ended);
    assert_eq!(told, Told::Ended(How::Killed, String::new()));
}

#[test]
fn a_flood_of_output_is_cut_and_does_not_stop_the_command() {
    let case = Case::new("flood");
    let command = "i=0; while [ $i -lt 2000 ]; do echo line $i of many; i=$((i + 1)); done; exit 5";
    case.start(command, 60, false, &limits(60, 5));
    let Told::Ended(how, output) = case.until(Case::look, has_ended) else { panic!("it has ended") };
    assert_eq!(how, How::Code(5));
    assert!(output.starts_with("line 0 of many\n") && output.len() <= 2048, "{} bytes", output.len());
}

#[test]
fn another_user_of_the_container_can_wait_too() {
    skips::require_root!();
    let case = Case::new("user");
    let command = "setpriv --reuid 65534 --clear-groups sh -c '${WAIT_CMD}'";
    assert_eq!(case.start(command, 60, true, &limits(60, 20)), Told::Holding);
    let told = case.until(|case| run_in(case.shell, &release(&case.key)), has_ended);
    assert_eq!(told, Told::Ended(How::Code(0), String::new()));
}

#[test]
fn what_a_container_tells_is_read() {
    let check = |text: &str, expected: Option<Told>| assert_eq!(read(text), expected, "{text:?}");
    check("none\n", Some(Told::Nothing));
    check("running\n", Some(Told::Running));
    check("ended 0 done\n", Some(Told::Ended(How::Code(0), String::new())));
    check("ended 143 stopped\nbye\n", Some(Told::Ended(How::Stopped, "bye".into())));
    check("unable no directory\n", Some(Told::Unable("no directory".into())));
    for wrong in ["", "none", "ended\n", "ended x done\n", "ended 0 somehow\n", "hello\n"] {
        check(wrong, None);
    }
}
