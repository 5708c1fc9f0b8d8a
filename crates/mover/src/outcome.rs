//! What became of a job.

use repository::tree::{self, Incidents, TreeSummary};
use repository::volume::{self, VolumeSummary};
use repository::{SessionId, TableRef};
use serde::{Deserialize, Serialize};

use crate::failure::{Error, Failure};
use crate::packs::PackList;

/// Greatest length of an outcome as JSON, in bytes: what the kubelet takes of a termination message.
pub const MESSAGE_BYTES: usize = 4096;

/// Most characters of one path or text that an outcome is cut to when it is too long.
const CUT_TEXT_CHARACTERS: usize = 160;

/// The result of a job. When it is `ok`, the part for its direction is there and there is no failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Also there when files were missed: the tree holds the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    pub seconds: f64,
}

/// What a backup stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backup {
    pub stored: Stored,
    pub packs: PackList,
    /// The sessions that wrote them; the recovery point must name them.
    pub sessions: Vec<SessionId>,
}

/// The volume as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "there is one of them per mover")]
pub enum Stored {
    /// As files.
    Files(TreeSummary),
    /// As an image.
    Image {
        volume: VolumeSummary,
        /// Bytes of it that were new to the repository.
        new_bytes: u64,
    },
}

/// What a restore filled in, and what the comparison with the repository found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Restore {
    /// Files.
    Files { tree: tree::RestoreSummary, differences: Incidents },
    /// An image, which the device was found to be equal to.
    Image(volume::RestoreSummary),
}

impl Outcome {
    pub(crate) fn of_backup(backup: Backup) -> Self {
        let missed = match &backup.stored {
            Stored::Files(tree) => tree.missed.clone(),
            Stored::Image { .. } => Incidents::default(),
        };
        let failure = first_of(&missed).map(|first| Failure::from(&Error::Missed { count: missed.count, first }));
        Self { ok: failure.is_none(), failure, backup: Some(backup), ..Self::default() }
    }

    pub(crate) fn of_restore(restore: Restore) -> Self {
        let error = match &restore {
            Restore::Files { tree, differences } => match (first_of(&tree.failed), first_of(differences)) {
                (Some(first), _) => Some(Error::NotRestored { count: tree.failed.count, first }),
                (None, Some(first)) => Some(Error::Different { count: differences.count, first }),
                (None, None) => None,
            },
            Restore::Image(_) => None,
        };
        let failure = error.as_ref().map(Failure::from);
        Self { ok: failure.is_none(), failure, restore: Some(restore), ..Self::default() }
    }

    pub(crate) fn failed(error: &Error) -> Self {
        Self { failure: Some(Failure::from(error)), ..Self::default() }
    }

    /// The table of what a backup stored.
    #[must_use]
    pub fn root(&self) -> Option<TableRef> {
        self.backup.as_ref().map(|backup| match &backup.stored {
            Stored::Files(tree) => tree.root,
            Stored::Image { volume, .. } => volume.root,
        })
    }

    /// The outcome as JSON of at most [`MESSAGE_BYTES`]: names of files are shortened and then left out, counts never.
    #[must_use]
    pub fn to_message(&self) -> String {
        let mut outcome = self.clone();
        let mut text = outcome.to_json();
        if text.len() > MESSAGE_BYTES {
            outcome.cut_texts();
            text = outcome.to_json();
        }
        while text.len() > MESSAGE_BYTES && outcome.drop_one_name() {
            text = outcome.to_json();
        }
        text
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self)
            .expect("an outcome has neither maps with other keys than texts nor numbers that are none")
    }

    fn incidents(&mut self) -> Vec<&mut Incidents> {
        let mut lists = Vec::new();
        if let Some(Backup { stored: Stored::Files(tree), .. }) = &mut self.backup {
            lists.extend([&mut tree.skipped, &mut tree.vanished, &mut tree.changed_while_read, &mut tree.missed]);
        }
        if let Some(Restore::Files { tree, differences }) = &mut self.restore {
            lists.extend([&mut tree.failed, differences]);
        }
        lists
    }

    fn cut_texts(&mut self) {
        if let Some(failure) = &mut self.failure {
            cut(&mut failure.error, 2 * CUT_TEXT_CHARACTERS);
        }
        if let Some(Backup { stored: Stored::Files(TreeSummary { parent_lost: Some(lost), .. }), .. }) =
            &mut self.backup
        {
            cut(lost, CUT_TEXT_CHARACTERS);
        }
        for incident in self.incidents().into_iter().flat_map(|list| &mut list.first) {
            cut(&mut incident.path, CUT_TEXT_CHARACTERS);
            cut(&mut incident.what, CUT_TEXT_CHARACTERS);
        }
    }

    /// Drops a name from the longest list; says whether there was one.
    fn drop_one_name(&mut self) -> bool {
        let longest = self.incidents().into_iter().max_by_key(|list| list.first.len());
        longest.is_some_and(|list| list.first.pop().is_some())
    }
}

fn first_of(incidents: &Incidents) -> Option<String> {
    if incidents.is_empty() {
        return None;
    }
    let first = incidents.first.first().map(|first| format!("{} ({})", first.path, first.what));
    Some(first.unwrap_or_default())
}

/// Keeps the first characters.
fn cut(text: &mut String, characters: usize) {
    if let Some((at, _)) = text.char_indices().nth(characters) {
        text.truncate(at);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use repository::tree::Incident;
    use repository::{BlobId, BlobRef, PackId, PackInfo, WriterId};

    use super::*;
    use crate::failure::FailureKind;

    fn many(what: &str) -> Incidents {
        let incident =
            |index| Incident { path: format!("{index}/{}", "long name/".repeat(400)), what: what.repeat(50) };
        Incidents { count: 1_000_000, first: (0..20).map(incident).collect() }
    }

    #[test]
    fn the_longest_outcome_fits_into_a_message_and_keeps_its_counts() {
        let pack = PackId { epoch: u64::MAX, writer: WriterId([0xff; 12]), sequence: u32::MAX };
        let root =
            BlobRef { id: BlobId([0xff; 32]), pack, offset: u32::MAX, stored_len: u32::MAX, plain_len: u32::MAX };
        let root = TableRef { root, height: u8::MAX, entries: u64::MAX };
        let tree = TreeSummary {
            root,
            files: u64::MAX,
            directories: u64::MAX,
            others: u64::MAX,
            bytes: u64::MAX,
            new_bytes: u64::MAX,
            unchanged_files: u64::MAX,
            changed_while_read: many("changed"),
            vanished: many("vanished"),
            skipped: many("skipped"),
            missed: many("Größe: 大きさ"),
            parent_lost: Some("lost ".repeat(1000)),
        };
        let listed = vec![PackInfo { id: pack, bytes: u64::MAX }; 8];
        let sessions = vec![SessionId { epoch: u64::MAX, writer: pack.writer }; 2];
        let packs = PackList { count: u64::MAX, bytes: u64::MAX, listed, table: Some(root) };
        let outcome = Outcome {
            seconds: 123_456.789,
            ..Outcome::of_backup(Backup { stored: Stored::Files(tree), packs, sessions })
        };
        assert!(!outcome.ok);
        let text = outcome.to_message();
        assert!(text.len() <= MESSAGE_BYTES, "{} bytes", text.len());
        let read: Outcome = serde_json::from_str(&text).unwrap();
        assert_eq!(read.failure.unwrap().kind, FailureKind::Incomplete);
        let (read, whole) = (read.backup.unwrap(), outcome.backup.unwrap());
        let Stored::Files(tree) = read.stored else { panic!("an image") };
        assert_eq!((tree.missed.count, tree.root, read.packs), (1_000_000, root, whole.packs));
        assert!(!tree.missed.first.is_empty(), "some names are left");
    }

    #[test]
    fn a_short_outcome_is_not_cut() {
        let error = Error::Missed { count: 1, first: "path".repeat(100) };
        let outcome = Outcome::failed(&error);
        assert_eq!(serde_json::from_str::<Outcome>(&outcome.to_message()).unwrap(), outcome);
    }
}
