//! Whether what was restored runs: from what was seen of workloads to what the status says, and to what is done next. Pure.

use std::time::Duration;

use api::{WorkloadState, WorkloadStatus, Workloads};
use application::ObjectKey;
use application::readiness::{Readiness, State};

use crate::conditions::shorten;

/// What follows a look at the workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Another one.
    LookAgain,
    /// `postExecRule`.
    PostExecRule,
    /// The end.
    Finish,
}

/// What is said of workloads. Those that were seen before and are gone have failed, unless it is their way to go when they are done.
pub(super) fn summary(
    before: Option<&Workloads>,
    looked: &[(ObjectKey, Readiness)],
    most: usize,
    reason_chars: usize,
) -> Workloads {
    let mut items: Vec<WorkloadStatus> = looked.iter().map(|(key, seen)| item(key, seen, reason_chars)).collect();
    let is_there = |item: &WorkloadStatus| items.iter().any(|other| name(other) == name(item));
    let gone = before.map(|before| before.items.as_slice()).unwrap_or_default().iter();
    let gone = gone.filter(|item| !matches!(item.kind.as_str(), "Job" | "Pod") && !is_there(item));
    let gone: Vec<WorkloadStatus> = gone.map(lost).collect();
    items.extend(gone);
    items.sort_by(|a, b| (a.state, name(a)).cmp(&(b.state, name(b))));
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let ready = items.iter().filter(|item| item.state == WorkloadState::Ready).count();
    let wanted = count(items.len());
    items.truncate(most);
    Workloads { wanted, ready: count(ready), items }
}

fn name(item: &WorkloadStatus) -> (&str, &str, &str) {
    (&item.kind, &item.namespace, &item.name)
}

fn item(key: &ObjectKey, seen: &Readiness, reason_chars: usize) -> WorkloadStatus {
    WorkloadStatus {
        kind: key.kind.clone(),
        namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
        state: match seen.state {
            State::Failed => WorkloadState::Failed,
            State::Waiting => WorkloadState::Waiting,
            State::Ready => WorkloadState::Ready,
        },
        progress: seen.progress.clone(),
        reason: seen.reason.as_deref().map(|reason| shorten(reason, reason_chars)),
    }
}

fn lost(item: &WorkloadStatus) -> WorkloadStatus {
    WorkloadStatus {
        state: WorkloadState::Failed,
        progress: None,
        reason: Some("it is gone: somebody deleted it after it was made".into()),
        ..item.clone()
    }
}

/// What follows, when the workloads have been waited for so long, of the time that they may take. Whether a rule runs afterwards, and whether
/// everything else is there, is for the caller to say: only then that rule has what it was written for.
pub(super) fn then(workloads: &Workloads, waited: Duration, within: Duration, runs_a_rule: bool) -> Then {
    if workloads.ready == workloads.wanted {
        return if runs_a_rule { Then::PostExecRule } else { Then::Finish };
    }
    // The list begins with those that failed for good; one that is only waited for comes behind them.
    let is_waited_for = workloads.items.iter().any(|item| item.state == WorkloadState::Waiting);
    if is_waited_for && waited < within { Then::LookAgain } else { Then::Finish }
}

/// The first workload that is not ready, and why, for people.
pub(super) fn first_unready(workloads: &Workloads) -> Option<String> {
    let item = workloads.items.iter().find(|item| item.state != WorkloadState::Ready)?;
    let why = item.reason.as_deref().or(item.progress.as_deref()).unwrap_or("no reason is known");
    Some(format!("{} {}/{} is not ready: {why}", item.kind, item.namespace, item.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(kind: &str, name: &str, state: State) -> (ObjectKey, Readiness) {
        let key = ObjectKey {
            group: "apps".into(),
            version: "v1".into(),
            kind: kind.into(),
            namespace: Some("shop".into()),
            name: name.into(),
        };
        let reason = (state != State::Ready).then(|| format!("{name} waits"));
        (key, Readiness { state, progress: None, reason })
    }

    fn states(workloads: &Workloads) -> Vec<(&str, WorkloadState)> {
        workloads.items.iter().map(|item| (item.name.as_str(), item.state)).collect()
    }

    #[test]
    fn those_that_are_not_ready_come_first_and_all_are_counted() {
        use State::{Failed, Ready, Waiting};
        let looked = [
            seen("Deployment", "a", Ready),
            seen("Deployment", "b", Waiting),
            seen("Job", "c", Failed),
            seen("StatefulSet", "d", Ready),
        ];
        let all = summary(None, &looked, 3, 100);
        assert_eq!((all.wanted, all.ready), (4, 2));
        let expected = [("c", WorkloadState::Failed), ("b", WorkloadState::Waiting), ("a", WorkloadState::Ready)];
        assert_eq!(states(&all), expected);
        assert_eq!(first_unready(&all).as_deref(), Some("Job shop/c is not ready: c waits"));
    }

    #[test]
    fn what_was_seen_and_is_gone_has_failed_unless_it_goes_by_itself() {
        let before = summary(None, &[seen("Deployment", "a", State::Ready), seen("Job", "b", State::Ready)], 9, 100);
        let after = summary(Some(&before), &[], 9, 100);
        assert_eq!(states(&after), [("a", WorkloadState::Failed)]);
        assert_eq!(states(&summary(Some(&after), &[], 9, 100)), states(&after), "and stays so");
    }

    #[test]
    fn what_is_ready_is_followed_by_the_rule_and_what_is_not_in_time_by_the_end() {
        let of = |states: &[State]| {
            let looked: Vec<_> = states.iter().map(|state| seen("Deployment", "a", *state)).collect();
            summary(None, &looked, 9, 100)
        };
        let check = |states: &[State], waited: u64, rule: bool, expected: Then| {
            let (waited, within) = (Duration::from_secs(waited), Duration::from_secs(10));
            assert_eq!(then(&of(states), waited, within, rule), expected, "{states:?} {waited:?}");
        };
        check(&[], 0, false, Then::Finish);
        check(&[], 0, true, Then::PostExecRule);
        check(&[State::Ready], 99, true, Then::PostExecRule);
        check(&[State::Ready, State::Waiting], 9, true, Then::LookAgain);
        check(&[State::Ready, State::Waiting], 10, true, Then::Finish);
        check(&[State::Failed, State::Waiting], 9, false, Then::LookAgain);
        check(&[State::Failed, State::Ready], 0, true, Then::Finish);
    }
}
