//! How the data of a run's volumes hangs together: measured, not promised.

use api::{Consistency, ConsistencyLevel, HookState, HookStatus, HookTime, VolumeBackup, VolumeStage};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::volume::is_final;

/// Whether the data of a volume is fixed: read, in a snapshot, or given up.
pub(super) fn is_cut(volume: &VolumeBackup) -> bool {
    is_final(volume) || volume.cut_at.is_some()
}

/// What may be said of the volumes whose data is fixed; nothing if there are none.
pub(super) fn of(volumes: &[VolumeBackup], hooks: &[HookStatus]) -> Option<Consistency> {
    let cuts: Vec<(Timestamp, Timestamp)> = volumes.iter().filter_map(interval).collect();
    let from = cuts.iter().map(|cut| cut.0).min()?;
    let to = cuts.iter().map(|cut| cut.1).max()?;
    let changed: u64 = volumes.iter().filter_map(|volume| volume.changed_while_read).fold(0, u64::saturating_add);
    // Kubernetes writes instants to the second, so two that look the same need not be: only one snapshot is one instant.
    let (level, why) = level(hooks, cuts.len() == 1 && volumes.iter().any(|volume| volume.cut_at.is_some()));
    let reason = match changed {
        0 => why.to_owned(),
        files => format!("{why}; {files} files were written while they were read"),
    };
    let spread_millis = u64::try_from(to.duration_since(from).as_millis()).unwrap_or_default();
    Some(Consistency { level, cut_from: Time(from), cut_to: Time(to), spread_millis, reason })
}

/// The instants that the data of a volume is of.
fn interval(volume: &VolumeBackup) -> Option<(Timestamp, Timestamp)> {
    if let Some(at) = &volume.cut_at {
        return Some((at.0, at.0));
    }
    let (from, to) = (volume.started_at.as_ref()?.0, volume.finished_at.as_ref()?.0);
    (volume.stage == VolumeStage::Done).then_some((from, to))
}

/// What was only run before has kept nothing from changing afterwards: it is worth something for data of one instant alone.
fn level(hooks: &[HookStatus], is_one_instant: bool) -> (ConsistencyLevel, &'static str) {
    let mut before = hooks.iter().filter(|hook| hook.time == HookTime::Pre).peekable();
    let is_ready = before.peek().is_some() && before.all(|hook| hook.state == HookState::Succeeded);
    let holds = hooks.iter().any(|hook| hook.time == HookTime::Pre && hook.background);
    if is_ready && holds {
        return (
            ConsistencyLevel::ApplicationConsistent,
            "a rule made the application ready, and held it so until all data was fixed",
        );
    }
    if is_ready && is_one_instant {
        return (
            ConsistencyLevel::ApplicationConsistent,
            "a rule made the application ready before, and all data is of one instant",
        );
    }
    if is_ready {
        return (
            ConsistencyLevel::NotConsistent,
            "a rule made the application ready and did not hold it, and it ran between the instants that its data is of",
        );
    }
    if is_one_instant {
        return (
            ConsistencyLevel::CrashConsistent,
            "all data is of one instant, and no rule made the application ready for it",
        );
    }
    (
        ConsistencyLevel::NotConsistent,
        "no rule made the application ready, and it ran between the instants that its data is of",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Option<Time> {
        Some(Time(Timestamp::from_millisecond(milliseconds).expect("a small number is a timestamp")))
    }

    fn volume(from: i64, to: i64, changed: u64) -> VolumeBackup {
        VolumeBackup {
            stage: VolumeStage::Done,
            started_at: at(from),
            finished_at: at(to),
            changed_while_read: Some(changed),
            ..VolumeBackup::default()
        }
    }

    fn hook(state: HookState) -> HookStatus {
        HookStatus { state, ..HookStatus::default() }
    }

    fn held(state: HookState) -> HookStatus {
        HookStatus { background: true, ..hook(state) }
    }

    #[test]
    fn what_is_said_follows_from_the_rules_and_the_volumes() {
        use ConsistencyLevel::{ApplicationConsistent, CrashConsistent, NotConsistent};
        let volumes = [volume(1000, 4000, 0), volume(2500, 3000, 2)];
        let check = |hooks: &[HookStatus], level| {
            let found = of(&volumes, hooks).expect("volumes were read");
            assert_eq!((found.level, found.spread_millis), (level, 3000), "{hooks:?}");
            assert!(found.reason.contains("2 files"), "{}", found.reason);
        };
        check(&[], NotConsistent);
        check(&[hook(HookState::Succeeded), held(HookState::Succeeded)], ApplicationConsistent);
        check(&[hook(HookState::Succeeded), hook(HookState::Succeeded)], NotConsistent);
        check(&[held(HookState::Succeeded), hook(HookState::Skipped)], NotConsistent);
        let after = HookStatus { time: HookTime::Post, ..hook(HookState::Failed) };
        check(&[held(HookState::Succeeded), after.clone()], ApplicationConsistent);
        check(&[hook(HookState::Succeeded), HookStatus { background: true, ..after }], NotConsistent);
        assert_eq!(of(&[VolumeBackup::default()], &[]), None);
        let snapshot = |milliseconds| VolumeBackup { cut_at: at(milliseconds), ..VolumeBackup::default() };
        let after_rule = of(&[snapshot(1000)], &[hook(HookState::Succeeded)]).expect("a volume was cut");
        assert_eq!(after_rule.level, ApplicationConsistent);
        assert!(after_rule.reason.contains("of one instant"), "{}", after_rule.reason);
        let of_snapshots = |volumes: &[VolumeBackup]| of(volumes, &[]).map(|found| (found.level, found.spread_millis));
        assert_eq!(of_snapshots(&[snapshot(1000)]), Some((CrashConsistent, 0)));
        assert_eq!(of_snapshots(&[snapshot(1000), snapshot(1000)]), Some((NotConsistent, 0)));
        assert_eq!(of_snapshots(&[volume(1000, 1000, 0)]), Some((NotConsistent, 0)), "read within a second");
        assert_eq!(of_snapshots(&[snapshot(1000), snapshot(2000)]), Some((NotConsistent, 1000)));
        assert_eq!(of_snapshots(&[snapshot(1000), volume(900, 950, 0)]), Some((NotConsistent, 100)));
        assert!(is_cut(&snapshot(1)) && !is_cut(&VolumeBackup::default()) && is_cut(&volume(1, 2, 0)));
    }
}
