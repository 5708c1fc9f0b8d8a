//! Reading what a rule is and where its commands are, and doing its steps.

use std::collections::BTreeMap;

use api::{Failure, HookState, HookStatus, HookTime, OnNoMatch, PodRule, RUN_LABEL, Rule, RuleAction};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::containers::{Containers, Target, ask_all};
use super::is_open;
use super::plan::{Done, Next, Seen, Step, Wanted, run};
use super::script::{self, Task};
use crate::config::Limits;
use crate::error::{During, Error};
use crate::mover_pod;
use crate::objects;

/// Names the container that people mean when they name none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// On whose behalf commands run.
pub(crate) struct Acting<'a> {
    /// The way into containers.
    pub containers: &'a dyn Containers,
    /// All times and counts.
    pub limits: &'a Limits,
    /// Uid of the run.
    pub uid: &'a str,
    /// The namespace that the run may act on, if not on all: a status that names pods of others is not the operator's.
    pub scope: Option<&'a str>,
}

/// A rule of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    /// Its namespace, which is the run's.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// When it is to run.
    pub time: HookTime,
    /// Whether what it does in the background has something to wait for.
    pub may_hold: bool,
}

/// A rule, and what was seen of its commands.
pub(crate) struct RuleFacts {
    /// The rule that runs now, if there is one; what is wrong with it if it cannot.
    pub rule: Option<Result<Wanted, Failure>>,
    /// What was seen of commands that may be there, by their index.
    pub seen: BTreeMap<usize, Seen>,
}

impl RuleFacts {
    /// The rule, if it can run.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        self.rule.as_ref()?.as_ref().ok().cloned()
    }

    /// What is done next for it.
    pub(crate) fn next(&self, hooks: &[HookStatus], now: Timestamp, limits: &Limits) -> Next {
        match &self.rule {
            None => Next::Done,
            Some(Err(failure)) => Next::Fail(failure.clone()),
            Some(Ok(rule)) => run(rule, hooks, &self.seen, now, limits),
        }
    }
}

/// Reads the rule that runs now, and looks at its commands.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn gather(
    client: &Client,
    named: Option<Named<'_>>,
    acting: &Acting<'_>,
    hooks: &[HookStatus],
) -> Result<RuleFacts, Error> {
    let rule = match named {
        Some(named) => Some(find(client, named).await?),
        None => None,
    };
    Ok(RuleFacts { rule, seen: look(acting, hooks).await })
}

/// Finds out before anything is begun whether rules can run.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn are_fit(
    client: &Client,
    all: impl IntoIterator<Item = Named<'_>>,
) -> Result<Result<(), Failure>, Error> {
    for named in all {
        if let Err(failure) = find(client, named).await? {
            return Ok(Err(failure));
        }
    }
    Ok(Ok(()))
}

/// Reads a rule; what is wrong with it if it cannot run.
async fn find(client: &Client, named: Named<'_>) -> Result<Result<Wanted, Failure>, Error> {
    let Named { namespace, name, time, may_hold } = named;
    let Some(rule) = objects::read::<Rule>(client, namespace, name).await? else {
        let message = format!("there is no rule {namespace}/{name}; create it, or name another");
        return Ok(Err(Failure { reason: "RuleNotFound".into(), message }));
    };
    let wrong = rule.spec.validate(may_hold);
    if !wrong.is_empty() {
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        let message = format!("the rule {namespace}/{name} cannot run: {}", wrong.join("; "));
        return Ok(Err(Failure { reason: "InvalidRule".into(), message }));
    }
    let generation = rule.metadata.generation.unwrap_or_default();
    Ok(Ok(Wanted { time, name: name.to_owned(), generation, spec: rule.spec }))
}

/// The commands of an item of a rule, for the pods that run now.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn list(
    client: &Client,
    wanted: &Wanted,
    item: usize,
    namespaces: &[String],
    limits: &Limits,
) -> Result<Result<Vec<HookStatus>, Failure>, Error> {
    let Some(rule) = wanted.spec.rules.get(item) else { return Ok(Ok(Vec::new())) };
    let labels: Vec<String> = rule.pod_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = labels.join(",");
    let mut pods = Vec::new();
    for namespace in namespaces {
        let api = Api::<Pod>::namespaced(client.clone(), namespace);
        let found = api.list(&ListParams::default().labels(&labels)).await;
        pods.extend(
            found.during(|| format!("list the pods of the namespace {namespace} with the labels {labels}"))?.items,
        );
    }
    pods.retain(|pod| !pod.labels().contains_key(RUN_LABEL));
    Ok(commands(wanted, item, rule, &pods, limits))
}

fn commands(
    wanted: &Wanted,
    item: usize,
    rule: &PodRule,
    pods: &[Pod],
    limits: &Limits,
) -> Result<Vec<HookStatus>, Failure> {
    let mut running: Vec<&Pod> = pods.iter().filter(|pod| is_running(pod)).collect();
    running.sort_by_key(|pod| (pod.namespace(), pod.name_any()));
    if running.is_empty() {
        return none_matched(wanted, item, rule, pods.len());
    }
    let mut commands = Vec::new();
    for (index, action) in rule.actions.iter().enumerate() {
        let pods = if action.run_in_single_pod { &running[..1] } else { &running[..] };
        for pod in pods {
            let container =
                container(rule, pod).map_err(|why| Failure { reason: "RuleFailed".into(), message: why })?;
            commands.push(command(wanted, (item, index), action, pod, container));
        }
    }
    if commands.len() > limits.hooks.commands {
        let message = format!(
            "rules[{item}] of the rule {} would run {} commands in {} pods; at most {} can be followed: select fewer pods, or use runInSinglePod",
            wanted.name,
            commands.len(),
            running.len(),
            limits.hooks.commands
        );
        return Err(Failure { reason: "TooManyPods".into(), message });
    }
    Ok(commands)
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

fn none_matched(wanted: &Wanted, item: usize, rule: &PodRule, not_running: usize) -> Result<Vec<HookStatus>, Failure> {
    let labels: Vec<String> = rule.pod_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let but = if not_running > 0 { format!("; {not_running} match and do not run") } else { String::new() };
    let message =
        format!("rules[{item}] of the rule {}: no running pod has the labels {}{but}", wanted.name, labels.join(","));
    if wanted.spec.on_no_match == OnNoMatch::Fail {
        let message = format!("{message}; mend its podSelector, or set onNoMatch: Ignore");
        return Err(Failure { reason: "NoPodMatched".into(), message });
    }
    let skipped = HookStatus {
        time: wanted.time,
        rule: wanted.name.clone(),
        generation: wanted.generation,
        item: number(item),
        state: HookState::Skipped,
        message: Some(message),
        ..HookStatus::default()
    };
    Ok(vec![skipped])
}

/// Positions in a rule are small: its commands are counted before they are made.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn container(rule: &PodRule, pod: &Pod) -> Result<String, String> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let wanted = rule.container.as_ref().or_else(|| pod.annotations().get(DEFAULT_CONTAINER));
    let found = match wanted {
        Some(name) => containers.iter().find(|container| container.name == *name),
        None => containers.first(),
    };
    found.map(|container| container.name.clone()).ok_or_else(|| {
        let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
        let wanted = wanted.map(String::as_str).unwrap_or_default();
        format!("{} has no container {wanted}; it has {}", objects::title(pod), names.join(", "))
    })
}

fn command(
    wanted: &Wanted,
    (item, index): (usize, usize),
    action: &RuleAction,
    pod: &Pod,
    container: String,
) -> HookStatus {
    HookStatus {
        time: wanted.time,
        rule: wanted.name.clone(),
        generation: wanted.generation,
        item: number(item),
        action: number(index),
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        pod_uid: pod.uid().unwrap_or_default(),
        container,
        background: action.background,
        ..HookStatus::default()
    }
}

fn target(hook: &HookStatus) -> Target {
    Target {
        namespace: hook.namespace.clone(),
        pod: hook.pod.clone(),
        uid: hook.pod_uid.clone(),
        container: hook.container.clone(),
    }
}

impl Acting<'_> {
    fn may_reach(&self, hook: &HookStatus) -> bool {
        self.scope.is_none_or(|own| hook.namespace == own)
    }

    /// The name of a command in its container: the same for every operator.
    fn key(&self, index: usize, attempt: u32) -> String {
        format!("{}-{index}-{attempt}", mover_pod::short(self.uid))
    }
}

/// Looks at the commands that may be there.
pub(crate) async fn look(acting: &Acting<'_>, hooks: &[HookStatus]) -> BTreeMap<usize, Seen> {
    let open = hooks.iter().enumerate().filter(|(_, hook)| is_open(hook));
    let (reached, barred): (Vec<_>, Vec<_>) = open.partition(|(_, hook)| acting.may_reach(hook));
    let asks =
        reached.into_iter().map(|(index, hook)| (index, target(hook), script::look(&acting.key(index, hook.attempts))));
    let seen = ask_all(acting.containers, asks.collect(), acting.limits.hooks.at_once).await;
    seen.into_iter().chain(barred.into_iter().map(|(index, _)| (index, Seen::Gone))).collect()
}

/// Does the steps.
pub(crate) async fn take(acting: &Acting<'_>, hooks: &[HookStatus], steps: Vec<(usize, Step)>) -> Vec<(usize, Done)> {
    let (mut done, mut asks, mut of) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (index, step) in steps {
        let Some(hook) = hooks.get(index) else { continue };
        if !acting.may_reach(hook) {
            done.push((index, Done { attempt: hook.attempts, seen: Seen::Gone, retries: 0, released: false }));
            continue;
        }
        match step {
            Step::Begin => {
                done.push((index, Done { attempt: hook.attempts, seen: Seen::Intended, retries: 0, released: false }));
            }
            Step::Note { seen, retries } => {
                done.push((index, Done { attempt: hook.attempts, seen, retries, released: false }));
            }
            Step::Start { attempt, command, time_limit, retries } => {
                let key = acting.key(index, attempt);
                let task = Task { key: &key, command: &command, time_limit, background: hook.background };
                asks.push((index, target(hook), script::start(&task, &acting.limits.hooks)));
                of.insert(index, (attempt, retries, false));
            }
            Step::Release => {
                asks.push((index, target(hook), script::release(&acting.key(index, hook.attempts))));
                of.insert(index, (hook.attempts, 0, true));
            }
        }
    }
    for (index, seen) in ask_all(acting.containers, asks, acting.limits.hooks.at_once).await {
        if let Some(&(attempt, retries, released)) = of.get(&index) {
            done.push((index, Done { attempt, seen, retries, released }));
        }
    }
    done
}

/// Removes what commands that have ended left in their containers. They do it themselves after a while, so nobody waits for it.
pub(crate) async fn forget(acting: &Acting<'_>, hooks: &[HookStatus]) {
    let ended = hooks.iter().enumerate().filter(|(_, hook)| hook.attempts > 0 && !is_open(hook));
    let asks = ended
        .filter(|(_, hook)| acting.may_reach(hook))
        .map(|(index, hook)| (index, target(hook), script::forget(&acting.key(index, hook.attempts))));
    drop(ask_all(acting.containers, asks.collect(), acting.limits.hooks.at_once).await);
}
