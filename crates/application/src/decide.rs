//! What to do about an object that is to be restored, given what is there: a pure decision.

use serde_json::Value;

use crate::{apply::RESTORED_BY, json, key::ObjectKey, rules};

/// What the note on an object ends with that was created plainly.
const PLAINLY: &str = "/plainly";

/// What a restore does with an object of the application that exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplacePolicy {
    /// It is kept as it is, and reported.
    #[default]
    Retain,
    /// It is deleted, and the one from the backup is created.
    Delete,
    /// The fields of the backup are applied to it; fields that the backup does not have stay.
    Update,
}

/// What a run did to an object. Noted on the object, so that the same run knows its own when it comes by again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Created,
    Updated,
    Replaced,
}

/// What to do next about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Create it: it is not there.
    Create,
    /// Leave what is there, for this reason.
    Keep(String),
    /// Nothing: this run has done it already.
    Done(Action),
    /// Apply the fields of the backup to what is there.
    Update,
    /// Delete what is there (the life with this uid), and look again.
    Delete(String),
    /// Wait until what is there (the life with this uid) is gone, and look again: it is being deleted.
    AwaitEnd(String),
}

impl Action {
    const ALL: [Self; 3] = [Self::Created, Self::Updated, Self::Replaced];

    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Replaced => "replaced",
        }
    }

    /// The note on an object.
    pub(crate) fn note(self, run: &str) -> String {
        format!("{run}/{}", self.name())
    }

    /// The note on an object that was created plainly, so that fields may be missing.
    pub(crate) fn plain_note(self, run: &str) -> String {
        format!("{}{PLAINLY}", self.note(run))
    }

    /// What a run noted on an object; none if the note is another run's, or there is none.
    fn of(run: &str, object: &Value) -> Option<Self> {
        let note = json::text(object, &["metadata", "annotations", RESTORED_BY]);
        let note = note.strip_suffix(PLAINLY).unwrap_or(note);
        Self::ALL.into_iter().find(|action| note == action.note(run))
    }
}

/// Whether a run has made an object, or changed it.
pub(crate) fn was_made_by(run: &str, object: &Value) -> bool {
    Action::of(run, object).is_some()
}

/// Whether an object that a run has made was created plainly, and not by server-side apply.
pub(crate) fn was_made_plainly(object: &Value) -> bool {
    json::text(object, &["metadata", "annotations", RESTORED_BY]).ends_with(PLAINLY)
}

/// Decides about `object` of the backup, where `existing` is there under its name.
pub(crate) fn decide(
    policy: ReplacePolicy,
    run: &str,
    key: &ObjectKey,
    object: &Value,
    existing: Option<&Value>,
) -> Step {
    let Some(existing) = existing else {
        return Step::Create;
    };
    let uid = || json::text(existing, &["metadata", "uid"]).to_owned();
    if rules::is_being_deleted(existing) {
        return Step::AwaitEnd(uid());
    }
    if let Some(action) = Action::of(run, existing) {
        return Step::Done(action);
    }
    if key.is("apiextensions.k8s.io", "CustomResourceDefinition") {
        return Step::Keep(compare_versions(object, existing));
    }
    if key.namespace.is_none() {
        let may_update = key.is("", "Namespace") && policy == ReplacePolicy::Update;
        return if may_update {
            Step::Update
        } else {
            Step::Keep("it is there already, and of cluster scope: others may rely on it".into())
        };
    }
    // The cluster made it a moment ago; nobody loses anything.
    if rules::is_untouched_default_account(key, existing) {
        return Step::Update;
    }
    match policy {
        ReplacePolicy::Retain => Step::Keep("it is there already, and the policy is Retain".into()),
        ReplacePolicy::Update => Step::Update,
        ReplacePolicy::Delete => Step::Delete(uid()),
    }
}

/// Why an existing definition is kept. It is never replaced: deleting it would delete all objects of its kind in the cluster,
/// and other versions of it may be stored.
fn compare_versions(object: &Value, existing: &Value) -> String {
    let served = |definition: &Value| -> Vec<String> {
        let versions = json::list(definition, &["spec", "versions"]).iter();
        versions
            .filter(|version| json::is_true(version, &["served"]))
            .map(|v| json::text(v, &["name"]).to_owned())
            .collect()
    };
    let (here, wanted) = (served(existing), served(object));
    let absent: Vec<_> = wanted.into_iter().filter(|version| !here.contains(version)).collect();
    if absent.is_empty() {
        return "the definition is there already, and has the versions of the backup".into();
    }
    format!(
        "the definition is there already with other versions ({}), and is never changed: the backup's {} would have to be added to it",
        here.join(", "),
        absent.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config_map(metadata: Value) -> Value {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        json::set(&mut object, &["metadata", "name"], "x".into());
        json::set(&mut object, &["metadata", "namespace"], "shop".into());
        object
    }

    fn check(policy: ReplacePolicy, object: &Value, existing: Option<Value>, expected: Step) {
        let key = ObjectKey::of(object).expect("test object has a name");
        assert_eq!(decide(policy, "run-1", &key, object, existing.as_ref()), expected, "{policy:?} {existing:?}");
    }

    #[test]
    fn the_policy_decides_about_what_is_there() {
        use ReplacePolicy::{Delete, Retain, Update};
        let (object, there) = (config_map(json!({})), config_map(json!({"uid": "u"})));
        check(Retain, &object, Some(there.clone()), Step::Keep("it is there already, and the policy is Retain".into()));
        check(Update, &object, Some(there.clone()), Step::Update);
        check(Delete, &object, Some(there), Step::Delete("u".into()));
        for policy in [Retain, Update, Delete] {
            check(policy, &object, None, Step::Create);
            let going = config_map(json!({"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
            check(policy, &object, Some(going), Step::AwaitEnd("u".into()));
        }
    }

    #[test]
    fn a_run_knows_its_own_and_not_anothers() {
        let object = config_map(json!({}));
        for action in Action::ALL {
            let own = config_map(json!({"uid": "u", "annotations": {RESTORED_BY: action.note("run-1")}}));
            assert!(!was_made_plainly(&own));
            check(ReplacePolicy::Delete, &object, Some(own), Step::Done(action));
            let plain = config_map(json!({"uid": "u", "annotations": {RESTORED_BY: action.plain_note("run-1")}}));
            assert!(was_made_plainly(&plain));
            check(ReplacePolicy::Delete, &object, Some(plain), Step::Done(action));
            let others = config_map(json!({"uid": "u", "annotations": {RESTORED_BY: action.note("run-10")}}));
            check(ReplacePolicy::Delete, &object, Some(others), Step::Delete("u".into()));
        }
    }

    #[test]
    fn an_untouched_default_account_gives_way_and_a_changed_one_does_not() {
        let account = |labels: Value| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "shop", "labels": labels}});
        let wanted = account(json!({"team": "a"}));
        check(ReplacePolicy::Retain, &wanted, Some(account(json!({}))), Step::Update);
        check(
            ReplacePolicy::Retain,
            &wanted,
            Some(account(json!({"team": "b"}))),
            Step::Keep("it is there already, and the policy is Retain".into()),
        );
    }

    #[test]
    fn what_others_rely_on_is_never_replaced() {
        let kept = || Step::Keep("it is there already, and of cluster scope: others may rely on it".into());
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x", "uid": "u"}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "uid": "u"}});
        for policy in [ReplacePolicy::Retain, ReplacePolicy::Delete, ReplacePolicy::Update] {
            check(policy, &role, Some(role.clone()), kept());
        }
        check(ReplacePolicy::Delete, &namespace, Some(namespace.clone()), kept());
        check(ReplacePolicy::Update, &namespace, Some(namespace.clone()), Step::Update);
    }

    #[test]
    fn an_existing_definition_is_kept_and_its_versions_are_compared() {
        let definition = |versions: &[&str]| {
            let versions: Vec<_> = versions.iter().map(|name| json!({"name": name, "served": true})).collect();
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x", "uid": "u"},
                "spec": {"versions": versions}})
        };
        let same = "the definition is there already, and has the versions of the backup";
        check(ReplacePolicy::Delete, &definition(&["v1"]), Some(definition(&["v1", "v2"])), Step::Keep(same.into()));
        let other = "the definition is there already with other versions (v2), and is never changed: the backup's v1 would have to be added to it";
        check(ReplacePolicy::Update, &definition(&["v1"]), Some(definition(&["v2"])), Step::Keep(other.into()));
    }
}
