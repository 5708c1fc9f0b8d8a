//! What a restore would do, before it does it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GitOpsHold;

/// What a restore would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePlan {
    /// Over all that would be done, what is not listed here included. A restore that names it in `planHash` does that and nothing else.
    pub hash: String,
    /// When it was so.
    pub made_at: Time,
    /// How many objects would end how.
    pub objects: PlanCounts,
    /// The objects, those first that something would happen to. Not all of them, if there are very many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ObjectPlan>,
    /// Objects that are not listed.
    #[serde(default)]
    pub unlisted: u64,
    /// The volumes, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumePlan>,
    /// Files that would be written.
    pub files: u64,
    /// Bytes of these files, and of images.
    pub bytes: u64,
    /// How many seconds the volumes would take, at the rate of earlier restores of this cluster. Absent where none moved enough to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_seconds: Option<u64>,
    /// What would put objects back to what its own source says, such as `Flux Kustomization flux-system/shop`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_by: Vec<String>,
    /// What would be held while the restore is under way, or is suspended already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<GitOpsHold>,
    /// What was asked for and has no effect, such as a transformation that is for no object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl RestorePlan {
    /// How many volumes would be filled.
    #[must_use]
    pub fn filled_volumes(&self) -> usize {
        self.volumes.iter().filter(|volume| volume.action.fills()).count()
    }
}

/// How many objects would end how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanCounts {
    /// Made.
    pub create: u64,
    /// Changed.
    pub update: u64,
    /// Deleted and made anew.
    pub replace: u64,
    /// Left as they are.
    pub keep: u64,
    /// Left out by a named rule.
    pub skip: u64,
    /// The cluster would not take them.
    pub conflict: u64,
}

/// What would be done with an object or a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PlannedAction {
    /// The cluster would not take it; the reason says why.
    Conflict,
    /// What is there is deleted, and it is made anew.
    Replace,
    /// What is there is changed.
    Update,
    /// It is made.
    Create,
    /// It is left out by a rule that the reason names.
    Skip,
    /// What is there stays as it is.
    Keep,
}

impl PlannedAction {
    /// Whether a volume of which this is said would be filled.
    #[must_use]
    pub fn fills(self) -> bool {
        matches!(self, Self::Create | Self::Replace)
    }
}

/// What would be done with an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectPlan {
    /// Which: kind, namespace and name, as they would be.
    pub item: String,
    /// What would be done.
    pub action: PlannedAction,
    /// Why, where that does not go without saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The fields that would be others than they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<PlannedChange>,
    /// Changes that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted_changes: u64,
    /// What transformations make of the object that the recovery point has: the fields that they change, whatever is there now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transformed: Vec<PlannedChange>,
    /// Fields that transformations change and that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted_transformed: u64,
    /// Its status would be written back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restores_status: bool,
    /// What would put it back to what its own source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A field that would be another than it is. Values are JSON, cut when they are long; those of Secrets are never shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    /// Where, as a JSON pointer.
    pub path: String,
    /// What is there; absent if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What would be there; absent if nothing would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What would be done with a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumePlan {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub claim: String,
    /// What would be done.
    pub action: PlannedAction,
    /// Why, where that does not go without saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it is a block device, which would be filled with an image: then there are no files, and the bytes are the size of the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image: bool,
    /// Files in the recovery point.
    pub files: u64,
    /// Bytes of these files, or of the image.
    pub bytes: u64,
    /// What transformations make of the claim that the recovery point has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transformed: Vec<PlannedChange>,
}
