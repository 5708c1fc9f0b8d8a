//! `orlop repo check`: what is wrong with a repository, and which recovery points it hits.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use repository::check::{self, CheckOptions, Finding, Report, Sample};
use repository::{ErrorKind, NoProgress, Progress, Repository};
use serde::Serialize;

use super::PlaceArgs;
use super::open::explain;
use super::progress::Show;
use super::store_line::StoreLine;
use crate::error::{Exit, Result};
use crate::human;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Read every byte of every object; else only what is needed to follow all references
    #[arg(long)]
    read_data: bool,
    /// Read a random part of the packs as a whole, of at least so many percent of their bytes; the seed that chose it is printed
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "read_data")]
    sample: Option<f64>,
    /// Choose the same part as the check that printed this seed
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    seed: Option<u64>,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| "it is not a number".to_owned())?;
    match percent > 0.0 && percent <= 100.0 {
        true => Ok(percent),
        false => Err("it is not more than 0 and at most 100".to_owned()),
    }
}

impl CheckArgs {
    /// The sample that is to be read; a seed that nobody gave comes from the clock, which is as good as any.
    fn sample(&self) -> Option<Sample> {
        let clock = || u64::try_from(jiff::Timestamp::now().as_nanosecond() & 0xffff_ffff).unwrap_or_default();
        self.sample.map(|percent| Sample { percent, seed: self.seed.unwrap_or_else(clock) })
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    /// Whether nothing is wrong.
    clean: bool,
    findings: Vec<Found>,
    /// Absent when the repository could not even be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_at: Option<LookedAt>,
    /// What was recorded about the store when the repository was made; absent when it could not be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreLine>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    object: String,
    what: String,
    /// The recovery points that are hit.
    recovery_points: Hit,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Hit {
    /// These.
    Points(Vec<String>),
    /// `all`: the repository cannot be opened.
    All(&'static str),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LookedAt {
    objects: u64,
    bytes: u64,
    packs: u64,
    recovery_points: u64,
    /// Bytes of packs and index runs that were read as a whole.
    bytes_read: u64,
    packs_read: u64,
    /// Bytes that all packs have.
    pack_bytes: u64,
    /// What chose the packs of a sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// Objects that are not of a repository, and are left alone.
    foreign: u64,
    /// The names of the first of them.
    foreign_examples: Vec<String>,
}

pub(super) async fn run(place: &PlaceArgs, args: &CheckArgs, format: Format) -> Result<Exit> {
    let clock = Instant::now();
    let (recipient, store) = (place.recipient().await?, place.store()?);
    let at = store.place().to_owned();
    let (mut findings, mut line, sample) = (Vec::new(), None, args.sample());
    let report = match Repository::open(store, &recipient).await {
        Ok(repository) => {
            line = Some(StoreLine::new(repository.known()));
            let reads = args.read_data || sample.is_some();
            let show = reads.then(|| Show::start_of_packs(format!("check {at}")));
            let progress = show.as_ref().map_or_else(|| Arc::new(NoProgress) as Arc<dyn Progress>, Show::progress);
            let mut note = |finding| findings.push(Found::new(finding));
            let options = CheckOptions { read_data: args.read_data };
            let checked = match sample {
                Some(sample) => check::check_sample(&repository, sample, progress.as_ref(), &mut note).await,
                None => check::check(&repository, options, progress.as_ref(), &mut note).await,
            };
            drop(show);
            Some(checked.map_err(|e| explain(format!("check {at}"), e))?)
        }
        Err(e) if e.kind() == ErrorKind::Damaged => {
            findings.push(Found::unopenable(e));
            None
        }
        Err(e) => return Err(explain(format!("open the repository in {at}"), e)),
    };
    let checked = Checked {
        clean: findings.is_empty(),
        findings,
        looked_at: report.map(|report| LookedAt::new(report, sample)),
        store: line,
        seconds: clock.elapsed().as_secs_f64(),
    };
    let names = || checked.findings.iter().map(|found| format!("{}\n", found.object)).collect();
    output::print(&output::render(format, &checked, || table(&checked, args.read_data), names)?)?;
    Ok(if checked.clean { Exit::Succeeded } else { Exit::Failed })
}

impl Found {
    fn new(finding: Finding) -> Self {
        let points = finding.points.iter().map(ToString::to_string).collect();
        Self { object: finding.object, what: finding.what, recovery_points: Hit::Points(points) }
    }

    /// Damage to what every recovery point needs.
    fn unopenable(error: repository::Error) -> Self {
        let (object, what) = match error {
            repository::Error::Damaged { object, what } => (object, what),
            repository::Error::Missing { object } => (object, "it is missing".to_owned()),
            other => ("repository".to_owned(), other.to_string()),
        };
        Self { object, what, recovery_points: Hit::All("all") }
    }
}

impl LookedAt {
    fn new(report: Report, sample: Option<Sample>) -> Self {
        Self {
            objects: report.objects,
            bytes: report.bytes,
            packs: report.packs,
            recovery_points: report.points,
            bytes_read: report.bytes_read,
            packs_read: report.packs_read,
            pack_bytes: report.pack_bytes,
            seed: sample.map(|sample| sample.seed),
            foreign: report.foreign,
            foreign_examples: report.foreign_examples,
        }
    }
}

fn table(checked: &Checked, read_data: bool) -> String {
    let mut text = String::new();
    if !checked.findings.is_empty() {
        let row = |found: &Found| [found.object.clone(), found.what.clone(), hit(&found.recovery_points)];
        text.push_str(&output::table(
            ["OBJECT", "WHAT IS WRONG", "RECOVERY POINTS HIT"],
            checked.findings.iter().map(row),
        ));
        text.push('\n');
    }
    if let Some(seen) = &checked.looked_at {
        text.push_str(&format!(
            "Looked at {} of {}: {} and {}",
            human::count(seen.objects, "object", "objects"),
            human::bytes(seen.bytes),
            human::count(seen.recovery_points, "recovery point", "recovery points"),
            human::count(seen.packs, "pack", "packs"),
        ));
        let read = match seen.seed {
            Some(seed) => covered(seen, seed),
            None if read_data => "every byte was read".to_owned(),
            None => "all references were followed".to_owned(),
        };
        text.push_str(&format!("; {read}, in {:.1} s.\n", checked.seconds));
        if seen.foreign > 0 {
            let foreign = human::count(seen.foreign, "object is", "objects are");
            text.push_str(&format!("{foreign} not of the repository, such as {}.\n", seen.foreign_examples.join(", ")));
        }
    }
    text.push_str(&checked.store.as_ref().map(StoreLine::sentences).unwrap_or_default());
    text.push_str(&match checked.findings.len() {
        0 => "Nothing is wrong.\n".to_owned(),
        n => format!("{} wrong.\n", human::count(n as u64, "thing is", "things are")),
    });
    text
}

/// What a sample covered, which is at least what was asked for, in whole packs.
fn covered(seen: &LookedAt, seed: u64) -> String {
    let tenths = seen.bytes_read.saturating_mul(1000).checked_div(seen.pack_bytes).unwrap_or(1000);
    format!(
        "all references were followed, and {} with {} ({}.{} % of the bytes of packs) read, chosen by the seed {seed}",
        human::count(seen.packs_read, "pack", "packs"),
        human::bytes(seen.bytes_read),
        tenths / 10,
        tenths % 10,
    )
}

pub(super) fn hit_points(points: &[String]) -> String {
    if points.is_empty() { "none".to_owned() } else { points.join(", ") }
}

fn hit(hit: &Hit) -> String {
    match hit {
        Hit::All(all) => (*all).to_owned(),
        Hit::Points(points) => hit_points(points),
    }
}
