//! Publishing: what is staged is shown in the place that a pod looks at; and the way back.
//!
//! The ledger has how it was asked for; the place is made; the volume is shown there; it is made read-only there, if it is to be. After a crash the same call sees which of
//! these are so. `NodeUnpublishVolume` takes the mount away, then the place, then the entry.

use super::stage::usage_here;
use super::table::{There, taken};
use crate::busy;
use crate::capability::{Access, Sharing, Usage};
use crate::check;
use crate::driver::{Driver, no_volume};
use crate::ledger::{Published, Staged};
use crate::proto;
use crate::volumes::Volume;
use std::path::{Path, PathBuf};
use tonic::Status;

/// A volume that is staged here.
struct Source {
    staged: Staged,
    device: PathBuf,
    number: (u32, u32),
}

impl Driver {
    pub(super) fn publish(
        &self,
        request: &proto::NodePublishVolumeRequest,
    ) -> Result<proto::NodePublishVolumeResponse, Status> {
        let id = &request.volume_id;
        check::id("volume_id", id)?;
        let target = self.place("target_path", &request.target_path)?;
        for (field, map) in [
            ("publish_context", &request.publish_context),
            ("secrets", &request.secrets),
            ("volume_context", &request.volume_context),
        ] {
            check::map(field, map)?;
        }
        let usage = usage_here(request.volume_capability.as_ref(), &request.volume_context)?;
        if request.staging_target_path.is_empty() {
            return Err(Status::failed_precondition("staging_target_path is missing; stage the volume first"));
        }
        let staging = self.place("staging_target_path", &request.staging_target_path)?;
        let _held = self.busy.hold([busy::volume(id)])?;
        let volume = self.volume(id)?;
        let mut source = self.staged(&volume, &staging)?;
        let read_only = request.readonly || usage.is_read_only();
        let wanted = Published { usage, read_only };
        self.allowed(&volume, &source, &target, &wanted)?;
        source.staged.targets.insert(target.clone(), wanted.clone());
        self.ledger().set(id, Some(source.staged.clone()))?;
        if wanted.usage.access == Access::Block {
            self.show_device(&source, &target, read_only)?;
        } else {
            self.show_folder(&source, &target, read_only)?;
        }
        Ok(proto::NodePublishVolumeResponse {})
    }

    /// What is staged on a path, as the kernel says it.
    fn staged(&self, volume: &Volume, at: &Path) -> Result<Source, Status> {
        let refuse = |why: &str| {
            let what = format!("{} is not staged on {}: {why}; stage it there first", volume.id, at.display());
            Err(Status::failed_precondition(what))
        };
        let Some(staged) = self.ledger().get(&volume.id).filter(|staged| staged.at == at) else {
            return refuse("nobody has asked for that");
        };
        let Some(device) = volume.device.clone() else { return refuse("it has no device on this node") };
        let number = self.host.device(&device)?.number;
        let is_mounted = matches!(self.there(at, Some(number))?, There::Volume(_));
        if staged.usage.access != Access::Block && !is_mounted {
            return refuse("it is not mounted");
        }
        Ok(Source { staged, device, number })
    }

    /// Refuses what does not go together with how it is staged and where it is published already.
    fn allowed(&self, volume: &Volume, source: &Source, target: &Path, wanted: &Published) -> Result<(), Status> {
        let published = self.published(&source.staged, Some(source.number))?;
        let is_there = published.iter().any(|path| path == target);
        if is_there && source.staged.targets.get(target) != Some(wanted) {
            let what = format!("{} is published on {}, and in another way", volume.id, target.display());
            return Err(Status::already_exists(format!("{what}; unpublish it first")));
        }
        if source.staged.usage != wanted.usage {
            let what = format!("{} is staged for another use; unstage it, and stage it for this one", volume.id);
            return Err(Status::failed_precondition(what));
        }
        let elsewhere = published.iter().find(|path| *path != target);
        match elsewhere {
            Some(other) if wanted.usage.sharing != Sharing::ManyWriters => Err(Status::failed_precondition(format!(
                "{} is published on {}, and its access mode allows one place; unpublish it there first",
                volume.id,
                other.display()
            ))),
            Some(other) if wanted.usage.access == Access::Block && self.differs(source, other, wanted) => {
                Err(Status::failed_precondition(format!(
                    "{} is published on {}, and a block device is read-only everywhere or nowhere",
                    volume.id,
                    other.display()
                )))
            }
            _ => Ok(()),
        }
    }

    fn differs(&self, source: &Source, other: &Path, wanted: &Published) -> bool {
        source.staged.targets.get(other).is_some_and(|there| there.read_only != wanted.read_only)
    }

    fn show_folder(&self, source: &Source, target: &Path, read_only: bool) -> Result<(), Status> {
        self.host.make(target, true)?;
        match self.there(target, Some(source.number))? {
            There::Other(other) => return Err(taken(target, &other)),
            There::Volume(_) => {}
            There::Nothing => self.host.bind(&source.staged.at, target)?,
        }
        if let There::Volume(mount) = self.there(target, Some(source.number))?
            && mount.read_only != read_only
            && !mount.is_frozen
        {
            self.host.rebind(target, read_only)?;
        }
        Ok(())
    }

    /// A device is shown by its file. Whether it can be written is the device's own matter, and not the mount's.
    fn show_device(&self, source: &Source, target: &Path, read_only: bool) -> Result<(), Status> {
        self.host.protect(&source.device, read_only)?;
        match self.there(target, Some(source.number))? {
            There::Other(other) => Err(taken(target, &other)),
            There::Volume(_) => Ok(()),
            There::Nothing => {
                self.host.make(target, false)?;
                Ok(self.host.bind(&source.device, target)?)
            }
        }
    }

    pub(super) fn unpublish(
        &self,
        request: &proto::NodeUnpublishVolumeRequest,
    ) -> Result<proto::NodeUnpublishVolumeResponse, Status> {
        let id = &request.volume_id;
        check::id("volume_id", id)?;
        let target = self.place("target_path", &request.target_path)?;
        let _held = self.busy.hold([busy::volume(id)])?;
        let volume = self.volumes.find(id)?;
        let staged = self.ledger().get(id);
        if volume.is_none() && staged.is_none() {
            return Err(no_volume(id));
        }
        let device = self.number(volume.as_ref().and_then(|volume| volume.device.as_deref()))?;
        let is_noted = staged.as_ref().is_some_and(|staged| staged.targets.contains_key(&target));
        let is_there = self.there(&target, device)?;
        if is_noted || !matches!(is_there, There::Other(_)) {
            self.clear_mounts(&target, device, is_noted)?;
            self.host.remove(&target)?;
        }
        if let Some(mut staged) = staged.filter(|_| is_noted) {
            staged.targets.remove(&target);
            self.ledger().set(id, Some(staged))?;
        }
        Ok(proto::NodeUnpublishVolumeResponse {})
    }
}

/// The use that a volume is staged for is what decides, whatever the table of mounts looks like.
pub(super) fn is_block(usage: &Usage) -> bool {
    usage.access == Access::Block
}
