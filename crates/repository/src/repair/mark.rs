//! The object that tells a collector which packs a repair has stored.
//!
//! No recovery point refers to these packs: readers come to them through the index. So the session has an object of its own, made before its
//! first pack; as long as it is there, all packs of the session count as referred to. The name says everything, so that damage to the bytes
//! costs nothing.

use crate::checked_json;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::ids::WriterId;
use crate::layout;
use crate::repository::{FORMAT_VERSION, Repository};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const FORMAT: &str = "orlop-repair";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mark {
    format: String,
    version: u32,
    writer: WriterId,
}

fn mark(writer: WriterId) -> Mark {
    Mark { format: FORMAT.to_owned(), version: FORMAT_VERSION, writer }
}

/// Makes the object of a session.
pub(super) async fn put(repo: &Repository, writer: WriterId) -> Result<()> {
    let bytes = checked_json::write(&mark(writer)).map_err(|what| Error::invalid(what.to_string()))?;
    Ok(repo.store().put_new(&layout::repair(&writer), Bytes::from(bytes)).await?)
}

/// Whether the bytes are those of the object of this session.
pub(crate) fn verify(bytes: &[u8], writer: WriterId) -> Result<(), Malformed> {
    if checked_json::read::<Mark>(bytes)? == mark(writer) {
        Ok(())
    } else {
        Err(Malformed::new("it is not that of this repair"))
    }
}
