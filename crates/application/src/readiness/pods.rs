//! What pods say of themselves: whose they are, and what they wait for. Pure.

use serde_json::Value;

use crate::json;

/// Whether a workload's selector matches a pod.
pub(super) fn is_selected(workload: &Value, pod: &Value) -> bool {
    let Some(selector) = json::at(workload, &["spec", "selector"]) else { return false };
    // A replication controller has the labels themselves there.
    let has_parts = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if has_parts { selector.get("matchLabels") } else { Some(selector) };
    let labels = labels.and_then(Value::as_object);
    let expressions = json::list(selector, &["matchExpressions"]);
    if labels.is_none_or(|labels| labels.is_empty()) && expressions.is_empty() {
        return false;
    }
    let label = |key: &str| json::at(pod, &["metadata", "labels", key]).and_then(Value::as_str);
    labels.is_none_or(|labels| labels.iter().all(|(key, value)| label(key) == value.as_str()))
        && expressions.iter().all(|expression| meets(expression, label))
}

fn meets<'a>(expression: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let found = label(json::text(expression, &["key"]));
    let is_listed =
        || json::list(expression, &["values"]).iter().any(|value| value.as_str() == found && found.is_some());
    match json::text(expression, &["operator"]) {
        "In" => is_listed(),
        "NotIn" => !is_listed(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => false,
    }
}

fn condition<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    json::list(pod, &["status", "conditions"]).iter().find(|c| json::text(c, &["type"]) == name)
}

fn says(pod: &Value, name: &str, status: &str) -> bool {
    condition(pod, name).is_some_and(|found| json::text(found, &["status"]) == status)
}

/// Whether a pod is ready, or has nothing more to do.
pub(super) fn is_ready(pod: &Value) -> bool {
    says(pod, "Ready", "True") || json::text(pod, &["status", "phase"]) == "Succeeded"
}

/// Whether a pod runs, or has run to its end.
pub(super) fn has_started(pod: &Value) -> bool {
    matches!(json::text(pod, &["status", "phase"]), "Running" | "Succeeded")
}

/// Whether no node has been chosen for a pod.
pub(super) fn is_unscheduled(pod: &Value) -> bool {
    json::text(pod, &["spec", "nodeName"]).is_empty()
}

/// The claims that a pod mounts.
pub(super) fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = json::list(pod, &["spec", "volumes"]).iter();
    volumes.filter_map(|volume| json::at(volume, &["persistentVolumeClaim", "claimName"])?.as_str())
}

/// What keeps a pod from being ready, if it says so itself: the scheduler's words, or those about the first container that is not ready.
pub(super) fn why(pod: &Value) -> Option<String> {
    if let Some(unscheduled) = condition(pod, "PodScheduled").filter(|c| json::text(c, &["status"]) == "False") {
        return said(unscheduled);
    }
    let of = |list: &str| json::list(pod, &["status", list]).iter();
    of("initContainerStatuses").chain(of("containerStatuses")).find_map(container)
}

fn said(of: &Value) -> Option<String> {
    let parts = [json::text(of, &["reason"]), json::text(of, &["message"])];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Some(parts.join(": ")).filter(|text| !text.is_empty())
}

/// Why a container is not ready. Without what differs at each look, such as for how long it is still waited: what is written into a status wakes
/// who wrote it.
fn container(status: &Value) -> Option<String> {
    let name = json::text(status, &["name"]);
    let ended = |state: &Value| {
        let code = json::at(state, &["exitCode"]).and_then(Value::as_i64).unwrap_or_default();
        format!("{} with code {code}", json::text(state, &["reason"])).trim().to_owned()
    };
    if let Some(waiting) = json::at(status, &["state", "waiting"]) {
        return match (json::text(waiting, &["reason"]), json::at(status, &["lastState", "terminated"])) {
            ("CrashLoopBackOff", Some(last)) => {
                Some(format!("the container {name}: CrashLoopBackOff, ended the last time: {}", ended(last)))
            }
            ("" | "ContainerCreating" | "PodInitializing", _) => None,
            _ => said(waiting).map(|said| format!("the container {name}: {said}")),
        };
    }
    if let Some(terminated) = json::at(status, &["state", "terminated"]) {
        let failed = json::at(terminated, &["exitCode"]).and_then(Value::as_i64) != Some(0);
        return failed.then(|| format!("the container {name} has ended: {}", ended(terminated)));
    }
    let runs_unready = json::at(status, &["state", "running"]).is_some() && !json::is_true(status, &["ready"]);
    runs_unready.then(|| format!("the container {name} runs, and its readiness probe has not succeeded"))
}

/// What is said of a pod that says nothing.
pub(super) fn waits_for(pod: &Value) -> String {
    if json::at(pod, &["metadata", "deletionTimestamp"]).is_some() {
        return "it is being deleted".into();
    }
    match json::text(pod, &["spec", "nodeName"]) {
        "" => "no node has been chosen for it".into(),
        node => format!("the node {node} has not started it"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_of_the_workload_whose_selector_it_meets() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        let check = |selector: Value, expected: bool| {
            assert_eq!(is_selected(&json!({"spec": {"selector": selector}}), &pod), expected, "{selector}");
        };
        let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        check(json!({"matchLabels": {"app": "web"}}), true);
        check(json!({"matchLabels": {"app": "db"}}), false);
        check(json!({"matchLabels": {"app": "web", "x": "y"}}), false);
        check(json!({"app": "web"}), true);
        check(json!({}), false);
        check(expression("tier", "In", json!(["front", "back"])), true);
        check(expression("tier", "NotIn", json!(["front"])), false);
        check(expression("x", "NotIn", json!(["front"])), true);
        check(expression("x", "Exists", json!([])), false);
        check(expression("x", "DoesNotExist", json!([])), true);
        assert!(!is_selected(&json!({}), &pod));
    }

    #[test]
    fn a_pod_that_is_not_ready_says_why() {
        let check = |status: Value, expected: Option<&str>| {
            let pod = json!({"status": status});
            assert_eq!(why(&pod).as_deref(), expected, "{pod}");
        };
        let containers = |state: Value| {
            json!({"containerStatuses": [{"name": "db", "state": state, "ready": false,
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]})
        };
        check(
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}),
            Some("Unschedulable: 0/3 nodes"),
        );
        check(
            containers(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})),
            Some("the container db: ImagePullBackOff: no such image"),
        );
        check(
            containers(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}})),
            Some("the container db: CrashLoopBackOff, ended the last time: Error with code 1"),
        );
        check(containers(json!({"waiting": {"reason": "ContainerCreating"}})), None);
        check(
            containers(json!({"running": {}})),
            Some("the container db runs, and its readiness probe has not succeeded"),
        );
        check(
            containers(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            Some("the container db has ended: OOMKilled with code 137"),
        );
        check(containers(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})), None);
        check(json!({}), None);
        assert_eq!(waits_for(&json!({"spec": {"nodeName": "n1"}})), "the node n1 has not started it");
    }
}
