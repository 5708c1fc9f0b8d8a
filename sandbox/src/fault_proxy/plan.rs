//! Which faults are injected into which requests.

use std::env;
use std::fmt;
use std::time::Duration;

use super::draw::Draw;
use super::request::Verb;

/// Sets the seed of [`Plan::from_environment`], so that a failure can be repeated.
pub const SEED_VARIABLE: &str = "ORLOP_SEED";

/// What is done to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on after a while; at once when the plan is changed meanwhile.
    Delay(Duration),
    /// It is not passed on; the answer is an error of the API server with this status.
    Answer {
        /// 409, 410, 429, or 5xx.
        status: u16,
        /// What the header `Retry-After` says, in seconds.
        retry_after_s: Option<u32>,
    },
    /// It is passed on, the API server does it and answers, and the connection is closed instead of answering.
    LoseAnswer,
    /// It is not passed on, and the connection is reset.
    Reset,
    /// It is passed on, and the connection is closed after so many lines, which in a watch are events.
    CutAfterEvents(usize),
    /// It is passed on, and the connection is closed when the answer has lasted so long.
    CutAfter(Duration),
}

impl Fault {
    /// The object was changed by somebody else meanwhile.
    pub const CONFLICT: Self = Self::answer(409);
    /// The resource version, or the page of a list, is too old.
    pub const GONE: Self = Self::answer(410);
    /// Something inside the server failed.
    pub const INTERNAL_ERROR: Self = Self::answer(500);
    /// The server is starting, stopping, or cannot reach its store.
    pub const UNAVAILABLE: Self = Self::answer(503);

    /// An error without advice about when to try again.
    pub const fn answer(status: u16) -> Self {
        Self::Answer { status, retry_after_s: None }
    }

    /// The server is overloaded and says when to try again.
    pub const fn too_many_requests(retry_after_s: u32) -> Self {
        Self::Answer { status: 429, retry_after_s: Some(retry_after_s) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(time) => write!(f, "delayed by {time:?}"),
            Self::Answer { status, .. } => write!(f, "answered {status}"),
            Self::LoseAnswer => write!(f, "answer lost"),
            Self::Reset => write!(f, "connection reset"),
            Self::CutAfterEvents(events) => write!(f, "cut after {events} events"),
            Self::CutAfter(time) => write!(f, "cut after {time:?}"),
        }
    }
}

/// Which of the requests that match a rule get its fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Every one.
    Always,
    /// Only the one with this number, from 1.
    Nth(u64),
    /// The first so many.
    First(u64),
    /// Each with this probability, from 0 to 1. Whether the n-th gets it depends on the seed, the rule's place and n
    /// only, not on what other requests there are.
    Chance(f64),
}

/// A fault, and the requests that it is for.
#[derive(Clone, Debug)]
pub struct Rule {
    verbs: Option<Vec<Verb>>,
    path_contains: Option<String>,
    when: When,
    /// One of these, by the seed.
    faults: Vec<Fault>,
}

impl Rule {
    /// A rule for every request.
    pub fn any(fault: Fault) -> Self {
        Self { verbs: None, path_contains: None, when: When::Always, faults: vec![fault] }
    }

    /// A rule for requests with a verb.
    pub fn on(verb: Verb, fault: Fault) -> Self {
        Self::any(fault).for_verbs(&[verb])
    }

    /// Only requests with one of these verbs.
    #[must_use]
    pub fn for_verbs(mut self, verbs: &[Verb]) -> Self {
        self.verbs = Some(verbs.to_owned());
        self
    }

    /// Only requests whose path, with the query, contains a text.
    #[must_use]
    pub fn path(mut self, contains: &str) -> Self {
        self.path_contains = Some(contains.to_owned());
        self
    }

    /// Only the request with this number among those that match, from 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Self {
        self.when(When::Nth(n))
    }

    /// Only the first so many requests that match.
    #[must_use]
    pub fn first(self, n: u64) -> Self {
        self.when(When::First(n))
    }

    /// Each request that matches, with a probability.
    #[must_use]
    pub fn chance(self, probability: f64) -> Self {
        self.when(When::Chance(probability))
    }

    /// Chooses which of the requests that match.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Adds another fault; which one a request gets depends on the seed.
    #[must_use]
    pub fn or(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    fn matches(&self, verb: Verb, path: &str) -> bool {
        self.verbs.as_ref().is_none_or(|verbs| verbs.contains(&verb))
            && self.path_contains.as_ref().is_none_or(|part| path.contains(part.as_str()))
    }

    /// The fault of the n-th request that matches, if it gets one; `draw` is that request's own randomness.
    fn fault(&self, n: u64, draw: Draw) -> Option<&Fault> {
        let fires = match self.when {
            When::Always => true,
            When::Nth(chosen) => n == chosen,
            When::First(count) => n <= count,
            When::Chance(probability) => draw.unit() < probability,
        };
        if fires { self.faults.get(draw.index(self.faults.len())) } else { None }
    }
}

/// Rules in order of precedence, and the seed of all that is random about them.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    seed: u64,
    rules: Vec<Rule>,
}

impl Plan {
    /// Nothing is injected.
    pub fn none() -> Self {
        Self::default()
    }

    /// An empty plan with a seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, rules: Vec::new() }
    }

    /// An empty plan whose seed is that of `ORLOP_SEED`, or else a new one every time.
    ///
    /// # Panics
    ///
    /// When the variable is not a number: going on with another seed would hide the failure that was to be repeated.
    pub fn from_environment() -> Self {
        let parse = |text: String| text.parse().unwrap_or_else(|e| panic!("{SEED_VARIABLE}={text}: {e}"));
        Self::seeded(env::var(SEED_VARIABLE).map_or_else(|_| rand::random(), parse))
    }

    /// Adds a rule, after those that there are.
    #[must_use]
    pub fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// A plan in use: it counts what each rule has matched.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    plan: Plan,
    matched: Vec<u64>,
}

impl Decisions {
    pub(super) fn new(plan: Plan) -> Self {
        Self { matched: vec![0; plan.rules.len()], plan }
    }

    /// The fault of a request: that of the first rule that has one for it. All rules that match count it.
    pub(super) fn decide(&mut self, verb: Verb, path: &str) -> Option<Fault> {
        let mut chosen = None;
        for (index, (rule, matched)) in self.plan.rules.iter().zip(&mut self.matched).enumerate() {
            if rule.matches(verb, path) {
                *matched += 1;
                let draw = Draw::new(self.plan.seed, index as u64, *matched);
                chosen = chosen.or_else(|| rule.fault(*matched, draw).cloned());
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "/api/v1/namespaces/a/pods";

    fn fates(plan: &Plan, requests: &[(Verb, &str)]) -> Vec<Option<Fault>> {
        let mut decisions = Decisions::new(plan.clone());
        requests.iter().map(|(verb, path)| decisions.decide(*verb, path)).collect()
    }

    fn check(plan: Plan, requests: &[(Verb, &str)], faulty: &[usize]) {
        let hit: Vec<_> =
            fates(&plan, requests).iter().enumerate().filter(|(_, f)| f.is_some()).map(|(i, _)| i).collect();
        assert_eq!(hit, faulty, "{plan:?} on {requests:?}");
    }

    #[test]
    fn rules_hit_what_they_name() {
        let requests = [
            (Verb::Create, PODS),
            (Verb::List, PODS),
            (Verb::Create, "/api/v1/namespaces/a/secrets"),
            (Verb::Create, PODS),
        ];
        let create = || Rule::on(Verb::Create, Fault::CONFLICT);
        check(Plan::none(), &requests, &[]);
        check(Plan::none().with(Rule::any(Fault::Reset)), &requests, &[0, 1, 2, 3]);
        check(Plan::none().with(create()), &requests, &[0, 2, 3]);
        check(Plan::none().with(create().nth(2)), &requests, &[2]);
        check(Plan::none().with(create().first(2)), &requests, &[0, 2]);
        check(Plan::none().with(create().path("/pods").nth(2)), &requests, &[3]);
        check(Plan::none().with(create().nth(1)).with(create().nth(3)), &requests, &[0, 3]);
        check(Plan::none().with(create().chance(0.0)), &requests, &[]);
        check(Plan::none().with(create().chance(1.0)), &requests, &[0, 2, 3]);
    }

    #[test]
    fn the_first_rule_wins_and_the_others_count() {
        let plan = Plan::none().with(Rule::any(Fault::GONE).nth(1)).with(Rule::any(Fault::Reset).first(2));
        let requests = [(Verb::List, PODS); 3];
        assert_eq!(fates(&plan, &requests), [Some(Fault::GONE), Some(Fault::Reset), None]);
    }

    #[test]
    fn a_fate_depends_on_the_seed_and_not_on_other_requests() {
        let plan =
            |seed| Plan::seeded(seed).with(Rule::on(Verb::Create, Fault::Reset).or(Fault::LoseAnswer).chance(0.5));
        let alone = [(Verb::Create, PODS); 64];
        let mixed: Vec<_> = alone.iter().flat_map(|create| [(Verb::List, PODS), *create]).collect();
        let expected = fates(&plan(7), &alone);
        let among_others: Vec<_> = fates(&plan(7), &mixed).into_iter().skip(1).step_by(2).collect();
        assert_eq!(among_others, expected);
        assert_ne!(fates(&plan(8), &alone), expected);
        for fate in [None, Some(Fault::Reset), Some(Fault::LoseAnswer)] {
            assert!(expected.contains(&fate), "{fate:?} does not occur in {expected:?}");
        }
    }

    #[test]
    fn chances_come_out_as_said() {
        let plan = Plan::seeded(42).with(Rule::any(Fault::Reset).chance(0.2));
        let hits = fates(&plan, &[(Verb::Get, "/"); 10_000]).into_iter().flatten().count();
        assert!((1_800..2_200).contains(&hits), "{hits} of 10000 at a chance of 0.2");
    }
}
