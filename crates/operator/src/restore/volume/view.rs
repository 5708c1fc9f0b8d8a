//! What is seen of one volume of a restore: four things in the cluster, reduced to what the next step depends on.
//!
//! ```text
//!   temporary claim ──bound──► volume ◄──bound── claim that is wanted
//!          ▲                                      (made only when the volume is filled)
//!        mover
//! ```

use std::time::Duration;

use api::ReplacePolicy;
use jiff::Timestamp;
use mover::Form;
use repository::Root;

use crate::mover_pod::Placement;

/// Annotation of a temporary claim: its volume was filled and compared. Its value is [`Filled`] as JSON.
pub(crate) const FILLED: &str = "orlop.io/filled";
/// Annotation of a claim that was handed over: the uid of the restore that filled it.
pub(crate) const FILLED_BY: &str = "orlop.io/filled-by";
/// Annotation of a volume that is being handed over: [`Held`] as JSON. It bears the run's label as long.
pub(crate) const HELD: &str = "orlop.io/held";

/// What a volume was filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Filled {
    /// Files written, and compared.
    pub(crate) files: u64,
    /// Bytes of the files, or of the image.
    pub(crate) bytes: u64,
}

/// What is noted on a volume while it is handed over, so that it can be finished or undone by whoever finds it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Held {
    /// Which volume of the run it is.
    pub(crate) index: usize,
    /// The reclaim policy it had, and gets back.
    pub(crate) policy: String,
    /// A provisioner made it for the temporary claim, so nobody else's data can be on it. Others were there before the run.
    pub(crate) made_for_us: bool,
    /// The uid of the claim that is deleted for it. Noted before that is done: from then on this volume may be the only copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<String>,
}

/// A volume of the recovery point, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct WantedVolume {
    /// Namespace and name of the claim at the source.
    pub(crate) source_name: (String, String),
    /// Namespace of the claim at the target.
    pub(crate) namespace: String,
    /// Name of the claim.
    pub(crate) claim: String,
    /// The claim as the recovery point has it.
    pub(crate) stored: serde_json::Value,
    /// The claim as it is to be made: mapped, changed by transformations, without server-set fields.
    pub(crate) manifest: serde_json::Value,
    /// What transformations changed in it.
    pub(crate) changes: Vec<application::Change>,
    /// Where its data is in the repository; none when the recovery point lacks them, with the reason.
    pub(crate) source: Result<Root, String>,
    /// Where its mover may run: where the pods that will mount it may.
    pub(crate) placement: Placement,
    /// The other volumes that these pods mount.
    pub(crate) beside: Vec<Beside>,
}

impl WantedVolume {
    /// As what it is filled, if it can be.
    pub(crate) fn form(&self) -> Option<Form> {
        Form::of(self.source.as_ref().ok()?.kind)
    }

    /// Whether it is a device, which is filled with an image.
    pub(crate) fn is_image(&self) -> bool {
        self.form() == Some(Form::Image)
    }

    /// Why what the recovery point has cannot be filled into such a claim: files need a file system, and an image a device.
    pub(crate) fn misfit(&self) -> Option<String> {
        let form = self.form()?;
        let is_device = self.manifest["spec"]["volumeMode"] == "Block";
        match (form, is_device) {
            (Form::Files, false) | (Form::Image, true) => None,
            (Form::Image, false) => Some(
                "the recovery point has an image of a block device, which goes into a claim with volumeMode Block, and the claim would be one for \
                 files; leave its volumeMode as it was"
                    .into(),
            ),
            (Form::Files, true) => Some(
                "the recovery point has files, which go into a claim with a file system, and the claim would be one for a block device \
                 (volumeMode Block); leave its volumeMode as it was"
                    .into(),
            ),
        }
    }
}

/// A volume that a pod mounts together with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Which volume of the run it is.
    pub(crate) index: usize,
    /// Name of its claim; its namespace is the same.
    pub(crate) claim: String,
}

/// The claim with the wanted name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) uid: String,
    /// This restore made it.
    pub(crate) ours: bool,
    pub(crate) bound: bool,
    /// Since when it is being deleted.
    pub(crate) deleted: Option<Timestamp>,
    /// Pods that are not over and use it.
    pub(crate) users: Vec<String>,
}

/// The temporary claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filling {
    pub(crate) uid: String,
    pub(crate) filled: Option<Filled>,
    pub(crate) deleted: Option<Timestamp>,
}

/// A persistent volume of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) name: String,
    /// Its reclaim policy.
    pub(crate) policy: String,
    /// See [`Held`].
    pub(crate) made_for_us: bool,
    /// The reclaim policy it gets back, while it is held.
    pub(crate) original: Option<String>,
    /// Uid of the claim that it is promised to.
    pub(crate) promised: Option<String>,
    /// See [`Held`].
    pub(crate) replaces: Option<String>,
}

/// The newest mover of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mover {
    pub(crate) attempt: u32,
    pub(crate) state: MoverState,
    /// Its pod is asked to end, and has time left for it.
    pub(crate) goes: bool,
}

/// Where a mover is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MoverState {
    /// Not started yet, and why.
    Waiting {
        why: String,
    },
    /// Not started in time, and why.
    NeverStarted {
        why: String,
    },
    Running,
    /// It ended, having written and compared this.
    Done(Filled),
    /// It ended without.
    Failed {
        reason: String,
        retryable: bool,
        /// The volume holds something that a mover will not write over: the next one needs a new volume.
        tainted: bool,
    },
    /// It is being deleted. One that is overdue goes by force only, and nobody knows whether it has stopped writing.
    Ending {
        overdue: bool,
    },
}

/// Everything that is seen of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) target: Option<Target>,
    pub(crate) filling: Option<Filling>,
    /// The volume that the claim of ours names, or else the temporary claim.
    pub(crate) disk: Option<Disk>,
    /// A volume that is held and that no claim names any more: somebody deleted the claim.
    pub(crate) stray: Option<Disk>,
    pub(crate) mover: Option<Mover>,
    /// For how long this operator has seen that the control plane has to do something. Not since when it is so: while there is no
    /// operator, nobody asks the control plane for anything.
    pub(crate) waited: Duration,
}

/// What the next step depends on beside the view.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) policy: ReplacePolicy,
    /// Movers started so far, as the status has it.
    pub(crate) attempts: u32,
    /// Movers that may be started.
    pub(crate) max_attempts: u32,
    /// How long a claim may take to be bound, or to go.
    pub(crate) claim_deadline: Duration,
}
