//! The ways out of a repository: `orlop repo export` to restic's format, and `dump` as an archive. The judges are restic, GNU tar and Python.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command as Program, Stdio};

use crate::support::Ran;
use crate::support::place::{Place, noise};

/// A repository, a folder that is backed up into it, and room for what comes out.
struct Exported(Place);

impl Deref for Exported {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Exported {
    fn new() -> Self {
        let place = Self(Place::new());
        fs::create_dir(place.path("data")).unwrap();
        fs::write(place.path("restic-password"), "open barley\n").unwrap();
        place
    }

    fn backup(&self, id: &str) {
        self.run(&["backup", &self.text("data"), "--id", id]).good();
    }

    fn export(&self, ids: &[&str]) -> Ran {
        let to = format!("restic:{}", self.text("restic"));
        self.run(
            &[&["export", "--to", &to, "--to-password-file", &self.text("restic-password"), "-o", "json"], ids]
                .concat(),
        )
    }

    fn restic(&self, words: &[&str]) -> String {
        let mut restic = Program::new("restic");
        restic.arg("--no-cache").arg("-r").arg(self.path("restic")).arg("-p").arg(self.path("restic-password"));
        said(restic.args(words))
    }
}

fn said(program: &mut Program) -> String {
    let output = program.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program:?}: {out}{}", String::from_utf8_lossy(&output.stderr));
    out
}

fn shell(folder: &Path, script: &str) -> String {
    said(Program::new("sh").arg("-c").arg(script).current_dir(folder))
}

fn has_restic() -> bool {
    Program::new("restic").arg("version").output().is_ok()
}

/// A line for everything in a folder, with all that an archive keeps; then all attributes.
fn described(folder: &Path) -> String {
    let lines = "find . -printf '%y %m %U:%G %s %T@ %n %p -> %l\\n' | sed -E 's/^(d .*:[0-9]+) [0-9]+ /\\1 /' | sort";
    let devices = "find . -type b -o -type c | sort | xargs -r stat -c '%n %t %T'";
    let attributes = "find . -print0 | sort -z | xargs -0 getfattr -h -d -m - 2>/dev/null | grep -v security.selinux";
    [lines, devices, attributes].map(|script| shell(folder, script)).concat()
}

fn fill(data: &Path) {
    let long = "n".repeat(200);
    fs::create_dir_all(data.join(&long).join(&long)).unwrap();
    fs::write(data.join(&long).join(&long).join("deep"), "deep").unwrap();
    fs::create_dir(data.join("sub folder")).unwrap();
    fs::write(data.join("sub folder/large"), noise(3 << 20, 1)).unwrap();
    fs::write(data.join("one"), "two names").unwrap();
    fs::hard_link(data.join("one"), data.join("sub folder/two")).unwrap();
    fs::hard_link(data.join("one"), data.join("three")).unwrap();
    for name in [&b"not \xff text"[..], "é😀".as_bytes(), b"line\nend", b"-dash"] {
        fs::write(data.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink("one", data.join("link")).unwrap();
    symlink("é".repeat(300), data.join("long link")).unwrap();
    let sparse = File::create(data.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_all_at(b"x", 3 << 20).unwrap();
    fs::write(data.join("empty"), "").unwrap();
    fs::set_permissions(data.join("empty"), fs::Permissions::from_mode(0o6711)).unwrap();
    shell(data, "mkfifo fifo; setfattr -n user.a=b%c -v '=value' one; setfattr -n user.f -v 0x00ff 'sub folder'");
    shell(data, "touch -h -d 1969-12-31T23:59:58.25Z link empty; touch -d 2242-03-16T12:56:32.5Z 'sub folder/large'");
    if sandbox::skip::lacks_root().is_none() {
        shell(data, "mknod null c 1 3; mknod loop b 7 300; chown -h 4000000000:12345 link 'sub folder/large'");
    }
}

#[test]
fn an_archive_is_what_was_backed_up() {
    let place = Exported::new();
    let data = place.path("data");
    fill(&data);
    place.backup("p");
    let archive = place.command().args(["dump", "p", "--format", "tar"]).output().unwrap();
    assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
    fs::write(place.path("archive"), &archive.stdout).unwrap();
    fs::create_dir(place.path("out")).unwrap();
    shell(&place.path("out"), "tar -x --xattrs --xattrs-include='*' --same-owner --same-permissions -f ../archive");
    assert_eq!(described(&place.path("out")), described(&data));
    shell(&place.path("out"), "diff -r --no-dereference -x fifo -x null -x loop . ../data");

    let script = "import sys, tarfile\nfor m in tarfile.open('archive'):\n  print(m.name.encode('utf-8', 'surrogateescape').hex(), m.size, m.mtime)";
    let listed = said(Program::new("python3").arg("-c").arg(script).current_dir(place.path("")));
    let count = shell(&data, "find . | wc -c; find . -print0 | tr -dc '\\0' | wc -c");
    let files = count.lines().nth(1).unwrap().trim();
    assert_eq!(listed.lines().count().to_string(), files);
    let name: String = b"not \xff text".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(listed.contains(&name), "{listed}");
}

#[test]
fn a_part_of_a_tree_is_an_archive_with_its_links() {
    let place = Exported::new();
    let data = place.path("data");
    fill(&data);
    fs::hard_link(data.join("one"), data.join("sub folder/zwei")).unwrap();
    place.backup("p");
    let dump = |path: &str| {
        let out = place.command().args(["dump", "p", path, "--format", "tar"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        fs::write(place.path("archive"), out.stdout).unwrap();
        shell(&place.path(""), "tar -tvf archive")
    };
    let listed = dump("sub folder");
    assert!(listed.contains("sub folder/zwei link to sub folder/two"), "{listed}");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    fs::create_dir(place.path("out")).unwrap();
    shell(&place.path("out"), "tar -xf ../archive");
    // The first name of this file is outside of the part.
    assert_eq!(fs::read(place.path("out/sub folder/zwei")).unwrap(), b"two names");
    shell(&place.path("out"), "diff -r 'sub folder' '../data/sub folder'");
    assert_eq!(dump("sub folder/two").lines().count(), 1);
    place.run(&["dump", "p", "none", "--format", "tar"]).ended(1).says("there is no none in the file tree");
    place.run(&["dump", "p"]).ended(2).says("--format tar writes all of it");
}

/// An archive that is not whole must be taken for what it is, whatever became of the exit code.
#[test]
fn an_archive_that_is_cut_off_has_no_end() {
    let place = Exported::new();
    for number in 0..3 {
        fs::write(place.path("data").join(number.to_string()), noise(3 << 20, number)).unwrap();
    }
    place.backup("p");
    let pack = shell(
        &place.path("repository"),
        "find domains/default/packs -type f -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2",
    );
    let pack = place.path("repository").join(pack.trim());
    let mut bytes = fs::read(&pack).unwrap();
    bytes[5 << 20] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let out = place.command().args(["dump", "p", "--format", "tar"]).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("orlop repo check --read-data"));
    fs::write(place.path("archive"), out.stdout).unwrap();
    let tar = Program::new("tar").arg("-tf").arg(place.path("archive")).output().unwrap();
    assert!(!tar.status.success());
}

#[test]
fn recovery_points_are_exported_and_said_to_be() {
    if !has_restic() {
        sandbox::skip!("restic is not installed; tools/setup does it");
    }
    let place = Exported::new();
    fill(&place.path("data"));
    place.backup("monday");
    fs::write(place.path("data/new"), "new").unwrap();
    place.backup("tuesday");
    let done = place.export(&["monday", "latest"]).json();
    assert_eq!(done["snapshots"][0]["recoveryPoint"], "monday");
    assert_eq!(
        (&done["snapshots"][1]["recoveryPoint"], &done["snapshots"][1]["existed"]),
        (&"tuesday".into(), &false.into())
    );
    assert!(done["snapshots"][1]["newBytes"].as_u64().unwrap() < 100_000, "{done}");
    assert!(place.restic(&["check", "--read-data"]).contains("no errors were found"));
    let again = place.export(&["monday", "monday"]).json();
    assert_eq!(again["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(again["snapshots"][0]["existed"], true);
    place.restic(&["restore", "--tag", "tuesday", "latest", "--target", &place.text("back")]);
    let back = place.path("back").join(place.path("data").strip_prefix("/").unwrap());
    assert_eq!(described(&back), described(&place.path("data")));

    fs::write(place.path("restic-password"), " spaces \n").unwrap();
    place.export(&["monday"]).ended(1).says("white space around the password");
    fs::write(place.path("restic-password"), "wrong").unwrap();
    place.export(&["monday"]).ended(1).says("opens with this password");
    place.export(&["none"]).ended(1).says("there is no recovery point none");
}

/// An export that is killed while it writes packs leaves a repository that restic accepts, and the next one ends well.
#[test]
fn a_killed_export_leaves_a_good_repository() {
    if !has_restic() {
        sandbox::skip!("restic is not installed; tools/setup does it");
    }
    let place = Exported::new();
    for number in 0..8 {
        fs::write(place.path("data").join(number.to_string()), noise(16 << 20, number)).unwrap();
    }
    place.backup("p");
    let packs =
        || shell(&place.path(""), "find restic/data -type f 2>/dev/null | wc -l").trim().parse::<usize>().unwrap();
    for wanted in [1, 3, 5] {
        let mut export = Program::new(env!("CARGO_BIN_EXE_orlop"));
        export.envs(place.environment()).args(["repo", "export", "p", "--to"]);
        export
            .arg(format!("restic:{}", place.text("restic")))
            .arg("--to-password-file")
            .arg(place.path("restic-password"));
        let before = packs();
        let mut export = export.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while packs() < before + wanted && export.try_wait().unwrap().is_none() {}
        export.kill().unwrap();
        assert!(!export.wait().unwrap().success(), "it was faster than the test");
        place.restic(&["unlock"]);
        assert!(place.restic(&["check", "--read-data"]).contains("no errors were found"));
        let snapshots: Option<Vec<serde_json::Value>> =
            serde_json::from_str(&place.restic(&["snapshots", "--json"])).unwrap();
        assert!(snapshots.unwrap_or_default().is_empty());
    }
    place.export(&["p"]).good();
    place.restic(&["prune", "--max-unused", "0"]);
    assert!(place.restic(&["check", "--read-data"]).contains("no errors were found"));
    place.restic(&["restore", "latest", "--target", &place.text("back")]);
    let back = place.path("back").join(place.path("data").strip_prefix("/").unwrap());
    shell(&back, &format!("diff -r . {}", place.text("data")));
}
