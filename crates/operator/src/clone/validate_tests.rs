//! What may begin, and what is refused before anything is made.

use api::ApplicationCloneSpec;

use super::*;
use crate::claims::ClaimFacts;
use crate::snapshots::Class;

fn run(own: &str) -> ApplicationClone {
    let spec = ApplicationCloneSpec {
        source_namespace: "shop".into(),
        destination_namespace: "test".into(),
        ..ApplicationCloneSpec::default()
    };
    let mut run = ApplicationClone::new("c", spec);
    run.metadata.namespace = Some(own.into());
    run.metadata.generation = Some(1);
    run
}

/// A claim of a driver with snapshots, whose class waits for no node.
fn claim() -> Claim {
    let facts = ClaimFacts {
        namespace: "shop".into(),
        name: "data".into(),
        bound: true,
        storage_class: "fast".into(),
        driver: Some("disk".into()),
        ..ClaimFacts::default()
    };
    Claim { facts, waits_for_a_node: Some(false), node: None }
}

fn facts(change: impl FnOnce(&mut Preparing, &mut Claim)) -> Preparing {
    let class = Class { name: "copies".into(), driver: "disk".into(), is_default: false, deletes: true };
    let mut claim = claim();
    let mut facts = Preparing {
        waits: None,
        source: Some(NamespaceState::Active),
        destination: Some(NamespaceState::Absent),
        others: Vec::new(),
        claims: Ok(Vec::new()),
        existing: BTreeSet::new(),
        users: Default::default(),
        classes: vec![class],
        admission: None,
    };
    change(&mut facts, &mut claim);
    if facts.claims.is_ok() {
        facts.claims = Ok(vec![claim]);
    }
    facts
}

fn refused(change: impl FnOnce(&mut Preparing, &mut Claim), reason: &str, part: &str) {
    refused_with(&run(api::ADMIN_NAMESPACE), change, reason, part);
}

fn refused_with(run: &ApplicationClone, change: impl FnOnce(&mut Preparing, &mut Claim), reason: &str, part: &str) {
    match judge(run, &facts(change)) {
        Verdict::Refuse(failure) => {
            assert_eq!(failure.reason, reason, "{failure:?}");
            assert!(failure.message.contains(part), "{failure:?} lacks {part}");
        }
        other => panic!("{other:?} is not refused by {reason}"),
    }
}

#[test]
fn a_volume_that_cannot_be_cloned_is_refused_with_what_to_do() {
    refused(|_, claim| claim.facts.driver = None, "NoSnapshots", "restore it with the namespaceMapping shop: test");
    refused(|facts, _| facts.classes.clear(), "NoSnapshots", "the driver disk");
    refused(|_, claim| claim.facts.deleting = true, "ClaimUnusable", "shop/data is being deleted");
    refused(|_, claim| claim.facts.lost = true, "ClaimUnusable", "lost");
    refused(|_, claim| claim.waits_for_a_node = None, "StorageClassMissing", "fast");
    refused(|_, claim| claim.waits_for_a_node = Some(true), "NoNode", "start a pod");
}

#[test]
fn a_namespace_that_is_not_there_is_refused_and_one_that_is_going_is_waited_for() {
    refused(|facts, _| facts.source = Some(NamespaceState::Absent), "NamespaceNotFound", "no namespace shop");
    refused(|facts, _| facts.source = Some(NamespaceState::Terminating), "NamespaceNotFound", "being deleted");
    refused(|facts, _| facts.claims = Err("no label".into()), "InvalidSpec", "no label");
    let waits = |change: &dyn Fn(&mut Preparing)| {
        let verdict = judge(&run(api::ADMIN_NAMESPACE), &facts(|facts, _| change(facts)));
        matches!(verdict, Verdict::Wait(_))
    };
    assert!(waits(&|facts| facts.destination = Some(NamespaceState::Terminating)));
    assert!(waits(&|facts| facts.waits = Some("another".into())));
    assert!(!waits(&|_| ()));
}

#[test]
fn claims_that_exist_are_left_alone_or_replaced_unless_they_are_in_use() {
    let there = |facts: &mut Preparing| facts.existing = BTreeSet::from(["data".to_owned()]);
    let mut run = run(api::ADMIN_NAMESPACE);
    let stage = |run: &ApplicationClone| match judge(run, &facts(|facts, _| there(facts))) {
        Verdict::Go(volumes) => volumes[0].stage,
        other => panic!("{other:?}"),
    };
    assert_eq!(stage(&run), VolumeStage::Skipped);
    run.spec.replace_policy = ReplacePolicy::Delete;
    assert_eq!(stage(&run), VolumeStage::Pending);
    let used = |facts: &mut Preparing, _: &mut Claim| {
        there(facts);
        facts.users.insert("data".into(), vec!["db-0".into()]);
    };
    refused_with(&run, used, "ClaimInUse", "test/data is to be replaced and is in use by db-0");
}

#[test]
fn who_says_that_he_has_begun_must_be_one_who_could() {
    let barred = |run: &ApplicationClone| barred(run).map(|failure| failure.reason);
    assert_eq!(barred(&run("shop")).as_deref(), Some("InvalidSpec"), "whatever its status says");
    let mut run = run(api::ADMIN_NAMESPACE);
    assert_eq!(barred(&run), None);
    run.spec.selectors = [("app".to_owned(), "a b".to_owned())].into();
    assert_eq!(barred(&run).as_deref(), Some("InvalidSpec"), "no object bears such a label");
    run.spec.selectors.clear();
    run.status = Some(api::ApplicationCloneStatus { observed_generation: Some(1), ..Default::default() });
    assert_eq!(barred(&run), None);
    run.metadata.generation = Some(2);
    assert_eq!(barred(&run).as_deref(), Some("SpecChanged"));
}
