//! Where pod specifications are inside of objects.

use serde_json::Value;

use crate::json;

/// The places of a pod specification in the built-in kinds: of a pod, of a template, of a job's template.
const PLACES: [&[&str]; 3] =
    [&["spec"], &["spec", "template", "spec"], &["spec", "jobTemplate", "spec", "template", "spec"]];

/// The pod specification in an object, if it has one. Custom resources count too where they use a template of the usual form.
pub(crate) fn spec(object: &Value) -> Option<&Value> {
    place(object).and_then(|path| json::at(object, path))
}

/// The pod specification in an object, to be changed.
pub(crate) fn spec_mut(object: &mut Value) -> Option<&mut Value> {
    let path = place(object)?;
    json::at_mut(object, path)
}

fn place(object: &Value) -> Option<&'static [&'static str]> {
    let has_containers =
        |path: &&&[&str]| json::at(object, path).is_some_and(|spec| json::at(spec, &["containers"]).is_some());
    PLACES.iter().find(has_containers).copied()
}
