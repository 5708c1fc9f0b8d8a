//! Writing down what a probe found.

use api::{BackupLocation, BackupLocationStatus, LocationPhase};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::apply::{Applied, Found};
use super::gather::Gathered;
use crate::conditions::{Answer, READY, Says, set, shorten};
use crate::context::Context;
use crate::error::Error;
use crate::objects;
use crate::repositories::LocationProblem;

/// Recovery points that cannot be read and are named in the message; `orlop repo check` names all.
const UNREADABLE_NAMED: usize = 3;

/// Writes the status, if it changes, and says when to look again.
pub(super) async fn write(context: &Context, gathered: Gathered, applied: Applied) -> Result<Action, Error> {
    let limits = context.limits();
    let Gathered { mut location, .. } = gathered;
    let (result, probed) = match applied {
        Applied::Rested { left } => return Ok(Action::requeue(left)),
        Applied::NotTried(problem) => (Err(problem), false),
        Applied::Probed(result) => (result, true),
    };
    let ready = result.is_ok();
    let old = location.status.take().unwrap_or_default();
    let new = next(&old, location.metadata.generation, &result, probed, limits.reason_chars, Timestamp::now());
    context.metrics.probed(&location.namespace().unwrap_or_default(), &location.name_any(), ready);
    if new != old {
        let turned = new.phase != old.phase;
        let message = new.message.clone().unwrap_or_default();
        location.status = Some(new);
        objects::write_status(&context.client, &location).await?;
        if turned {
            tell(context, &location, &result, &message).await;
        }
    }
    Ok(Action::requeue(if ready { limits.probe_interval } else { limits.probe_retry }))
}

fn next(
    old: &BackupLocationStatus,
    generation: Option<i64>,
    result: &Result<Found, LocationProblem>,
    probed: bool,
    reason_chars: usize,
    now: Timestamp,
) -> BackupLocationStatus {
    let mut new = old.clone();
    if old.observed_generation != generation {
        new.repository_id = None;
        new.recovery_points = None;
    }
    new.observed_generation = generation;
    if probed {
        new.last_checked_at = Some(Time(now));
    }
    let (answer, reason, message) = match result {
        Ok(found) => {
            new.phase = LocationPhase::Ready;
            new.repository_id = Some(found.repository_id.clone());
            new.recovery_points = Some(found.points);
            (Answer::Yes, "Probed", describe(found))
        }
        Err(problem) => {
            new.phase = LocationPhase::Unavailable;
            (Answer::No, problem.reason(), problem.to_string())
        }
    };
    let message = shorten(&message, reason_chars);
    new.message = Some(message.clone());
    set(&mut new.conditions, Says { type_: READY, answer, reason: reason.into(), message }, generation, now);
    new
}

fn describe(found: &Found) -> String {
    let mut text = "an object was written and read back, and the repository was opened".to_owned();
    if !found.conditional_create {
        text.push_str("; the store overwrites what exists when asked to create it, so keep to one writer at a time");
    }
    if !found.delete {
        text.push_str("; these credentials may not delete, so recovery points cannot be removed");
    }
    if !found.unreadable.is_empty() {
        let named: Vec<&str> = found.unreadable.iter().take(UNREADABLE_NAMED).map(String::as_str).collect();
        let (count, named) = (found.unreadable.len(), named.join(", "));
        text.push_str(&format!("; {count} recovery points cannot be read, such as {named}: run `orlop repo check`"));
    }
    text
}

async fn tell(context: &Context, location: &BackupLocation, result: &Result<Found, LocationProblem>, message: &str) {
    match result {
        Ok(_) => context.events.normal(location, "Probe", "Ready", message).await,
        Err(problem) => context.events.warning(location, "Probe", problem.reason(), message).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
    }

    fn found() -> Result<Found, LocationProblem> {
        Ok(Found {
            repository_id: "r1".into(),
            points: 2,
            unreadable: Vec::new(),
            conditional_create: true,
            delete: true,
        })
    }

    fn slow() -> Result<Found, LocationProblem> {
        Err(LocationProblem::TooSlow { place: "s3://b".into(), seconds: 60 })
    }

    #[test]
    fn a_location_that_fails_keeps_the_identity_of_its_repository() {
        let ready = next(&BackupLocationStatus::default(), Some(1), &found(), true, 1000, at(1));
        assert_eq!((ready.phase, ready.repository_id.as_deref()), (LocationPhase::Ready, Some("r1")));
        let failed = next(&ready, Some(1), &slow(), true, 1000, at(2));
        assert_eq!((failed.phase, failed.repository_id.as_deref()), (LocationPhase::Unavailable, Some("r1")));
        assert_eq!(failed.conditions[0].reason, "Unreachable");
        let moved = next(&failed, Some(2), &slow(), true, 1000, at(3));
        assert_eq!((moved.repository_id, moved.recovery_points), (None, None), "another spec, another place");
    }

    #[test]
    fn what_was_not_probed_was_not_checked() {
        let once = next(&BackupLocationStatus::default(), Some(1), &slow(), false, 1000, at(1));
        assert_eq!(once.last_checked_at, None);
        assert_eq!(next(&once, Some(1), &slow(), false, 1000, at(9)), once, "nothing new is nothing to write");
    }

    #[test]
    fn a_message_names_what_the_store_cannot_do() {
        let mut weak = found().expect("the test's probe got through");
        weak.conditional_create = false;
        weak.unreadable = vec!["p1".into(), "p2".into()];
        let text = describe(&weak);
        assert!(text.contains("one writer") && text.contains("2 recovery points") && text.contains("p1, p2"), "{text}");
    }
}
