//! The ledger: every object that was wanted, and what became of it. A run whose ledger has a hole is not green.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    canonical,
    key::{BadKey, ObjectKey},
};

/// What became of an object that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// It is in the recovery point.
    Stored,
    /// A named rule left it out, because it comes back by itself or means nothing elsewhere. A name and not [`crate::Rule`]: a
    /// ledger that a newer Orlop wrote, with rules of its own, still reads.
    Skipped {
        /// Name of the rule; [`crate::Rule::why`] explains it.
        rule: String,
    },
    /// It should be in the recovery point, and is not.
    Missed {
        /// What went wrong.
        reason: String,
    },
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The object; [`ObjectKey::ALL_NAMES`] as name stands for all objects of the kind.
    pub key: ObjectKey,
    /// What became of it.
    pub outcome: Outcome,
}

/// A line of the ledger that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadEntry {
    /// The key does not name an object.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// The value is not what a ledger holds.
    #[error("the ledger's value for the key {key:?} is damaged, or written by a newer Orlop")]
    Value {
        /// The key, as text.
        key: String,
        /// What is wrong with the value.
        #[source]
        source: serde_json::Error,
    },
}

/// The value of an entry in the table: everything that is not in its key.
#[derive(Serialize, Deserialize)]
struct EntryValue {
    version: String,
    #[serde(flatten)]
    outcome: Outcome,
}

impl LedgerEntry {
    /// The key and the value of this entry in a table.
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let value = EntryValue { version: self.key.version.clone(), outcome: self.outcome.clone() };
        let value = serde_json::to_value(value).expect("strings and string-keyed maps always serialise");
        (self.key.encode(), canonical::to_bytes(&value))
    }

    /// Reads back what `encode` wrote.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, BadEntry> {
        let value: EntryValue = serde_json::from_slice(value)
            .map_err(|source| BadEntry::Value { key: String::from_utf8_lossy(key).into_owned(), source })?;
        Ok(Self { key: ObjectKey::decode(key, &value.version)?, outcome: value.outcome })
    }
}

/// The ledger in figures. Wanted is always the sum of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSummary {
    /// Entries that are in the recovery point.
    pub stored: u64,
    /// Entries left out, by the name of their rule.
    pub skipped: BTreeMap<String, u64>,
    /// Entries that should be in the recovery point, and are not.
    pub missed: u64,
}

impl LedgerSummary {
    /// Counts one more entry.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Stored => self.stored += 1,
            Outcome::Skipped { rule } => *self.skipped.entry(rule.clone()).or_default() += 1,
            Outcome::Missed { .. } => self.missed += 1,
        }
    }

    /// All entries.
    pub fn wanted(&self) -> u64 {
        self.stored + self.missed + self.skipped.values().sum::<u64>()
    }

    /// Whether nothing that should be in the recovery point is absent from it.
    pub fn is_complete(&self) -> bool {
        self.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(outcome: Outcome) -> LedgerEntry {
        let key = ObjectKey {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            namespace: Some("shop".into()),
            name: "web".into(),
        };
        LedgerEntry { key, outcome }
    }

    #[test]
    fn an_entry_has_one_byte_form_and_reads_back() {
        for (outcome, value) in [
            (Outcome::Stored, r#"{"outcome":"stored","version":"v1"}"#),
            (Outcome::Skipped { rule: "events".into() }, r#"{"outcome":"skipped","rule":"events","version":"v1"}"#),
            (Outcome::Missed { reason: "gone".into() }, r#"{"outcome":"missed","reason":"gone","version":"v1"}"#),
        ] {
            let entry = entry(outcome);
            let (key, bytes) = entry.encode();
            assert_eq!(String::from_utf8_lossy(&bytes), value);
            assert_eq!(LedgerEntry::decode(&key, &bytes).expect("just encoded"), entry);
        }
    }

    #[test]
    fn damaged_entries_are_errors() {
        let (key, _) = entry(Outcome::Stored).encode();
        for value in [
            "",
            "{}",
            r#"{"version":"v1"}"#,
            r#"{"version":"v1","outcome":"lost"}"#,
            r#"{"version":"v1","outcome":"skipped"}"#,
        ] {
            assert!(LedgerEntry::decode(&key, value.as_bytes()).is_err(), "{value}");
        }
        assert!(matches!(LedgerEntry::decode(b"x", br#"{"version":"v1","outcome":"stored"}"#), Err(BadEntry::Key(_))));
    }

    #[test]
    fn wanted_is_the_sum_and_a_miss_is_a_hole() {
        let mut summary = LedgerSummary::default();
        summary.add(&Outcome::Stored);
        summary.add(&Outcome::Skipped { rule: "events".into() });
        summary.add(&Outcome::Skipped { rule: "events".into() });
        assert_eq!((summary.wanted(), summary.is_complete()), (3, true));
        assert_eq!(summary.skipped["events"], 2);
        summary.add(&Outcome::Missed { reason: "forbidden".into() });
        assert_eq!((summary.wanted(), summary.is_complete()), (4, false));
    }
}
