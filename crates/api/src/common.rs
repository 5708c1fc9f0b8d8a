//! What several kinds share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run is as a whole. Only `Succeeded` is green.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// Everything that was wanted is there, and was read back.
    Succeeded,
    /// Something that was wanted is missing; what is there can be used. The ledger names what is not.
    Incomplete,
    /// Nothing usable came out; the message says why.
    Failed,
}

impl Phase {
    /// Whether nothing more will happen to the run.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Incomplete | Self::Failed)
    }
}

/// How the wanted items of a run ended. `wanted = stored + skipped + missed`, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSummary {
    /// Objects and volumes that the selection named.
    pub wanted: u64,
    /// Stored, and read back.
    pub stored: u64,
    /// Left out by a named rule, such as an object that a controller makes again.
    pub skipped: u64,
    /// Wanted and not stored. Anything but 0 means that the run is not green.
    pub missed: u64,
    /// The first of the missed ones, with their reasons; all of them are in the recovery point's ledger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed_items: Vec<Missed>,
}

/// One item that was wanted and is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missed {
    /// Which: kind, namespace and name.
    pub item: String,
    /// Why, and what to do about it.
    pub reason: String,
}

/// A stage with the instants of its begin and end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timed {
    /// The stage.
    pub stage: String,
    /// When it began.
    pub started_at: Time,
    /// When it ended; absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// Picks objects. Empty fields match anything; at least one must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectFilter {
    /// API group; `core` for the one without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind, as in manifests, such as `ConfigMap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace, as it was when the backup was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
