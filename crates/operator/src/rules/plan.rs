//! What is done next for a rule. Pure: what was seen goes in, steps come out.
//!
//! ```text
//!       begin, start                      look: 0
//!   Pending ──────────► Running ───────────────────────► Succeeded
//!      ▲                   │  look: holding                  ▲
//!      │ try again         ├────────────────► Holding ───────┘ release
//!      └───────────────────┤                     │ look: ended, gone
//!                          ▼                     ▼
//!                        Failed ◄────────────────┘
//! ```
//! That a command is about to be started is written down before it is, so that what comes after it is never forgotten.
//!
//! Invariant: the data of volumes counts as consistent only if every command that held something was seen holding it before the first volume was read, and was
//! still there when it was let go.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Failure, HookState, HookStatus, HookTime, RuleAction, RuleSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::script::{How, Told};
use crate::conditions::shorten;
use crate::config::Limits;

/// A rule that is to run.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// When.
    pub time: HookTime,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: i64,
    /// What it says.
    pub spec: RuleSpec,
}

/// What was seen of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing yet: it is about to be started.
    Intended,
    /// Its container tells this.
    Told(Told),
    /// Its pod is gone.
    Gone,
    /// Nothing, this time; why.
    Unknown(String),
}

/// What is to be done for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write down that it is about to be started.
    Begin,
    /// Start it, if it is not yet.
    Start {
        /// Which try it is.
        attempt: u32,
        /// What `sh -c` runs.
        command: String,
        /// How long it may take, or hold.
        time_limit: Duration,
        /// How often it may fail.
        retries: u32,
    },
    /// Nothing: note what was seen.
    Note {
        /// What was seen.
        seen: Seen,
        /// How often it may fail.
        retries: u32,
    },
    /// Let it go.
    Release,
}

/// What was done for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Which try is meant.
    pub attempt: u32,
    /// What was seen of it then.
    pub seen: Seen,
    /// How often it may fail.
    pub retries: u32,
    /// It was let go.
    pub released: bool,
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Find the pods of this item of the rule.
    List {
        /// Which.
        item: usize,
    },
    /// These steps, by the index of the command.
    Steps(Vec<(usize, Step)>),
    /// Nothing more.
    Done,
    /// It cannot be done.
    Fail(Failure),
}

/// Whether a command may be there, in its container.
pub(crate) fn is_open(hook: &HookStatus) -> bool {
    matches!(hook.state, HookState::Running | HookState::Holding)
}

/// Whether anything may have been done in the application.
pub(crate) fn has_begun(hooks: &[HookStatus]) -> bool {
    hooks.iter().any(|hook| hook.time == HookTime::Pre && hook.started_at.is_some())
}

/// The first command that failed for good.
pub(crate) fn failed(hooks: &[HookStatus], time: HookTime) -> Option<Failure> {
    let hook = hooks.iter().find(|hook| hook.time == time && hook.state == HookState::Failed)?;
    let what = hook.message.as_deref().unwrap_or("no reason was kept");
    Some(Failure { reason: "RuleFailed".into(), message: format!("{} {what}", name(hook)) })
}

/// Commands that have failed for good since a status was written, each in words.
pub(crate) fn newly_failed(old: &[HookStatus], new: &[HookStatus]) -> Vec<String> {
    let is_new = |(i, hook): &(usize, &HookStatus)| {
        let was = old.get(*i).is_some_and(|hook| hook.state == HookState::Failed);
        hook.state == HookState::Failed && !was
    };
    let said = |(_, hook): (usize, &HookStatus)| {
        let what = hook.message.as_deref().unwrap_or("no reason was kept");
        format!("{}/{}: {what}", hook.namespace, hook.pod)
    };
    new.iter().enumerate().filter(is_new).map(said).collect()
}

/// A command, for people.
fn name(hook: &HookStatus) -> String {
    let HookStatus { rule, item, action, namespace, pod, container, .. } = hook;
    format!(
        "rules[{item}].actions[{action}] of the rule {rule} in the container {container} of the pod {namespace}/{pod}"
    )
}

/// The next step of a rule.
pub(crate) fn run(
    wanted: &Wanted,
    hooks: &[HookStatus],
    seen: &BTreeMap<usize, Seen>,
    now: Timestamp,
    limits: &Limits,
) -> Next {
    if let Some(failure) = failed(hooks, wanted.time) {
        return Next::Fail(failure);
    }
    let of_rule = |(_, hook): &(usize, &HookStatus)| hook.time == wanted.time;
    let mine: Vec<(usize, &HookStatus)> = hooks.iter().enumerate().filter(of_rule).collect();
    if mine.iter().any(|(_, hook)| hook.generation != wanted.generation) {
        let message =
            format!("the rule {} was changed while it ran; a run follows no change: create another", wanted.name);
        return Next::Fail(Failure { reason: "RuleChanged".into(), message });
    }
    for (item, rule) in wanted.spec.rules.iter().enumerate() {
        let of_item: Vec<_> = mine.iter().filter(|(_, hook)| hook.item as usize == item).copied().collect();
        if of_item.is_empty() {
            return Next::List { item };
        }
        for (index, action) in rule.actions.iter().enumerate() {
            let of_action: Vec<_> = of_item.iter().filter(|(_, hook)| hook.action as usize == index).copied().collect();
            if of_action.iter().any(|(_, hook)| !is_done(hook)) {
                let mut steps: Vec<_> = of_action.iter().filter_map(|at| begin(*at, action, now, limits)).collect();
                steps.extend(notes(
                    hooks,
                    seen,
                    |hook| if hook.time == wanted.time { retries(wanted, hook) } else { 0 },
                ));
                return Next::Steps(steps);
            }
        }
    }
    Next::Done
}

fn retries(wanted: &Wanted, hook: &HookStatus) -> u32 {
    let rule = wanted.spec.rules.get(hook.item as usize);
    rule.and_then(|rule| rule.actions.get(hook.action as usize)).map_or(0, |action| action.retries)
}

/// Whether the next action may begin.
fn is_done(hook: &HookStatus) -> bool {
    matches!(hook.state, HookState::Succeeded | HookState::Holding | HookState::Skipped)
}

fn begin(
    (index, hook): (usize, &HookStatus),
    action: &RuleAction,
    now: Timestamp,
    limits: &Limits,
) -> Option<(usize, Step)> {
    if hook.state != HookState::Pending {
        return None;
    }
    let is_due = |ended: &Time| now < ended.0 || now.duration_since(ended.0).unsigned_abs() >= limits.hooks.retry;
    match (&hook.started_at, &hook.finished_at) {
        (_, Some(ended)) => is_due(ended).then_some((index, Step::Begin)),
        (None, None) => Some((index, Step::Begin)),
        (Some(_), None) => {
            let step = Step::Start {
                attempt: hook.attempts + 1,
                command: action.value.clone(),
                // What is no length of time was refused before anything began.
                time_limit: action.time_limit().unwrap_or_default(),
                retries: action.retries,
            };
            Some((index, step))
        }
    }
}

fn notes(
    hooks: &[HookStatus],
    seen: &BTreeMap<usize, Seen>,
    retries: impl Fn(&HookStatus) -> u32,
) -> Vec<(usize, Step)> {
    let open = hooks.iter().enumerate().filter(|(_, hook)| is_open(hook));
    open.filter_map(|(index, hook)| {
        let seen = seen.get(&index)?.clone();
        Some((index, Step::Note { seen, retries: retries(hook) }))
    })
    .collect()
}

/// What is noted of the commands that hold something, while the data is taken.
pub(crate) fn hold(hooks: &[HookStatus], seen: &BTreeMap<usize, Seen>) -> Vec<(usize, Step)> {
    notes(hooks, seen, |_| 0)
}

/// Lets go what is open.
pub(crate) fn let_go(hooks: &[HookStatus]) -> Vec<(usize, Step)> {
    let open = hooks.iter().enumerate().filter(|(_, hook)| is_open(hook));
    open.map(|(index, _)| (index, Step::Release)).collect()
}

/// Writes down what was done for a command.
pub(crate) fn advance(hook: &mut HookStatus, done: &Done, now: Timestamp, limits: &Limits) {
    let is_first = hook.state == HookState::Pending;
    match &done.seen {
        Seen::Intended => (hook.started_at, hook.finished_at) = (Some(Time(now)), None),
        Seen::Unknown(why) => unknown(hook, done, why, now, limits),
        Seen::Gone => lost(hook, "cannot run any more: the pod is gone, or does not run", now),
        Seen::Told(Told::Unable(why)) => {
            hook.attempts = done.attempt;
            again(hook, format!("could not run: {why}"), done, now, limits);
        }
        Seen::Told(Told::Nothing) if is_first => {
            hook.attempts = done.attempt;
            again(hook, "was not begun: somebody ended it while it was prepared".into(), done, now, limits);
        }
        Seen::Told(Told::Nothing) => {
            lost(hook, "is gone: its container was started anew, or somebody removed its files", now)
        }
        Seen::Told(Told::Running) => runs(hook, done.attempt, HookState::Running, now),
        Seen::Told(Told::Holding) => {
            runs(hook, done.attempt, if hook.background { HookState::Holding } else { HookState::Running }, now);
            if hook.background && hook.holding_since.is_none() {
                hook.holding_since = Some(Time(now));
            }
        }
        Seen::Told(Told::Ended(how, output)) => {
            hook.attempts = done.attempt;
            ended(hook, *how, output, done, now, limits);
        }
    }
}

fn runs(hook: &mut HookStatus, attempt: u32, state: HookState, now: Timestamp) {
    if hook.state == HookState::Pending {
        (hook.started_at, hook.finished_at) = (Some(Time(now)), None);
    }
    (hook.state, hook.attempts, hook.message, hook.unknown_since) = (state, attempt, None, None);
}

/// Nobody knows. What holds something lets it go by itself after a while, so that nobody waits for ever.
fn unknown(hook: &mut HookStatus, done: &Done, why: &str, now: Timestamp, limits: &Limits) {
    let since = hook.unknown_since.get_or_insert(Time(now)).0;
    let over = now > since && now.duration_since(since).unsigned_abs() > limits.hooks.lease + limits.hooks.grace;
    if over {
        hook.attempts = done.attempt;
        let why = format!("could not be reached for {} s: {why}", now.duration_since(since).as_secs());
        return lost(hook, &why, now);
    }
    hook.message = Some(shorten(&format!("cannot be reached: {why}"), limits.reason_chars));
}

fn ended(hook: &mut HookStatus, how: How, output: &str, done: &Done, now: Timestamp, limits: &Limits) {
    let said = if output.is_empty() { String::new() } else { format!(": {output}") };
    match how {
        How::Code(0) if !hook.background || done.released => succeeded(hook, output, now, limits),
        How::Stopped if done.released && hook.background => succeeded(hook, output, now, limits),
        How::Killed if done.released && hook.background => {
            let note = format!(
                "did not end within {} s after it was let go, and was killed{said}",
                limits.hooks.grace.as_secs()
            );
            succeeded(hook, &note, now, limits);
        }
        How::Code(code) if hook.state == HookState::Holding && done.released => {
            lost(hook, &shorten(&format!("ended with code {code} when it was let go{said}"), limits.reason_chars), now);
        }
        How::Code(code) if hook.state == HookState::Holding => {
            let why = format!("ended with code {code} before the data was taken, and let go what it held{said}");
            lost(hook, &shorten(&why, limits.reason_chars), now);
        }
        How::Code(0) => again(hook, format!("ended before it came to ${{WAIT_CMD}}{said}"), done, now, limits),
        How::Code(code) => again(hook, format!("ended with code {code}{said}"), done, now, limits),
        How::TimedOut if hook.holding_since.is_some() => {
            let why = format!("held for as long as it may, and the data was not taken; give it a longer timeout{said}");
            lost(hook, &shorten(&why, limits.reason_chars), now);
        }
        How::TimedOut => {
            again(hook, format!("took longer than it may; give it a longer timeout{said}"), done, now, limits)
        }
        How::Abandoned => {
            let why =
                format!("was ended: the operator did not look after it for {} s{said}", limits.hooks.lease.as_secs());
            lost(hook, &shorten(&why, limits.reason_chars), now);
        }
        How::Stopped | How::Killed => {
            lost(hook, &shorten(&format!("was let go too early{said}"), limits.reason_chars), now)
        }
    }
}

fn succeeded(hook: &mut HookStatus, output: &str, now: Timestamp, limits: &Limits) {
    (hook.state, hook.finished_at, hook.unknown_since) = (HookState::Succeeded, Some(Time(now)), None);
    hook.message = Some(shorten(output, limits.reason_chars)).filter(|text| !text.is_empty());
}

/// A try failed; there may be another, unless what it was for is over.
fn again(hook: &mut HookStatus, why: String, done: &Done, now: Timestamp, limits: &Limits) {
    let more = !done.released && hook.attempts <= done.retries;
    hook.state = if more { HookState::Pending } else { HookState::Failed };
    (hook.finished_at, hook.unknown_since) = (Some(Time(now)), None);
    let attempts = if hook.attempts > 1 { format!(" (try {})", hook.attempts) } else { String::new() };
    hook.message = Some(shorten(&format!("{why}{attempts}"), limits.reason_chars));
}

fn lost(hook: &mut HookStatus, why: &str, now: Timestamp) {
    (hook.state, hook.finished_at, hook.unknown_since) = (HookState::Failed, Some(Time(now)), None);
    hook.message = Some(why.to_owned());
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
