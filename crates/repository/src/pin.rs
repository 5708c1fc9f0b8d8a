//! Pins: recovery points that must not be forgotten, each with the reason.
//!
//! A pin is an object of its own under the name of its recovery point, because the point itself never changes. That the object
//! is there is what protects; what it says is for people. So damage to a pin never gives a recovery point free.

use crate::checked_json;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::ids::PointId;
use crate::layout::{self, ObjectName};
use crate::repository::{MAX_PLAIN_OBJECT_LEN, Repository};
use crate::store::StoreErrorKind;
use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FORMAT: &str = "orlop-pin";
const VERSION: u32 = 1;
/// The longest reason, in bytes: a sentence or two. Escaped as JSON it is still far from the limit of checked JSON.
pub const MAX_REASON_LEN: usize = 512;
/// How many pins are read at once when they are listed.
const READS: usize = 8;

/// Why a recovery point is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Who wants it, or what for.
    pub reason: String,
    /// Since when.
    pub created: Timestamp,
}

/// The object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PinObject {
    format: String,
    version: u32,
    point: PointId,
    reason: String,
    created: Timestamp,
}

impl Repository {
    /// Keeps a recovery point from being forgotten, until [`Repository::unpin`].
    ///
    /// It counts for whoever begins to forget after this has returned. Pinning again for the same reason is a success.
    pub async fn pin(&self, id: &PointId, reason: &str, now: Timestamp) -> Result<Pin> {
        self.may_pin(id, reason).await?;
        let pin = Pin { reason: reason.to_owned(), created: now };
        let bytes = encode(id, &pin).map_err(|what| Error::invalid(what.to_string()))?;
        match self.store().put_new(&layout::pin(id), Bytes::from(bytes)).await {
            // The one that there was for the same reason, or that somebody else has made since.
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => {
                return self.pinned_for(id, reason).await?.ok_or_else(|| Error::NoSuchPoint { id: id.clone() });
            }
            created => created?,
        }
        // Who was forgetting it meanwhile did not see the pin; then there is nothing to keep, and that must be said.
        match self.look_for_point(id).await {
            Err(error @ Error::NoSuchPoint { .. }) => {
                self.store().delete(&layout::pin(id)).await?;
                Err(error)
            }
            found => found.map(|()| pin),
        }
    }

    /// Looks whether a recovery point can be pinned for this reason: it is there, and not pinned for another one.
    pub async fn may_pin(&self, id: &PointId, reason: &str) -> Result<()> {
        check_reason(reason).map_err(|what| Error::invalid(what.to_string()))?;
        self.look_for_point(id).await?;
        self.pinned_for(id, reason).await.map(drop)
    }

    /// The pin that there is; one for another reason is refused.
    async fn pinned_for(&self, id: &PointId, reason: &str) -> Result<Option<Pin>> {
        match self.read_pin(id).await? {
            Some(pin) if pin.reason != reason => Err(Error::Pinned { id: id.clone(), reason: pin.reason }),
            pin => Ok(pin),
        }
    }

    /// One that is damaged can be pinned too: it may be repaired.
    async fn look_for_point(&self, id: &PointId) -> Result<()> {
        match self.point(id).await {
            Err(Error::Damaged { .. }) => Ok(()),
            found => found.map(drop),
        }
    }

    /// Lets a recovery point be forgotten again; tells whether there was a pin.
    pub async fn unpin(&self, id: &PointId) -> Result<bool> {
        let was_pinned = self.is_pinned(id).await?;
        if was_pinned {
            self.store().delete(&layout::pin(id)).await?;
        }
        Ok(was_pinned)
    }

    /// Whether there is a pin, whatever it says.
    pub async fn is_pinned(&self, id: &PointId) -> Result<bool> {
        match self.store().head(&layout::pin(id)).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            found => Ok(found.map(|_| true)?),
        }
    }

    /// All pins; one that is damaged still pins.
    pub async fn pins(&self) -> Result<BTreeMap<PointId, Result<Pin>>> {
        let objects = self.store().list(&layout::domain_folder("pins")).await?;
        let ids = objects.iter().filter_map(|object| match layout::parse(&object.name) {
            ObjectName::Pin(id) => Some(id),
            _ => None,
        });
        let reads = ids.map(|id| async move { (self.read_pin(&id).await.transpose(), id) });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(READS);
        let mut pins = BTreeMap::new();
        while let Some((pin, id)) = reads.next().await {
            // One that is gone was taken away since it was listed.
            if let Some(pin) = pin {
                pins.insert(id, pin);
            }
        }
        Ok(pins)
    }

    /// The pin of a recovery point, if it has one.
    pub async fn read_pin(&self, id: &PointId) -> Result<Option<Pin>> {
        let name = layout::pin(id);
        match self.store().get(&name, MAX_PLAIN_OBJECT_LEN).await {
            Ok(bytes) => decode(id, &bytes).map(Some).map_err(|what| what.in_object(name)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses what is pinned; a pin that cannot be read refuses too. [`Repository::forget`] does this by itself.
    pub async fn refuse_pinned(&self, id: &PointId) -> Result<()> {
        match self.read_pin(id).await {
            Ok(None) => Ok(()),
            Ok(Some(pin)) => Err(Error::Pinned { id: id.clone(), reason: pin.reason }),
            Err(Error::Damaged { .. }) => {
                Err(Error::Pinned { id: id.clone(), reason: "its pin is damaged, and does not say why".to_owned() })
            }
            Err(error) => Err(error),
        }
    }
}

fn check_reason(reason: &str) -> Result<(), Malformed> {
    if reason.trim().is_empty() || reason.len() > MAX_REASON_LEN || reason.chars().any(char::is_control) {
        return Err(Malformed::new(format!(
            "the reason of a pin is one line of 1 to {MAX_REASON_LEN} bytes, without control characters"
        )));
    }
    Ok(())
}

fn encode(id: &PointId, pin: &Pin) -> Result<Vec<u8>, Malformed> {
    checked_json::write(&PinObject {
        format: FORMAT.to_owned(),
        version: VERSION,
        point: id.clone(),
        reason: pin.reason.clone(),
        created: pin.created,
    })
}

/// Reads the object of a pin, every byte of it.
pub(crate) fn decode(id: &PointId, bytes: &[u8]) -> Result<Pin, Malformed> {
    let object: PinObject = checked_json::read(bytes)?;
    if object.format != FORMAT || object.version != VERSION {
        return Err(Malformed::new(format!("it is no {FORMAT} of version {VERSION}")));
    }
    if object.point != *id {
        return Err(Malformed::new(format!("it is the pin of {}", object.point)));
    }
    check_reason(&object.reason)?;
    Ok(Pin { reason: object.reason, created: object.created })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_survives_and_counts_only_under_its_name() {
        let id: PointId = "one".parse().unwrap();
        let pin = Pin { reason: "audit \"2026\" – ä".to_owned(), created: "2026-11-25T10:00:00Z".parse().unwrap() };
        let bytes = encode(&id, &pin).unwrap();
        let text = r#"{"format":"orlop-pin","version":1,"point":"one","reason":"audit \"2026\" – ä","created":"2026-11-25T10:00:00Z","checksum":""#;
        assert!(String::from_utf8(bytes.clone()).unwrap().starts_with(text));
        assert_eq!(decode(&id, &bytes), Ok(pin));
        assert!(decode(&"two".parse().unwrap(), &bytes).is_err());
    }

    #[test]
    fn a_reason_is_one_line() {
        for good in ["a", &"x".repeat(MAX_REASON_LEN), "ä b"] {
            assert!(check_reason(good).is_ok(), "{good}");
        }
        for bad in ["", " ", "a\nb", "a\u{7}", &"x".repeat(MAX_REASON_LEN + 1)] {
            assert!(check_reason(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_pin_is_read() {
        let id: PointId = "x".repeat(PointId::MAX_LEN).parse().unwrap();
        let pin = Pin { reason: "\"".repeat(MAX_REASON_LEN), created: Timestamp::MAX };
        assert!((encode(&id, &pin).unwrap().len() as u64) < MAX_PLAIN_OBJECT_LEN);
    }
}
