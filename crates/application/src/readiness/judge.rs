//! Whether a workload is ready, by what its controller says of it. Pure.

use serde_json::Value;

use super::pods;
use crate::json;

/// Whether a workload is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has ended badly, and does not try again.
    Failed,
    /// Not all of it runs.
    Waiting,
    /// All of it runs, or has run to its end; or it is made to run nothing.
    Ready,
}

/// Whether a workload of that kind is ready, and how much of it runs. Its pods matter for jobs alone.
pub(super) fn judge(kind: &str, object: &Value, pods: &[&Value]) -> (State, Option<String>) {
    match kind {
        "Pod" => pod(object),
        "Job" => job(object, pods),
        "DaemonSet" => daemons(object),
        _ => replicas(kind, object),
    }
}

fn number(object: &Value, path: &[&str]) -> u64 {
    json::at(object, path).and_then(Value::as_u64).unwrap_or(0)
}

/// Whether the controller has looked at the workload as it is now.
fn is_observed(object: &Value) -> bool {
    number(object, &["status", "observedGeneration"]) >= number(object, &["metadata", "generation"])
}

fn is(condition: &str, object: &Value) -> bool {
    self::condition(object, condition).is_some_and(|found| json::text(found, &["status"]) == "True")
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    json::list(object, &["status", "conditions"]).iter().find(|c| json::text(c, &["type"]) == name)
}

fn counted(ready: u64, wanted: u64, also: bool) -> (State, Option<String>) {
    let state = if also && ready >= wanted { State::Ready } else { State::Waiting };
    (state, Some(format!("{ready} of {wanted} pods")))
}

fn note(state: State, said: &str) -> (State, Option<String>) {
    (state, Some(said.into()))
}

fn replicas(kind: &str, object: &Value) -> (State, Option<String>) {
    let wanted = json::at(object, &["spec", "replicas"]).and_then(Value::as_u64).unwrap_or(1);
    if wanted == 0 {
        return note(State::Ready, "is made to run no pods");
    }
    let of_status = |field: &str| number(object, &["status", field]);
    let is_settled = match kind {
        "Deployment" if json::is_true(object, &["spec", "paused"]) => return note(State::Ready, "is paused"),
        "Deployment" => of_status("updatedReplicas") >= wanted && of_status("replicas") == of_status("updatedReplicas"),
        "StatefulSet" => is_rolled_out(object),
        _ => true,
    };
    let running = if kind == "Deployment" { "availableReplicas" } else { "readyReplicas" };
    counted(of_status(running), wanted, is_observed(object) && is_settled)
}

/// Whether all pods of a stateful set are of its newest revision, unless it is not to bring them there by itself.
fn is_rolled_out(object: &Value) -> bool {
    let strategy = json::text(object, &["spec", "updateStrategy", "type"]);
    let partition = number(object, &["spec", "updateStrategy", "rollingUpdate", "partition"]);
    let revision = |field: &str| json::text(object, &["status", field]).to_owned();
    strategy == "OnDelete" || partition > 0 || revision("currentRevision") == revision("updateRevision")
}

fn daemons(object: &Value) -> (State, Option<String>) {
    let of_status = |field: &str| number(object, &["status", field]);
    let wanted = of_status("desiredNumberScheduled");
    let by_hand = json::text(object, &["spec", "updateStrategy", "type"]) == "OnDelete";
    let is_settled = by_hand || of_status("updatedNumberScheduled") >= wanted;
    counted(of_status("numberReady"), wanted, is_observed(object) && is_settled)
}

fn job(object: &Value, pods: &[&Value]) -> (State, Option<String>) {
    if is("Complete", object) {
        return note(State::Ready, "has run to its end");
    }
    if is("Failed", object) {
        return note(State::Failed, "has failed");
    }
    if json::is_true(object, &["spec", "suspend"]) {
        return note(State::Ready, "is suspended");
    }
    if pods.iter().any(|pod| pods::has_started(pod)) {
        return note(State::Ready, "runs");
    }
    (State::Waiting, None)
}

fn pod(object: &Value) -> (State, Option<String>) {
    match json::text(object, &["status", "phase"]) {
        "Succeeded" => note(State::Ready, "has run to its end"),
        "Failed" => note(State::Failed, "has failed"),
        _ if pods::is_ready(object) => (State::Ready, None),
        _ => (State::Waiting, None),
    }
}

/// Why a job or a pod has failed.
pub(super) fn said_of_failure(object: &Value) -> Option<String> {
    let said = |of: &Value| {
        let parts = [json::text(of, &["reason"]), json::text(of, &["message"])];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Some(parts.join(": ")).filter(|text| !text.is_empty())
    };
    match condition(object, "Failed") {
        Some(failed) => said(failed),
        None => json::at(object, &["status"]).and_then(said).or_else(|| pods::why(object)),
    }
}

/// Why the API server does not take the pods of a workload: a quota, a webhook, what its namespace forbids.
pub(super) fn refused_pods(object: &Value) -> Option<String> {
    let refused = condition(object, "ReplicaFailure").filter(|c| json::text(c, &["status"]) == "True")?;
    Some(format!("{}: {}", json::text(refused, &["reason"]), json::text(refused, &["message"])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::State::{Failed, Ready, Waiting};
    use super::*;

    fn check(kind: &str, object: Value, expected: State, progress: Option<&str>) {
        let found = judge(kind, &object, &[]);
        assert_eq!((found.0, found.1.as_deref()), (expected, progress), "{kind} {object}");
    }

    fn deployment(replicas: u64, generation: u64, status: Value) -> Value {
        json!({"metadata": {"generation": generation}, "spec": {"replicas": replicas}, "status": status})
    }

    #[test]
    fn a_deployment_is_ready_when_all_of_its_newest_pods_are_available_and_no_other_is_there() {
        let status = |updated: u64, available: u64, all: u64| json!({"observedGeneration": 2, "updatedReplicas": updated, "availableReplicas": available, "replicas": all});
        check("Deployment", deployment(2, 2, status(2, 2, 2)), Ready, Some("2 of 2 pods"));
        check("Deployment", deployment(2, 2, status(2, 1, 2)), Waiting, Some("1 of 2 pods"));
        // Available are those of before.
        check("Deployment", deployment(2, 2, status(1, 2, 3)), Waiting, Some("2 of 2 pods"));
        check("Deployment", deployment(2, 3, status(2, 2, 2)), Waiting, Some("2 of 2 pods"));
        check("Deployment", deployment(0, 2, json!({})), Ready, Some("is made to run no pods"));
        check("Deployment", json!({"status": {}}), Waiting, Some("0 of 1 pods"));
        check("Deployment", json!({"spec": {"paused": true}}), Ready, Some("is paused"));
    }

    #[test]
    fn what_else_runs_pods_is_judged_by_its_own_counts() {
        let set = |strategy: Value, current: &str| {
            json!({"spec": {"replicas": 1, "updateStrategy": strategy},
                "status": {"readyReplicas": 1, "currentRevision": current, "updateRevision": "b"}})
        };
        check("StatefulSet", set(json!({"type": "RollingUpdate"}), "b"), Ready, Some("1 of 1 pods"));
        check("StatefulSet", set(json!({"type": "RollingUpdate"}), "a"), Waiting, Some("1 of 1 pods"));
        check("StatefulSet", set(json!({"type": "OnDelete"}), "a"), Ready, Some("1 of 1 pods"));
        let daemons = |ready: u64, updated: u64| json!({"status": {"desiredNumberScheduled": 3, "numberReady": ready, "updatedNumberScheduled": updated}});
        check("DaemonSet", daemons(3, 3), Ready, Some("3 of 3 pods"));
        check("DaemonSet", daemons(2, 3), Waiting, Some("2 of 3 pods"));
        check("DaemonSet", daemons(3, 2), Waiting, Some("3 of 3 pods"));
        check("ReplicaSet", json!({"status": {"readyReplicas": 1}}), Ready, Some("1 of 1 pods"));
    }

    #[test]
    fn a_job_is_ready_when_it_has_run_or_runs() {
        let ended = |how: &str| json!({"status": {"conditions": [{"type": how, "status": "True", "reason": "R", "message": "m"}]}});
        check("Job", ended("Complete"), Ready, Some("has run to its end"));
        check("Job", ended("Failed"), Failed, Some("has failed"));
        assert_eq!(said_of_failure(&ended("Failed")).as_deref(), Some("R: m"));
        check("Job", json!({"spec": {"suspend": true}}), Ready, Some("is suspended"));
        check("Job", json!({"status": {"active": 1}}), Waiting, None);
        let pod = |phase: &str| json!({"status": {"phase": phase}});
        for (phase, state) in [("Running", Ready), ("Succeeded", Ready), ("Pending", Waiting), ("Failed", Waiting)] {
            assert_eq!(judge("Job", &json!({}), &[&pod(phase)]).0, state, "{phase}");
        }
    }

    #[test]
    fn a_pod_is_ready_when_it_says_so_or_has_run_to_its_end() {
        let ready =
            |status: &str| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
        check("Pod", ready("True"), Ready, None);
        check("Pod", ready("False"), Waiting, None);
        check("Pod", json!({"status": {"phase": "Succeeded"}}), Ready, Some("has run to its end"));
        let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "no memory"}});
        assert_eq!(said_of_failure(&evicted).as_deref(), Some("Evicted: no memory"));
        check("Pod", evicted, Failed, Some("has failed"));
    }
}
