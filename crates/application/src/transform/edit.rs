//! One change of an object. Pure.

use json_patch::{Patch, PatchErrorKind, PatchOperation};
use serde_json::{Map, Value};

use crate::canonical;

/// The largest object that an API server takes. A patch that copies may double an object with each operation.
const LARGEST: usize = 3 << 20;

/// One change of an object. Places are JSON pointers.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Puts a value there; the maps on the way are made where they are not.
    Set(String, Value),
    /// Puts a map over the one that is there, or where there is none.
    Put(String, Value),
    /// Puts a value in place of the one that must be there.
    Replace(String, Value),
    /// Adds to the list or to the map that must be there.
    Extend(String, Value),
    /// Removes what must be there.
    Remove(String),
    /// A JSON patch.
    Patch(Vec<Op>),
    /// A merge patch.
    Merge(Value),
}

/// One operation of a JSON patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Op(PatchOperation);

impl Op {
    /// Reads an operation, as RFC 6902 writes it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(json: Value) -> Result<Self, String> {
        serde_json::from_value(json).map(Self).map_err(|error| format!("it is no operation of a JSON patch: {error}"))
    }
}

impl Edit {
    /// Makes the change. What is left of the object after an error is of no use.
    pub(super) fn apply(&self, object: &mut Value) -> Result<(), String> {
        match self {
            Self::Set(place, value) => set(object, place, value.clone()),
            Self::Put(place, value) => match object.pointer_mut(place).filter(|there| !there.is_null()) {
                Some(there) => extend(there, place, value.clone()),
                None => set(object, place, value.clone()),
            },
            Self::Replace(place, value) => find(object, place).map(|there| *there = value.clone()),
            Self::Extend(place, value) => extend(find(object, place)?, place, value.clone()),
            Self::Remove(place) => remove(object, place),
            Self::Patch(operations) => operations.iter().enumerate().try_for_each(|(i, op)| patch(object, i, op)),
            Self::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
        }
    }
}

fn absent(place: &str) -> String {
    format!("there is no {place} in it")
}

fn find<'a>(object: &'a mut Value, place: &str) -> Result<&'a mut Value, String> {
    object.pointer_mut(place).ok_or_else(|| absent(place))
}

/// The place that something is in, and its name there.
fn split(place: &str) -> (&str, String) {
    let (above, name) = place.rsplit_once('/').unwrap_or(("", place));
    (above, name.replace("~1", "/").replace("~0", "~"))
}

fn set(object: &mut Value, place: &str, value: Value) -> Result<(), String> {
    let (above, name) = split(place);
    if object.pointer(above).is_none_or(Value::is_null) {
        set(object, above, Value::Object(Map::new()))?;
    }
    match find(object, above)? {
        Value::Object(map) => {
            map.insert(name, value);
            Ok(())
        }
        Value::Array(items) => {
            let length = items.len();
            let index = name.parse::<usize>().ok().filter(|index| *index <= length);
            match index.ok_or_else(|| format!("{above} is a list of {length} items, and has no place {name}"))? {
                index if index == length => items.push(value),
                index => items[index] = value,
            }
            Ok(())
        }
        _ => Err(format!("{above} is neither a map nor a list, so it has no {name}")),
    }
}

fn extend(there: &mut Value, place: &str, value: Value) -> Result<(), String> {
    match (there, value) {
        (Value::Array(items), Value::Array(more)) => items.extend(more),
        (Value::Object(map), Value::Object(more)) => map.extend(more),
        (_, Value::Array(_)) => return Err(format!("{place} is no list")),
        _ => return Err(format!("{place} is no map")),
    }
    Ok(())
}

fn remove(object: &mut Value, place: &str) -> Result<(), String> {
    let (above, name) = split(place);
    let removed = match object.pointer_mut(above) {
        Some(Value::Object(map)) => map.remove(&name).is_some(),
        Some(Value::Array(items)) => {
            let index = name.parse::<usize>().ok().filter(|index| *index < items.len());
            index.map(|index| items.remove(index)).is_some()
        }
        _ => false,
    };
    if removed { Ok(()) } else { Err(absent(place)) }
}

fn patch(object: &mut Value, index: usize, Op(operation): &Op) -> Result<(), String> {
    let says = |why: String| format!("operation {index}: {why}");
    let one = Patch(vec![operation.clone()]);
    json_patch::patch(object, &one).map_err(|error| says(in_words(operation, &error.kind)))?;
    let is_too_large = || canonical::to_bytes(object).len() > LARGEST;
    if matches!(operation, PatchOperation::Copy(_)) && is_too_large() {
        return Err(says(format!("the object is larger then than the {} MiB that an API server takes", LARGEST >> 20)));
    }
    Ok(())
}

fn in_words(operation: &PatchOperation, kind: &PatchErrorKind) -> String {
    let from = match operation {
        PatchOperation::Move(one) => one.from.as_str(),
        PatchOperation::Copy(one) => one.from.as_str(),
        _ => "",
    };
    let path = operation.path().as_str();
    match kind {
        PatchErrorKind::TestFailed => format!("{path} has another value than the test wants"),
        PatchErrorKind::InvalidFromPointer => absent(from),
        PatchErrorKind::InvalidPointer => match operation {
            PatchOperation::Add(_) | PatchOperation::Move(_) | PatchOperation::Copy(_) => {
                format!("there is nothing in it that {path} could be put into")
            }
            _ => absent(path),
        },
        PatchErrorKind::CannotMoveInsideItself => format!("{from} cannot be moved into itself"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({"spec": {"replicas": 2, "args": ["a", "b"], "labels": {"x.y/z": "1"}}})
    }

    fn check(edit: Edit, expected: Result<Value, &str>) {
        let mut object = object();
        match (edit.apply(&mut object), expected) {
            (Ok(()), Ok(spec)) => assert_eq!(object["spec"], spec, "{edit:?}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{part:?} in {why:?}"),
            (result, _) => panic!("{edit:?}: {result:?}"),
        }
    }

    fn with(change: impl FnOnce(&mut Value)) -> Result<Value, &'static str> {
        let mut spec = object()["spec"].take();
        change(&mut spec);
        Ok(spec)
    }

    #[test]
    fn values_are_set_also_where_nothing_leads_to_them() {
        let set = |place: &str| Edit::Set(place.into(), json!("v"));
        check(set("/spec/replicas"), with(|spec| spec["replicas"] = json!("v")));
        check(set("/spec/new/deep"), with(|spec| spec["new"] = json!({"deep": "v"})));
        check(set("/spec/labels/x.y~1z"), with(|spec| spec["labels"]["x.y/z"] = json!("v")));
        check(set("/spec/args/1"), with(|spec| spec["args"] = json!(["a", "v"])));
        check(set("/spec/args/2"), with(|spec| spec["args"] = json!(["a", "b", "v"])));
        check(set("/spec/args/3"), Err("has no place 3"));
        check(set("/spec/replicas/deep"), Err("neither a map nor a list"));
    }

    #[test]
    fn what_is_modified_or_removed_must_be_there() {
        check(Edit::Replace("/spec/replicas".into(), json!(1)), with(|spec| spec["replicas"] = json!(1)));
        check(Edit::Replace("/spec/nothing".into(), json!(1)), Err("no /spec/nothing"));
        check(Edit::Extend("/spec/args".into(), json!(["c"])), with(|spec| spec["args"] = json!(["a", "b", "c"])));
        check(Edit::Extend("/spec/labels".into(), json!({"y": "2"})), with(|spec| spec["labels"]["y"] = json!("2")));
        check(Edit::Extend("/spec/args".into(), json!({"y": "2"})), Err("/spec/args is no map"));
        check(Edit::Extend("/spec/replicas".into(), json!(["c"])), Err("/spec/replicas is no list"));
        check(Edit::Remove("/spec/args/0".into()), with(|spec| spec["args"] = json!(["b"])));
        check(Edit::Remove("/spec/labels/x.y~1z".into()), with(|spec| spec["labels"] = json!({})));
        check(Edit::Remove("/spec/labels/gone".into()), Err("no /spec/labels/gone"));
        check(Edit::Remove("/spec/args/2".into()), Err("no /spec/args/2"));
    }

    #[test]
    fn patches_say_what_failed() {
        let ops = |ops: Value| {
            let ops = ops.as_array().expect("a list").iter().cloned();
            Edit::Patch(ops.map(|op| Op::parse(op).expect("an operation")).collect())
        };
        check(
            ops(json!([
                {"op": "test", "path": "/spec/replicas", "value": 2},
                {"op": "move", "from": "/spec/replicas", "path": "/spec/labels/n"},
            ])),
            with(|spec| {
                spec["labels"]["n"] = json!(2);
                spec.as_object_mut().expect("a map").remove("replicas");
            }),
        );
        let test = json!({"op": "test", "path": "/spec/replicas", "value": 3});
        check(ops(json!([test])), Err("operation 0: /spec/replicas has another value"));
        let fails = |op: Value, part: &str| check(ops(json!([op])), Err(part));
        fails(json!({"op": "remove", "path": "/spec/x"}), "there is no /spec/x");
        fails(json!({"op": "add", "path": "/spec/x/y", "value": 1}), "could be put into");
        fails(json!({"op": "copy", "from": "/spec/x", "path": "/spec/y"}), "there is no /spec/x");
        fails(json!({"op": "move", "from": "/spec", "path": "/spec/y"}), "into itself");
        assert!(Op::parse(json!({"op": "smudge", "path": "/spec"})).is_err());
    }

    #[test]
    fn a_patch_that_copies_without_end_is_stopped() {
        let copy = |n: usize| json!({"op": "copy", "from": "/spec", "path": format!("/spec/n{n}")});
        let ops = (0..64).map(|n| Op::parse(copy(n)).expect("an operation")).collect();
        check(Edit::Patch(ops), Err("larger"));
    }
}
