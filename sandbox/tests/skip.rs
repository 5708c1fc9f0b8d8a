//! Skips are seen, counted, and failures where they must not happen.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

use std::env;
use std::fs;
use std::process::{Command, Output};

use sandbox::skip::{NO_SKIP_VARIABLE, SKIPS_FILE_VARIABLE};

/// Set in the process in which a test of this file runs a second time, to skip itself.
const CHILD_VARIABLE: &str = "ORLOP_SKIP_TEST_CHILD";

/// Runs one test of this file again, in a process that is told to skip.
fn skipped(test: &str, settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(CHILD_VARIABLE, "1");
    command.env_remove(NO_SKIP_VARIABLE).env_remove(SKIPS_FILE_VARIABLE).envs(settings.iter().copied());
    command.output().unwrap()
}

fn is_child() -> bool {
    env::var_os(CHILD_VARIABLE).is_some()
}

#[test]
fn a_skip_is_told_and_counted() {
    if is_child() {
        sandbox::skip!("there is no {}", "moon");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("skips");
    fs::write(&file, "SKIP: before: reason\n").unwrap();
    let output = skipped("a_skip_is_told_and_counted", &[(SKIPS_FILE_VARIABLE, file.to_str().unwrap())]);
    assert!(output.status.success(), "{output:?}");
    let line = "SKIP: a_skip_is_told_and_counted: there is no moon\n";
    assert!(String::from_utf8_lossy(&output.stderr).contains(line), "{output:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("SKIP: before: reason\n{line}"));
}

#[test]
fn a_skip_fails_where_nothing_may_be_skipped() {
    if is_child() {
        sandbox::skip!("there is no moon");
    }
    let output = skipped("a_skip_fails_where_nothing_may_be_skipped", &[(NO_SKIP_VARIABLE, "1")]);
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("must run, but: there is no moon"), "{output:?}");
}

#[test]
fn a_skip_that_cannot_be_counted_fails() -> Result<(), std::io::Error> {
    if is_child() {
        sandbox::skip!("there is no moon");
    }
    let output = skipped("a_skip_that_cannot_be_counted_fails", &[(SKIPS_FILE_VARIABLE, "/proc/none/skips")]);
    assert!(!output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn missing_programs_skip_a_test() {
    if is_child() {
        sandbox::require_assets!("no-such-program");
    }
    let output = skipped("missing_programs_skip_a_test", &[]);
    assert!(output.status.success(), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("SKIP: missing_programs_skip_a_test: no-such-program is in none of"), "{errors}");
}

#[tokio::test]
async fn asynchronous_tests_are_named_too() {
    if is_child() {
        sandbox::skip!("there is no moon");
    }
    let output = skipped("asynchronous_tests_are_named_too", &[]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("SKIP: asynchronous_tests_are_named_too: there"),
        "{output:?}"
    );
}
