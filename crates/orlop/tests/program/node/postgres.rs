//! A database on a volume, and a node that is killed under it.

use crate::node::world::{Mounted, World, good, require};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where Debian has the programs of the newest PostgreSQL.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("pgbench").exists())
        .max()
}

/// A database whose files are in a folder, that listens on a socket there.
struct Database {
    bin: PathBuf,
    folder: PathBuf,
}

impl Database {
    /// One of its programs, by the user that it must be run as.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.bin.join(program)).current_dir("/");
        command.env("PGHOST", &self.folder).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> String {
        let output = self.command(program).args(words).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words:?}: {said}");
        said
    }

    fn data(&self) -> String {
        self.folder.join("data").to_str().unwrap().to_owned()
    }

    fn control(&self, words: &[&str]) {
        let (data, log) = (self.data(), self.folder.join("log"));
        // What it starts must not hold the test's pipes.
        let mut command = self.command("pg_ctl");
        command.args(["-D", &data, "-l", log.to_str().unwrap(), "-w"]).args(words);
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "pg_ctl {words:?}: {}", fs::read_to_string(log).unwrap_or_default());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A failed test leaves it running, and its folder mounted.
        let data = self.data();
        let mut command = self.command("pg_ctl");
        drop(
            command.args(["-D", &data, "-m", "immediate", "stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status(),
        );
    }
}

#[test]
fn a_database_does_not_notice_that_its_node_is_killed() {
    require!("mkfs.ext4", "fsck.ext4", "runuser");
    let Some(bin) = programs() else { skips::skip!("PostgreSQL is missing: run tools/setup") };
    let mut world = World::with_node("600MiB");
    world.volume(&["create", "data", "--size", "400MiB"]).good();
    let device = world.attach(&["data"]);
    good("mkfs.ext4", &["-q", &device]);
    let mounted = Mounted::new(&device, world.runtime().join("mounted"), "rw");
    // The database's user must come to its folder.
    good("chmod", &["711", world.runtime().to_str().unwrap()]);
    good("chown", &["postgres:", mounted.path()]);
    let database = Database { bin, folder: mounted.0.clone() };
    database.run("initdb", &["-D", &database.data(), "--data-checksums", "-A", "trust", "-U", "postgres"]);
    let socket = format!("-c listen_addresses= -c unix_socket_directories={}", mounted.path());
    database.control(&["-o", &socket, "start"]);
    database.run("pgbench", &["-i", "-q", "-s", "4"]);

    let transactions = ["-c", "4", "-j", "2", "-t", "1500", "-n"];
    let mut bench =
        database.command("pgbench").args(transactions).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut interrupted = 0;
    for round in 0..6 {
        crate::node::devices::interrupt(&mut world, "data", round, || bench.try_wait().unwrap().is_none());
        interrupted += u32::from(bench.try_wait().unwrap().is_none());
    }
    assert!(interrupted >= 3, "it was done after {interrupted} interruptions");
    let ended = bench.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("6000/6000"), "{said}");
    let count = database.run(
        "psql",
        &[
            "-At",
            "-c",
            "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history",
        ],
    );
    assert_eq!(count.trim(), "6000|t", "each transaction is there, as a whole");
    database.run("pg_amcheck", &["--install-missing", "--heapallindexed"]);
    database.control(&["stop"]);
    database.run("pg_checksums", &["--check", "-D", &database.data()]);
    mounted.unmount();
    good("fsck.ext4", &["-f", "-n", &device]);
    world.volume(&["detach", "data"]).good();
    world.stop();
    world.is_sound();
}
