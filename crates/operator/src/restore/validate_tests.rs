//! What is refused, what waits and what goes, in tables.

use application::ObjectKey;
use application::catalog::GroupVersion;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};

use super::*;
use crate::restore::inventory::Picking;
use jiff::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
}

fn restore(change: impl FnOnce(&mut ApplicationRestore)) -> ApplicationRestore {
    let spec = ApplicationRestoreSpec {
        recovery_point: Some("p1".into()),
        backup_location: "main".into(),
        namespace_mapping: BTreeMap::from([("shop".into(), "shop2".into())]),
        ..Default::default()
    };
    let mut restore = ApplicationRestore::new("r", spec);
    restore.metadata.namespace = Some(api::ADMIN_NAMESPACE.into());
    restore.metadata.generation = Some(1);
    change(&mut restore);
    restore
}

fn key(group: &str, kind: &str, namespace: Option<&str>, name: &str) -> ObjectKey {
    ObjectKey {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        namespace: namespace.map(Into::into),
        name: name.into(),
    }
}

/// A cluster that serves these groups, each with one version and its kinds; a group of none does not answer.
fn serving(groups: &[(&str, &str, &[&str])]) -> ApiCatalog {
    let resource = |kind: &&str| APIResource {
        kind: (*kind).into(),
        name: kind.to_lowercase(),
        verbs: ["create", "get", "list"].map(Into::into).into(),
        ..APIResource::default()
    };
    let group = |(group, version, kinds): &(&str, &str, &[&str])| GroupVersion {
        group: (*group).into(),
        version: (*version).into(),
        preferred: true,
        resources: match kinds {
            [] => Err("503".into()),
            kinds => {
                let resources = kinds.iter().map(resource).collect();
                Ok(APIResourceList { group_version: String::new(), resources })
            }
        },
    };
    ApiCatalog::build(groups.iter().map(group).collect())
}

const CORE: (&str, &str, &[&str]) = ("", "v1", &["Namespace", "ConfigMap"]);
const DB: &str = "db.example.com";

/// A recovery point with a namespace, a config map, a custom object and a claim with data.
fn point() -> PointFacts {
    let keys = vec![
        key("", "Namespace", None, "shop"),
        key("", "ConfigMap", Some("shop"), "settings"),
        key("db.example.com", "Cluster", Some("shop"), "main"),
    ];
    PointFacts {
        id: "p1".into(),
        complete: true,
        sources: vec!["shop".into()],
        missed: Vec::new(),
        defines: Definitions::new(),
        classes: BTreeSet::from(["gold".into()]),
        inventory: Inventory::pick(keys, &Picking::default()),
        transformed: TransformFacts::default(),
        kept: Kept::default(),
        claims: vec![("shop2".into(), "data".into())],
        misfits: Vec::new(),
    }
}

/// A cluster that has everything that [`point`] needs.
fn cluster() -> TargetFacts {
    TargetFacts {
        catalog: serving(&[CORE, (DB, "v1", &["Cluster"])]),
        classes: BTreeSet::from(["gold".into(), "slow".into()]),
        ..TargetFacts::default()
    }
}

fn judge(restore: &ApplicationRestore, point: &PointFacts, cluster: &TargetFacts) -> Verdict {
    target(restore, &(at(100), "me".into()), point, cluster)
}

/// Refused for that reason, with a message that has all the parts.
fn assert_refused(verdict: &Verdict, reason: &str, parts: &[&str]) {
    let Verdict::Refuse(refusal) = verdict else { panic!("not refused: {verdict:?}") };
    assert_eq!(refusal.reason, reason, "{refusal:?}");
    assert!(parts.iter().all(|part| refusal.message.contains(part)), "{refusal:?} lacks one of {parts:?}");
}

fn assert_waits(verdict: &Verdict, part: &str) {
    assert!(matches!(verdict, Verdict::Wait(why) if why.contains(part)), "{verdict:?} does not wait for {part}");
}

#[test]
fn a_wrong_or_changed_spec_is_refused() {
    assert_eq!(spec(&restore(|_| {})), Verdict::Go);
    assert_refused(&spec(&restore(|r| r.spec.recovery_point = None)), "InvalidSpec", &["spec.backupName"]);
    let begun =
        |generation| api::ApplicationRestoreStatus { observed_generation: Some(generation), ..Default::default() };
    assert_eq!(spec(&restore(|r| r.status = Some(begun(1)))), Verdict::Go);
    assert_refused(&spec(&restore(|r| r.status = Some(begun(0)))), "SpecChanged", &["create another"]);
}

#[test]
fn a_recovery_point_must_be_found() {
    let look = |found: &Source, waited| source(&restore(|_| {}).spec, found, waited, MINUTE);
    let gone = |may_pass| Source::NoLocation { reason: "Unreachable", message: "no route".into(), may_pass };
    assert_waits(&look(&gone(true), Duration::ZERO), "no route");
    assert_refused(&look(&gone(true), MINUTE), "Unreachable", &["no route"]);
    assert_refused(&look(&gone(false), Duration::ZERO), "Unreachable", &["no route"]);
    assert_waits(&look(&Source::NoBackup, Duration::ZERO), "there is no ApplicationBackup");
    assert_refused(&look(&Source::NoBackup, MINUTE), "BackupNotFound", &["recoveryPoint"]);
    assert_waits(&look(&Source::BackupRuns, 100 * MINUTE), "to end");
    let failed = Source::BackupWithoutPoint("the bucket is full".into());
    assert_refused(&look(&failed, Duration::ZERO), "NoRecoveryPoint", &["the bucket is full"]);
    let unknown =
        |known: &[&str]| Source::NoPoint { id: "p9".into(), known: known.iter().map(ToString::to_string).collect() };
    assert_refused(&look(&unknown(&["p1", "p2"]), Duration::ZERO), "NoRecoveryPoint", &["p9", "p1, p2"]);
    assert_refused(&look(&unknown(&[]), Duration::ZERO), "NoRecoveryPoint", &["it has none"]);
    assert_eq!(look(&Source::Found(Box::new(point())), Duration::ZERO), Verdict::Go);
}

#[test]
fn an_incomplete_point_is_taken_only_by_who_accepts_it() {
    let missed = vec![Missed { item: "Volume shop/data".into(), reason: "evicted".into() }];
    let found = Source::Found(Box::new(PointFacts { complete: false, missed, ..point() }));
    let look = |r: &ApplicationRestore| source(&r.spec, &found, Duration::ZERO, MINUTE);
    assert_refused(&look(&restore(|_| {})), "Incomplete", &["Volume shop/data", "evicted", "acceptIncomplete"]);
    assert_eq!(look(&restore(|r| r.spec.accept_incomplete = true)), Verdict::Go);
}

#[test]
fn a_target_that_has_everything_is_taken() {
    assert_eq!(judge(&restore(|_| {}), &point(), &cluster()), Verdict::Go);
}

#[test]
fn an_ordinary_namespace_is_restored_into_itself_only() {
    let verdict = judge(&restore(|r| r.metadata.namespace = Some("bank".into())), &point(), &cluster());
    assert_refused(&verdict, "InvalidSpec", &["spec.namespaceMapping.shop", "orlop-system"]);
}

#[test]
fn a_point_that_was_read_for_another_spec_is_not_begun() {
    let stale = PointFacts { claims: vec![("kube-system".into(), "data".into())], ..point() };
    assert_refused(&judge(&restore(|_| {}), &stale, &cluster()), "InvalidSpec", &["kube-system", "goes to shop2"]);
}

#[test]
fn what_the_target_lacks_is_named_before_anything_is_made() {
    let check = |change: &dyn Fn(&mut PointFacts, &mut TargetFacts), reason, parts: &[&str]| {
        let (mut point, mut cluster) = (point(), cluster());
        change(&mut point, &mut cluster);
        assert_refused(&judge(&restore(|_| {}), &point, &cluster), reason, parts);
    };
    check(&|_, c| c.catalog = serving(&[CORE]), "KindMissing", &["Cluster", DB, "includeResources"]);
    check(&|_, c| c.catalog = serving(&[CORE, (DB, "v1", &[])]), "KindMissing", &["does not answer (503)"]);
    let newer = serving(&[CORE, (DB, "v2", &["Cluster"])]);
    check(&|_, c| c.catalog = newer.clone(), "KindMissing", &["Cluster", "in v2 only", "has it in v1"]);
    // A definition that is there is not changed, so the one of the recovery point does not help.
    check(
        &|p, c| (p.defines, c.catalog) = (defines("v1"), newer.clone()),
        "KindMissing",
        &["Cluster", "in v2 only", "has it in v1"],
    );
    check(&|_, c| assert!(c.classes.remove("gold")), "StorageClassMissing", &["gold", "one of: slow"]);
    let no_namespace = |p: &mut PointFacts, _: &mut TargetFacts| {
        let keys = p.inventory.keys().filter(|k| k.kind != "Namespace").cloned().collect();
        p.inventory = Inventory::pick(keys, &Picking::default());
    };
    check(&no_namespace, "NamespaceMissing", &["shop2", "create it"]);
    check(
        &|_, c| {
            c.catalog = ApiCatalog::default();
            c.classes.clear();
        },
        "KindMissing",
        &["ConfigMap", "Cluster", "gold"],
    );
}

#[test]
fn a_kind_that_can_be_rewritten_to_what_the_target_serves_is_taken() {
    let job = ObjectKey { version: "v1beta1".into(), ..key("batch", "CronJob", None, "nightly") };
    let point = PointFacts { inventory: Inventory::pick(vec![job], &Picking::default()), ..point() };
    let with = |version| TargetFacts { catalog: serving(&[CORE, ("batch", version, &["CronJob"])]), ..cluster() };
    let missing = |cluster| missing_kinds(&point, &cluster).map(|refusal| refusal.message);
    assert_eq!(missing(with("v1")), None);
    assert!(missing(with("v2")).is_some_and(|said| said.contains("has it in v1beta1")));
}

#[test]
fn a_definition_that_comes_along_makes_its_kind_known() {
    let cluster = TargetFacts { catalog: serving(&[CORE]), ..cluster() };
    let with = |version| PointFacts { defines: defines(version), ..point() };
    assert_eq!(judge(&restore(|_| {}), &with("v1"), &cluster), Verdict::Go);
    assert_refused(&judge(&restore(|_| {}), &with("v2"), &cluster), "KindMissing", &["Cluster", "in v1"]);
}

fn defines(version: &str) -> Definitions {
    Definitions::from([((DB.to_owned(), "Cluster".to_owned()), BTreeSet::from([version.to_owned()]))])
}

#[test]
fn filters_that_pick_nothing_are_refused() {
    let filter = || api::ObjectFilter { name: Some("no-such".into()), ..Default::default() };
    let role = |name: &str| key("rbac.authorization.k8s.io", "ClusterRole", None, name);
    let nothing = |roles: &[&str]| {
        let picking = Picking { own_namespace_only: true, ..Picking::default() };
        let inventory = Inventory::pick(roles.iter().map(|name| role(name)).collect(), &picking);
        PointFacts { inventory, claims: Vec::new(), ..point() }
    };
    let filtered = restore(|r| r.spec.include_resources = vec![filter()]);
    assert_refused(&judge(&filtered, &nothing(&[]), &cluster()), "NothingPicked", &["includeResources", "p1"]);
    assert_refused(&judge(&filtered, &nothing(&["a", "b"]), &cluster()), "NothingPicked", &["cluster scope", "(2)"]);
    assert_eq!(judge(&filtered, &point(), &cluster()), Verdict::Go);
    assert_eq!(judge(&restore(|_| {}), &nothing(&[]), &cluster()), Verdict::Go, "an empty recovery point is all there");
}

#[test]
fn a_mapped_class_is_looked_for_under_its_new_name() {
    let mapped = |to: &str| restore(|r| r.spec.storage_class_mapping = BTreeMap::from([("gold".into(), to.into())]));
    let cluster = TargetFacts { classes: BTreeSet::from(["slow".into()]), ..cluster() };
    assert_eq!(judge(&mapped("slow"), &point(), &cluster), Verdict::Go);
    assert_refused(&judge(&mapped("fast"), &point(), &cluster), "StorageClassMissing", &["fast"]);
}

#[test]
fn claims_without_a_class_need_one_only_when_they_are_mapped() {
    let point = PointFacts { classes: BTreeSet::from([String::new()]), ..point() };
    let mapped = |to: &str| restore(|r| r.spec.storage_class_mapping = BTreeMap::from([(String::new(), to.into())]));
    assert_eq!(judge(&restore(|_| {}), &point, &cluster()), Verdict::Go);
    assert_eq!(judge(&mapped("slow"), &point, &cluster()), Verdict::Go);
    assert_refused(&judge(&mapped("fast"), &point, &cluster()), "StorageClassMissing", &["fast"]);
}

#[test]
fn claims_in_use_are_not_replaced() {
    let claim = ("shop2".to_owned(), "data".to_owned());
    let cluster = TargetFacts { users: BTreeMap::from([(claim, vec!["db-0".into()])]), ..cluster() };
    assert_eq!(judge(&restore(|_| {}), &point(), &cluster), Verdict::Go);
    let replace = restore(|r| r.spec.replace_policy = ReplacePolicy::Delete);
    assert_refused(&judge(&replace, &point(), &cluster), "ClaimInUse", &["shop2/data by db-0"]);
}

#[test]
fn a_namespace_that_is_being_deleted_is_waited_for() {
    let namespaces = BTreeMap::from([("shop2".to_owned(), NamespaceState::Terminating)]);
    let cluster = TargetFacts { namespaces, ..cluster() };
    assert_waits(&judge(&restore(|_| {}), &point(), &cluster), "the namespace shop2 to be gone");
}

#[test]
fn restores_that_share_a_namespace_run_one_after_the_other() {
    let check = |created, begun, namespaces: &[&str], waits: bool| {
        let other = Other {
            name: "a/b".into(),
            age: (at(created), "x".into()),
            begun,
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
        };
        let cluster = TargetFacts { others: vec![other], ..cluster() };
        let verdict = judge(&restore(|_| {}), &point(), &cluster);
        assert_eq!(matches!(&verdict, Verdict::Wait(why) if why.contains("a/b")), waits, "{verdict:?}");
    };
    check(99, false, &["shop2"], true);
    check(101, false, &["shop2"], false);
    check(101, true, &["shop2", "bank"], true);
    check(99, true, &["shop"], false);
    check(99, false, &[], false);
}

#[test]
fn an_image_is_not_put_into_a_claim_for_files() {
    let misfit = Missed { item: "PersistentVolumeClaim shop2/data".into(), reason: "it has an image".into() };
    let verdict = judge(&restore(|_| ()), &PointFacts { misfits: vec![misfit], ..point() }, &cluster());
    assert_refused(&verdict, "VolumeModeDiffers", &["shop2/data", "it has an image"]);
}
