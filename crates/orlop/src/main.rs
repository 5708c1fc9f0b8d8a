//! The binary `orlop`: the operator, the movers and the command line.
//!
//! Here arguments are read and wired to the crates that do the work; nothing is decided here that a library should know. Standard output
//! has results, standard error has progress, notes and errors.

mod backup;
mod check;
mod cli;
mod clone;
mod cluster;
mod complete;
mod csi_driver;
mod daemons;
mod error;
#[cfg(test)]
#[path = "../tests/program/support/golden.rs"]
mod golden;
mod human;
mod install;
mod interrupt;
mod location;
mod location_add;
mod logs;
mod machine;
mod member;
mod memory;
mod nbd_tls;
mod node;
mod output;
mod points;
mod repo;
mod restore;
mod run;
mod schedule;
mod scheduler;
mod select;
mod store;
mod verbs;
mod version;
mod volume;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    memory::begin_again_with_one_arena(&words);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("orlop: another TLS provider is installed already; this is a defect of the program");
        return error::Exit::Failed.into();
    }
    match cli::run(&words) {
        Ok(exit) => exit.into(),
        Err(e) => {
            eprintln!("orlop: {e}");
            e.exit_code().into()
        }
    }
}
