//! Whether a transformation can be meant, and what its texts stand for.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{FieldError, is_subdomain, selectors, wrong};
use crate::transformation::{
    PatchOp, PatchOperation, PathOperation, ResourceTransformationSpec, TransformPath, TransformSpec, ValueType,
};

/// The most that a transformation may take, as JSON. A restore keeps what it has begun with in its status, so several of them must fit in
/// there.
const LARGEST: usize = 32 << 10;
/// Fields by which an object is itself: another name would be another object, which nobody has asked for.
const IDENTITY: [&str; 4] = ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"];
const POINTER: &str =
    "a JSON pointer to a field: names with a slash before each, in which ~1 stands for a slash and ~0 for a tilde";
const RESOURCE: &str = "group, version and kind, such as apps/v1/Deployment, or v1/Service for a kind without a group";

impl ResourceTransformationSpec {
    /// What is wrong with the spec; empty when nothing is. Whether it fits an object is known only when there is one.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.transform_specs.is_empty() {
            errors.push(wrong("spec.transformSpecs", "[]", "at least one"));
        }
        for (i, spec) in self.transform_specs.iter().enumerate() {
            spec.validate(&mut errors, &format!("spec.transformSpecs[{i}]"));
        }
        let size = serde_json::to_vec(self).map_or(0, |json| json.len());
        if size > LARGEST {
            let allowed = format!("at most {LARGEST} bytes as JSON; write several transformations");
            errors.push(wrong("spec.transformSpecs", format!("{size} bytes"), &allowed));
        }
        errors
    }
}

impl TransformSpec {
    /// Group, version and kind.
    ///
    /// # Errors
    /// `resource` does not say them.
    pub fn group_version_kind(&self) -> Result<(&str, &str, &str), FieldError> {
        let parts: Vec<&str> = self.resource.split('/').collect();
        let (group, version, kind) = match parts[..] {
            [version, kind] => ("", version, kind),
            [group, version, kind] => (group, version, kind),
            _ => return Err(wrong("resource", &self.resource, RESOURCE)),
        };
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if (group.is_empty() || is_subdomain(group)) && is_word(version) && is_word(kind) {
            return Ok((group, version, kind));
        }
        Err(wrong("resource", &self.resource, RESOURCE))
    }

    /// The merge patch, if there is one.
    ///
    /// # Errors
    /// The text is no YAML, or not of a map.
    pub fn merge_value(&self) -> Result<Option<Value>, FieldError> {
        let Some(text) = &self.merge_patch else { return Ok(None) };
        let shown = || text.chars().take(40).collect::<String>();
        match serde_saphyr::from_str::<Value>(text) {
            Ok(patch @ Value::Object(_)) => Ok(Some(patch)),
            Ok(_) => Err(wrong("mergePatch", shown(), "a map of the fields that change")),
            Err(error) => Err(wrong("mergePatch", shown(), &format!("YAML or JSON; it is neither: {error}"))),
        }
    }

    fn validate(&self, errors: &mut Vec<FieldError>, field: &str) {
        let mut found = Vec::new();
        found.extend(self.group_version_kind().err());
        if self.paths.is_empty() && self.json_patch.is_empty() && self.merge_patch.is_none() {
            found.push(wrong("paths", "[]", "at least one change: in paths, jsonPatch or mergePatch"));
        }
        for (i, name) in self.names.iter().enumerate().filter(|(_, name)| name.is_empty() || name.contains('/')) {
            found.push(wrong(format!("names[{i}]"), name, "the name of an object"));
        }
        selectors(&mut found, "selectors", &self.selectors);
        for (i, path) in self.paths.iter().enumerate() {
            path.validate(&mut found, &format!("paths[{i}]"));
        }
        for (i, operation) in self.json_patch.iter().enumerate() {
            operation.validate(&mut found, &format!("jsonPatch[{i}]"));
        }
        match self.merge_value() {
            Ok(patch) => merged(&mut found, patch.as_ref()),
            Err(error) => found.push(error),
        }
        errors.extend(found.into_iter().map(|one| FieldError { field: format!("{field}.{}", one.field), ..one }));
    }
}

/// What a merge patch must not have.
fn merged(found: &mut Vec<FieldError>, patch: Option<&Value>) {
    let Some(patch) = patch else { return };
    let touched = IDENTITY.iter().chain([&"/status"]).filter(|pointer| patch.pointer(pointer).is_some());
    for pointer in touched.filter_map(|pointer| refused(pointer)) {
        found.push(wrong("mergePatch", pointer.0, pointer.1));
    }
}

/// Whether a field is one that no transformation changes, and why.
fn refused(pointer: &str) -> Option<(&str, &'static str)> {
    let is_below =
        |above: &str| pointer.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if IDENTITY.into_iter().any(is_below) || pointer == "/metadata" {
        return Some((pointer, "another field: with this one it would be another object"));
    }
    is_below("/status").then_some((pointer, "another field: a status is not made with its object"))
}

fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.len() > 1 && text.starts_with('/') && escapes
}

impl TransformPath {
    /// The field, as a JSON pointer.
    #[must_use]
    pub fn pointer(&self) -> String {
        if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path.replace('.', "/")) }
    }

    /// The value; none for what is to go.
    ///
    /// # Errors
    /// The text is not of its type, is missing, or should be.
    pub fn typed(&self) -> Result<Option<Value>, FieldError> {
        let text = match (self.operation, &self.value) {
            (PathOperation::Delete, None) => return Ok(None),
            (PathOperation::Delete, Some(text)) => return Err(wrong("value", text, "absent: what goes needs none")),
            (_, None) => return Err(wrong("value", "", "a value; only what is deleted has none")),
            (_, Some(text)) => text,
        };
        let parsed = match self.type_ {
            ValueType::String => Some(Value::from(text.clone())),
            ValueType::Int => text.parse::<i64>().ok().map(Value::from),
            ValueType::Bool => text.parse::<bool>().ok().map(Value::from),
            ValueType::Slice => Some(text.split(',').map(str::trim).map(Value::from).collect()),
            ValueType::Keypair => pairs(text).map(Value::Object),
        };
        let allowed = match self.type_ {
            ValueType::Int => "a whole number",
            ValueType::Bool => "true or false",
            _ => "key:value, with commas between them, and each key once",
        };
        parsed.map(Some).ok_or_else(|| wrong("value", text, allowed))
    }

    fn validate(&self, found: &mut Vec<FieldError>, field: &str) {
        let pointer = self.pointer();
        if !is_pointer(&pointer) || pointer.contains("//") {
            let allowed = format!("names with dots between them, or {POINTER}");
            found.push(wrong(format!("{field}.path"), &self.path, &allowed));
        } else if let Some((_, allowed)) = refused(&pointer) {
            found.push(wrong(format!("{field}.path"), &self.path, allowed));
        }
        if let Err(error) = self.typed() {
            found.push(FieldError { field: format!("{field}.{}", error.field), ..error });
        }
    }
}

fn pairs(text: &str) -> Option<Map<String, Value>> {
    let mut keys = BTreeSet::new();
    let pairs = text.split(',').map(|pair| {
        let (key, value) = pair.split_once(':')?;
        let key = key.trim();
        (!key.is_empty() && keys.insert(key)).then(|| (key.to_owned(), Value::from(value.trim())))
    });
    pairs.collect()
}

impl PatchOperation {
    fn validate(&self, found: &mut Vec<FieldError>, field: &str) {
        let needs_value = matches!(self.op, PatchOp::Add | PatchOp::Replace | PatchOp::Test);
        let needs_from = matches!(self.op, PatchOp::Move | PatchOp::Copy);
        let mut say = |part: &str, value: &str, allowed: &str| {
            found.push(wrong(format!("{field}.{part}"), value, allowed));
        };
        match (needs_value, &self.value) {
            (true, None | Some(Value::Null)) => {
                say("value", "", "a value that is not null, which this operation needs")
            }
            (false, Some(value)) => say("value", &value.to_string(), "absent: this operation has none"),
            _ => {}
        }
        match (needs_from, &self.from) {
            (true, None) => say("from", "", "where the value is taken from"),
            (false, Some(from)) => say("from", from, "absent: this operation has none"),
            _ => {}
        }
        let written = [
            Some((&self.path, "path")).filter(|_| self.op != PatchOp::Test),
            self.from.as_ref().map(|from| (from, "from")).filter(|_| self.op == PatchOp::Move),
        ];
        for (pointer, part) in [(Some(&self.path), "path"), (self.from.as_ref(), "from")] {
            if let Some(pointer) = pointer.filter(|pointer| !is_pointer(pointer)) {
                say(part, pointer, POINTER);
            }
        }
        for (pointer, part) in written.into_iter().flatten() {
            if let Some((_, allowed)) = refused(pointer) {
                say(part, pointer, allowed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(spec: Value) -> Vec<String> {
        let spec: TransformSpec = serde_json::from_value(spec).expect("the test's spec is one");
        let all = ResourceTransformationSpec { transform_specs: vec![spec] };
        let strip = |error: FieldError| error.field.replace("spec.transformSpecs[0].", "");
        all.validate().into_iter().map(strip).collect()
    }

    fn path(path: &str, operation: &str, type_: &str, value: Option<&str>) -> Value {
        let mut one = json!({"path": path, "operation": operation, "type": type_});
        if let Some(value) = value {
            one["value"] = value.into();
        }
        json!({"resource": "apps/v1/Deployment", "paths": [one]})
    }

    #[test]
    fn kinds_are_named_with_group_and_version() {
        for (resource, good) in [
            ("apps/v1/Deployment", true),
            ("v1/Service", true),
            ("/v1/Service", true),
            ("example.com/v1beta1/Widget", true),
            ("Service", false),
            ("apps/v1/", false),
            ("a/b/c/d", false),
            ("apps/v1/Deploy ment", false),
        ] {
            let spec = json!({"resource": resource, "mergePatch": "{spec: {a: 1}}"});
            assert_eq!(fields(spec).is_empty(), good, "{resource}");
        }
    }

    #[test]
    fn a_field_is_named_with_dots_or_by_a_pointer() {
        let check = |text: &str, pointer: &str, good: bool| {
            let one = TransformPath { path: text.into(), ..TransformPath::default() };
            assert_eq!(one.pointer(), pointer);
            assert_eq!(fields(path(text, "add", "string", Some("x"))).is_empty(), good, "{text}");
        };
        check("spec.replicas", "/spec/replicas", true);
        check("spec.containers.0.image", "/spec/containers/0/image", true);
        check("/metadata/labels/example.com~1tier", "/metadata/labels/example.com~1tier", true);
        check("spec..replicas", "/spec//replicas", false);
        check("/spec/a~2", "/spec/a~2", false);
        check("/", "/", false);
        for identity in ["metadata", "metadata.name", "metadata.namespace", "kind", "apiVersion", "status.phase"] {
            assert_eq!(fields(path(identity, "add", "string", Some("x"))), ["paths[0].path"], "{identity}");
        }
    }

    #[test]
    fn values_are_of_their_types() {
        let check = |type_: &str, text: &str, expected: Option<Value>| {
            let spec: TransformSpec = serde_json::from_value(path("spec.a", "add", type_, Some(text))).expect("a spec");
            assert_eq!(spec.paths[0].typed().ok().flatten(), expected, "{type_} {text}");
        };
        check("string", "7", Some(json!("7")));
        check("int", "-7", Some(json!(-7)));
        check("int", "7.5", None);
        check("bool", "true", Some(json!(true)));
        check("bool", "yes", None);
        check("slice", "a, b", Some(json!(["a", "b"])));
        check("keypair", "a:1,b:c:d", Some(json!({"a": "1", "b": "c:d"})));
        check("keypair", "a", None);
        check("keypair", "a:1,a:2", None);
        assert_eq!(fields(path("spec.a", "delete", "string", Some("x"))), ["paths[0].value"]);
        assert_eq!(fields(path("spec.a", "modify", "string", None)), ["paths[0].value"]);
        assert!(fields(path("spec.a", "delete", "string", None)).is_empty());
    }

    #[test]
    fn operations_have_what_they_need_and_nothing_else() {
        let check = |operation: Value, expected: &[&str]| {
            let spec = json!({"resource": "v1/Service", "jsonPatch": [operation]});
            assert_eq!(fields(spec), expected, "{operation}");
        };
        check(json!({"op": "add", "path": "/spec/a", "value": {"b": [1]}}), &[]);
        check(json!({"op": "add", "path": "/spec/a"}), &["jsonPatch[0].value"]);
        check(json!({"op": "remove", "path": "/spec/a", "value": 1}), &["jsonPatch[0].value"]);
        check(json!({"op": "copy", "path": "/spec/a"}), &["jsonPatch[0].from"]);
        check(json!({"op": "test", "path": "/kind", "value": "Service"}), &[]);
        check(json!({"op": "replace", "path": "/kind", "value": "Pod"}), &["jsonPatch[0].path"]);
        check(json!({"op": "copy", "from": "/metadata/name", "path": "/metadata/labels/a"}), &[]);
        check(json!({"op": "move", "from": "/metadata/name", "path": "/metadata/labels/a"}), &["jsonPatch[0].from"]);
        check(json!({"op": "remove", "path": "spec"}), &["jsonPatch[0].path"]);
    }

    #[test]
    fn a_merge_patch_is_a_map_of_fields_that_may_change() {
        let check = |text: &str, good: bool| {
            let spec = json!({"resource": "v1/Service", "mergePatch": text});
            assert_eq!(fields(spec), if good { &[][..] } else { &["mergePatch"] }, "{text}");
        };
        check("spec:\n  nodeSelector: null\n", true);
        check(r#"{"metadata": {"labels": {"a": null}}}"#, true);
        check("[1]", false);
        check("{spec: [", false);
        check("metadata: {name: other}", false);
        check("status: {}", false);
        let spec: TransformSpec =
            serde_json::from_value(json!({"resource": "v1/Service", "mergePatch": "spec: {a: null}"})).expect("a spec");
        assert_eq!(spec.merge_value(), Ok(Some(json!({"spec": {"a": null}}))), "a null stays one");
        assert_eq!(fields(json!({"resource": "v1/Service"})), ["paths"]);
    }

    #[test]
    fn a_transformation_has_a_limit() {
        let long = "x".repeat(16_000);
        let one = path("spec.a", "add", "string", Some(&long));
        let spec: TransformSpec = serde_json::from_value(one).expect("a spec");
        let all = ResourceTransformationSpec { transform_specs: vec![spec; 3] };
        assert_eq!(all.validate().len(), 1);
    }
}
