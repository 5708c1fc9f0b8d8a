//! How long volumes take, by how long others took. Pure.

use api::{RestorePlan, VolumeRestore, VolumeStage};

/// Volumes that are smaller tell how long a pod takes to start, and not how fast data moves.
const LEAST_BYTES: u64 = 64 << 20;

/// Bytes per second of one mover, over volumes that were filled; nothing if none was large enough to tell.
pub(super) fn of<'a>(volumes: impl Iterator<Item = &'a VolumeRestore>) -> Option<f64> {
    let measured = volumes.filter(|volume| volume.stage == VolumeStage::Done).filter_map(|volume| {
        let seconds = volume.finished_at.as_ref()?.0.duration_since(volume.started_at.as_ref()?.0).as_secs_f64();
        let bytes = volume.bytes.filter(|bytes| *bytes >= LEAST_BYTES)?;
        (seconds > 0.0).then_some((bytes as f64, seconds))
    });
    let (bytes, seconds) = measured.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (seconds > 0.0).then(|| bytes / seconds)
}

/// Seconds that the volumes of a plan would take at that rate, so many at a time.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number of seconds; a cast saturates"
)]
pub(super) fn seconds(rate: Option<f64>, plan: &RestorePlan, at_once: usize) -> Option<u64> {
    let filled: Vec<u64> = plan.volumes.iter().filter(|v| v.action.fills()).map(|v| v.bytes).collect();
    let largest = *filled.iter().max()?;
    // No volume is filled by two movers.
    let shared = plan.bytes / (at_once.max(1).min(filled.len()) as u64).max(1);
    Some((shared.max(largest) as f64 / rate?).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use api::{PlanCounts, PlannedAction, VolumePlan};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn volume(mebibytes: u64, seconds: i64) -> VolumeRestore {
        let at = |second| Some(Time(Timestamp::from_second(second).expect("a small number is a timestamp")));
        VolumeRestore {
            stage: VolumeStage::Done,
            bytes: Some(mebibytes << 20),
            started_at: at(100),
            finished_at: at(100 + seconds),
            ..VolumeRestore::default()
        }
    }

    fn plan(mebibytes: &[u64]) -> RestorePlan {
        let volume = |size: &u64| VolumePlan {
            namespace: "shop".into(),
            claim: "c".into(),
            action: PlannedAction::Create,
            reason: None,
            image: false,
            files: 1,
            bytes: size << 20,
            transformed: Vec::new(),
        };
        RestorePlan {
            hash: String::new(),
            made_at: Time(Timestamp::UNIX_EPOCH),
            objects: PlanCounts::default(),
            items: Vec::new(),
            unlisted: 0,
            volumes: mebibytes.iter().map(volume).collect(),
            files: 0,
            bytes: mebibytes.iter().sum::<u64>() << 20,
            estimated_seconds: None,
            managed_by: Vec::new(),
            holds: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_rate_is_that_of_volumes_that_are_large_enough_to_tell() {
        let rate = |volumes: &[VolumeRestore]| of(volumes.iter());
        assert_eq!(rate(&[]), None);
        assert_eq!(rate(&[volume(1, 5)]), None);
        assert_eq!(rate(&[volume(100, 0)]), None, "nobody knows what takes no time");
        assert_eq!(rate(&[volume(100, 1), volume(300, 3), volume(1, 60)]), Some(f64::from(100 << 20)));
        let missed = VolumeRestore { stage: VolumeStage::Missed, ..volume(100, 1) };
        assert_eq!(rate(&[missed]), None);
    }

    #[test]
    fn volumes_share_the_time_and_the_largest_takes_its_own() {
        let at = Some(f64::from(1 << 20));
        assert_eq!(seconds(at, &plan(&[10, 10, 10, 10]), 2), Some(20));
        assert_eq!(seconds(at, &plan(&[100, 1, 1]), 4), Some(100));
        assert_eq!(seconds(at, &plan(&[]), 4), None);
        assert_eq!(seconds(None, &plan(&[10]), 4), None);
    }
}
