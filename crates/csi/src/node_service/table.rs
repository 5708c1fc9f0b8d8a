//! What the kernel's table of mounts says of a volume.

use crate::driver::Driver;
use crate::host::{HostError, Mount, Place};
use crate::ledger::Staged;
use std::path::{Path, PathBuf};
use tonic::Status;

/// What is in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum There {
    /// No mount.
    Nothing,
    /// The volume.
    Volume(Mount),
    /// Something else.
    Other(Mount),
}

impl Driver {
    /// What is mounted in a place, on top, as seen by who wants a volume there that is this device.
    pub(super) fn there(&self, at: &Path, device: Option<(u32, u32)>) -> Result<There, HostError> {
        let at = self.host.canonical(at)?;
        let Some(mount) = self.host.mounts()?.into_iter().rfind(|mount| mount.at == at) else {
            return Ok(There::Nothing);
        };
        let is_volume = match device {
            None => false,
            // The file system of the device, or the device itself shown in another place.
            Some(number) => mount.device == number || self.host.look(&at)? == Place::Device(number),
        };
        Ok(if is_volume { There::Volume(mount) } else { There::Other(mount) })
    }

    /// The number of a device, if there is one.
    pub(super) fn number(&self, device: Option<&Path>) -> Result<Option<(u32, u32)>, HostError> {
        device.map(|device| self.host.device(device)).transpose().map(|info| info.map(|info| info.number))
    }

    /// Takes away all mounts of a place that are the volume's. Where the device is not known any more, the ledger's word is enough.
    pub(super) fn clear_mounts(&self, at: &Path, device: Option<(u32, u32)>, is_noted: bool) -> Result<(), Status> {
        loop {
            let there = self.there(at, device)?;
            match &there {
                There::Nothing => return Ok(()),
                There::Other(other) if device.is_some() || !is_noted => {
                    let what = format!(
                        "something else is mounted on {}: {} of the device {}:{}; unmount that first",
                        at.display(),
                        other.fs,
                        other.device.0,
                        other.device.1
                    );
                    return Err(Status::failed_precondition(what));
                }
                There::Volume(_) | There::Other(_) => {}
            }
            // What an interrupted call has begun may have come first.
            if let Err(error) = self.host.unmount(at)
                && self.there(at, device)? == there
            {
                return Err(error.into());
            }
        }
    }

    /// The places where a volume really is published, of those that were asked for.
    pub(super) fn published(&self, staged: &Staged, device: Option<(u32, u32)>) -> Result<Vec<PathBuf>, HostError> {
        let mut found = Vec::new();
        for target in staged.targets.keys() {
            if matches!(self.there(target, device)?, There::Volume(_)) {
                found.push(target.clone());
            }
        }
        Ok(found)
    }
}

/// Refuses a place where something else is.
pub(super) fn taken(at: &Path, other: &Mount) -> Status {
    Status::failed_precondition(format!(
        "{} on the device {}:{} is mounted on {} already; unmount that, or use another path",
        other.fs,
        other.device.0,
        other.device.1,
        at.display()
    ))
}
