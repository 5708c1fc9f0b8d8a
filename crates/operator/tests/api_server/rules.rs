//! Rules on a real API server. Their commands run in shells of this machine, which play the containers.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::support::crash::Crashes;
use crate::support::kubelet::{Behaviour, gone};
use crate::support::{ADMIN, Operator, SHOP, World, until};
use api::{ApplicationBackup, ApplicationBackupStatus, ConsistencyLevel, HookState, HookTime, Phase, Rule};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

async fn ready() -> World {
    let world = World::new().await;
    world.location(ADMIN).await;
    world.application().await;
    world
}

/// What commands write down, in the order that they do.
pub struct Diary(PathBuf);

impl Diary {
    pub fn new(world: &World) -> Self {
        let path = world.directory.path().join("diary");
        std::fs::write(&path, "").unwrap();
        Self(path)
    }

    pub fn note(&self, what: &str) -> String {
        format!("echo {what} $POD >> {}", self.0.display())
    }

    pub fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.0).unwrap().lines().map(Into::into).collect()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

pub async fn rule(world: &World, name: &str, rules: Value) {
    let manifest = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "Rule", "metadata": {"name": name}, "spec": {"rules": rules},
    });
    world.create::<Rule>(ADMIN, manifest).await;
}

pub fn item(app: &str, actions: &[Value]) -> Value {
    json!({"podSelector": {"app": app}, "actions": actions})
}

pub fn command(value: &str) -> Value {
    json!({"type": "command", "value": value})
}

fn hold(before: &str, after: &str) -> Value {
    json!({"type": "command", "value": format!("{before}; ${{WAIT_CMD}}; {after}"), "background": true, "timeout": "60s"})
}

async fn backup(world: &World, name: &str, pre: Option<&str>, post: Option<&str>) {
    world
        .backup_with(name, |spec| {
            spec.pre_exec_rule = pre.map(Into::into);
            spec.post_exec_rule = post.map(Into::into);
        })
        .await;
}

async fn status(world: &World, name: &str) -> ApplicationBackupStatus {
    let api: Api<ApplicationBackup> = world.api(ADMIN);
    api.get(name).await.unwrap().status.unwrap_or_default()
}

async fn holding(world: &World, name: &str) {
    until("the rule to hold the application", || async {
        let hooks = status(world, name).await.hooks;
        hooks.iter().any(|hook| hook.state == HookState::Holding).then_some(())
    })
    .await;
}

/// A backup `b` whose rule holds the application, while its mover does nothing.
async fn held_up() -> (World, Diary, Operator) {
    let world = ready().await;
    let diary = Diary::new(&world);
    world.running_pod(SHOP, "db-0", "db").await;
    rule(&world, "quiesce", json!([item("db", &[hold(&diary.note("lock"), &diary.note("free"))])])).await;
    world.kubelet.script(|_| Behaviour::Hang);
    let operator = world.operator();
    backup(&world, "b", Some("quiesce"), None).await;
    holding(&world, "b").await;
    (world, diary, operator)
}

fn message(status: &ApplicationBackupStatus) -> &str {
    status.message.as_deref().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_holds_the_application_while_its_volumes_are_read_and_lets_it_go() {
    sandbox::require_assets!();
    let world = ready().await;
    let diary = Diary::new(&world);
    for pod in ["db-0", "db-1"] {
        world.running_pod(SHOP, pod, "db").await;
    }
    world.running_pod(SHOP, "other", "web").await;
    let single = json!({"type": "command", "value": diary.note("single"), "runInSinglePod": true});
    rule(&world, "quiesce", json!([item("db", &[hold(&diary.note("lock"), &diary.note("free")), single]),])).await;
    rule(&world, "thaw", json!([item("db", &[command(&diary.note("after"))])])).await;
    let path = diary.path().to_owned();
    world.kubelet.script(move |_| {
        use std::io::Write as _;
        let mut diary = std::fs::File::options().append(true).open(&path).unwrap();
        writeln!(diary, "read").unwrap();
        Behaviour::Run
    });
    let operator = world.operator();
    backup(&world, "b", Some("quiesce"), Some("thaw")).await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let lines = diary.lines();
    let position = |line: &str| lines.iter().position(|l| l == line).unwrap_or_else(|| panic!("{line}: {lines:?}"));
    for pod in ["db-0", "db-1"] {
        assert!(position(&format!("lock {pod}")) < position("single db-0"), "{lines:?}");
        let last_read = lines.iter().rposition(|l| l == "read").unwrap();
        assert!(last_read < position(&format!("free {pod}")), "{lines:?}");
        assert!(position("free db-0").max(position("free db-1")) < position(&format!("after {pod}")), "{lines:?}");
    }
    assert!(position("single db-0") < position("read"), "{lines:?}");
    assert!(!lines.iter().any(|line| line == "single db-1" || line.contains("other")), "{lines:?}");
    let consistency = status.consistency.unwrap();
    assert_eq!(consistency.level, ConsistencyLevel::ApplicationConsistent);
    assert!(consistency.cut_from.0 <= consistency.cut_to.0);
    let hooks: Vec<_> = status.hooks.iter().map(|h| (h.time, h.pod.as_str(), h.container.as_str(), h.state)).collect();
    use HookState::Succeeded;
    use HookTime::{Post, Pre};
    let expected = [
        (Pre, "db-0", "db", Succeeded),
        (Pre, "db-1", "db", Succeeded),
        (Pre, "db-0", "db", Succeeded),
        (Post, "db-0", "db", Succeeded),
        (Post, "db-1", "db", Succeeded),
    ];
    assert_eq!(hooks, expected);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_do_its_work_leaves_no_recovery_point() {
    sandbox::require_assets!();
    let world = ready().await;
    world.running_pod(SHOP, "db-0", "db").await;
    rule(&world, "nobody", json!([item("cache", &[command("true")])])).await;
    rule(&world, "fails", json!([item("db", &[command("echo it is full; exit 7")])])).await;
    rule(&world, "hangs", json!([item("db", &[json!({"type": "command", "value": "sleep 100", "timeout": "1s"})])]))
        .await;
    rule(&world, "no-wait", json!([item("db", &[command("${WAIT_CMD}")])])).await;
    let early = json!({"type": "command", "value": "echo bye", "background": true});
    rule(&world, "ends-early", json!([item("db", &[early])])).await;
    rule(
        &world,
        "wrong-container",
        json!([{"podSelector": {"app": "db"}, "container": "x", "actions": [command("true")]}]),
    )
    .await;
    rule(&world, "no-label", json!([item("a b", &[command("true")])])).await;
    let operator = world.operator();
    let cases = [
        ("nobody", "NoPodMatched", "no running pod has the labels app=cache"),
        ("fails", "RuleFailed", "ended with code 7: it is full"),
        ("hangs", "RuleFailed", "took longer than it may"),
        ("no-wait", "InvalidRule", "background: true"),
        ("no-label", "InvalidRule", "spec.rules[0].podSelector.app: \"a b\""),
        ("ends-early", "RuleFailed", "bye"),
        ("wrong-container", "RuleFailed", "it has db, side"),
        ("not-there", "RuleNotFound", "there is no rule orlop-system/not-there"),
    ];
    for (name, reason, said) in cases {
        backup(&world, name, Some(name), None).await;
        let status = world.finished(name).await.status.unwrap();
        assert_eq!((status.phase, status.recovery_point.as_ref()), (Phase::Failed, None), "{name}: {status:#?}");
        let complete = status.conditions.iter().find(|c| c.type_ == "Complete").unwrap();
        assert_eq!(complete.reason, reason, "{name}: {}", message(&status));
        assert!(message(&status).contains(said), "{name}: {said:?} in {:?}", message(&status));
    }
    assert!(world.repository().await.points().await.unwrap().is_empty());
    assert!(world.kubelet.started().is_empty(), "no volume was read");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_may_be_told_to_do_without_pods_and_the_run_says_so() {
    sandbox::require_assets!();
    let world = ready().await;
    let manifest = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "Rule", "metadata": {"name": "nobody"},
        "spec": {"onNoMatch": "Ignore", "rules": [item("cache", &[command("true")])]},
    });
    world.create::<Rule>(ADMIN, manifest).await;
    let operator = world.operator();
    backup(&world, "b", Some("nobody"), None).await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_eq!(status.hooks[0].state, HookState::Skipped);
    assert_eq!(status.consistency.unwrap().level, ConsistencyLevel::NotConsistent);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_let_go_when_the_run_fails_and_what_comes_after_is_done() {
    sandbox::require_assets!();
    let world = ready().await;
    let diary = Diary::new(&world);
    world.running_pod(SHOP, "db-0", "db").await;
    rule(&world, "quiesce", json!([item("db", &[hold(&diary.note("lock"), &diary.note("free"))])])).await;
    rule(&world, "thaw", json!([item("db", &[command(&diary.note("after"))])])).await;
    world.kubelet.script(|_| Behaviour::Hang);
    let operator = world.operator();

    backup(&world, "changed", Some("quiesce"), Some("thaw")).await;
    until("a mover", || async { (!world.kubelet.started().is_empty()).then_some(()) }).await;
    let api: Api<ApplicationBackup> = world.api(ADMIN);
    let change = json!({"spec": {"excludeResourceTypes": ["Secret"]}});
    api.patch("changed", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    let status = world.finished("changed").await.status.unwrap();
    assert_eq!(status.phase, Phase::Failed);
    assert!(message(&status).contains("the spec was changed"), "{}", message(&status));
    assert_eq!(diary.lines(), ["lock db-0", "free db-0", "after db-0"]);

    backup(&world, "deleted", Some("quiesce"), Some("thaw")).await;
    holding(&world, "deleted").await;
    api.delete("deleted", &DeleteParams::default()).await.unwrap();
    until("the backup to go", || async { api.get_opt("deleted").await.unwrap().is_none().then_some(()) }).await;
    assert_eq!(diary.lines()[3..], ["lock db-0", "free db-0", "after db-0"]);
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    assert!(world.repository().await.points().await.unwrap().is_empty());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_dies_while_it_holds_something_fails_the_run() {
    sandbox::require_assets!();
    let (world, _, operator) = held_up().await;
    let pods: Api<Pod> = world.api(SHOP);
    pods.delete("db-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    let status = world.finished("b").await.status.unwrap();
    assert_eq!((status.phase, status.recovery_point.as_ref()), (Phase::Failed, None));
    assert!(message(&status).contains("the pod is gone"), "{}", message(&status));
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_let_go_when_the_operator_is_gone() {
    sandbox::require_assets!();
    let (world, diary, operator) = held_up().await;
    operator.kill().await;
    until("the lock to be let go", || async { (diary.lines() == ["lock db-0", "free db-0"]).then_some(()) }).await;
    let operator = world.operator();
    let status = world.finished("b").await.status.unwrap();
    assert_eq!((status.phase, status.recovery_point.as_ref()), (Phase::Failed, None), "the hold was broken");
    assert!(message(&status).contains("did not look after it"), "{}", message(&status));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlasts_an_operator_that_is_replaced_and_a_way_that_is_cut_for_a_moment() {
    sandbox::require_assets!();
    let (world, diary, operator) = held_up().await;
    operator.kill().await;
    world.shells.is_cut.store(true, Ordering::Relaxed);
    let operator = world.operator();
    until("somebody to note that the way is cut", || async {
        status(&world, "b").await.hooks[0].unknown_since.is_some().then_some(())
    })
    .await;
    world.shells.is_cut.store(false, Ordering::Relaxed);
    world.kubelet.script(|_| Behaviour::Run);
    let movers: Api<Pod> = world.api(SHOP);
    for pod in world.kubelet.started() {
        gone(movers.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await).unwrap();
    }
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_eq!(diary.lines(), ["lock db-0", "free db-0"], "it was held once");
    assert_eq!(status.consistency.unwrap().level, ConsistencyLevel::ApplicationConsistent);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_rules_survives_the_death_of_its_operator_at_every_write() {
    sandbox::require_assets!();
    let world = ready().await;
    let diary = Diary::new(&world);
    world.running_pod(SHOP, "db-0", "db").await;
    let actions = [hold(&diary.note("lock"), &diary.note("free")), command(&diary.note("sync"))];
    rule(&world, "quiesce", json!([item("db", &actions)])).await;
    rule(&world, "thaw", json!([item("db", &[command(&diary.note("after"))])])).await;
    let crashes = Crashes::new(&world).await;
    // A run that ends before it is killed is followed by another one.
    let begin = async |name: &str| {
        std::fs::write(diary.path(), "").unwrap();
        backup(&world, name, Some("quiesce"), Some("thaw")).await;
    };
    let end = async |name: &str| {
        world.finished(name).await;
        world.let_go(name).await;
    };
    let check = async |name: &str, how: &str| {
        let status = world.finished(name).await.status.unwrap();
        assert_eq!(status.phase, Phase::Succeeded, "{how}: {status:#?}");
        assert!(status.hooks.iter().all(|hook| hook.state == HookState::Succeeded), "{how}: {status:#?}");
        let lines = diary.lines();
        assert_eq!(lines, ["lock db-0", "sync db-0", "free db-0", "after db-0"], "{how}: each command runs once");
    };
    crashes.everywhere(7, begin, end, check).await;
}
