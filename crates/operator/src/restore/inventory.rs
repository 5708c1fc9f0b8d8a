//! What of a recovery point a restore is about, and when it is made.
//!
//! Three kinds that belong to the configuration come later than it: limits and quotas would count the temporary claims and their movers
//! beside what they become, and a network policy could cut the movers off from the repository.

use std::collections::BTreeSet;

use api::ObjectFilter;
use application::order::order;
use application::{ObjectKey, Rule, Wave, rules};
use kube::core::{ApiResource, GroupVersionKind};

/// Group name by which a filter picks the group that has none.
const CORE: &str = "core";

/// The two stages in which objects are made; volumes are filled between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What volumes and workloads stand on.
    Foundations,
    /// Everything else.
    Resources,
}

/// The objects of a recovery point that a restore is about, by their names at the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// What is made, in order.
    waves: Vec<(Wave, Vec<ObjectKey>)>,
    /// Left alone because the restore is one of its own namespace only: what is of cluster scope, and what grants rights.
    pub(crate) left_alone: u64,
    /// Left out by a rule that is about all of their kind. A backup leaves them out too, but who wrote the recovery point is not known.
    pub(crate) skipped: Vec<(ObjectKey, Rule)>,
}

/// What decides which objects a restore is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picking<'a> {
    /// The restore's filters; all objects if there are none.
    pub(crate) filters: &'a [ObjectFilter],
    /// Claims whose data is restored; they are made when they are filled, and not as objects.
    pub(crate) filled: BTreeSet<(String, String)>,
    /// The restore lives in an ordinary namespace: it must not touch the cluster, nor grant rights. Whoever made it, and wrote the
    /// repository perhaps, is not known, so nobody may get by it what the API server would not let him give himself.
    pub(crate) own_namespace_only: bool,
}

impl Inventory {
    /// Picks from all keys of a recovery point.
    pub(crate) fn pick(keys: Vec<ObjectKey>, picking: &Picking<'_>) -> Self {
        let needed = Needed::of(&keys, picking);
        let (mut left_alone, mut picked, mut skipped) = (0, Vec::new(), Vec::new());
        for key in keys {
            if let Some(rule) = run_rule(&key) {
                if picking.names(&key) {
                    skipped.push((key, rule));
                }
                continue;
            }
            let wanted = picking.takes(&key) || needed.takes(&key);
            if !wanted || Wave::of(&key).is_none() {
                continue;
            }
            if picking.own_namespace_only && (key.namespace.is_none() || grants_rights(&key)) {
                left_alone += 1;
            } else {
                picked.push(key);
            }
        }
        Self { waves: order(picked), left_alone, skipped }
    }

    /// The waves of one part, in order; what it leaves to the other part is left out.
    pub(crate) fn part(&self, part: Part) -> Vec<(Wave, Vec<ObjectKey>)> {
        let of_part = |wave, keys: &[ObjectKey]| keys.iter().filter(|k| part_of(wave, k) == part).cloned().collect();
        let waves = self.waves.iter().map(|(wave, keys)| (*wave, of_part(*wave, keys)));
        waves.filter(|(_, keys): &(Wave, Vec<ObjectKey>)| !keys.is_empty()).collect()
    }

    /// Those of some texts that name no kind of which something is made.
    pub(crate) fn idle_kinds<'a>(&'a self, texts: &'a [String]) -> impl Iterator<Item = &'a String> {
        texts.iter().filter(|text| !self.keys().any(|key| names_kind(text, key)))
    }

    /// Everything that is made.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.waves.iter().flat_map(|(_, keys)| keys)
    }
}

/// Whether objects of a wave are held back when a volume could not be filled: what may start or expose a workload, which would run on
/// nothing, or make a claim of its own under the same name.
pub(crate) fn stands_on_volumes(wave: Wave) -> bool {
    wave >= Wave::CustomResources
}

/// The rule that keeps an object from coming back which is a run of Orlop's. The run would start again, or go on from wherever it says that it is.
fn run_rule(key: &ObjectKey) -> Option<Rule> {
    rules::for_kind(&key.group, &key.kind).filter(|rule| *rule == Rule::OrlopRuns)
}

/// Whether it is a role or a binding, under whichever name of its group.
fn grants_rights(key: &ObjectKey) -> bool {
    matches!(key.group.as_str(), "rbac.authorization.k8s.io" | "authorization.openshift.io")
}

fn part_of(wave: Wave, key: &ObjectKey) -> Part {
    let later = key.is("", "LimitRange") || key.is("", "ResourceQuota") || key.is("networking.k8s.io", "NetworkPolicy");
    if wave <= Wave::Configuration && !later { Part::Foundations } else { Part::Resources }
}

impl Picking<'_> {
    /// Whether the data of a claim is picked.
    pub(crate) fn takes_volume(&self, namespace: &str, claim: &str) -> bool {
        let key = ObjectKey {
            group: String::new(),
            version: "v1".into(),
            kind: "PersistentVolumeClaim".into(),
            namespace: Some(namespace.into()),
            name: claim.into(),
        };
        self.filters.is_empty() || self.filters.iter().any(|f| matches(f, &key))
    }

    /// Whether an object is picked by itself.
    pub(crate) fn takes(&self, key: &ObjectKey) -> bool {
        !self.is_filled(key) && run_rule(key).is_none() && self.names(key)
    }

    fn names(&self, key: &ObjectKey) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| matches(f, key))
    }

    fn is_filled(&self, key: &ObjectKey) -> bool {
        let name = || (key.namespace.clone().unwrap_or_default(), key.name.clone());
        key.is("", "PersistentVolumeClaim") && self.filled.contains(&name())
    }
}

/// What picked objects cannot be without, though no filter names it.
struct Needed {
    namespaces: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl Needed {
    fn of(keys: &[ObjectKey], picking: &Picking<'_>) -> Self {
        let picked = || keys.iter().filter(|k| picking.takes(k) && k.namespace.is_some());
        let filled = picking.filled.iter().map(|(namespace, _)| namespace.clone());
        let namespaces = picked().filter_map(|k| k.namespace.clone()).chain(filled).collect();
        Self { namespaces, groups: picked().map(|k| k.group.clone()).collect() }
    }

    fn takes(&self, key: &ObjectKey) -> bool {
        if key.is("", "Namespace") {
            return self.namespaces.contains(&key.name);
        }
        let group = key.name.split_once('.').map(|(_, group)| group);
        key.is("apiextensions.k8s.io", "CustomResourceDefinition") && group.is_some_and(|g| self.groups.contains(g))
    }
}

fn matches(filter: &ObjectFilter, key: &ObjectKey) -> bool {
    let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    let group = filter.group.as_ref().map(|g| if g == CORE { String::new() } else { g.clone() });
    same(&group, &key.group)
        && filter.kind.as_ref().is_none_or(|wanted| is_kind(wanted, key))
        && same(&filter.name, &key.name)
        && (filter.namespace.is_none() || filter.namespace == key.namespace)
}

/// Whether a text names the kind of an object, alone, with its group, or by the group: `Widget`, `Widget.example.com`, `*.example.com`.
pub(crate) fn names_kind(text: &str, key: &ObjectKey) -> bool {
    match text.split_once('.') {
        None => is_kind(text, key),
        Some((kind, group)) => {
            let is_group = group == key.group || (group == CORE && key.group.is_empty());
            is_group && (kind == "*" || is_kind(kind, key))
        }
    }
}

/// Whether a text names the kind of an object: by kind or plural, in any case, as in backups. The plural is the one that the rules of
/// Kubernetes' own tools give, since a recovery point does not have those that a cluster serves.
fn is_kind(text: &str, key: &ObjectKey) -> bool {
    let plural = || ApiResource::from_gvk(&GroupVersionKind::gvk(&key.group, &key.version, &key.kind)).plural;
    text.eq_ignore_ascii_case(&key.kind) || text.eq_ignore_ascii_case(&plural())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `group/Kind namespace/name`, group and namespace may be left out.
    fn key(text: &str) -> ObjectKey {
        let (kind, name) = text.split_once(' ').expect("kind and name");
        let (group, kind) = kind.rsplit_once('/').unwrap_or(("", kind));
        let (namespace, name) = name.split_once('/').map_or((None, name), |(ns, name)| (Some(ns.to_owned()), name));
        ObjectKey { group: group.into(), version: "v1".into(), kind: kind.into(), namespace, name: name.into() }
    }

    const POINT: &[&str] = &[
        "ConfigMap shop/settings",
        "LimitRange shop/limits",
        "ResourceQuota shop/quota",
        "networking.k8s.io/NetworkPolicy shop/deny",
        "PersistentVolumeClaim shop/data",
        "PersistentVolumeClaim shop/unbound",
        "Service shop/web",
        "db.example.com/Cluster shop/main",
        "apps/Deployment shop/web",
        "ConfigMap bank/settings",
        "Namespace shop",
        "Namespace bank",
        "PersistentVolume pv-1",
        "storage.k8s.io/StorageClass fast",
        "apiextensions.k8s.io/CustomResourceDefinition clusters.db.example.com",
        "rbac.authorization.k8s.io/ClusterRole reader",
    ];

    fn check(filters: &[ObjectFilter], own: bool, foundations: &[&str], resources: &[&str], left_alone: u64) {
        let filled = BTreeSet::from([("shop".to_owned(), "data".to_owned())]);
        let picking = Picking { filters, filled, own_namespace_only: own };
        let inventory = Inventory::pick(POINT.iter().map(|t| key(t)).collect(), &picking);
        let names = |part| -> Vec<String> {
            inventory.part(part).iter().flat_map(|(_, keys)| keys).map(ToString::to_string).collect()
        };
        assert_eq!(names(Part::Foundations), foundations);
        assert_eq!(names(Part::Resources), resources);
        assert_eq!(inventory.left_alone, left_alone);
        assert!(inventory.skipped.is_empty());
        assert_eq!(inventory.keys().count(), foundations.len() + resources.len());
    }

    #[test]
    fn everything_is_restored_in_two_parts_with_the_volumes_between() {
        check(
            &[],
            false,
            &[
                "CustomResourceDefinition.apiextensions.k8s.io clusters.db.example.com",
                "Namespace bank",
                "Namespace shop",
                "ClusterRole.rbac.authorization.k8s.io reader",
                "ConfigMap bank/settings",
                "ConfigMap shop/settings",
            ],
            &[
                "LimitRange shop/limits",
                "ResourceQuota shop/quota",
                "NetworkPolicy.networking.k8s.io shop/deny",
                "PersistentVolumeClaim shop/unbound",
                "Service shop/web",
                "Cluster.db.example.com shop/main",
                "Deployment.apps shop/web",
            ],
            0,
        );
    }

    #[test]
    fn what_a_filter_picks_brings_what_it_cannot_be_without() {
        let kind = |kind: &str| ObjectFilter { kind: Some(kind.into()), ..ObjectFilter::default() };
        let shop = "Namespace shop";
        // The claim with data is handed over beside this, so its namespace is needed in every case.
        check(
            &[ObjectFilter { group: Some(CORE.into()), name: Some("web".into()), ..ObjectFilter::default() }],
            false,
            &[shop],
            &["Service shop/web"],
            0,
        );
        check(
            &[kind("Cluster")],
            false,
            &["CustomResourceDefinition.apiextensions.k8s.io clusters.db.example.com", shop],
            &["Cluster.db.example.com shop/main"],
            0,
        );
        let bank = ObjectFilter { namespace: Some("bank".into()), ..kind("ConfigMap") };
        check(&[bank], false, &["Namespace bank", shop, "ConfigMap bank/settings"], &[], 0);
    }

    #[test]
    fn a_kind_is_named_as_in_backups() {
        let check = |kind: &str, text: &str, expected: bool| assert_eq!(is_kind(text, &key(kind)), expected, "{text}");
        for text in ["ConfigMap", "configmap", "configmaps", "ConfigMaps"] {
            check("ConfigMap shop/a", text, true);
        }
        check("networking.k8s.io/NetworkPolicy shop/a", "networkpolicies", true);
        check("networking.k8s.io/Ingress shop/a", "ingresses", true);
        check("ConfigMap shop/a", "configmapz", false);
        check("Secret shop/a", "configmaps", false);
    }

    #[test]
    fn kinds_are_named_alone_with_their_group_or_by_it() {
        let check = |text: &str, expected: bool| {
            assert_eq!(names_kind(text, &key("db.example.com/Cluster shop/main")), expected, "{text}");
        };
        for text in ["Cluster", "clusters", "Cluster.db.example.com", "*.db.example.com"] {
            check(text, true);
        }
        for text in ["Widget", "Cluster.example.com", "*.example.com", "Cluster.core"] {
            check(text, false);
        }
        let inventory = Inventory::pick(vec![key("db.example.com/Cluster shop/main")], &Picking::default());
        let asked = ["Cluster".to_owned(), "Widget".to_owned()];
        assert_eq!(inventory.idle_kinds(&asked).collect::<Vec<_>>(), ["Widget"]);
    }

    #[test]
    fn a_restore_of_its_own_namespace_leaves_the_cluster_alone() {
        let settings = ObjectFilter { name: Some("settings".into()), ..ObjectFilter::default() };
        check(&[settings], true, &["ConfigMap bank/settings", "ConfigMap shop/settings"], &[], 2);
    }

    #[test]
    fn a_restore_of_its_own_namespace_grants_no_rights() {
        let keys = || {
            let granting =
                ["rbac.authorization.k8s.io/Role shop/all", "rbac.authorization.k8s.io/RoleBinding shop/all"];
            let others = ["authorization.openshift.io/RoleBinding shop/all", "ServiceAccount shop/web"];
            granting.into_iter().chain(others).map(key).collect()
        };
        let made = |own_namespace_only: bool| {
            let inventory = Inventory::pick(keys(), &Picking { own_namespace_only, ..Picking::default() });
            let kinds: Vec<String> = inventory.keys().map(|key| key.kind.clone()).collect();
            (kinds, inventory.left_alone)
        };
        assert_eq!(made(true), (vec!["ServiceAccount".to_owned()], 3));
        assert_eq!(made(false).0.len(), 4);
    }

    #[test]
    fn volumes_are_picked_as_their_claims_are() {
        let check = |filter: ObjectFilter, expected| {
            let picking = Picking { filters: std::slice::from_ref(&filter), ..Picking::default() };
            assert_eq!(picking.takes_volume("shop", "data"), expected, "{filter:?}");
        };
        assert!(Picking::default().takes_volume("shop", "data"));
        check(ObjectFilter { kind: Some("PersistentVolumeClaim".into()), ..ObjectFilter::default() }, true);
        check(ObjectFilter { namespace: Some("shop".into()), ..ObjectFilter::default() }, true);
        check(ObjectFilter { kind: Some("ConfigMap".into()), ..ObjectFilter::default() }, false);
        check(ObjectFilter { name: Some("other".into()), ..ObjectFilter::default() }, false);
    }

    #[test]
    fn a_run_is_never_made_and_counts_where_it_is_picked() {
        let runs = ["orlop.io/ApplicationRestore shop/forged", "orlop.io/ApplicationBackup shop/old"];
        let keys = || runs.iter().chain(&["orlop.io/Rule shop/quiesce"]).map(|text| key(text)).collect();
        let of = |filters: &[ObjectFilter]| {
            let inventory = Inventory::pick(keys(), &Picking { filters, ..Picking::default() });
            let made: Vec<String> = inventory.keys().map(ToString::to_string).collect();
            (made, inventory.skipped)
        };
        let (made, skipped) = of(&[]);
        assert_eq!(made, ["Rule.orlop.io shop/quiesce"]);
        assert_eq!(skipped, runs.map(|text| (key(text), Rule::OrlopRuns)));
        let only = ObjectFilter { kind: Some("ApplicationRestore".into()), ..ObjectFilter::default() };
        assert_eq!(of(&[only]), (Vec::new(), vec![(key(runs[0]), Rule::OrlopRuns)]));
    }
}
