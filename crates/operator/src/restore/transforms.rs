//! The transformations of a restore: read when it begins, and kept in its status from then on, so that it does what they said then.

use api::{
    ApplicationRestore, FieldError, PathOperation, ResourceTransformation, RestoreTransform, TransformPath,
    TransformSpec, ValueType,
};
use application::{Edit, Op, Transform, Transformed};
use kube::{Client, ResourceExt};

use super::validate::Refusal;
use crate::error::Error;
use crate::objects;

/// The transformations of a restore.
#[derive(Clone, Debug, Default)]
pub(super) struct Transforms {
    /// As they are kept.
    pub(super) kept: Vec<RestoreTransform>,
    /// What they come to.
    pub(super) all: Vec<Transform>,
}

/// The transformations that a restore which has not begun names, as they are now; or why it cannot have them.
///
/// # Errors
/// The API server did not answer.
pub(super) async fn read(client: &Client, restore: &ApplicationRestore) -> Result<Result<Transforms, Refusal>, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let mut kept = Vec::new();
    for name in &restore.spec.transforms {
        let Some(found) = objects::read::<ResourceTransformation>(client, &namespace, name).await? else {
            let message =
                format!("there is no ResourceTransformation {name} in the namespace {namespace}; make it first");
            return Ok(Err(Refusal::new("TransformationMissing", message)));
        };
        let wrong = found.spec.validate();
        if !wrong.is_empty() {
            return Ok(Err(unusable(name, &wrong)));
        }
        let generation = found.metadata.generation.unwrap_or_default();
        kept.push(RestoreTransform { name: name.clone(), generation, transform_specs: found.spec.transform_specs });
    }
    Ok(of(kept))
}

/// The transformations that a restore keeps.
pub(super) fn of(kept: Vec<RestoreTransform>) -> Result<Transforms, Refusal> {
    let mut all = Vec::new();
    for one in &kept {
        for (i, spec) in one.transform_specs.iter().enumerate() {
            let label = format!("ResourceTransformation {}, transformSpecs[{i}]", one.name);
            all.push(compile(spec, label).map_err(|error| unusable(&one.name, &[error]))?);
        }
    }
    Ok(Transforms { kept, all })
}

/// Takes the values for Secrets out of what a run keeps that is over: who may read restores need not be one who may read Secrets.
pub(super) fn forget_secrets(kept: &mut [RestoreTransform]) {
    let is_of_secrets =
        |spec: &&mut TransformSpec| spec.group_version_kind().is_ok_and(|kind| kind == ("", "v1", "Secret"));
    for spec in kept.iter_mut().flat_map(|one| &mut one.transform_specs).filter(is_of_secrets) {
        spec.paths.iter_mut().for_each(|path| path.value = None);
        spec.json_patch.iter_mut().for_each(|operation| operation.value = None);
        spec.merge_patch = None;
    }
}

fn unusable(name: &str, errors: &[FieldError]) -> Refusal {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Refusal::new("TransformationInvalid", format!("ResourceTransformation {name}: {}", errors.join("; ")))
}

impl Transforms {
    /// What becomes of an object, as it would be made.
    pub(super) fn apply(
        &self,
        key: &application::ObjectKey,
        object: &mut serde_json::Value,
    ) -> Result<Transformed, String> {
        application::transform(&self.all, key, object)
    }

    /// Those that are for none of the objects that were changed, for people.
    pub(super) fn idle(&self, used: impl Fn(usize) -> bool) -> Vec<String> {
        let idle = self.all.iter().enumerate().filter(|(index, _)| !used(*index)).map(|(_, transform)| transform);
        idle.map(|one| {
            let group = if one.group.is_empty() { String::new() } else { format!("{}/", one.group) };
            format!("{} ({group}{}/{}) is for no object that is restored", one.label, one.version, one.kind)
        })
        .collect()
    }
}

fn compile(spec: &TransformSpec, label: String) -> Result<Transform, FieldError> {
    let (group, version, kind) = spec.group_version_kind()?;
    let mut edits = Vec::new();
    for (i, path) in spec.paths.iter().enumerate() {
        edits.push((format!("paths[{i}]"), edit(path)?));
    }
    if !spec.json_patch.is_empty() {
        edits.push(("jsonPatch".to_owned(), json_patch(spec)?));
    }
    edits.extend(spec.merge_value()?.map(|patch| ("mergePatch".to_owned(), Edit::Merge(patch))));
    Ok(Transform {
        label,
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        names: spec.names.iter().cloned().collect(),
        labels: spec.selectors.clone(),
        edits,
    })
}

fn edit(path: &TransformPath) -> Result<Edit, FieldError> {
    let place = path.pointer();
    let is_added_to = matches!(path.type_, ValueType::Slice | ValueType::Keypair);
    Ok(match (path.operation, path.typed()?) {
        (PathOperation::Delete, _) | (_, None) => Edit::Remove(place),
        (PathOperation::Add, Some(value)) if path.type_ == ValueType::Keypair => Edit::Put(place, value),
        (PathOperation::Add, Some(value)) => Edit::Set(place, value),
        (PathOperation::Modify, Some(value)) if is_added_to => Edit::Extend(place, value),
        (PathOperation::Modify, Some(value)) => Edit::Replace(place, value),
    })
}

fn json_patch(spec: &TransformSpec) -> Result<Edit, FieldError> {
    let operation = |operation| {
        let wrong =
            |why: String| FieldError { field: "jsonPatch".into(), value: format!("{operation:?}"), allowed: why };
        let json = serde_json::to_value(operation).map_err(|error| wrong(error.to_string()))?;
        Op::parse(json).map_err(wrong)
    };
    spec.json_patch.iter().map(operation).collect::<Result<_, _>>().map(Edit::Patch)
}

#[cfg(test)]
mod tests {
    use application::ObjectKey;
    use serde_json::{Value, json};

    use super::*;

    fn transforms(specs: Value) -> Transforms {
        let transform_specs = serde_json::from_value(specs).expect("the test's specs are specs");
        of(vec![RestoreTransform { name: "t".into(), generation: 1, transform_specs }]).expect("they can be used")
    }

    #[test]
    fn what_is_written_is_what_is_done() {
        let all = transforms(json!([{
            "resource": "apps/v1/Deployment",
            "paths": [
                {"path": "spec.replicas", "operation": "modify", "type": "int", "value": "1"},
                {"path": "metadata.annotations", "operation": "add", "type": "keypair", "value": "a:b"},
                {"path": "metadata.annotations", "operation": "modify", "type": "keypair", "value": "c:d"},
                {"path": "metadata.labels", "operation": "add", "type": "keypair", "value": "new:n"},
                {"path": "spec.paused", "operation": "delete"},
            ],
            "jsonPatch": [{"op": "test", "path": "/spec/replicas", "value": 1}],
            "mergePatch": "spec: {strategy: {type: Recreate, rollingUpdate: null}}",
        }]));
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "annotations": {"old": "o", "a": "z"}},
            "spec": {"replicas": 3, "paused": true, "strategy": {"rollingUpdate": {"maxSurge": 1}}},
        });
        let key = ObjectKey::of(&object).expect("it has a name");
        all.apply(&key, &mut object).expect("it can be changed");
        assert_eq!(object["spec"], json!({"replicas": 1, "strategy": {"type": "Recreate"}}));
        assert_eq!(object["metadata"]["annotations"], json!({"old": "o", "a": "b", "c": "d"}));
        assert_eq!(object["metadata"]["labels"], json!({"new": "n"}));
        let error = all.apply(&key, &mut object).expect_err("it is not paused any more");
        assert_eq!(error, "ResourceTransformation t, transformSpecs[0].paths[4]: there is no /spec/paused in it");
    }

    #[test]
    fn those_that_are_for_nothing_are_named() {
        let all = transforms(json!([
            {"resource": "v1/Service", "mergePatch": "spec: {a: 1}"},
            {"resource": "apps/v1beta1/Deployment", "mergePatch": "spec: {a: 1}"},
        ]));
        assert_eq!(
            all.idle(|index| index == 0),
            ["ResourceTransformation t, transformSpecs[1] (apps/v1beta1/Deployment) is for no object that is restored"]
        );
    }
}
