//! The names of all objects of a repository.

use crate::codec::from_hex;
use crate::ids::{KeyId, PackId, PointId, SessionId, WriterId};

/// The object that makes a place a repository.
pub(crate) const CONFIG: &str = "orlop-repository";
/// The folder of the epochs.
pub(crate) const EPOCHS: &str = "epochs/";
/// The folder of objects that try what a store can do.
pub(crate) const PROBES: &str = "probes/";
/// The folder in which a file system keeps files that are not complete yet.
pub(crate) const UNFINISHED: &str = "unfinished/";
/// The only dedup domain (tenant) so far; named in every path, so that more can follow.
pub(crate) const DOMAIN: &str = "default";

/// One index run of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RunId {
    pub(crate) epoch: u64,
    pub(crate) writer: WriterId,
    pub(crate) sequence: u32,
}

/// What an object is, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectName {
    Config,
    Epoch(u64),
    Key(KeyId),
    /// A removal of a key that was begun; the second id is the remover's.
    Removal(KeyId, KeyId),
    Pack(PackId),
    Run(RunId),
    /// A recovery point, or the tombstone that says that there will be none of this name.
    Point(PointId),
    Pin(PointId),
    /// The mark of a session that repaired something.
    Repair(WriterId),
    Session(SessionId),
    /// A sign of life of a session.
    Beat(SessionId, u32),
    /// The collection that ends the epoch before.
    Collection(u64),
    /// That this collection is over.
    Collected(u64),
    /// Not a name that a repository gives.
    Foreign,
}

pub(crate) fn epoch(epoch: u64) -> String {
    format!("{EPOCHS}{epoch:016x}")
}

/// Whether a file is one that a process was writing, by its name.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_prefix(UNFINISHED).is_some_and(|token| from_hex::<16>(token).is_some())
}

/// The name of any object of a repository; none for a foreign one.
pub(crate) fn name(object: &ObjectName) -> Option<String> {
    Some(match object {
        ObjectName::Config => CONFIG.to_owned(),
        ObjectName::Epoch(number) => epoch(*number),
        ObjectName::Key(id) => key(id),
        ObjectName::Pack(id) => pack(id),
        ObjectName::Run(id) => run(id),
        ObjectName::Point(id) => point(id),
        ObjectName::Session(id) => session(id),
        ObjectName::Beat(id, number) => beat(id, *number),
        ObjectName::Collection(epoch) => collection(*epoch),
        ObjectName::Collected(epoch) => collected(*epoch),
        ObjectName::Removal(key, remover) => removal(key, remover),
        ObjectName::Pin(id) => pin(id),
        ObjectName::Repair(writer) => repair(writer),
        ObjectName::Foreign => return None,
    })
}

pub(crate) fn domain_folder(folder: &str) -> String {
    format!("domains/{DOMAIN}/{folder}/")
}

pub(crate) fn key(id: &KeyId) -> String {
    format!("domains/{DOMAIN}/keys/{id}")
}

/// Each remover has a name of its own, so that nobody withdraws what another one relies on.
pub(crate) fn removal(key: &KeyId, remover: &KeyId) -> String {
    format!("domains/{DOMAIN}/removals/{key}-{remover}")
}

/// Packs are spread over 256 folders by their session, so that a file system's folders stay small.
pub(crate) fn pack(id: &PackId) -> String {
    format!("domains/{DOMAIN}/packs/{:02x}/{id}", id.writer.0[0])
}

pub(crate) fn run(id: &RunId) -> String {
    format!("domains/{DOMAIN}/index/{:016x}-{}-{:08x}", id.epoch, id.writer, id.sequence)
}

pub(crate) fn point(id: &PointId) -> String {
    format!("domains/{DOMAIN}/points/{id}")
}

pub(crate) fn pin(id: &PointId) -> String {
    format!("domains/{DOMAIN}/pins/{id}")
}

pub(crate) fn repair(writer: &WriterId) -> String {
    format!("domains/{DOMAIN}/repairs/{writer}")
}

pub(crate) fn session(id: &SessionId) -> String {
    format!("domains/{DOMAIN}/sessions/{id}")
}

pub(crate) fn beat(id: &SessionId, number: u32) -> String {
    format!("domains/{DOMAIN}/beats/{id}-{number:08x}")
}

pub(crate) fn collection(epoch: u64) -> String {
    format!("domains/{DOMAIN}/collections/{epoch:016x}")
}

pub(crate) fn collected(epoch: u64) -> String {
    format!("domains/{DOMAIN}/collections/{epoch:016x}-done")
}

/// Tells what an object is; a name counts only in the one spelling that is written.
pub(crate) fn parse(name: &str) -> ObjectName {
    let parsed = match name {
        CONFIG => Some(ObjectName::Config),
        _ => name
            .strip_prefix(EPOCHS)
            .map_or_else(|| parse_in_domain(name), |text| fixed_u64(text).map(ObjectName::Epoch)),
    };
    parsed.unwrap_or(ObjectName::Foreign)
}

/// Whether a name is of an object of lasting value, which a repository with a lock locks. What writers and collectors tell each other
/// is not.
pub(crate) fn is_lasting(name: &str) -> bool {
    use ObjectName::{Config, Epoch, Key, Pack, Point, Run};
    matches!(parse(name), Config | Epoch(_) | Key(_) | Pack(_) | Run(_) | Point(_))
}

fn parse_in_domain(name: &str) -> Option<ObjectName> {
    let (folder, rest) = name.strip_prefix("domains/")?.strip_prefix(DOMAIN)?.strip_prefix('/')?.split_once('/')?;
    match folder {
        "keys" => rest.parse().ok().map(ObjectName::Key),
        "removals" => {
            let (key, remover) = rest.split_once('-')?;
            Some(ObjectName::Removal(key.parse().ok()?, remover.parse().ok()?))
        }
        "packs" => {
            let id: PackId = rest.split_once('/')?.1.parse().ok()?;
            (pack(&id) == name).then_some(ObjectName::Pack(id))
        }
        "index" => {
            let mut parts = rest.split('-');
            let id = RunId {
                epoch: fixed_u64(parts.next()?)?,
                writer: parts.next()?.parse().ok()?,
                sequence: from_hex::<4>(parts.next()?).map(u32::from_be_bytes)?,
            };
            (run(&id) == name).then_some(ObjectName::Run(id))
        }
        "points" => rest.parse().ok().map(ObjectName::Point),
        "pins" => rest.parse().ok().map(ObjectName::Pin),
        "repairs" => rest.parse().ok().map(ObjectName::Repair),
        "sessions" => rest.parse().ok().map(ObjectName::Session),
        "beats" => {
            let (session, number) = rest.rsplit_once('-')?;
            Some(ObjectName::Beat(session.parse().ok()?, from_hex::<4>(number).map(u32::from_be_bytes)?))
        }
        "collections" => match rest.strip_suffix("-done") {
            Some(epoch) => fixed_u64(epoch).map(ObjectName::Collected),
            None => fixed_u64(rest).map(ObjectName::Collection),
        },
        _ => None,
    }
}

fn fixed_u64(text: &str) -> Option<u64> {
    from_hex::<8>(text).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_and_no_other() {
        let writer = WriterId([0xab; 12]);
        let pack_id = PackId { epoch: 2, writer, sequence: 7 };
        let run_id = RunId { epoch: 2, writer, sequence: 1 };
        let point_id: PointId = "shop-1".parse().unwrap();
        let session_id = SessionId { epoch: 2, writer };
        let pairs = [
            (session(&session_id), ObjectName::Session(session_id)),
            (beat(&session_id, 9), ObjectName::Beat(session_id, 9)),
            (collection(3), ObjectName::Collection(3)),
            (collected(3), ObjectName::Collected(3)),
            (CONFIG.to_owned(), ObjectName::Config),
            (epoch(17), ObjectName::Epoch(17)),
            (key(&KeyId([1; 16])), ObjectName::Key(KeyId([1; 16]))),
            (removal(&KeyId([1; 16]), &KeyId([2; 16])), ObjectName::Removal(KeyId([1; 16]), KeyId([2; 16]))),
            (pack(&pack_id), ObjectName::Pack(pack_id)),
            (run(&run_id), ObjectName::Run(run_id)),
            (point(&point_id), ObjectName::Point(point_id.clone())),
            (pin(&point_id), ObjectName::Pin(point_id)),
            (repair(&writer), ObjectName::Repair(writer)),
        ];
        for (name, expected) in pairs {
            assert_eq!(parse(&name), expected, "{name}");
            assert_eq!(super::name(&expected).as_deref(), Some(name.as_str()));
            assert_eq!(parse(&format!("{name}.bak")), ObjectName::Foreign, "{name}");
            assert_eq!(parse(&format!("x/{name}")), ObjectName::Foreign, "{name}");
        }
        assert_eq!(epoch(1), "epochs/0000000000000001");
    }
}
