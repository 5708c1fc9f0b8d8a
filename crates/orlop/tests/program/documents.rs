//! What the documents say of the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders with members of the workspace.
const SOURCES: &[&str] = &["bench", "crates", "sandbox", "scenarios"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all functions and modules, and of the binaries of tests.
fn names(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            names.insert(entry.file_name().into_string().unwrap());
            self::names(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next());
            names.extend(functions.map(str::to_owned));
        }
    }
}

/// What stands between backquotes and is the path of a test: words of letters and underscores with `::` between them.
fn tests_of(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|text| text.contains("::") && text.chars().all(|c| c.is_alphanumeric() || "_:… ".contains(c)))
}

#[test]
fn every_test_that_shows_a_fault_is_there() {
    let mut known = BTreeSet::new();
    for folder in SOURCES {
        names(&root().join(folder), &mut known);
    }
    let read = |name| fs::read_to_string(root().join(name)).unwrap();
    let texts = [read("docs/faults.md"), read("docs/security.md")];
    let named: Vec<_> = texts.iter().flat_map(|text| text.lines()).flat_map(tests_of).collect();
    assert!(named.len() > 100, "the document names more tests than {}", named.len());
    let gone = |test: &&&str| !test.rsplit([':', ' ']).next().is_some_and(|name| known.contains(name));
    assert_eq!(named.iter().filter(gone).collect::<Vec<_>>(), Vec::<&&str>::new(), "tests that are not there");
}
