//! What the tests of the binary share: running it, and looking at what it says.

pub(crate) mod golden;
pub(crate) mod place;

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

/// The binary, without anything of the environment that it would listen to.
pub(crate) fn orlop() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if ["AWS_", "ORLOP_", "KUBE", "RUST_LOG", "COLUMNS"].iter().any(|prefix| name_text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The binary under another name, by a link in `dir`.
pub(crate) fn called(dir: &Path, name: &str) -> Command {
    let link = dir.join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_orlop"), &link).expect("make a link");
    }
    Command::new(link)
}

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("standard output is text"),
            stderr: String::from_utf8(output.stderr).expect("standard error is text"),
        }
    }
}

/// Runs the binary with these words.
pub(crate) fn run(words: &[&str]) -> Ran {
    orlop().args(words).output().expect("run orlop").into()
}

impl Ran {
    /// Standard output of a run that must have ended with this code.
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "standard output:\n{}\nstandard error:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output of a run that must have ended well.
    pub(crate) fn good(self) -> String {
        self.ended(0).stdout
    }

    /// Standard output as JSON of a run that must have ended well.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.good()).expect("standard output is JSON")
    }

    /// Checks that standard error says something.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not said:\n{}", self.stderr);
        self
    }
}
