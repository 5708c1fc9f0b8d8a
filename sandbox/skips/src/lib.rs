//! Skipping what a machine cannot run: never silently.
//!
//! A skip is one line, `SKIP: <test>: <reason>`, on standard error, and in the file that `ORLOP_SKIPS` names, so that
//! `make test` can count and repeat them at its end. With `ORLOP_NO_SKIP=1` a skip is a failure: continuous integration
//! sets it on machines that are known to have everything.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

/// Names a file to which every skip is appended.
pub const SKIPS_FILE_VARIABLE: &str = "ORLOP_SKIPS";

/// Set to `1`, it makes every skip a failure.
pub const NO_SKIP_VARIABLE: &str = "ORLOP_NO_SKIP";

/// Says that a test is skipped and why; the macros call it, tests do not.
///
/// # Panics
///
/// With `ORLOP_NO_SKIP=1`, and when the line cannot be appended: a skip that is not counted would be a silent one.
pub fn report(test: &str, reason: &str) {
    let reason = reason.replace('\n', " ");
    assert!(env::var_os(NO_SKIP_VARIABLE).is_none_or(|v| v != "1"), "{test} must run, but: {reason}");
    let line = format!("SKIP: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(file) = env::var_os(SKIPS_FILE_VARIABLE).filter(|f| !f.is_empty()) {
        // One write of a line in append mode is atomic against other tests' processes.
        let written =
            OpenOptions::new().create(true).append(true).open(&file).and_then(|mut f| f.write_all(line.as_bytes()));
        assert!(written.is_ok(), "append the skip of {test} to {}: {written:?}", file.display());
    }
}

/// The name of the test that the calling thread runs, or `fallback` where the thread has none.
///
/// Both libtest and nextest name a test's thread after it, except when tests run one after the other in the main thread.
pub fn current_test(fallback: &str) -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" && !name.starts_with("tokio") => name.to_owned(),
        _ => fallback.to_owned(),
    }
}

/// What a test returns: a skipped one returns what a passed one does, having said that it was skipped.
pub trait Outcome {
    /// The value to return.
    fn skipped() -> Self;
}

impl Outcome for () {
    fn skipped() -> Self {}
}

impl<E> Outcome for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

/// Why this process cannot do what root can, if so.
pub fn lacks_root() -> Option<String> {
    let user = rustix::process::geteuid();
    (!user.is_root()).then(|| format!("needs root, and this is user {}: run the tests as root", user.as_raw()))
}

/// Why this process cannot make block devices, or which program is missing, if so.
pub fn lacks_block_devices(programs: &[&str]) -> Option<String> {
    if let Some(reason) = lacks_root() {
        return Some(reason);
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
            return Some(format!("{device}: {error}"));
        }
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let is_missing = |program: &&&str| !env::split_paths(&folders).any(|folder| folder.join(program).is_file());
    programs.iter().find(is_missing).map(|program| format!("{program} is missing: run tools/setup"))
}

/// Skips the rest of the test for a reason: `skips::skip!("no FUSE")`, with arguments as in `format!`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        let here = concat!(module_path!(), ":", line!());
        $crate::report(&$crate::current_test(here), &format!($($reason)+));
        return $crate::Outcome::skipped();
    }};
}

/// Skips the test where block devices cannot be made, or one of these programs is missing.
#[macro_export]
macro_rules! require_block_devices {
    ($($program:expr),* $(,)?) => {
        if let Some(reason) = $crate::lacks_block_devices(&[$($program),*]) {
            $crate::skip!("{reason}");
        }
    };
}

/// Skips the test unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if let Some(reason) = $crate::lacks_root() {
            $crate::skip!("{reason}");
        }
    };
}
