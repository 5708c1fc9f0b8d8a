//! Checking a repository: whether everything that the recovery points need is there and is what was written.
//!
//! 1. All objects are listed and told apart by their names ([`survey`]).
//! 2. The small ones are read: configuration, epochs, keys, pins, recovery points.
//! 3. If the data is to be read, every pack and every index run is read as a whole ([`data`]).
//! 4. From each recovery point everything it refers to is followed ([`walk`]), and its trees are checked against the rules that a
//!    restore depends on; that tells which damage hits which point.
//!
//! Damage is a finding, and so is an object that the store does not give although it gives others; a store that cannot be reached
//! ends the check with an error, because then nothing is known.

mod data;
mod findings;
pub(crate) mod lost;
mod rules;
mod sample;
mod seen;
mod survey;
mod walk;

pub use sample::Sample;

pub(crate) use data::Runs;
pub(crate) use findings::DamagedPacks;
pub(crate) use survey::Survey;

use crate::codec::Malformed;
use crate::collector::{Collection, MAX_COLLECTION_LEN, SessionRecord, verify_collected};
use crate::error::{Error, Result};
use crate::ids::{KeyId, PointId};
use crate::keys::{KeyObject, MAX_KEY_OBJECT_LEN, verify_announcement};
use crate::layout::{self, ObjectName};
use crate::pin;
use crate::point::RecoveryPoint;
use crate::progress::Progress;
use crate::repair::mark;
use crate::repository::{MAX_PLAIN_OBJECT_LEN, Repository, verify_config, verify_epoch};
use crate::store::StoreErrorKind;
use findings::Findings;
use lost::Lost;

/// How thorough a check is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Reads every byte of every object; otherwise only what is needed to follow all references.
    pub read_data: bool,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The recovery points that are hit, in order.
    pub points: Vec<PointId>,
}

/// What a check looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects of the repository.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs among them.
    pub packs: u64,
    /// Recovery points that could be read.
    pub points: u64,
    /// Pages of tables that were read: those that several recovery points have, once, unless something below them is wrong.
    pub pages: u64,
    /// References to blobs that were followed.
    pub references: u64,
    /// Bytes of packs and index runs that were read as a whole.
    pub bytes_read: u64,
    /// Bytes that all packs have.
    pub pack_bytes: u64,
    /// Packs that were read as a whole.
    pub packs_read: u64,
    /// Things that are wrong.
    pub findings: u64,
    /// Objects that are not of a repository, and were left alone.
    pub foreign: u64,
    /// The names of the first of them.
    pub foreign_examples: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings == 0
    }
}

/// Checks a repository; tells each finding once, at the end, when it is known which recovery points it hits.
///
/// `progress` is told of the packs that are read as a whole, and their bytes; it hears of nothing else.
pub async fn check(
    repo: &Repository,
    options: CheckOptions,
    progress: &dyn Progress,
    on_finding: &mut dyn FnMut(Finding),
) -> Result<Report> {
    let part = if options.read_data { PartRead::All } else { PartRead::Nothing };
    let seen = examine(repo, part, progress, None).await?;
    Ok(seen.tell(on_finding))
}

/// As [`check`], and reads the packs of a sample as a whole.
pub async fn check_sample(
    repo: &Repository,
    sample: Sample,
    progress: &dyn Progress,
    on_finding: &mut dyn FnMut(Finding),
) -> Result<Report> {
    Ok(examine(repo, PartRead::Sample(sample), progress, None).await?.tell(on_finding))
}

/// Which packs are read as a whole.
#[derive(Debug, Clone)]
pub(crate) enum PartRead {
    Nothing,
    Sample(Sample),
    All,
    /// None: they were read before, and this was found.
    Before(DamagedPacks),
}

/// What a look at a repository has brought.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) survey: Survey,
    pub(crate) damaged: DamagedPacks,
    /// What the index runs say, if they were read.
    pub(crate) runs: Runs,
    /// The recovery points that could be read.
    pub(crate) points: Vec<RecoveryPoint>,
    findings: Findings,
    report: Report,
}

impl Examined {
    pub(crate) fn tell(self, on_finding: &mut dyn FnMut(Finding)) -> Report {
        let mut report = self.report;
        report.findings = self.findings.tell(on_finding);
        report
    }
}

/// Looks at everything; takes down what recovery points have lost, if that is wanted.
pub(crate) async fn examine(
    repo: &Repository,
    part: PartRead,
    progress: &dyn Progress,
    lost: Option<&mut Lost>,
) -> Result<Examined> {
    let survey = survey::survey(repo.store()).await?;
    let mut report = survey.report();
    let mut findings = Findings::default();
    let points = read_points(repo, &survey, &mut findings).await?;
    report.points = points.len() as u64;
    check_small_objects(repo, &survey, &mut findings).await?;
    let mut runs = Runs::default();
    let packs = match &part {
        PartRead::Nothing | PartRead::Before(_) => Vec::new(),
        PartRead::Sample(sample) => sample.choose(survey.packs_with_lens()),
        PartRead::All => survey.packs_with_lens().collect(),
    };
    report.packs_read = packs.len() as u64;
    report.bytes_read = data::read_packs(repo, &packs, progress, &mut findings).await?;
    match part {
        PartRead::All => {
            runs = data::read_runs(repo, &survey, &mut findings).await?;
            report.bytes_read += runs.bytes;
        }
        PartRead::Before(damaged) => findings.take_packs(&damaged),
        PartRead::Nothing | PartRead::Sample(_) => {}
    }
    let mut walk = walk::Walk::new(repo, &survey, &mut findings, lost);
    for point in &points {
        walk.follow(point).await?;
    }
    (report.pages, report.references) = walk.counts();
    let damaged = findings.damaged_packs();
    Ok(Examined { survey, damaged, runs, points, findings, report })
}

/// Said of a recovery point that is there and does not count. Forgetting that was interrupted leaves one, and so does the loss of a small
/// object: who sees it can still put that back.
const VOID: &str = "it does not count, because the object of one of its sessions is gone: if it was not forgotten, put that back from a copy \
                    of the store before the next prune";

async fn read_points(repo: &Repository, survey: &Survey, findings: &mut Findings) -> Result<Vec<RecoveryPoint>> {
    let mut points = Vec::new();
    for id in survey.points() {
        match repo.point(id).await {
            // Forgotten since it was listed, or revoked before it was published; or void, which may be a loss.
            Err(Error::NoSuchPoint { .. }) => {
                if matches!(repo.read_point(id).await, Ok(Some(_))) {
                    findings.add(&layout::point(id), VOID, Some(id));
                }
                continue;
            }
            Ok(point) => points.push(point),
            Err(error) => findings.add_error(&layout::point(id), told(repo, error).await, Some(id))?,
        }
        findings.name_point(id.clone());
    }
    Ok(points)
}

/// Takes an object for a damaged one that its medium does not give, or that the store persistently does not give although it gives
/// the configuration.
async fn told(repo: &Repository, error: Error) -> Error {
    let Error::Store(refused) = error else { return error };
    let is_damage = match refused.kind {
        StoreErrorKind::Unreadable => true,
        StoreErrorKind::Unreachable => repo.store().get(layout::CONFIG, MAX_PLAIN_OBJECT_LEN).await.is_ok(),
        _ => false,
    };
    if is_damage && !refused.object.is_empty() {
        Malformed::new(refused.what()).in_object(refused.object)
    } else {
        Error::Store(refused)
    }
}

/// Reads what is needed to open the repository at all; damage there hits every recovery point.
async fn check_small_objects(repo: &Repository, survey: &Survey, findings: &mut Findings) -> Result<()> {
    if !survey.has_config() {
        findings.add_for_all(layout::CONFIG, "it is missing");
    }
    if survey.epochs().is_empty() {
        findings.add(layout::EPOCHS, "no epoch is there, so nothing can be written", None);
    }
    let mut keys = 0;
    for name in survey.small_objects() {
        let limit = match layout::parse(name) {
            ObjectName::Collection(_) => MAX_COLLECTION_LEN,
            _ => MAX_PLAIN_OBJECT_LEN.max(MAX_KEY_OBJECT_LEN),
        };
        let bytes = match repo.store().get(name, limit).await {
            Ok(bytes) => bytes,
            // A collector may have deleted it since it was listed, or somebody taken the pin away.
            Err(error) if error.kind == StoreErrorKind::NotFound && is_passing(name) => continue,
            Err(error) => {
                findings.add_error(name, told(repo, error.into()).await, None)?;
                continue;
            }
        };
        match layout::parse(name) {
            ObjectName::Config => match verify_config(&bytes, repo.id()) {
                Ok(()) => {}
                Err(Error::Damaged { what, .. }) => findings.add_for_all(name, &what),
                Err(error) => findings.add_for_all(name, &error.to_string()),
            },
            ObjectName::Epoch(epoch) => {
                note(findings, name, verify_epoch(&bytes, epoch));
            }
            ObjectName::Pin(id) => note(findings, name, pin::decode(&id, &bytes).map(drop)),
            ObjectName::Repair(writer) => note(findings, name, mark::verify(&bytes, writer)),
            ObjectName::Session(id) => note(findings, name, SessionRecord::from_bytes(&bytes, &id).map(drop)),
            ObjectName::Beat(..) if !bytes.is_empty() => findings.add(name, "a sign of life has no bytes", None),
            ObjectName::Collection(epoch) => {
                note(findings, name, Collection::from_bytes(&bytes, epoch, repo.keys()).map(drop));
            }
            ObjectName::Collected(epoch) => note(findings, name, verify_collected(&bytes, epoch)),
            ObjectName::Key(id) => keys += u64::from(check_key(repo, name, id, &bytes, findings)),
            ObjectName::Removal(key, _) => {
                if let Err(what) = verify_announcement(&bytes, key) {
                    findings.add(name, &what.to_string(), None);
                }
            }
            _ => {}
        }
    }
    if keys == 0 {
        findings.add_for_all(&layout::domain_folder("keys"), "no key of the repository is there");
    }
    Ok(())
}

/// Whether an object of this name is deleted in the ordinary course of things.
fn is_passing(name: &str) -> bool {
    matches!(
        layout::parse(name),
        ObjectName::Pin(_) | ObjectName::Session(_) | ObjectName::Beat(..) | ObjectName::Collection(_)
    )
}

fn note(findings: &mut Findings, name: &str, read: std::result::Result<(), Malformed>) {
    if let Err(what) = read {
        findings.add(name, &what.to_string(), None);
    }
}

/// Checks a key; tells whether it is, or may have been, one of this repository.
fn check_key(repo: &Repository, name: &str, id: KeyId, bytes: &[u8], findings: &mut Findings) -> bool {
    match KeyObject::from_bytes(bytes) {
        Err(what) => findings.add_for_all(name, &what.to_string()),
        Ok(None) => return false,
        Ok(Some(key)) if key.head.repository != repo.id() => return false,
        Ok(Some(key)) if key.head.key != id => findings.add_for_all(name, "it is another key"),
        Ok(Some(key)) if !key.is_proven(repo.keys()) => {
            findings.add_for_all(name, "it is not from somebody who had the master key, or was changed");
        }
        Ok(Some(_)) => {}
    }
    true
}
