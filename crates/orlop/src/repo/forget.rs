//! `orlop repo forget`: recovery points by their names, or all that no rule keeps.
//!
//! Everything is looked at, and what will happen is said, before anything is deleted.

use std::num::NonZeroU32;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use repository::retention::{self, Decision, Every, Group, GroupBy, Known, Policy, Reason, Within};
use repository::{ErrorKind, PointId, RecoveryPoint, Repository, Source, Tag, Tags};
use serde::Serialize;

use super::PlaceArgs;
use super::manage::tags;
use super::open::explain;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The recovery points
    #[arg(value_name = "ID", required_unless_present = "rules", conflicts_with = "rules")]
    ids: Vec<String>,
    #[command(flatten)]
    rules: RuleArgs,
    /// What recovery points must have in common to compete with each other: nothing, the host or the cluster, or also the contents or
    /// the namespaces
    #[arg(long, value_enum, value_name = "WHAT", default_value = "source", requires = "rules")]
    group_by: By,
    /// The rules are about recovery points of this host only
    #[arg(long, value_name = "NAME", requires = "rules")]
    host: Option<String>,
    /// The rules are about recovery points with this tag only; of several, all
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', requires = "rules")]
    tags: Vec<Tag>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

/// The rules. What any of them keeps is kept, and the newest complete one of each group, and what is pinned.
#[derive(Debug, Args)]
#[group(id = "rules", multiple = true)]
#[command(next_help_heading = "Rules")]
struct RuleArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    keep_last: Option<NonZeroU32>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<NonZeroU32>,
    /// Keep the newest of each of the last N days that have one, by the time of this machine
    #[arg(long, value_name = "N")]
    keep_daily: Option<NonZeroU32>,
    /// Keep the newest of each of the last N weeks that have one; weeks begin on Monday
    #[arg(long, value_name = "N")]
    keep_weekly: Option<NonZeroU32>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N")]
    keep_monthly: Option<NonZeroU32>,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N")]
    keep_yearly: Option<NonZeroU32>,
    /// Keep what is not older than this, such as 1y6mo, 2w or 36h
    #[arg(long, value_name = "TIME")]
    keep_within: Option<Within>,
    /// Keep what has one of these tags
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    keep_tag: Vec<Tag>,
}

/// [`GroupBy`] as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    None,
    Host,
    Source,
}

/// What `forget` does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Forgetting {
    /// What is forgotten.
    recovery_points: Vec<String>,
    /// All that the rules were about, by groups; absent when names were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupPlan>>,
    /// What cannot be read, and so is left alone by rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<Unreadable>,
    /// Where the days begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    dry_run: bool,
}

/// What becomes of one group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupPlan {
    group: Group,
    recovery_points: Vec<PointPlan>,
}

/// What becomes of one recovery point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PointPlan {
    id: String,
    created: Timestamp,
    complete: bool,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    kept: bool,
    reasons: Vec<Reason>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unreadable {
    id: String,
    error: String,
}

pub(super) async fn run(place: &PlaceArgs, args: &ForgetArgs, format: Format) -> Result<Exit> {
    match args.rules.policy() {
        Some(policy) => by_rules(place, args, &policy, format).await,
        None => by_name(place, args, format).await,
    }
}

impl RuleArgs {
    fn policy(&self) -> Option<Policy> {
        let counts = [self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        let every = Every::ALL.into_iter().zip(counts).filter_map(|(every, count)| Some((every, count?)));
        Policy::new(self.keep_last, every, self.keep_within, self.keep_tag.clone()).ok()
    }
}

async fn by_name(place: &PlaceArgs, args: &ForgetArgs, format: Format) -> Result<Exit> {
    let mut ids = Vec::<PointId>::new();
    for name in &args.ids {
        let id = name.parse().map_err(|e| Error::usage(format!("forget {name}")).because(e))?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let repository = place.open().await?;
    for id in &ids {
        // One that is damaged can be forgotten, one that is not there is a mistake; all are looked at before any is deleted.
        match repository.point(id).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Damaged => {}
            Err(e) => return Err(explain(format!("forget {id}"), e)),
        }
        repository.refuse_pinned(id).await.map_err(|e| explain(format!("forget {id}"), e))?;
    }
    if !args.dry_run {
        forget(&repository, &ids).await?;
    }
    let done = Forgetting {
        recovery_points: ids.iter().map(ToString::to_string).collect(),
        groups: None,
        unreadable: Vec::new(),
        time_zone: None,
        dry_run: args.dry_run,
    };
    let verb = if args.dry_run { "would be forgotten (dry run: nothing was changed)" } else { "forgotten" };
    let table = || done.recovery_points.iter().map(|id| format!("{id} {verb}\n")).collect();
    output::print(&output::render(format, &done, table, || names(&done))?)?;
    Ok(Exit::Succeeded)
}

fn names(done: &Forgetting) -> String {
    done.recovery_points.iter().map(|id| format!("{id}\n")).collect()
}

async fn forget(repository: &Repository, ids: &[PointId]) -> Result<()> {
    for id in ids {
        repository.forget(id).await.map_err(|e| explain(format!("forget {id}"), e))?;
    }
    Ok(())
}

async fn by_rules(place: &PlaceArgs, args: &ForgetArgs, policy: &Policy, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let what = "look at what there is to forget";
    let (mut known, mut unreadable) = (Vec::new(), Vec::new());
    let entries = repository.points().await.map_err(|e| explain(what, e))?;
    // The pins after the points: who pins one that is looked at here is heard.
    let pins = repository.pins().await.map_err(|e| explain(what, e))?;
    for entry in entries {
        match entry.point {
            Ok(point) if args.is_about(&point) => {
                known.push(Known::new(&point, args.group_by.into(), pins.contains_key(&entry.id)));
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => unreadable.push(Unreadable { id: entry.id.to_string(), error: e.to_string() }),
        }
    }
    let zone = TimeZone::system();
    let decisions = retention::decide(policy, known, Timestamp::now(), &zone);
    let ids: Vec<_> = decisions.iter().filter(|d| !d.is_kept()).map(|d| d.point.id.clone()).collect();
    let plan = Forgetting {
        recovery_points: ids.iter().map(ToString::to_string).collect(),
        groups: Some(groups(decisions)),
        unreadable,
        time_zone: Some(zone.iana_name().unwrap_or("the zone of this machine").to_owned()),
        dry_run: args.dry_run,
    };
    output::print(&output::render(format, &plan, || table(&plan), || names(&plan))?)?;
    if !args.dry_run {
        forget(&repository, &ids).await?;
    }
    if format == Format::Table {
        output::print(&summary(&plan))?;
    }
    Ok(Exit::Succeeded)
}

impl ForgetArgs {
    fn is_about(&self, point: &RecoveryPoint) -> bool {
        let host = match &point.source {
            Source::Paths { host } => Some(host),
            Source::Application { .. } => None,
        };
        (self.host.is_none() || self.host.as_ref() == host) && point.tags.contain_all(&self.tags)
    }
}

impl From<By> for GroupBy {
    fn from(by: By) -> Self {
        match by {
            By::None => Self::None,
            By::Host => Self::Host,
            By::Source => Self::Source,
        }
    }
}

/// Decisions come group by group.
fn groups(decisions: Vec<Decision>) -> Vec<GroupPlan> {
    let mut groups = Vec::<GroupPlan>::new();
    for decision in decisions {
        let kept = decision.is_kept();
        let Decision { point, reasons } = decision;
        if groups.last().is_none_or(|last| last.group != point.group) {
            groups.push(GroupPlan { group: point.group, recovery_points: Vec::new() });
        }
        if let Some(last) = groups.last_mut() {
            last.recovery_points.push(PointPlan {
                id: point.id.to_string(),
                created: point.created,
                complete: point.complete,
                tags: point.tags,
                kept,
                reasons,
            });
        }
    }
    groups
}

fn table(plan: &Forgetting) -> String {
    let mut text = String::new();
    for group in plan.groups.iter().flatten() {
        let row = |point: &PointPlan| {
            let why: Vec<_> = point.reasons.iter().map(ToString::to_string).collect();
            [
                if point.kept { "keep" } else { "forget" }.to_owned(),
                point.id.clone(),
                human::instant(point.created),
                if point.complete { "yes" } else { "no" }.to_owned(),
                tags(&point.tags),
                if why.is_empty() { human::dash() } else { why.join("; ") },
            ]
        };
        let header = ["DECISION", "RECOVERY POINT", "CREATED", "COMPLETE", "TAGS", "WHY"];
        let rows = output::table(header, group.recovery_points.iter().map(row));
        text.push_str(&format!("{}\n{rows}\n", group.group));
    }
    for point in &plan.unreadable {
        text.push_str(&format!("{} is left alone, since it cannot be read: {}\n", point.id, point.error));
    }
    text
}

fn summary(plan: &Forgetting) -> String {
    let forgotten = human::count(plan.recovery_points.len() as u64, "recovery point", "recovery points");
    let all: usize = plan.groups.iter().flatten().map(|group| group.recovery_points.len()).sum();
    let kept = all - plan.recovery_points.len();
    let zone = plan.time_zone.clone().unwrap_or_default();
    if plan.dry_run {
        format!(
            "{forgotten} would be forgotten, {kept} kept (dry run: nothing was changed). Days begin as in {zone}.\n"
        )
    } else {
        format!("{forgotten} forgotten, {kept} kept. Days began as in {zone}.\n")
    }
}
