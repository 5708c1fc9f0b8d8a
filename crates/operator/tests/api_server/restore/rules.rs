//! Rules around a restore. Their commands run in shells of this machine, which play the containers.

use std::io::Write as _;

use api::{ApplicationRestore, ApplicationRestoreSpec, HookState, HookTime, Phase, Rule};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use sandbox::fault_proxy::Fault;
use serde_json::json;

use crate::restore::point::{publish, shop};
use crate::restore::{assert_nothing_left, namespace_exists, over, ready, reason, restore_with};
use crate::rules::{Diary, command, item, rule};
use crate::support::crash::Crashes;
use crate::support::kubelet::{Behaviour, Runs};
use crate::support::{ADMIN, SHOP, World, until};

/// Restores `p1` into a namespace, with rules.
async fn with_rules(world: &World, name: &str, target: &str, pre: Option<&str>, post: Option<&str>) {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), target.to_owned())].into();
        spec.pre_exec_rule = pre.map(Into::into);
        spec.post_exec_rule = post.map(Into::into);
        spec.ready_timeout = Some("60s".into());
    })
    .await;
}

/// A namespace with a pod that runs.
async fn with_a_database(world: &World, namespace: &str) {
    world.namespace(namespace).await;
    world.running_pod(namespace, "db-0", "db").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_rule_runs_before_anything_is_changed_and_one_when_all_is_ready() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let diary = Diary::new(&world);
    with_a_database(&world, "shop2").await;
    rule(&world, "quiesce", json!([item("db", &[command(&diary.note("before"))])])).await;
    rule(&world, "migrate", json!([item("web", &[command(&diary.note("after"))])])).await;
    let path = diary.path().to_owned();
    world.kubelet.script(move |_| {
        let mut diary = std::fs::File::options().append(true).open(&path).unwrap();
        writeln!(diary, "fill").unwrap();
        Behaviour::Run
    });
    let _node = Runs::start(world.client.clone());
    let operator = world.operator();
    with_rules(&world, "r", "shop2", Some("quiesce"), Some("migrate")).await;
    let status = over(&world, "r").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Succeeded, "Restored"), "{status:#?}");
    let lines = diary.lines();
    assert_eq!(lines.first().map(String::as_str), Some("before db-0"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "fill"), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("after web-"), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line != "fill").count(), 2, "each runs once: {lines:?}");
    let stages: Vec<&str> = status.stages.iter().map(|s| s.stage.as_str()).collect();
    let expected = ["Preparing", "PreExecRule", "Foundations", "Volumes", "Resources", "Ready", "PostExecRule"];
    assert_eq!(stages, expected);
    let hooks: Vec<_> = status.hooks.iter().map(|hook| (hook.time, hook.state)).collect();
    assert_eq!(hooks, [(HookTime::Pre, HookState::Succeeded), (HookTime::Post, HookState::Succeeded)]);
    let workloads = status.workloads.unwrap();
    assert_eq!((workloads.wanted, workloads.ready), (1, 1), "{workloads:?}");
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_fails_before_keeps_the_restore_from_beginning() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    with_a_database(&world, "shop2").await;
    rule(&world, "fails", json!([item("db", &[command("echo it is busy; exit 7")])])).await;
    rule(&world, "nobody", json!([item("cache", &[command("true")])])).await;
    let background = json!({"type": "command", "value": "${WAIT_CMD}", "background": true});
    rule(&world, "holds", json!([item("db", &[background])])).await;
    let operator = world.operator();
    let cases = [
        ("fails", "RuleFailed", "ended with code 7: it is busy; nothing was restored"),
        ("nobody", "NoPodMatched", "no running pod has the labels app=cache"),
        ("holds", "InvalidRule", "only what runs before a backup has something to wait for; nothing was changed"),
        ("missing", "RuleNotFound", "there is no rule orlop-system/missing"),
    ];
    for (name, word, said) in cases {
        with_rules(&world, name, "shop2", Some(name), None).await;
        let status = over(&world, name).await;
        assert_eq!((status.phase, reason(&status)), (Phase::Failed, word), "{name}: {status:#?}");
        let message = status.message.unwrap();
        assert!(message.contains(said), "{name}: {said:?} in {message:?}");
    }
    // Also where the namespace is yet to be made.
    with_rules(&world, "absent", "shop3", Some("nobody"), None).await;
    assert_eq!(reason(&over(&world, "absent").await), "NoPodMatched");
    assert!(!namespace_exists(&world, "shop3").await, "something was made");
    assert!(world.api::<ConfigMap>("shop2").get_opt("settings").await.unwrap().is_none(), "something was made");
    assert!(world.kubelet.started().is_empty(), "a volume was filled");

    let ignores = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "Rule", "metadata": {"name": "ignores"},
        "spec": {"onNoMatch": "Ignore", "rules": [item("cache", &[command("true")])]},
    });
    world.create::<Rule>(ADMIN, ignores).await;
    let _node = Runs::start(world.client.clone());
    with_rules(&world, "ignores", "shop3", Some("ignores"), None).await;
    let status = over(&world, "ignores").await;
    assert_eq!((status.phase, status.hooks[0].state), (Phase::Succeeded, HookState::Skipped), "{status:#?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_fails_afterwards_makes_the_restore_incomplete() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    rule(&world, "fails", json!([item("web", &[command("echo the schema is old; exit 3")])])).await;
    rule(&world, "nobody", json!([item("cache", &[command("true")])])).await;
    let _node = Runs::start(world.client.clone());
    let operator = world.operator();
    let cases =
        [("fails", "RuleFailed", "ended with code 3: the schema is old"), ("nobody", "NoPodMatched", "app=cache")];
    for (name, word, said) in cases {
        with_rules(&world, name, &format!("t-{name}"), None, Some(name)).await;
        let status = over(&world, name).await;
        assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, word), "{name}: {status:#?}");
        let message = status.message.unwrap();
        assert!(message.contains("postExecRule: ") && message.contains(said), "{name}: {said:?} in {message:?}");
        world.api::<ConfigMap>(&format!("t-{name}")).get("settings").await.unwrap();
    }
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_with_rules_survives_the_death_of_its_operator_at_every_write() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let diary = Diary::new(&world);
    rule(&world, "quiesce", json!([item("db", &[command(&diary.note("before"))])])).await;
    rule(&world, "migrate", json!([item("web", &[command(&diary.note("after"))])])).await;
    let _node = Runs::start(world.client.clone());
    let crashes = Crashes::new(&world).await;
    // A run that ends before it is killed is followed by another one.
    let begin = async |name: &str| {
        std::fs::write(diary.path(), "").unwrap();
        with_a_database(&world, name).await;
        with_rules(&world, name, name, Some("quiesce"), Some("migrate")).await;
    };
    let end = async |name: &str| {
        over(&world, name).await;
        until(&format!("the finalizer of {name} to go"), || async {
            let restore = world.api::<ApplicationRestore>(ADMIN).get(name).await.unwrap();
            restore.metadata.finalizers.unwrap_or_default().is_empty().then_some(())
        })
        .await;
    };
    let check = async |name: &str, how: &str| {
        let status = over(&world, name).await;
        assert_eq!(status.phase, Phase::Succeeded, "{how}: {status:#?}");
        let lines = diary.lines();
        assert!(
            lines.len() == 2 && lines[0] == "before db-0" && lines[1].starts_with("after web-"),
            "{how}: {lines:?}"
        );
        assert_nothing_left(&world).await;
    };
    let writes = crashes.calm(begin("calm"), end("calm")).await;
    check("calm", "without a fault").await;
    for n in crashes.chosen(&writes) {
        let fault = if n % 2 == 0 { Fault::LoseAnswer } else { Fault::Reset };
        let name = crashes.kill_at(n, &fault, begin, end).await;
        check(&name, &format!("write {n} of {}, {fault}", writes.len())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_status_gives_no_way_into_another_namespace() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let diary = Diary::new(&world);
    world.namespace("tenant").await;
    world.location("tenant").await;
    with_a_database(&world, "victim").await;
    let pod = world.api::<Pod>("victim").get("db-0").await.unwrap().uid().unwrap();
    let rule = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "Rule", "metadata": {"name": "reach"},
        "spec": {"rules": [item("db", &[command(&diary.note("reached"))])]},
    });
    world.create::<Rule>("tenant", rule).await;
    let hook = json!({"time": "Pre", "rule": "reach", "generation": 1, "item": 0, "action": 0, "namespace": "victim",
        "pod": "db-0", "podUid": pod, "container": "db", "state": "Pending"});
    let volume = |claim: &str| json!({"namespace": "tenant", "claim": claim, "stage": "Pending"});
    let cases = [
        ("namespaces", "tenant", json!({"namespaces": ["victim"]}), "StatusNotOwn"),
        ("hooks", "tenant", json!({"hooks": [hook]}), "StatusNotOwn"),
        ("spec", "victim", json!({}), "InvalidSpec"),
        ("volumes", "tenant", json!({"stage": "Volumes", "volumes": [volume("data"), volume("more")]}), "StatusNotOwn"),
    ];
    let restores: Api<ApplicationRestore> = world.api("tenant");
    for (name, target, forged, _) in &cases {
        let spec = ApplicationRestoreSpec {
            recovery_point: Some("p1".into()),
            backup_location: "main".into(),
            namespace_mapping: [(SHOP.to_owned(), (*target).to_owned())].into(),
            pre_exec_rule: Some("reach".into()),
            ..ApplicationRestoreSpec::default()
        };
        restores.create(&PostParams::default(), &ApplicationRestore::new(name, spec)).await.unwrap();
        let mut status = json!({"phase": "Running", "stage": "PreExecRule", "observedGeneration": 1});
        status.as_object_mut().unwrap().extend(forged.as_object().unwrap().clone());
        let patch = Patch::Merge(json!({"status": status}));
        restores.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
    let operator = world.operator();
    for (name, _, _, word) in cases {
        let status = until(&format!("the end of {name}"), || async {
            restores.get(name).await.unwrap().status.filter(|status| status.phase.is_final())
        })
        .await;
        assert_eq!((status.phase, reason(&status)), (Phase::Failed, word), "{name}: {status:#?}");
    }
    assert_eq!(diary.lines(), Vec::<String>::new(), "a command ran where it may not");
    operator.stop().await;
}
