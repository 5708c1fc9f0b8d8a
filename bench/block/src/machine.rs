//! What was measured, and on what.

use crate::RunArgs;
use anyhow::Result;
use std::fmt::Write;
use std::process::Command;

/// Says in Markdown what the machine and the programs are.
pub(crate) fn describe(arguments: &RunArgs) -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let system = rustix::system::uname();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let programs = ["fio", "nbdkit", "qemu-nbd", "qemu-storage-daemon", "mkfs.btrfs", "mkfs.xfs"];
    let versions: Vec<String> = programs.into_iter().map(version).collect();
    let release = system.release().to_string_lossy().into_owned();
    let mut text = String::new();
    writeln!(
        text,
        "{cores} cores of {}, Linux {release}. Medians of {}, sizes × {}.",
        processor(),
        arguments.rounds,
        arguments.scale
    )?;
    writeln!(text, "Orlop {}; {}.", env!("CARGO_PKG_VERSION"), versions.join("; "))?;
    writeln!(text, "Load when it began: {}.", load.split(' ').take(3).collect::<Vec<_>>().join(" "))?;
    Ok(text)
}

/// What a program calls itself.
fn version(program: &str) -> String {
    let option = if program == "mkfs.xfs" { "-V" } else { "--version" };
    let said = Command::new(program).arg(option).output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned());
    said.unwrap_or_else(|_| format!("no {program}"))
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_else(|| "?".to_owned())
    };
    format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t"))
}
