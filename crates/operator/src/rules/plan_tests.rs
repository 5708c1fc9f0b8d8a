use api::rule::ActionType;
use api::{OnNoMatch, PodRule};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
}

fn action(value: &str, background: bool, retries: u32) -> RuleAction {
    RuleAction { type_: ActionType::Command, value: value.into(), background, retries, ..RuleAction::default() }
}

/// A rule of two items: a lock that is held, then a sync that may fail once.
fn rule() -> Wanted {
    let selector = [("app".to_owned(), "shop".to_owned())].into();
    let item = |action| PodRule { pod_selector: Clone::clone(&selector), container: None, actions: vec![action] };
    let rules = vec![item(action("lock; ${WAIT_CMD}", true, 0)), item(action("sync", false, 1))];
    let spec = RuleSpec { rules, on_no_match: OnNoMatch::Fail };
    Wanted { time: HookTime::Pre, name: "quiesce".into(), generation: 3, spec }
}

fn hook(item: u32, pod: &str) -> HookStatus {
    HookStatus {
        rule: "quiesce".into(),
        generation: 3,
        item,
        namespace: "shop".into(),
        pod: pod.into(),
        container: "c".into(),
        background: item == 0,
        ..HookStatus::default()
    }
}

/// A run of the rule: what would be in the status, and what was done last.
struct Course {
    hooks: Vec<HookStatus>,
    now: i64,
}

impl Course {
    fn next(&self, seen: &[(usize, Seen)]) -> Next {
        let seen = seen.iter().cloned().collect();
        run(&rule(), &self.hooks, &seen, at(self.now), &Limits::default())
    }

    fn done(&mut self, index: usize, attempt: u32, seen: Seen, released: bool) {
        let done = Done { attempt, seen, retries: if index < 2 { 0 } else { 1 }, released };
        advance(&mut self.hooks[index], &done, at(self.now), &Limits::default());
    }

    fn told(&mut self, index: usize, told: Told) {
        let attempt = self.hooks[index].attempts.max(1);
        self.done(index, attempt, Seen::Told(told), false);
    }

    /// The commands that are started now, with which try.
    fn starts(&mut self) -> Vec<(usize, u32)> {
        let Next::Steps(steps) = self.next(&[]) else { panic!("{:?}", self.hooks) };
        for (index, _) in steps.iter().filter(|(_, step)| *step == Step::Begin) {
            let attempt = self.hooks[*index].attempts;
            self.done(*index, attempt, Seen::Intended, false);
        }
        starts(&self.next(&[]))
    }

    fn states(&self) -> Vec<HookState> {
        self.hooks.iter().map(|hook| hook.state).collect()
    }
}

fn starts(next: &Next) -> Vec<(usize, u32)> {
    let Next::Steps(steps) = next else { panic!("{next:?}") };
    let start = |(index, step): &(usize, Step)| match step {
        Step::Start { attempt, .. } => Some((*index, *attempt)),
        _ => None,
    };
    steps.iter().filter_map(start).collect()
}

fn held() -> Course {
    let mut course = Course { hooks: vec![hook(0, "a"), hook(0, "b")], now: 10 };
    course.told(0, Told::Holding);
    course.told(1, Told::Holding);
    course
}

#[test]
fn one_action_follows_the_other_and_all_pods_of_one_go_together() {
    let mut course = Course { hooks: Vec::new(), now: 10 };
    assert_eq!(course.next(&[]), Next::List { item: 0 });
    course.hooks = vec![hook(0, "a"), hook(0, "b")];
    assert_eq!(course.starts(), [(0, 1), (1, 1)]);
    course.told(0, Told::Holding);
    course.told(1, Told::Running);
    assert_eq!(course.starts(), [], "b does not hold it yet");
    course.told(1, Told::Holding);
    assert_eq!(course.next(&[]), Next::List { item: 1 });
    course.hooks.push(hook(1, "a"));
    assert_eq!(course.starts(), [(2, 1)]);
    course.told(2, Told::Ended(How::Code(0), "synced".into()));
    assert_eq!(course.next(&[]), Next::Done);
    assert_eq!(course.hooks[2].message.as_deref(), Some("synced"));
    assert_eq!(course.states(), [HookState::Holding, HookState::Holding, HookState::Succeeded]);
}

#[test]
fn what_fails_is_tried_again_as_often_as_it_may_be() {
    let mut course = held();
    course.hooks.push(hook(1, "a"));
    course.told(2, Told::Ended(How::Code(1), "no space".into()));
    assert_eq!(course.hooks[2].state, HookState::Pending);
    assert_eq!(course.starts(), [], "not at once");
    course.now += 5;
    assert_eq!(course.starts(), [(2, 2)]);
    course.done(2, 2, Seen::Told(Told::Unable("no sh".into())), false);
    let Next::Fail(failure) = course.next(&[]) else { panic!("{:?}", course.hooks) };
    assert_eq!(failure.reason, "RuleFailed");
    assert!(failure.message.contains("pod shop/a") && failure.message.contains("no sh (try 2)"), "{}", failure.message);
}

#[test]
fn what_holds_something_and_loses_it_fails_the_run() {
    let check = |seen: Seen, said: &str| {
        let mut course = held();
        course.done(1, 1, seen, false);
        let failure = failed(&course.hooks, HookTime::Pre).unwrap_or_else(|| panic!("{said}: {:?}", course.hooks));
        assert!(failure.message.contains(said) && failure.message.contains("shop/b"), "{}", failure.message);
    };
    check(Seen::Gone, "the pod is gone");
    check(Seen::Told(Told::Nothing), "started anew");
    check(Seen::Told(Told::Ended(How::Code(0), String::new())), "before the data was taken");
    check(Seen::Told(Told::Ended(How::Code(2), "server has gone away".into())), "server has gone away");
    check(Seen::Told(Told::Ended(How::TimedOut, String::new())), "longer timeout");
    check(Seen::Told(Told::Ended(How::Abandoned, String::new())), "did not look after it");
}

#[test]
fn what_is_let_go_counts_only_if_it_was_there_until_then() {
    let check = |seen: Seen, expected: HookState| {
        let mut course = held();
        assert_eq!(let_go(&course.hooks), [(0, Step::Release), (1, Step::Release)]);
        course.done(0, 1, seen.clone(), true);
        assert_eq!(course.hooks[0].state, expected, "{seen:?}");
    };
    check(Seen::Told(Told::Ended(How::Code(0), String::new())), HookState::Succeeded);
    check(Seen::Told(Told::Ended(How::Stopped, String::new())), HookState::Succeeded);
    check(Seen::Told(Told::Ended(How::Killed, String::new())), HookState::Succeeded);
    check(Seen::Told(Told::Ended(How::Code(1), String::new())), HookState::Failed);
    check(Seen::Told(Told::Ended(How::TimedOut, String::new())), HookState::Failed);
    check(Seen::Told(Told::Nothing), HookState::Failed);
    check(Seen::Gone, HookState::Failed);
    check(Seen::Told(Told::Holding), HookState::Holding);
    check(Seen::Unknown("no answer".into()), HookState::Holding);
}

#[test]
fn what_cannot_be_reached_is_given_up_when_it_has_let_go_by_itself() {
    let mut course = held();
    let limits = Limits::default();
    course.done(0, 1, Seen::Unknown("no route".into()), true);
    assert!(course.hooks[0].message.as_deref().is_some_and(|message| message.contains("no route")));
    let patience = i64::try_from((limits.hooks.lease + limits.hooks.grace).as_secs()).expect("a small number");
    course.now += patience;
    course.done(0, 1, Seen::Unknown("no route".into()), true);
    assert_eq!(course.hooks[0].state, HookState::Holding);
    course.now += 1;
    course.done(0, 1, Seen::Unknown("no route".into()), true);
    assert_eq!(course.hooks[0].state, HookState::Failed);
    let mut course = held();
    course.done(0, 1, Seen::Unknown("no route".into()), false);
    course.told(0, Told::Holding);
    assert_eq!((course.hooks[0].unknown_since.as_ref(), course.hooks[0].message.as_ref()), (None, None));
}

#[test]
fn a_start_of_which_nobody_knows_is_made_again_as_the_same_one() {
    let mut course = Course { hooks: vec![hook(0, "a")], now: 10 };
    assert!(!has_begun(&course.hooks));
    assert_eq!(course.next(&[]), Next::Steps(vec![(0, Step::Begin)]), "it is written down before it is done");
    course.done(0, 0, Seen::Intended, false);
    assert!(has_begun(&course.hooks), "it may have been");
    course.done(0, 1, Seen::Unknown("no answer".into()), false);
    assert_eq!(course.starts(), [(0, 1)]);
}

#[test]
fn a_rule_that_is_changed_meanwhile_is_not_followed() {
    let mut course = held();
    course.hooks[0].generation = 2;
    assert!(matches!(course.next(&[]), Next::Fail(failure) if failure.reason == "RuleChanged"));
}

#[test]
fn a_command_that_is_interrupted_has_not_succeeded() {
    let mut course = held();
    course.hooks.push(hook(1, "a"));
    course.told(2, Told::Running);
    course.done(2, 1, Seen::Told(Told::Ended(How::Stopped, String::new())), true);
    assert_eq!(course.hooks[2].state, HookState::Failed);
}
