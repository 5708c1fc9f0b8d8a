//! Names of the orchestrator, and the ids that follow from them.
//!
//! A name that can be the name of a volume is its id, so that `orlop volume show` knows it as `kubectl` does. Another one (too long, or with letters that
//! no path should have) becomes `n-` and 40 digits of its hash. What was given is noted beside it; so two names that come to one id are told apart.

/// What the ids of derived names begin with.
const DERIVED: &str = "n-";
/// The longest name that is an id as it is; a node allows 127.
const MOST: usize = 120;

/// The id of a volume, or the second part of a snapshot's.
pub(crate) fn id(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= MOST && name.chars().all(fits) && !name.starts_with(DERIVED) {
        return name.to_owned();
    }
    derived(DERIVED, name)
}

/// An id that only this driver gives, for a purpose.
pub(crate) fn derived(purpose: &str, name: &str) -> String {
    format!("{purpose}{}", &blake3::hash(name.as_bytes()).to_hex()[..40])
}

/// The id of a snapshot.
pub(crate) fn snapshot(volume: &str, name: &str) -> String {
    format!("{volume}@{name}")
}

/// The volume that a snapshot's id says it was taken of.
pub(crate) fn volume_of(snapshot: &str) -> Option<&str> {
    snapshot.split_once('@').map(|(volume, _)| volume)
}

/// What is noted of volumes and snapshots.
pub(crate) mod labels {
    /// The name that the orchestrator gave.
    pub(crate) const NAME: &str = "volumes.orlop.io/name";
    /// The file system that it is to have, if one was named.
    pub(crate) const FS: &str = "volumes.orlop.io/fs";
    /// The size that it is to have at first; a clone is made with the size of its source, and then grows.
    pub(crate) const BYTES: &str = "volumes.orlop.io/bytes";
    /// What it was made from: `snapshot ID`, `volume ID`.
    pub(crate) const SOURCE: &str = "volumes.orlop.io/source";
    /// The limits that it had at first, as they were asked for.
    pub(crate) const LIMITS: &str = "volumes.orlop.io/limits";
    /// The entry of the Secret that it is encrypted with.
    pub(crate) const SECRET: &str = "volumes.orlop.io/secret-entry";
    /// The rules about where its replicas are, by their name.
    pub(crate) const PLACEMENT: &str = "volumes.orlop.io/placement-strategy";
    /// A file system is being made on it; nobody has mounted it yet.
    pub(crate) const FORMATTING: &str = "volumes.orlop.io/formatting";
    /// Of a snapshot: the group that it was taken with.
    pub(crate) const GROUP: &str = "volumes.orlop.io/group";
    /// Of such a snapshot: how many the group has; where fewer are there, the node has ended while they were taken or deleted.
    pub(crate) const MEMBERS: &str = "volumes.orlop.io/members";
    /// Of a snapshot: the volume that is being cloned from it, for which alone it is there.
    pub(crate) const FOR_CLONE: &str = "volumes.orlop.io/for-clone";
}

/// Whether what is noted of a snapshot says that it is there for the sake of one clone alone.
#[must_use]
pub fn is_for_clone(noted: &std::collections::BTreeMap<String, String>) -> bool {
    noted.contains_key(labels::FOR_CLONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_name_is_an_id_and_every_name_has_one() {
        assert_eq!(id("pvc-0aF9.x_1"), "pvc-0aF9.x_1");
        let odd: Vec<_> = ["", "-x", "a@b", "a/b", "ein Ärger", "n-fake", &"x".repeat(128)].map(id).to_vec();
        for id in &odd {
            assert!(id.starts_with("n-") && id.len() == 42, "{id}");
        }
        assert_eq!(odd.iter().collect::<std::collections::BTreeSet<_>>().len(), odd.len());
        assert_eq!(id("ein Ärger"), id("ein Ärger"));
    }

    #[test]
    fn a_snapshot_says_of_what_it_was_taken() {
        assert_eq!(volume_of(&snapshot("a", "b")), Some("a"));
        assert_eq!(volume_of("a"), None);
    }
}
