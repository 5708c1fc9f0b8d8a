//! What a clone does next. Pure: everything it depends on was gathered, everything it decides is data.

use api::{Failure, VolumeClone, VolumeStage};

use super::facts::{Facts, Gathered};
use super::validate::{self, Verdict, failure};
use super::volume::{self, Seen, Step, next};
use crate::config::Limits;
use crate::restore::NamespaceState;

/// The next step of a run.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing more happens.
    Rest,
    /// Nothing yet; why.
    Wait(String),
    /// It ends, as nothing that it made for its own use is left.
    Fail(Failure),
    /// Note the volumes, and see that the run does not vanish unnoticed.
    Begin(Vec<VolumeClone>),
    /// Make the destination.
    MakeNamespace,
    /// Take these steps for volumes, by their index.
    Move(Vec<(usize, Step)>),
    /// All volumes are done with: go on, when nothing that was made for them is left.
    Leave,
    /// Make the objects.
    Make {
        /// Those that stand on volumes are held back, because volumes were missed.
        held_back: bool,
    },
    /// It is being deleted: nothing that it made for its own use stays.
    Undo,
}

/// Decides.
pub(super) fn plan(gathered: &Gathered, limits: &Limits) -> Plan {
    match &gathered.facts {
        Facts::Over => Plan::Rest,
        Facts::Leaving => Plan::Undo,
        Facts::Barred(failure) => Plan::Fail(failure.clone()),
        Facts::Preparing(facts) => match validate::judge(&gathered.run, facts) {
            Verdict::Go(volumes) => Plan::Begin(volumes),
            Verdict::Wait(why) => Plan::Wait(why),
            Verdict::Refuse(failure) => Plan::Fail(failure),
        },
        Facts::Volumes { destination, seen } => volumes(gathered, *destination, seen, limits),
        Facts::Resources => Plan::Make { held_back: any_missed(&gathered.status().volumes) },
    }
}

/// Whether a volume that was wanted is not there.
pub(super) fn any_missed(volumes: &[VolumeClone]) -> bool {
    volumes.iter().any(|volume| volume.stage == VolumeStage::Missed)
}

fn volumes(gathered: &Gathered, destination: NamespaceState, seen: &[Seen], limits: &Limits) -> Plan {
    match destination {
        NamespaceState::Active => {}
        NamespaceState::Absent => return Plan::MakeNamespace,
        NamespaceState::Terminating => {
            let namespace = &gathered.run.spec.destination_namespace;
            return Plan::Fail(failure("NamespaceDeleted", format!("somebody deletes the namespace {namespace}")));
        }
    }
    let volumes = gathered.status().volumes;
    if volumes.iter().all(volume::is_final) {
        return Plan::Leave;
    }
    let steps = volumes.iter().zip(seen).enumerate();
    let steps = steps.map(|(index, (volume, seen))| (index, next(volume, seen, gathered.now, limits)));
    Plan::Move(steps.filter(|(_, step)| *step != Step::Keep).collect())
}
