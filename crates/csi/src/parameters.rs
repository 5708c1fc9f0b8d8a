//! The parameters of a storage class, of a class of attributes, and of a class of snapshots.
//!
//! A parameter that is not known, or asks for what is not built, is refused: a volume that is less than its class says is worse than none.

use crate::capability::file_system;
use crate::host::FileSystem;
use crate::volumes::{Limits, Secret};
use std::collections::HashMap;
use tonic::Status;
use zeroize::Zeroizing;

/// The entry of the Secret that a volume is encrypted with, unless the class names another.
const PASSPHRASE: &str = "passphrase";
/// The most copies of a volume: more nodes at once do not fail as often as what else ends a volume.
const MOST_REPLICAS: u32 = 3;
/// What the provisioner and the snapshotter add of the claim and the snapshot, if they are told to.
const ADDED: [&str; 6] = [
    "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/pv/name",
    "csi.storage.k8s.io/volumesnapshot/name",
    "csi.storage.k8s.io/volumesnapshot/namespace",
    "csi.storage.k8s.io/volumesnapshotcontent/name",
];
/// What others can be asked for, and this driver cannot yet.
const NOT_YET: [&str; 5] =
    ["aggregation_level", "io_profile", "preferLocalNodeOnly", "snap_schedule", "csi.storage.k8s.io/fstype"];

/// What a class says of its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) fs: Option<FileSystem>,
    /// How many copies a volume has, each on another node.
    pub(crate) replicas: u32,
    /// The rules about where they are, by their name.
    pub(crate) placement: Option<String>,
    pub(crate) limits: Limits,
    /// The entry of the Secret; volumes are encrypted if there is one.
    pub(crate) secret: Option<String>,
    /// What is noted of the claim.
    pub(crate) claim: Vec<(String, String)>,
}

impl Default for Parameters {
    fn default() -> Self {
        let (limits, claim) = (Limits::default(), Vec::new());
        Self { fs: None, replicas: 1, placement: None, limits, secret: None, claim }
    }
}

impl Parameters {
    /// Out of a request to make a volume; what can be changed later is in `changeable`, and counts more.
    pub(crate) fn new(
        parameters: &HashMap<String, String>,
        changeable: &HashMap<String, String>,
    ) -> Result<Self, Status> {
        let mut read = Self::default();
        let mut is_secure = None;
        for (key, value) in parameters {
            match key.as_str() {
                "fs" => read.fs = file_system(value)?,
                "repl" => match value.parse() {
                    Ok(replicas) if (1..=MOST_REPLICAS).contains(&replicas) => read.replicas = replicas,
                    _ => {
                        let what = format!("repl is {value:.20?}, and must be \"1\" to \"{MOST_REPLICAS}\"");
                        return Err(Status::invalid_argument(what));
                    }
                },
                "placement_strategy" if !value.is_empty() => read.placement = Some(value.clone()),
                "secure" => is_secure = Some(truth(key, value)?),
                "encryptionSecret" if !value.is_empty() => read.secret = Some(value.clone()),
                "iops" | "bandwidth" => limit(&mut read.limits, key, value)?,
                key if ADDED.contains(&key) => read.claim.push((key.to_owned(), value.clone())),
                key => return Err(unknown(key)),
            }
        }
        match (is_secure, &read.secret) {
            (Some(true), None) => read.secret = Some(PASSPHRASE.to_owned()),
            (Some(false), Some(_)) => {
                let what = "secure is false, and encryptionSecret is given; leave one of them out";
                return Err(Status::invalid_argument(what));
            }
            _ => {}
        }
        if read.placement.is_some() && read.replicas == 1 {
            let what =
                "placement_strategy is about volumes with replicas on several nodes; say repl: \"2\" or \"3\" with it";
            return Err(Status::invalid_argument(what));
        }
        read.limits = change(read.limits, changeable)?;
        read.claim.sort();
        Ok(read)
    }

    /// What volumes are encrypted with, out of the secrets of a request.
    pub(crate) fn passphrase(&self, secrets: &HashMap<String, String>) -> Result<Option<Secret>, Status> {
        let Some(entry) = &self.secret else { return Ok(None) };
        secret(entry, secrets).map(Some)
    }
}

/// One entry of a Secret.
pub(crate) fn secret(entry: &str, secrets: &HashMap<String, String>) -> Result<Secret, Status> {
    match secrets.get(entry) {
        Some(secret) if !secret.is_empty() => Ok(Zeroizing::new(secret.as_bytes().to_vec())),
        _ => Err(Status::invalid_argument(format!(
            "the volume is encrypted, and the secrets have no entry {entry:.60?}; name a Secret that has it in the storage class \
             (csi.storage.k8s.io/provisioner-secret-name and csi.storage.k8s.io/node-stage-secret-name, each with -namespace)"
        ))),
    }
}

/// The limits after a change; nothing else can be changed.
pub(crate) fn change(mut limits: Limits, changeable: &HashMap<String, String>) -> Result<Limits, Status> {
    for (key, value) in changeable {
        match key.as_str() {
            "iops" | "bandwidth" => limit(&mut limits, key, value)?,
            other => {
                let what = format!("{other:.60?} cannot be changed; iops and bandwidth can");
                return Err(Status::invalid_argument(what));
            }
        }
    }
    Ok(limits)
}

/// What a class of snapshots says: nothing but what the snapshotter adds.
pub(crate) fn of_snapshot(parameters: &HashMap<String, String>) -> Result<Vec<(String, String)>, Status> {
    let known = |(key, value): (&String, &String)| {
        if ADDED.contains(&key.as_str()) || key.starts_with("csi.storage.k8s.io/volumegroupsnapshot") {
            return Ok((key.clone(), value.clone()));
        }
        Err(Status::invalid_argument(format!("there is no parameter {key:.60?} for snapshots")))
    };
    parameters.iter().map(known).collect()
}

fn unknown(key: &str) -> Status {
    if NOT_YET.contains(&key) {
        return Status::invalid_argument(format!("the parameter {key} is not built yet; leave it out"));
    }
    Status::invalid_argument(format!(
        "there is no parameter {key:.60?}; there are fs, repl, placement_strategy, secure, encryptionSecret, iops and bandwidth"
    ))
}

fn truth(key: &str, value: &str) -> Result<bool, Status> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Status::invalid_argument(format!("{key} is {other:.20?}, and must be \"true\" or \"false\""))),
    }
}

fn limit(limits: &mut Limits, key: &str, value: &str) -> Result<(), Status> {
    let wrong = || {
        let what = format!("{key} is {value:.40?}, and must be a number such as 500 or 64Mi; 0 is no limit");
        Status::invalid_argument(what)
    };
    let number = quantity(value).ok_or_else(wrong)?;
    let number = (number != 0).then_some(number);
    match key {
        "iops" => limits.iops = number,
        _ => limits.bytes_per_second = number,
    }
    Ok(())
}

/// A whole number as Kubernetes writes it: `500`, `10k`, `64Mi`.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match &text[digits..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// Limits as they are noted.
pub(crate) fn told(limits: Limits) -> String {
    format!("{} {}", limits.iops.unwrap_or(0), limits.bytes_per_second.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_class_is_read_and_what_can_be_changed_counts_more() {
        let class = map(&[("fs", "xfs"), ("repl", "1"), ("iops", "10k"), ("bandwidth", "64Mi"), ("secure", "true")]);
        let read = Parameters::new(&class, &map(&[("iops", "0")])).unwrap();
        let limits = Limits { iops: None, bytes_per_second: Some(64 << 20) };
        assert_eq!((read.fs, read.limits, read.secret.as_deref()), (Some(FileSystem::Xfs), limits, Some("passphrase")));
        let read = Parameters::new(&map(&[("encryptionSecret", "key")]), &HashMap::new()).unwrap();
        assert_eq!(read.replicas, 1, "one is what a class means that does not say it");
        let several = Parameters::new(&map(&[("repl", "3")]), &HashMap::new()).unwrap();
        assert_eq!((several.replicas, several.placement), (3, None));
        let placed = Parameters::new(&map(&[("repl", "2"), ("placement_strategy", "fast")]), &HashMap::new()).unwrap();
        assert_eq!(placed.placement.as_deref(), Some("fast"));
        assert_eq!(&**read.passphrase(&map(&[("key", "k")])).unwrap().unwrap(), b"k");
        assert!(read.passphrase(&map(&[("passphrase", "k")])).unwrap_err().message().contains("node-stage-secret"));
    }

    #[test]
    fn what_is_not_known_or_not_built_is_refused_by_its_name() {
        for (key, value, said) in [
            ("repl", "4", "\"1\" to \"3\""),
            ("repl", "0", "\"1\" to \"3\""),
            ("repl", "two", "\"1\" to \"3\""),
            ("io_profile", "db", "not built yet"),
            ("aggregation_level", "2", "not built yet"),
            ("placement_strategy", "fast", "on several nodes"),
            ("placement_strategy", "", "there is no parameter"),
            ("replicas", "1", "there is no parameter"),
            ("secure", "yes", "true"),
            ("iops", "many", "64Mi"),
            ("iops", "-1", "64Mi"),
            ("bandwidth", "99999999999999999999", "64Mi"),
            ("bandwidth", "18446744073709551615Ki", "64Mi"),
            ("fs", "ntfs", "ext4 or xfs"),
            ("encryptionSecret", "", "there is no parameter"),
        ] {
            let refused = Parameters::new(&map(&[(key, value)]), &HashMap::new()).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().contains(key) && refused.message().contains(said), "{refused}");
        }
        assert!(Parameters::new(&HashMap::new(), &map(&[("fs", "xfs")])).is_err(), "it cannot be changed");
        assert!(Parameters::new(&map(&[("secure", "false"), ("encryptionSecret", "x")]), &HashMap::new()).is_err());
        assert!(of_snapshot(&map(&[("compress", "yes")])).is_err());
    }
}
