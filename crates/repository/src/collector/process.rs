//! Which process a run is, where one process does all of it, so that nobody waits for one that has ended.
//!
//! Such a session says not only on which host it is, but also which process. Whoever finds the run without end on the same machine, in the same
//! boot and the same namespace of processes, asks the kernel: a process that is gone will never publish. Everywhere else this says nothing, and
//! the time since its last sign of life decides. A mistake would cost a backup, as a wrong clock does, and never a recovery point.

use rustix::process::{Pid, test_kill_process};
use std::fs;

/// What stands between the host and the process.
const MARK: &str = " process ";

/// A process, as nobody else is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    /// When it began, in ticks since the machine did: ids are used again.
    began: u64,
    /// Of the boot and the namespaces in which the id and the time mean something.
    scope: u64,
}

/// Where this process runs.
pub(super) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(64).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// The same, and which process it is, for a run that no other process works for.
pub(super) fn host_of_process() -> String {
    let host = host();
    let own = i32::try_from(std::process::id()).ok().and_then(|id| {
        let (began, _) = state(id)?;
        Some(format!("{host}{MARK}{id} {began:x}-{:016x}", scope()?))
    });
    own.unwrap_or(host)
}

/// The host with the id of the process, for people.
pub(super) fn shown(host: &str) -> String {
    match parse(host) {
        Some((name, process)) => format!("{name} process {}", process.id),
        None => host.to_owned(),
    }
}

/// Whether it is known that the process has ended.
pub(super) fn has_ended(host: &str) -> bool {
    let Some((_, process)) = parse(host).filter(|(_, process)| Some(process.scope) == scope()) else { return false };
    let Some(id) = Pid::from_raw(process.id) else { return false };
    // Processes of others may be hidden in /proc, so the kernel is asked first.
    if test_kill_process(id) == Err(rustix::io::Errno::SRCH) {
        return true;
    }
    // One that nobody has waited for yet does nothing any more.
    state(process.id).is_some_and(|(began, is_over)| began != process.began || is_over)
}

fn parse(host: &str) -> Option<(&str, Process)> {
    let (name, process) = host.rsplit_once(MARK)?;
    let (id, rest) = process.split_once(' ')?;
    let (began, scope) = rest.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    // Others would mean groups of processes, or all of them.
    let id = id.parse().ok().filter(|id| *id > 0)?;
    Some((name, Process { id, began: hex(began)?, scope: hex(scope)? }))
}

/// When a process began, and whether it is over but for being waited for.
fn state(id: i32) -> Option<(u64, bool)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before may have anything in it, also brackets.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(19)?.parse().ok()?, matches!(*fields.first()?, "Z" | "X")))
}

/// Of this boot of this machine and these namespaces; none where the system does not tell, or tells of another namespace.
fn scope() -> Option<u64> {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let own = fs::read_link("/proc/self").ok()?;
    if own.to_str()? != std::process::id().to_string() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&boot).update(namespace.as_os_str().as_encoded_bytes());
    // When a process began is told by the clock of the one that asks.
    if let Ok(clock) = fs::read_link("/proc/self/ns/time") {
        hasher.update(clock.as_os_str().as_encoded_bytes());
    }
    let mut scope = [0; 8];
    hasher.finalize_xof().fill(&mut scope);
    Some(u64::from_le_bytes(scope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn text(id: u32) -> String {
        let id = i32::try_from(id).unwrap();
        format!("ship{MARK}{id} {:x}-{:016x}", state(id).unwrap().0, scope().unwrap())
    }

    #[test]
    fn who_lives_has_not_ended_and_who_was_killed_has() {
        assert!(!has_ended(&host_of_process()));
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let alive = text(child.id());
        assert!(!has_ended(&alive));
        let (start, rest) = alive.split_once('-').unwrap();
        assert!(has_ended(&format!("{start}0-{rest}")), "another process has the id");
        child.kill().unwrap();
        while !state(i32::try_from(child.id()).unwrap()).unwrap().1 {
            std::thread::yield_now();
        }
        assert!(has_ended(&alive), "killed, and not waited for");
        child.wait().unwrap();
        assert!(has_ended(&alive));
        assert!(!has_ended(&format!("{start}-{:016x}", !scope().unwrap())), "of another machine");
    }

    #[test]
    fn what_says_nothing_of_a_process_is_left_to_time() {
        for host in ["ship", "", "ship process 1", "ship process x y-z", "ship process -1 0-0", "a process of ours"] {
            assert!(!has_ended(host), "{host}");
            assert_eq!(shown(host), host);
        }
        assert_eq!(shown("my process ship process 12 ab-cd"), "my process ship process 12");
    }
}
