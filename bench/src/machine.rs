//! What was measured, and on what.

use crate::RunArgs;
use crate::tool::{Peer, version};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Says in Markdown what the machine and the programs are.
pub(crate) fn describe(orlop: &Path, arguments: &RunArgs) -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let system = rustix::system::uname();
    let ours = Command::new(orlop).arg("version").output().context("ask orlop for its version")?;
    let ours = String::from_utf8_lossy(&ours.stdout).lines().next().unwrap_or_default().to_owned();
    let peers: Vec<String> = [Peer::Restic, Peer::Rustic, Peer::Borg].into_iter().filter_map(version).collect();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut text = String::new();
    writeln!(text, "{cores} cores of {}, {}, Linux {}.", processor(), memory(), system.release().to_string_lossy())?;
    writeln!(text, "{ours}; {}. Medians of {}, sizes × {}.", peers.join("; "), arguments.rounds, arguments.scale)?;
    writeln!(text, "Load when it began: {}.\n", load.split(' ').take(3).collect::<Vec<_>>().join(" "))?;
    Ok(text)
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_else(|| "?".to_owned())
    };
    format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t"))
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    total.map_or_else(|| "memory unknown".to_owned(), |kib| format!("{} GiB", (kib + (1 << 19)) >> 20))
}
