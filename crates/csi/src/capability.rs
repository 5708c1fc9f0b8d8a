//! How a volume is to be used.

use crate::host::FileSystem;
use crate::proto::{VolumeCapability, volume_capability};
use serde::{Deserialize, Serialize};
use tonic::Status;
use volume_capability::access_mode::Mode;
use volume_capability::{AccessMode, AccessType};

/// The most bytes that mount options may have together: one page, as mount(2) takes it.
const MOST_FLAGS: usize = 4000;
/// What no volume can, and what can be asked for instead.
const ONE_NODE: &str = "a volume is used on one node; ask for ReadWriteOnce or ReadWriteOncePod (SINGLE_NODE_...)";

/// How a volume is to be used, as far as a request says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    pub(crate) access: Access,
    pub(crate) sharing: Sharing,
}

/// As what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Access {
    Block,
    #[serde(rename_all = "camelCase")]
    Mount {
        /// Nothing: whatever the volume has.
        fs: Option<FileSystem>,
        flags: Vec<String>,
        /// Everything in it is to belong to this group.
        group: Option<u32>,
    },
}

/// By whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Sharing {
    /// One target path.
    OneWriter,
    /// One target path, read-only.
    OneReader,
    /// As many target paths of this machine as are asked for.
    ManyWriters,
}

impl Usage {
    /// Out of a request.
    pub(crate) fn new(capability: Option<&VolumeCapability>) -> Result<Self, Status> {
        let capability = capability.ok_or_else(|| Status::invalid_argument("volume_capability is missing"))?;
        let access = match &capability.access_type {
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => Access::Mount {
                fs: file_system(&mount.fs_type)?,
                flags: flags(&mount.mount_flags)?,
                group: group(&mount.volume_mount_group)?,
            },
            None => {
                let what = "volume_capability must say whether the volume is to be a block device or to be mounted";
                return Err(Status::invalid_argument(what));
            }
        };
        let mode = capability.access_mode.as_ref().map_or(0, |mode| mode.mode);
        let sharing = match Mode::try_from(mode) {
            Ok(Mode::SingleNodeSingleWriter) => Sharing::OneWriter,
            Ok(Mode::SingleNodeReaderOnly) => Sharing::OneReader,
            // The older mode says nothing of how many places there may be on a node. Kubelets before 1.27 ask by it for ReadWriteOnce, which several pods
            // of a node may use, such as one that backs the volume up; who wants one place has a mode of its own for that.
            Ok(Mode::SingleNodeMultiWriter | Mode::SingleNodeWriter) => Sharing::ManyWriters,
            Ok(Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter) => {
                return Err(Status::invalid_argument(ONE_NODE));
            }
            Ok(Mode::Unknown) => return Err(Status::invalid_argument("volume_capability.access_mode is missing")),
            Err(_) => {
                return Err(Status::invalid_argument(format!("volume_capability.access_mode {mode} is not known")));
            }
        };
        Ok(Self { access, sharing })
    }

    /// Out of a request to stage or to publish a volume. To be used on several nodes is there no wrong argument, as it is elsewhere, but more than the volume can: the tables of
    /// the specification say so.
    pub(crate) fn on_node(capability: Option<&VolumeCapability>) -> Result<Self, Status> {
        let mode = capability.and_then(|capability| capability.access_mode.as_ref()).map(AccessMode::mode);
        match mode {
            Some(Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter) => {
                Err(Status::failed_precondition(ONE_NODE))
            }
            _ => Self::new(capability),
        }
    }

    /// All of a request, of which there must be some.
    pub(crate) fn all(capabilities: &[VolumeCapability]) -> Result<Vec<Self>, Status> {
        if capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities are missing"));
        }
        capabilities.iter().map(|capability| Self::new(Some(capability))).collect()
    }

    /// The file system that it names.
    pub(crate) fn fs(&self) -> Option<FileSystem> {
        match &self.access {
            Access::Mount { fs, .. } => *fs,
            Access::Block => None,
        }
    }

    /// Nobody is to write, by the mode or the flags.
    pub(crate) fn is_read_only(&self) -> bool {
        let by_flags = matches!(&self.access, Access::Mount { flags, .. } if flags.iter().any(|flag| flag == "ro"));
        self.sharing == Sharing::OneReader || by_flags
    }
}

/// A file system by its name; nothing if it is empty.
pub(crate) fn file_system(name: &str) -> Result<Option<FileSystem>, Status> {
    match name {
        "" => Ok(None),
        "ext4" => Ok(Some(FileSystem::Ext4)),
        "xfs" => Ok(Some(FileSystem::Xfs)),
        other => {
            Err(Status::invalid_argument(format!("the file system {other:.40?} is not supported; use ext4 or xfs")))
        }
    }
}

/// Options one by one. Those that would mount something else, or elsewhere, are no business of who uses a volume.
fn flags(given: &[String]) -> Result<Vec<String>, Status> {
    const NOT_HERE: [&str; 6] = ["remount", "bind", "rbind", "move", "loop", "user"];
    /// What mount(8) acts upon itself.
    const OF_MOUNT: [&str; 9] =
        ["x-", "X-", "loop", "helper", "uhelper", "offset=", "sizelimit=", "verity.", "encryption="];
    let flags: Vec<String> = given.iter().flat_map(|flags| flags.split(',')).map(str::to_owned).collect();
    let flags: Vec<String> = flags.into_iter().filter(|flag| flag != "defaults" && flag != "nouuid").collect();
    if flags.iter().map(|flag| flag.len() + 1).sum::<usize>() > MOST_FLAGS {
        return Err(Status::invalid_argument(format!("mount_flags have more than {MOST_FLAGS} bytes")));
    }
    for flag in &flags {
        let is_plain = !flag.is_empty() && flag.chars().all(|c| c.is_ascii_graphic());
        if !is_plain || NOT_HERE.contains(&flag.as_str()) || OF_MOUNT.iter().any(|begin| flag.starts_with(begin)) {
            return Err(Status::invalid_argument(format!("the mount option {flag:.60?} cannot be used for a volume")));
        }
    }
    Ok(flags)
}

fn group(text: &str) -> Result<Option<u32>, Status> {
    match text {
        "" => Ok(None),
        // The last one means "do not change" to the kernel.
        text => {
            text.parse().ok().filter(|group| *group != u32::MAX).map(Some).ok_or_else(|| {
                Status::invalid_argument(format!("volume_mount_group {text:.40?} is no number of a group"))
            })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::proto::volume_capability::{BlockVolume, MountVolume};

    pub(crate) fn mount(fs: &str, flags: &[&str], mode: Mode) -> VolumeCapability {
        let mount = MountVolume {
            fs_type: fs.into(),
            mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            volume_mount_group: String::new(),
        };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Mount(mount)),
        }
    }

    #[test]
    fn flags_are_taken_one_by_one_and_those_that_are_none_of_a_volume_are_refused() {
        let usage = Usage::new(Some(&mount("xfs", &["ro,noatime", "defaults"], Mode::SingleNodeWriter))).unwrap();
        let flags = vec!["ro".to_owned(), "noatime".to_owned()];
        assert_eq!(usage.access, Access::Mount { fs: Some(FileSystem::Xfs), flags, group: None });
        assert!(usage.is_read_only());
        for wrong in [
            &["remount"][..],
            &["X-mount.subdir=a"],
            &["loop=/dev/loop7"],
            &["bind,rw"],
            &["a b"],
            &["", "ro"],
            &["x\0"],
            &[&"o".repeat(5000)],
        ] {
            assert!(Usage::new(Some(&mount("", wrong, Mode::SingleNodeWriter))).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn one_node_it_is_and_one_of_two_file_systems() {
        for (fs, mode) in [("ext3", Mode::SingleNodeWriter), ("", Mode::MultiNodeMultiWriter), ("", Mode::Unknown)] {
            assert!(Usage::new(Some(&mount(fs, &[], mode))).is_err(), "{fs} {mode:?}");
        }
        let mut odd = mount("", &[], Mode::SingleNodeWriter);
        odd.access_mode = Some(AccessMode { mode: 99 });
        assert!(Usage::new(Some(&odd)).is_err());
        odd.access_mode = Some(AccessMode { mode: Mode::SingleNodeMultiWriter.into() });
        odd.access_type = Some(AccessType::Block(BlockVolume {}));
        assert_eq!(Usage::new(Some(&odd)).unwrap(), Usage { access: Access::Block, sharing: Sharing::ManyWriters });
        let sharing = |mode: Mode| Usage::new(Some(&mount("", &[], mode))).unwrap().sharing;
        assert_eq!(sharing(Mode::SingleNodeWriter), Sharing::ManyWriters);
        assert_eq!(sharing(Mode::SingleNodeSingleWriter), Sharing::OneWriter);
        for (text, expected) in [("", Ok(None)), ("0", Ok(Some(0))), ("4294967295", Err(())), ("staff", Err(()))] {
            assert_eq!(group(text).map_err(|_| ()), expected, "{text}");
        }
    }
}
