//! `ResourceTransformation`: what is changed in objects when a restore brings them back.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Changes to objects, for the restores that name them.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "ResourceTransformation",
    doc = "Changes that are made to objects when a restore that names them brings the objects back.",
    plural = "resourcetransformations",
    shortname = "ort",
    category = "orlop",
    namespaced,
    status = "ResourceTransformationStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Resources","type":"string","jsonPath":".spec.transformSpecs[*].resource"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ResourceTransformationSpec {
    /// One after the other. Which of them an object is changed by is decided before any of them changes it.
    #[schemars(length(min = 1, max = 64))]
    pub transform_specs: Vec<TransformSpec>,
}

/// Changes to some objects. `paths` come first, then `jsonPatch`, then `mergePatch`; at least one of them is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransformSpec {
    /// Group, version and kind, as the recovery point has them: `apps/v1/Deployment`, `v1/Service`.
    #[schemars(length(min = 1, max = 512))]
    pub resource: String,
    /// Only objects of these names, as the restore would make them; all if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub names: Vec<String>,
    /// Labels that an object must bear, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selectors: BTreeMap<String, String>,
    /// Changes of single fields. No place for what is secret: who may read transformations and restores can read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub paths: Vec<TransformPath>,
    /// A JSON patch, as in RFC 6902. It is done as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub json_patch: Vec<PatchOperation>,
    /// A merge patch, as in RFC 7386, written as YAML or JSON. It is a text because servers and tools drop the `null` of a field that is to
    /// go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub merge_patch: Option<String>,
}

/// A change of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransformPath {
    /// The field: names with dots between them, such as `spec.replicas`; or, where a name has a dot itself, a JSON pointer, such as
    /// `/metadata/labels/example.com~1tier`. Items of lists have numbers, from 0.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// What is done with it.
    pub operation: PathOperation,
    /// What the value is.
    #[serde(default, rename = "type")]
    pub type_: ValueType,
    /// The value. Only `delete` has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub value: Option<String>,
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PathOperation {
    /// It gets the value, whether it is there or not; the maps that lead to it are made where they are not there. A `keypair` is put over a map
    /// that is there.
    #[default]
    Add,
    /// It must be there, and gets the value. A `slice` is appended to what is there, a `keypair` is put over it.
    Modify,
    /// It must be there, and goes.
    Delete,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ValueType {
    /// A text.
    #[default]
    String,
    /// A whole number.
    Int,
    /// `true` or `false`.
    Bool,
    /// A list of texts, with commas between them.
    Slice,
    /// A map of texts: `key:value`, with commas between them.
    Keypair,
}

/// One operation of a JSON patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchOperation {
    /// What is done.
    pub op: PatchOp,
    /// Where, as a JSON pointer.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Where `move` and `copy` take the value from, as a JSON pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub from: Option<String>,
    /// What `add` and `replace` put there, and `test` wants to find there. Anything but `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub value: Option<Value>,
}

/// What an operation of a JSON patch does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PatchOp {
    /// Puts a value where none is, or in place of the one that is there.
    #[default]
    Add,
    /// Removes what is there.
    Remove,
    /// Puts a value in place of the one that is there.
    Replace,
    /// Removes a value from one place and puts it in another.
    Move,
    /// Puts a value of one place in another, too.
    Copy,
    /// Refuses an object that does not have just this value.
    Test,
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Whether a transformation can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransformationPhase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// It can be used. Whether it fits the objects of a recovery point, a restore finds out before it changes anything.
    Ready,
    /// It cannot be used; the message says why.
    Failed,
}

/// What is known of a transformation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceTransformationStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether it can be used.
    #[serde(default)]
    pub phase: TransformationPhase,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
