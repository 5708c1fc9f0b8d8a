//! Whether what was restored runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The workloads that a restore made, and whether they are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workloads {
    /// How many were made.
    pub wanted: u64,
    /// How many of them are ready.
    pub ready: u64,
    /// The workloads, those first that are not ready. Not all of them, if there are very many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<WorkloadStatus>,
}

/// Whether a workload is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadState {
    /// It has ended badly, and does not try again.
    Failed,
    /// Not all of it runs.
    #[default]
    Waiting,
    /// All of it runs, or has run to its end; or it is made to run nothing.
    Ready,
}

/// A workload of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its kind, such as `Deployment`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub state: WorkloadState,
    /// How much of it runs, such as `2 of 3 pods`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Why it is not ready, in the words of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
