//! A data key in clear, for the list of what is attached: in memory, and for as long as it is attached. Without it a device that outlives its server
//! could not be served again before somebody has said the secret.

use super::hex::Hex;
use super::key::{DataKey, KeyId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: KeyId,
    bytes: Hex<{ DataKey::LEN }>,
}

pub(crate) fn serialize<S: Serializer>(key: &Option<DataKey>, serializer: S) -> Result<S::Ok, S::Error> {
    let kept = key.as_ref().map(|key| Kept { id: key.id(), bytes: Hex(*key.bytes()) });
    kept.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DataKey>, D::Error> {
    let kept = Option::<Kept>::deserialize(deserializer)?;
    Ok(kept.and_then(|kept| {
        DataKey::made_by(kept.id, |bytes| {
            *bytes = kept.bytes.0;
            Some(())
        })
    }))
}
