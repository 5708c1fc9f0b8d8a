//! Running a program, and what it cost.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wait4::Wait4;

/// What one run of a program cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Processor time of the process, user and system together.
    pub(crate) cpu: Duration,
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// The most memory that it had, in bytes.
    pub(crate) peak: u64,
}

/// Runs a program to its end; one that fails ends the benchmark with what it said.
pub(crate) fn run(command: &mut Command, log: &Path) -> Result<Cost> {
    let name = format!("{command:?}");
    let output = File::create(log).with_context(|| format!("make {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("run {name}"))?;
    let used = child.wait4().with_context(|| format!("wait for {name}"))?;
    let wall = started.elapsed();
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    ensure!(used.status.success(), "{name} ended with {}: {}", used.status, said());
    Ok(Cost { cpu: used.rusage.utime + used.rusage.stime, wall, peak: used.rusage.maxrss })
}

/// The middle of some values; of an even number the upper one of the two in the middle.
pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied()
}

/// The bytes of all files below a folder.
pub(crate) fn size_of(folder: &Path) -> Result<u64> {
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => bytes += metadata.len(),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_costs_what_it_uses_and_a_failure_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let cost = run(Command::new("sh").args(["-c", work]), &log).unwrap();
        assert!(cost.cpu > Duration::from_millis(5) && cost.wall >= cost.cpu / 4 && cost.peak > 100_000, "{cost:?}");
        let error = run(Command::new("sh").args(["-c", "echo lost >&2; exit 3"]), &log).unwrap_err();
        assert!(error.to_string().contains("lost"), "{error}");
    }

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(&[3, 1, 2]), Some(2));
        assert_eq!(median(&[4.0, 1.0]), Some(4.0));
        assert_eq!(median::<u64>(&[]), None);
    }
}
