//! What a repository has recorded about its store, for people and for programs.

use repository::{Known, Lock};
use serde::Serialize;

use crate::human;

/// What was recorded about a store when a repository was made in it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreLine {
    /// Whether it refuses to create what exists.
    conditional_create: bool,
    /// Whether it keeps what is deleted or overwritten; absent where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<bool>,
    /// Whether it can lock objects.
    object_lock: bool,
    /// How what is stored is locked; absent where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<Lock>,
}

impl StoreLine {
    pub(super) fn new(known: Known) -> Self {
        Self {
            conditional_create: known.conditional_create,
            versions: known.abilities.versions,
            object_lock: known.abilities.object_lock.is_some(),
            lock: known.lock,
        }
    }

    /// What is worth knowing, a sentence to a line; nothing where the store does what is expected of it.
    pub(super) fn sentences(&self) -> String {
        let mut text = String::new();
        if !self.conditional_create {
            text.push_str("The store overwrites what exists: only one writer at a time is safe.\n");
        }
        match self.lock {
            Some(lock) => {
                let hours = lock.seconds / 3_600;
                let time = match hours % 24 {
                    0 => human::count(hours / 24, "day", "days"),
                    _ => human::count(hours, "hour", "hours"),
                };
                text.push_str(&format!(
                    "A recovery point cannot be destroyed for {time} after it is made (mode {}).\n",
                    lock.mode
                ));
            }
            None if self.object_lock => {
                text.push_str("The bucket has object lock, and this repository does not use it.\n");
            }
            None => {}
        }
        text
    }
}
