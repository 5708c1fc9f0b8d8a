//! `Rule`: what is done inside the containers of an application around the instant that its data is taken.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In the value of a background action: where it has what it holds, and waits until the data is taken.
pub const WAIT_COMMAND: &str = "${WAIT_CMD}";

/// Commands for the containers of an application, that make its data whole for the instant that it is taken.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "Rule",
    doc = "Commands that run in the containers of an application before or after its data is taken.",
    plural = "rules",
    shortname = "orule",
    category = "orlop",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Selects","type":"string","jsonPath":".spec.rules[*].podSelector"}"#,
    printcolumn = r#"{"name":"On No Match","type":"string","jsonPath":".spec.onNoMatch"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// One after the other; each begins when the one before is done everywhere.
    #[schemars(length(min = 1))]
    pub rules: Vec<PodRule>,
    /// What a rule means that no running pod matches.
    #[serde(default)]
    pub on_no_match: OnNoMatch,
}

/// What a rule means that no running pod matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoMatch {
    /// The run fails: what was to be made consistent is not.
    #[default]
    Fail,
    /// The run goes on, and says so.
    Ignore,
}

/// Actions for the pods that bear some labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodRule {
    /// Labels that a pod must bear, all of them.
    pub pod_selector: BTreeMap<String, String>,
    /// The container; if it is not given, the one that `kubectl.kubernetes.io/default-container` names, or else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// One after the other; each runs in all pods at the same time.
    #[schemars(length(min = 1))]
    pub actions: Vec<RuleAction>,
}

/// What an action is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ActionType {
    /// A command of the container's shell.
    #[default]
    Command,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleAction {
    /// What it is: a command.
    #[serde(rename = "type")]
    pub type_: ActionType,
    /// What `sh -c` runs in the container. It succeeds when it ends with 0. With `background`, `${WAIT_CMD}` in it is a command that returns when the data is
    /// taken: put it where everything is held that has to be.
    #[schemars(length(min = 1, max = 16384))]
    pub value: String,
    /// The command goes on until the data is taken. The run goes on when it has come to `${WAIT_CMD}`, or, without that, when it runs; it is then ended.
    /// Only in a rule that runs before a backup.
    #[serde(default)]
    pub background: bool,
    /// Only in one of the pods: the first by name.
    #[serde(default)]
    pub run_in_single_pod: bool,
    /// How long it may take, such as `90s` or `1h30m`; for one in the background, how long it may hold what it holds. 5 minutes if it is not given, 15 in the
    /// background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How often it is tried again, 5 seconds later each time, when it failed.
    #[serde(default)]
    #[schemars(range(max = 20))]
    pub retries: u32,
}

/// Before the data is taken, or brought back, or after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookTime {
    /// `preExecRule`.
    #[default]
    Pre,
    /// `postExecRule`.
    Post,
}

/// Where one action in one pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookState {
    /// Not begun, or to be tried again.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// It runs in the background, and holds what it is to hold.
    Holding,
    /// It has ended well.
    Succeeded,
    /// It has not.
    Failed,
    /// No pod matched, and the rule says that this is to be ignored.
    Skipped,
}

/// One action of a rule in one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookStatus {
    /// When.
    pub time: HookTime,
    /// The `Rule`.
    pub rule: String,
    /// The generation of it that was looked at; a run follows no change.
    #[serde(default)]
    pub generation: i64,
    /// Which of its `rules`, counted from 0.
    pub item: u32,
    /// Which of the `actions` of that, counted from 0.
    pub action: u32,
    /// Namespace of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Its uid: another pod of that name is not meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// The container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Whether it goes on until the data is taken.
    #[serde(default)]
    pub background: bool,
    /// Where it is.
    #[serde(default)]
    pub state: HookState,
    /// How often it was begun.
    #[serde(default)]
    pub attempts: u32,
    /// When it was begun the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Since when it holds what it is to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding_since: Option<Time>,
    /// Since when its container cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Time>,
    /// When it ended the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// How it ended, and the begin of what it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
