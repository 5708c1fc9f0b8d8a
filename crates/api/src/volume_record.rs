//! `VolumeRecord`: what is known of a replicated volume for certain. It is changed by who serves the volume, and by the controller, which places replicas and never says that one is in sync.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// Who may serve a volume, and which of its replicas hold all that was acknowledged.
///
/// The object's name is the id of the volume: 32 hexadecimal digits.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "VolumeRecord",
    doc = "Who may serve a replicated volume, and which of its replicas hold all that was acknowledged. Orlop writes it; one that is changed by hand may lose data.",
    plural = "volumerecords",
    shortname = "volrec",
    category = "orlop",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Attached","type":"string","jsonPath":".spec.attached.node"}"#,
    printcolumn = r#"{"name":"In Sync","type":"integer","jsonPath":".spec.inSync"}"#,
    printcolumn = r#"{"name":"Members","type":"integer","jsonPath":".spec.memberCount"}"#,
    printcolumn = r#"{"name":"Epoch","type":"string","jsonPath":".spec.epoch"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecordSpec {
    /// The number of the last attachment or change of membership.
    pub epoch: Counter,
    /// Who may serve the volume; nobody if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<RecordAttached>,
    /// Replicas that are in sync may differ in what was born in this epoch or later, by writes that nobody acknowledged.
    pub equal: Counter,
    /// All replicas, in the order of their ids.
    pub members: Vec<RecordMember>,
    /// How many of the members are in sync. It says nothing that they do not say: one that differs from them marks a record that was changed by hand.
    pub in_sync: u32,
    /// How many members there are; like `inSync`.
    pub member_count: u32,
    /// How many replicas have to be in sync for writes and reads to go on.
    pub minimum: u32,
    /// Blocks of the volume.
    pub blocks: Counter,
    /// How many there are to be, if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_blocks: Option<Counter>,
    /// Its snapshots, in the order of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<RecordSnapshot>,
}

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordSnapshot {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// Not given: it is wanted, and not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<RecordTaken>,
}

/// A snapshot that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordTaken {
    /// The epoch that it was taken in.
    pub epoch: Counter,
    /// Its size.
    pub blocks: Counter,
    /// The replicas that have it, in the order of their ids.
    pub holders: Vec<String>,
}

/// Who serves a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordAttached {
    /// On which node.
    pub node: String,
    /// By which process, in which attempt: 32 hexadecimal digits.
    pub id: String,
}

/// A replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordMember {
    /// Its id: 16 hexadecimal digits.
    pub replica: String,
    /// Where it is.
    pub node: String,
    /// What it is worth.
    pub standing: RecordStanding,
    /// Of one that is stale: it holds all that was acknowledged and born before this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<Counter>,
    /// It shall leave as soon as the others are enough.
    #[serde(default)]
    pub retiring: bool,
}

/// What a replica is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecordStanding {
    /// It holds every acknowledged write.
    InSync,
    /// It lacks some.
    #[default]
    Stale,
}

/// A number of up to 64 bits. It is written as text, since the API server keeps only numbers below 2^63 exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter(pub u64);

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Counter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let digits_only = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits_only);
        number.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is not a number of up to 64 bits")))
    }
}

impl JsonSchema for Counter {
    fn schema_name() -> Cow<'static, str> {
        "Counter".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,20}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn counters_are_text_and_nothing_else() {
        for number in [0, 7, u64::MAX] {
            let text = serde_json::to_string(&Counter(number)).unwrap();
            assert_eq!(text, format!("\"{number}\""));
            assert_eq!(serde_json::from_str::<Counter>(&text).unwrap(), Counter(number));
        }
        for wrong in ["7", "\"\"", "\"-1\"", "\"+1\"", "\"18446744073709551616\"", "\"1e3\"", "null"] {
            assert!(serde_json::from_str::<Counter>(wrong).is_err(), "{wrong}");
        }
    }
}
