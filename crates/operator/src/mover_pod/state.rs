//! What is read from a mover pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod};
use kube::api::LogParams;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;

use super::{CONTAINER, GRACE, MEMORY_LIMIT};
use crate::conditions::shorten;
use crate::config::Limits;
use crate::objects;

/// Past the instant at which a pod should have ended, how long it is waited for before it is removed by force.
const FORCE_AFTER: Duration = Duration::from_secs(60);
/// Longest reason that is taken from a mover, in characters.
const REASON_CHARS: usize = 600;

/// What can be told from a mover pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoverState {
    /// Waits for its node, its volume or its image.
    Waiting {
        /// What the scheduler or the node says.
        why: String,
    },
    /// It did not start in time; the reason says what it waited for.
    NeverStarted {
        /// What the scheduler or the node says.
        why: String,
    },
    /// It works.
    Running,
    /// It is asked to end, and has not yet.
    Ending {
        /// It should have ended long ago: its node is lost, and only force removes it.
        overdue: bool,
    },
    /// It ended, and says that all is well.
    Succeeded {
        /// What it left: `mover::Outcome` as JSON.
        message: String,
    },
    /// It ended otherwise.
    Failed {
        /// Why, for people.
        reason: String,
        /// What it left, if anything: `mover::Outcome` as JSON.
        message: Option<String>,
    },
}

/// Reads the state of a mover off its pod. The end of the container of the mover decides, whatever the pod as a whole is said to be: a
/// container that somebody else has put into the pod may go on for ever, or fail.
#[must_use]
pub fn state(pod: &Pod, now: Timestamp, limits: &Limits) -> MoverState {
    let status = pod.status.clone().unwrap_or_default();
    let container = container(pod).cloned().unwrap_or_default();
    match (status.phase.as_deref(), container.terminated) {
        (_, Some(ended)) if ended.exit_code == 0 => {
            MoverState::Succeeded { message: ended.message.unwrap_or_default() }
        }
        (Some("Succeeded"), None) => {
            let reason = "the mover ended, but its node did not report what it left".to_owned();
            MoverState::Failed { reason, message: None }
        }
        (Some("Failed"), None) => MoverState::Failed {
            reason: failure(status.reason.as_deref(), status.message.as_deref(), None),
            message: None,
        },
        (_, Some(ended)) => MoverState::Failed {
            reason: failure(status.reason.as_deref(), status.message.as_deref(), Some(&ended)),
            message: ended.message.filter(|m| !m.is_empty()),
        },
        _ if pod.metadata.deletion_timestamp.is_some() => MoverState::Ending { overdue: is_overdue(pod, now) },
        (Some("Running" | "Unknown"), _) if container.waiting.is_none() => running(pod, now, limits),
        _ => waiting(pod, now, limits.mover_start_deadline),
    }
}

/// Whether the mover in a pod works no more; its pod may go on, for what others have put into it.
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || container(pod).is_some_and(|state| state.terminated.is_some())
}

/// The state of the container of the mover; others may be in the pod.
fn container(pod: &Pod) -> Option<&ContainerState> {
    let containers = pod.status.as_ref()?.container_statuses.as_deref()?;
    containers.iter().find(|container| container.name == CONTAINER)?.state.as_ref()
}

/// Whether a pod should have ended long ago: its node is lost, and nobody else will say that it is gone. Or it was given more time for that than a mover has.
#[must_use]
pub fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    let asked = pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    asked.is_some_and(|end| {
        let between = now.duration_since(end).unsigned_abs();
        if now > end { between >= FORCE_AFTER } else { between >= GRACE + FORCE_AFTER }
    })
}

/// How long ago a pod was made.
fn age(pod: &Pod, now: Timestamp) -> Duration {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    Duration::try_from(now.duration_since(created)).unwrap_or_default()
}

/// A mover has a deadline that its kubelet holds it to. What goes on beyond that is none, or nobody holds it to anything.
fn running(pod: &Pod, now: Timestamp, limits: &Limits) -> MoverState {
    let most = limits.mover_start_deadline + limits.mover_deadline + FORCE_AFTER;
    if age(pod, now) < most {
        return MoverState::Running;
    }
    let reason = format!("it was still there {} s after it was made, and a mover has less time", most.as_secs());
    MoverState::Failed { reason, message: None }
}

fn failure(reason: Option<&str>, message: Option<&str>, ended: Option<&ContainerStateTerminated>) -> String {
    let of_pod = reason.map(|r| match message {
        Some(m) => format!("{r}: {m}"),
        None => r.to_owned(),
    });
    let of_container = ended.map(|e| {
        let reason = e.reason.as_deref().unwrap_or("Error");
        let said = e.message.as_deref().and_then(error_of).unwrap_or_default();
        match (reason, said) {
            ("OOMKilled", _) => format!("OOMKilled: the mover needed more than its {MEMORY_LIMIT} of memory"),
            (_, said) if !said.is_empty() => said,
            (reason, _) => format!("{reason}, exit code {}", e.exit_code),
        }
    });
    let what = of_pod.or(of_container).unwrap_or_else(|| "its node gave no reason".to_owned());
    shorten(&what, REASON_CHARS)
}

/// The error that a mover left in its outcome.
fn error_of(message: &str) -> Option<String> {
    let outcome: mover::Outcome = serde_json::from_str(message).ok()?;
    Some(outcome.failure?.error)
}

fn waiting(pod: &Pod, now: Timestamp, start_deadline: Duration) -> MoverState {
    let why = waits_for(pod);
    if age(pod, now) >= start_deadline {
        return MoverState::NeverStarted { why };
    }
    MoverState::Waiting { why }
}

fn waits_for(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let unscheduled = status
        .and_then(|s| s.conditions.as_ref())
        .and_then(|c| c.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False"))
        .map(|c| c.message.clone().or_else(|| c.reason.clone()).unwrap_or_default());
    let container = container(pod)
        .and_then(|state| state.waiting.clone())
        .map(|w| [w.reason, w.message].into_iter().flatten().collect::<Vec<_>>().join(": "));
    let placed = pod.spec.as_ref().and_then(|s| s.node_name.as_ref());
    let default = match placed {
        Some(node) => format!("the node {node} has not started it"),
        None => "no node has been chosen for it".to_owned(),
    };
    let said = unscheduled.or(container).filter(|w| !w.is_empty()).unwrap_or(default);
    shorten(&said, REASON_CHARS)
}

/// How far a mover is, from the last line that it wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SoFar {
    /// Files done.
    pub files: u64,
    /// Bytes done.
    pub bytes: u64,
}

/// How far a mover is. Nothing depends on it, so what cannot be had is simply not there.
pub async fn so_far(client: &Client, pod: &Pod) -> Option<SoFar> {
    let api: Api<Pod> = objects::beside(client, pod);
    let params = LogParams { tail_lines: Some(1), container: Some(CONTAINER.into()), ..LogParams::default() };
    match api.logs(&pod.name_any(), &params).await {
        Ok(text) => serde_json::from_str(text.lines().last()?).ok(),
        Err(error) => {
            tracing::debug!(%error, pod = pod.name_any(), "the progress of a mover was not read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn limits() -> Limits {
        Limits { mover_deadline: Duration::from_secs(3600), ..Limits::default() }
    }

    fn check(status: Value, deleted_at: Option<&str>, now: &str, expected: MoverState) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "m", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": deleted_at},
            "status": status.clone(),
        }))
        .expect("the test's pod is a pod");
        let now = now.parse().expect("the test's time is a time");
        assert_eq!(state(&pod, now, &limits()), expected, "{status}");
    }

    fn ended(phase: &str, terminated: Value) -> Value {
        json!({"phase": phase, "containerStatuses": [{
            "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated},
        }]})
    }

    fn failed(reason: &str, message: Option<&str>) -> MoverState {
        MoverState::Failed { reason: reason.into(), message: message.map(Into::into) }
    }

    const EARLY: &str = "2026-01-01T00:00:10Z";
    const LATE: &str = "2026-01-01T00:05:00Z";

    #[test]
    fn a_pod_that_ended_says_how() {
        check(
            ended("Succeeded", json!({"exitCode": 0, "message": "{\"ok\":true}"})),
            None,
            EARLY,
            MoverState::Succeeded { message: "{\"ok\":true}".into() },
        );
        let said = r#"{"ok":false,"failure":{"error":"open the repository: no","kind":"unreachable","retryable":true},"seconds":1}"#;
        check(
            ended("Failed", json!({"exitCode": 1, "reason": "Error", "message": said})),
            None,
            EARLY,
            failed("open the repository: no", Some(said)),
        );
        check(
            ended("Failed", json!({"exitCode": 2, "reason": "Error"})),
            None,
            EARLY,
            failed("Error, exit code 2", None),
        );
        check(
            ended("Failed", json!({"exitCode": 137, "reason": "OOMKilled"})),
            None,
            EARLY,
            failed("OOMKilled: the mover needed more than its 512Mi of memory", None),
        );
        check(
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}),
            None,
            EARLY,
            failed("Evicted: The node was low on memory", None),
        );
    }

    /// A pod with a container that was injected, and goes on.
    fn beside_a_sidecar(phase: &str, mover: Value) -> Value {
        let container = |name: &str, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let sidecar = container("istio-proxy", json!({"running": {}}));
        json!({"phase": phase, "containerStatuses": [sidecar, container(CONTAINER, mover)]})
    }

    #[test]
    fn the_end_of_the_mover_counts_and_not_that_of_its_pod() {
        let said = || MoverState::Succeeded { message: "{}".into() };
        let good = json!({"terminated": {"exitCode": 0, "message": "{}"}});
        check(beside_a_sidecar("Running", good.clone()), None, EARLY, said());
        check(beside_a_sidecar("Running", good.clone()), Some(EARLY), EARLY, said());
        check(beside_a_sidecar("Failed", good), None, EARLY, said());
        let bad = json!({"terminated": {"exitCode": 2, "reason": "Error"}});
        check(beside_a_sidecar("Running", bad), None, EARLY, failed("Error, exit code 2", None));
        check(beside_a_sidecar("Running", json!({"running": {}})), None, LATE, MoverState::Running);
        let pulling = json!({"waiting": {"reason": "ImagePullBackOff"}});
        let never = MoverState::NeverStarted { why: "ImagePullBackOff".into() };
        check(beside_a_sidecar("Running", pulling), None, LATE, never);
    }

    #[test]
    fn a_pod_that_waits_says_for_what_and_not_for_ever() {
        let unscheduled = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
        ]});
        let why = || "0/3 nodes are available".to_owned();
        check(unscheduled.clone(), None, EARLY, MoverState::Waiting { why: why() });
        check(unscheduled, None, LATE, MoverState::NeverStarted { why: why() });
        let pulling = json!({"phase": "Pending", "containerStatuses": [{
            "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        }]});
        check(pulling, None, EARLY, MoverState::Waiting { why: "ImagePullBackOff: no such image".into() });
    }

    #[test]
    fn a_pod_that_runs_long_still_runs_and_one_that_should_be_gone_is_overdue() {
        check(json!({"phase": "Running"}), None, LATE, MoverState::Running);
        check(json!({"phase": "Running"}), Some(EARLY), EARLY, MoverState::Ending { overdue: false });
        check(json!({"phase": "Running"}), Some(EARLY), "2026-01-01T00:01:10Z", MoverState::Ending { overdue: true });
    }

    #[test]
    fn a_pod_that_is_no_mover_of_ours_takes_no_more_time_than_one() {
        let running = || json!({"phase": "Running"});
        check(running(), None, "2026-01-01T01:05:59Z", MoverState::Running);
        let said = "it was still there 3960 s after it was made, and a mover has less time";
        check(running(), None, "2026-01-01T01:06:00Z", failed(said, None));
        // Whoever deletes a pod says how long it may take for that.
        check(running(), Some("2026-01-01T00:01:24Z"), EARLY, MoverState::Ending { overdue: false });
        check(running(), Some("2036-01-01T00:00:00Z"), EARLY, MoverState::Ending { overdue: true });
    }
}
