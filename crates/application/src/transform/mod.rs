//! Changing objects on their way back, as people have asked for.
//!
//! Invariant: an object is changed by all that is for it, or not at all, and stays the object that it is. So what was decided by its key, such
//! as whether it may be made at all, holds for what comes out.

mod edit;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::foresight::{Change, differing};
use crate::json;
use crate::key::ObjectKey;

pub use edit::{Edit, Op};

/// Changes to some objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// What people know it by.
    pub label: String,
    /// API group of the objects; empty for the core group.
    pub group: String,
    /// Version of the objects.
    pub version: String,
    /// Kind of the objects.
    pub kind: String,
    /// Their names; any if there are none.
    pub names: BTreeSet<String>,
    /// Labels that they bear.
    pub labels: BTreeMap<String, String>,
    /// The changes, each with what people know it by.
    pub edits: Vec<(String, Edit)>,
}

/// What became of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transformed {
    /// Which transforms were for it.
    pub by: Vec<usize>,
    /// What they changed.
    pub changes: Vec<Change>,
}

impl Transform {
    /// Whether it is for objects of that kind.
    pub fn is_for_kind(&self, key: &ObjectKey) -> bool {
        key.is(&self.group, &self.kind) && key.version == self.version
    }

    fn is_for(&self, key: &ObjectKey, object: &Value) -> bool {
        let bears = |(label, value): (&String, &String)| json::text(object, &["metadata", "labels", label]) == value;
        self.is_for_kind(key)
            && (self.names.is_empty() || self.names.contains(&key.name))
            && self.labels.iter().all(bears)
    }

    fn change(&self, object: &mut Value) -> Result<(), String> {
        for (label, edit) in &self.edits {
            edit.apply(object).map_err(|why| format!("{}.{label}: {why}", self.label))?;
        }
        Ok(())
    }
}

/// Changes an object by those transforms that are for it, one after the other.
///
/// # Errors
/// A change cannot be made, or would make another object of it; then nothing is changed. The sentence names the change.
pub fn transform(transforms: &[Transform], key: &ObjectKey, object: &mut Value) -> Result<Transformed, String> {
    let for_it = |(_, transform): &(usize, &Transform)| transform.is_for(key, object);
    let by: Vec<usize> = transforms.iter().enumerate().filter(for_it).map(|(index, _)| index).collect();
    if by.is_empty() {
        return Ok(Transformed::default());
    }
    let mut changed = object.clone();
    for index in &by {
        transforms[*index].change(&mut changed)?;
        if ObjectKey::of(&changed).as_ref() != Ok(key) {
            let what =
                ObjectKey::of(&changed).map_or_else(|_| "something without a name".into(), |new| new.to_string());
            return Err(format!("{}: it would be another object then, {what}", transforms[*index].label));
        }
    }
    let changes = differing(object, &changed);
    *object = changed;
    Ok(Transformed { by, changes })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merge(kind: &str, names: &[&str], labels: &[(&str, &str)], patch: Value) -> Transform {
        Transform {
            label: format!("t for {kind}"),
            group: String::new(),
            version: "v1".into(),
            kind: kind.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            edits: vec![("mergePatch".into(), Edit::Merge(patch))],
        }
    }

    fn map() -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop", "labels": {"x": "1"}},
            "data": {"color": "red"}})
    }

    fn of(transforms: &[Transform]) -> (Value, Result<Transformed, String>) {
        let mut object = map();
        let key = ObjectKey::of(&object).expect("the test's object has a name");
        let result = transform(transforms, &key, &mut object);
        (object, result)
    }

    #[test]
    fn objects_are_picked_by_kind_name_and_label() {
        let check = |names: &[&str], labels: &[(&str, &str)], expected: bool| {
            let (object, result) = of(&[merge("ConfigMap", names, labels, json!({"data": {"color": "blue"}}))]);
            assert_eq!(object["data"]["color"] == "blue", expected, "{names:?} {labels:?}");
            assert_eq!(result.expect("it can be changed").by.len(), usize::from(expected));
        };
        check(&[], &[], true);
        check(&["a", "b"], &[("x", "1")], true);
        check(&["b"], &[], false);
        check(&[], &[("x", "2")], false);
        check(&[], &[("y", "1")], false);
        let others = [merge("Secret", &[], &[], json!({"data": 1}))];
        assert_eq!(of(&others), (map(), Ok(Transformed::default())));
        let older = Transform { version: "v1beta1".into(), ..merge("ConfigMap", &[], &[], json!({"data": 1})) };
        assert_eq!(of(&[older]).0, map(), "another version may have other fields");
    }

    #[test]
    fn each_change_is_told_and_the_later_one_wins() {
        let relabel = merge("ConfigMap", &[], &[], json!({"metadata": {"labels": {"x": null}}, "data": {"size": "1"}}));
        let repaint = merge("ConfigMap", &[], &[("x", "1")], json!({"data": {"size": "2"}}));
        let (object, result) = of(&[relabel, repaint]);
        assert_eq!(object["data"], json!({"color": "red", "size": "2"}), "what is for it is decided first");
        let result = result.expect("it can be changed");
        assert_eq!(result.by, [0, 1]);
        let paths: Vec<&str> = result.changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["/data/size", "/metadata/labels/x"]);
    }

    #[test]
    fn an_object_stays_itself_and_whole() {
        let good = merge("ConfigMap", &[], &[], json!({"data": {"color": "blue"}}));
        let paths = [json!({"name": "b"}), json!({"namespace": "kube-system"}), json!(null)];
        let bad = paths.map(|metadata| json!({"metadata": metadata})).into_iter();
        for patch in bad.chain([json!({"kind": "Secret"}), json!({"apiVersion": "v2"})]) {
            let (object, result) = of(&[good.clone(), merge("ConfigMap", &[], &[], patch.clone())]);
            assert!(result.expect_err("another object").contains("another object"), "{patch}");
            assert_eq!(object, map(), "nothing was changed");
        }
    }
}
