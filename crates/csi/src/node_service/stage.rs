//! Staging: the device comes to this node, gets its file system if it has none, and is mounted once; and the way back.
//!
//! The steps, each of which sees that something is so, and what a call after a crash does:
//!
//! | step | a crash after it leaves | the same call again | `NodeUnstageVolume` |
//! |---|---|---|---|
//! | 1. the ledger has how it was asked for | an entry without a mount | replaces it | removes it |
//! | 2. the device is attached | a device that nobody has open | finds it | detaches it |
//! | 3. "a file system is being made" is noted | the note | formats again: nobody has mounted it | leaves the note |
//! | 4. the file system is made | the same | the same | the same |
//! | 5. the note is removed | a file system | mounts it | detaches it |
//! | 6. it is mounted | a mount | finds it | unmounts it |
//! | 7. it fills its device (where it can while it is mounted; else before 6), and belongs to the group | all of it | sees that it is so | unmounts it |
//!
//! A call that fails, and finds nothing mounted, undoes 1 and 2: an orchestrator may come back to neither.

use super::table::{There, taken};
use crate::busy;
use crate::capability::{Access, Usage, file_system};
use crate::check;
use crate::driver::{Driver, no_volume};
use crate::host::{Content, FileSystem};
use crate::ledger::Staged;
use crate::names::labels;
use crate::parameters;
use crate::proto;
use crate::volumes::{Kind, Labels, Volume};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tonic::Status;

/// What kubelets say of volumes that live as long as their pod.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// The entry of a Secret, for volumes that were not made by this driver.
const PASSPHRASE: &str = "passphrase";
/// A file system that is smaller than its device by less than this is left so: it may be as large as it can be.
pub(super) const GAP: u64 = 1 << 20;

impl Driver {
    pub(super) fn stage(
        &self,
        request: &proto::NodeStageVolumeRequest,
    ) -> Result<proto::NodeStageVolumeResponse, Status> {
        let id = &request.volume_id;
        check::id("volume_id", id)?;
        let at = self.place("staging_target_path", &request.staging_target_path)?;
        for (field, map) in [
            ("publish_context", &request.publish_context),
            ("secrets", &request.secrets),
            ("volume_context", &request.volume_context),
        ] {
            check::map(field, map)?;
        }
        let usage = usage_here(request.volume_capability.as_ref(), &request.volume_context)?;
        let _held = self.busy.hold([busy::volume(id)])?;
        let volume = self.volume(id)?;
        let earlier = self.staged_before(&volume, &at, &usage)?;
        let is_new = earlier.is_none();
        let targets = earlier.map(|staged| staged.targets).unwrap_or_default();
        self.ledger().set(id, Some(Staged { at: at.clone(), usage: usage.clone(), targets }))?;
        match self.bring(&volume, &at, &usage, &request.secrets, is_new) {
            Ok(()) => Ok(proto::NodeStageVolumeResponse {}),
            Err(status) => {
                if is_new {
                    self.take_back(&volume, &at);
                }
                Err(status)
            }
        }
    }

    /// What an earlier call has come to. Refuses what is not the same.
    fn staged_before(&self, volume: &Volume, at: &Path, usage: &Usage) -> Result<Option<Staged>, Status> {
        let Some(staged) = self.ledger().get(&volume.id) else { return Ok(None) };
        let device = self.number(volume.device.as_deref())?;
        let is_mounted = matches!(self.there(&staged.at, device)?, There::Volume(_));
        // A block device has no mount: it is staged when it is attached.
        let is_staged = is_mounted || (staged.usage.access == Access::Block && device.is_some());
        if !is_staged {
            return Ok(None);
        }
        if staged.at != at {
            let what = format!("{} is staged on {} already; unstage it there first", volume.id, staged.at.display());
            return Err(Status::failed_precondition(what));
        }
        if staged.usage != *usage {
            let what = format!("{} is staged on {}, and in another way; unstage it first", volume.id, at.display());
            return Err(Status::already_exists(what));
        }
        Ok(Some(staged))
    }

    fn bring(
        &self,
        volume: &Volume,
        at: &Path,
        usage: &Usage,
        secrets: &HashMap<String, String>,
        is_new: bool,
    ) -> Result<(), Status> {
        let secret = match volume.is_encrypted {
            // What is served already needs no secret.
            true if volume.device.is_none() => {
                let entry = volume.labels.get(labels::SECRET).map_or(PASSPHRASE, String::as_str);
                Some(parameters::secret(entry, secrets)?)
            }
            _ => None,
        };
        let device = match &volume.device {
            Some(device) if volume.is_encrypted => device.clone(),
            _ => self.volumes.attach(&volume.id, secret.as_ref())?,
        };
        // A loop device that was read-only for somebody else stays so for whoever gets it next; one that is published says itself what it is.
        if is_new {
            self.host.protect(&device, false)?;
        }
        let Access::Mount { fs, flags, group } = &usage.access else {
            // What is written to it now is not what an interrupted formatting has left.
            if volume.labels.contains_key(labels::FORMATTING) {
                self.volumes.label(&volume.id, &Labels::from([(labels::FORMATTING.to_owned(), String::new())]))?;
            }
            return Ok(());
        };
        let info = self.host.device(&device)?;
        self.host.make(at, true)?;
        let (fs, bytes) = match self.there(at, Some(info.number))? {
            There::Other(other) => return Err(taken(at, &other)),
            There::Volume(mount) => match self.host.probe(&device)? {
                Content::Known(fs, bytes) => (fs, bytes),
                Content::Other(_) => {
                    let what = format!("{} on {} is mounted, and its first bytes are damaged", mount.fs, at.display());
                    return Err(Status::data_loss(what));
                }
            },
            There::Nothing => {
                // As it is now that nobody else has it: another node may have made the file system while this one waited for the volume.
                let (fs, mut bytes) = self.made(&self.volume(&volume.id)?, &device, *fs)?;
                let grows = bytes.saturating_add(GAP) < info.bytes && !usage.is_read_only();
                if grows && !self.host.grows_mounted(fs) {
                    self.host.grow_unmounted(fs, &device)?;
                    bytes = info.bytes;
                }
                self.host.mount(fs, &device, at, flags, usage.is_read_only())?;
                (fs, bytes)
            }
        };
        if usage.is_read_only() {
            return Ok(());
        }
        if bytes.saturating_add(GAP) < info.bytes {
            self.host.grow(fs, &device, at)?;
        }
        match group {
            Some(group) => Ok(self.host.give(at, *group)?),
            None => Ok(()),
        }
    }

    /// The file system of a device that nobody has mounted, made if there is none; and how many bytes it uses.
    fn made(&self, volume: &Volume, device: &Path, wanted: Option<FileSystem>) -> Result<(FileSystem, u64), Status> {
        let noted = volume.labels.get(labels::FS).map(|name| file_system(name)).transpose()?.flatten();
        let wanted = wanted.or(noted);
        let is_half_made = volume.labels.contains_key(labels::FORMATTING);
        if is_half_made || self.is_blank(&volume.id)? {
            let fs = wanted.unwrap_or(FileSystem::Ext4);
            let note = |value: &str| Labels::from([(labels::FORMATTING.to_owned(), value.to_owned())]);
            self.volumes.label(&volume.id, &note(fs.name()))?;
            self.host.format(fs, device)?;
            self.volumes.label(&volume.id, &note(""))?;
        }
        match (self.host.probe(device)?, wanted) {
            (Content::Known(fs, bytes), None) => Ok((fs, bytes)),
            (Content::Known(fs, bytes), Some(wanted)) if fs == wanted => Ok((fs, bytes)),
            (Content::Known(fs, _), Some(wanted)) => Err(Status::failed_precondition(format!(
                "{} has the file system {fs}, and {wanted} is wanted; nothing is formatted that has data: ask for {fs}",
                volume.id
            ))),
            (Content::Other(what), _) => Err(Status::failed_precondition(format!(
                "{} has data, and no file system that can be mounted (it looks like {}); nothing is formatted that has data: use it as a block device, or use \
                 another volume",
                volume.id,
                what.as_deref().unwrap_or("nothing that is known")
            ))),
        }
    }

    /// Nothing was ever written to it, or all of it was discarded.
    fn is_blank(&self, id: &str) -> Result<bool, Status> {
        let mut has_data = false;
        self.volumes.ranges(id, None, 0, &mut |ranges| {
            has_data |= !ranges.is_empty();
            !has_data
        })?;
        Ok(!has_data)
    }

    /// Undoes what a failed call has done, where it has come to nothing.
    fn take_back(&self, volume: &Volume, at: &Path) {
        let undo = || -> Result<(), Status> {
            let now = self.volumes.find(&volume.id)?;
            let device = self.number(now.as_ref().and_then(|volume| volume.device.as_deref()))?;
            if matches!(self.there(at, device)?, There::Volume(_)) {
                return Ok(());
            }
            // Who had it attached before wants it to stay.
            if volume.device.is_none() {
                self.volumes.detach(&volume.id)?;
            }
            Ok(self.ledger().set(&volume.id, None)?)
        };
        if let Err(left) = undo() {
            tracing::warn!(volume = volume.id, error = left.message(), "left as it is; unstaging clears it away");
        }
    }

    pub(super) fn unstage(
        &self,
        request: &proto::NodeUnstageVolumeRequest,
    ) -> Result<proto::NodeUnstageVolumeResponse, Status> {
        let id = &request.volume_id;
        check::id("volume_id", id)?;
        let at = self.place("staging_target_path", &request.staging_target_path)?;
        let _held = self.busy.hold([busy::volume(id)])?;
        let volume = self.volumes.find(id)?;
        let staged = self.ledger().get(id);
        if volume.is_none() && staged.is_none() {
            return Err(no_volume(id));
        }
        let device = self.number(volume.as_ref().and_then(|volume| volume.device.as_deref()))?;
        let is_noted = staged.as_ref().is_some_and(|staged| staged.at == at);
        let is_mounted = matches!(self.there(&at, device)?, There::Volume(_));
        if !is_noted && !is_mounted {
            // It is not staged there; what else is there is none of its business.
            return Ok(proto::NodeUnstageVolumeResponse {});
        }
        if let Some(staged) = &staged {
            let published = self.published(staged, device)?;
            if !published.is_empty() {
                return Err(Status::failed_precondition(format!("{id} is published on {}", paths(&published))));
            }
        }
        self.clear_mounts(&at, device, is_noted)?;
        if let Some(device) = volume.as_ref().and_then(|volume| volume.device.as_deref()) {
            self.host.protect(device, false)?;
        }
        // What was unmounted goes on to be written for a while, and an interrupted call's program may be at it still.
        self.volumes.detach(id).map_err(|error| match error.kind {
            Kind::Precondition => Status::aborted(format!("{}; ask again when it has ended", error.story)),
            _ => error.into(),
        })?;
        self.ledger().set(id, None)?;
        Ok(proto::NodeUnstageVolumeResponse {})
    }
}

fn paths(paths: &[PathBuf]) -> String {
    let all: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    format!("{}; unpublish it there first", all.join(", "))
}

/// How a request to this node wants a volume.
pub(super) fn usage_here(
    capability: Option<&proto::VolumeCapability>,
    context: &HashMap<String, String>,
) -> Result<Usage, Status> {
    if context.get(EPHEMERAL).is_some_and(|value| value == "true") {
        let what =
            "volumes that live as long as a pod are not built; use a generic ephemeral volume, which has a claim";
        return Err(Status::invalid_argument(what));
    }
    Usage::on_node(capability)
}
