//! All fuzz targets in one program; `ORLOP_FUZZ_TARGET` says which one runs.
//!
//! What must hold for any bytes: no panic, no memory beyond the limit that tools/fuzz sets, and nothing outside of a restore's target.
#![no_main]

mod hostile;
mod parsers;
mod world;

use std::sync::LazyLock;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("blob", repository::fuzzing::blob),
    ("changes", parsers::changes),
    ("checked-json", repository::fuzzing::checked_json),
    ("entry", parsers::entry),
    ("fuse-request", fuse::fuzzing::request),
    ("keeper-message", fuse::fuzzing::keeper_message),
    ("name", repository::fuzzing::name),
    ("nbd-option", nbd::fuzzing::option),
    ("nbd-requests", nbd::fuzzing::requests),
    ("pack", repository::fuzzing::pack),
    ("page", hostile::page),
    ("point", parsers::point),
    ("replication-fields", replication::wire::fuzzing::fields),
    ("replication-frames", replication::wire::fuzzing::frames),
    ("run", repository::fuzzing::run),
    ("segment", parsers::segment),
    ("tree", hostile::tree),
    ("url", parsers::url),
    ("volume", hostile::volume),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("ORLOP_FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, target)) => *target,
        None => {
            // tools/fuzz asks for the list like this.
            for (known, _) in TARGETS {
                println!("{known}");
            }
            std::process::exit(if name == "list" { 0 } else { 2 });
        }
    }
});

libfuzzer_sys::fuzz_target!(init: LazyLock::force(&TARGET), |bytes: &[u8]| TARGET(bytes));
