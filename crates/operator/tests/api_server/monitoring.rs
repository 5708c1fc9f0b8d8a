//! The alerts and the dashboard in `deploy/monitoring`: that they are what they seem, and ask for nothing that the operator does not serve.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use api::{Phase, Timed};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::Companion;
use operator::metrics::{Metrics, ScheduleState};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/monitoring")
}

fn rules() -> Value {
    let text = std::fs::read_to_string(folder().join("rules.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("dashboard.json")).unwrap()).unwrap()
}

/// The monitor of storage, which counts beside the operator.
struct Monitor;

impl Companion for Monitor {
    fn begin(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn register(&self, registry: &mut Registry) {
        cluster::monitor::Metrics::default().register(registry);
    }
}

/// All metrics, each with something in it, as they are served.
fn served() -> String {
    let metrics = Metrics::with(&[Arc::new(Monitor)]);
    let at = Timestamp::UNIX_EPOCH;
    metrics.set_leader(true);
    metrics.run_ended("ApplicationBackup", Phase::Succeeded, 1);
    let stage = Timed { stage: "Volumes".into(), started_at: Time(at), finished_at: Some(Time(at)) };
    metrics.stages_ended("ApplicationBackup", &[stage]);
    metrics.moved("ApplicationBackup", 1);
    metrics.stored(1);
    metrics.good_point("shop", at);
    metrics.probed("shop", "main", true);
    metrics.scheduled("shop", "nightly", ScheduleState { last_complete: at, due: Some(at), missed: 0 });
    metrics.reconcile_error("ApplicationBackup", &operator::Error::NotStored("x".into(), "uid"));
    metrics.encode(at).unwrap()
}

/// The names of metrics with their labels, as they are served.
fn names(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

/// The metrics that an expression asks for.
fn asked(expression: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.split(|c| !is_part(c)).filter(|word| word.starts_with("orlop_")).collect()
}

fn expressions() -> Vec<String> {
    let texts = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = Vec::new();
    for group in texts(&rules(), "/spec/groups") {
        all.extend(texts(&group, "/rules").iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()));
    }
    for panel in texts(&dashboard(), "/panels") {
        all.extend(texts(&panel, "/targets").iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    all
}

#[test]
fn alerts_and_panels_ask_for_what_is_served() {
    let text = served();
    let names = names(&text);
    let expressions = expressions();
    assert!(expressions.len() >= 17, "{expressions:?}");
    let mut used = BTreeSet::new();
    for expression in &expressions {
        let asked = asked(expression);
        assert!(!asked.is_empty(), "{expression} asks for nothing of ours");
        for name in asked {
            assert!(names.contains(name), "{name}, of {expression}, is not among {names:?}");
            used.insert(name);
        }
    }
    // And nothing is served that nobody looks at.
    let base =
        |name: &str| name.trim_end_matches("_count").trim_end_matches("_sum").trim_end_matches("_bucket").to_owned();
    let used: BTreeSet<String> = used.into_iter().map(base).collect();
    let unused: Vec<_> = names.iter().filter(|name| !used.contains(&base(name))).collect();
    assert!(unused.is_empty(), "{unused:?} are in no alert and no panel");
}

#[test]
fn alerts_have_what_a_person_needs() {
    let rules = rules();
    assert_eq!(
        (rules["kind"].as_str(), rules["apiVersion"].as_str()),
        (Some("PrometheusRule"), Some("monitoring.coreos.com/v1"))
    );
    for rule in rules["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(name.starts_with("Orlop"), "{name}");
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        for part in ["summary", "description"] {
            assert!(rule["annotations"][part].as_str().is_some_and(|text| text.len() > 20), "{name} has no {part}");
        }
    }
    ask_promtool(&rules);
}

/// `promtool` reads the rules as Prometheus does, where it is installed.
fn ask_promtool(rules: &Value) {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("promtool is not installed: the rules were read by this test alone");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.json");
    std::fs::write(&file, json!({"groups": rules["spec"]["groups"]}).to_string()).unwrap();
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
