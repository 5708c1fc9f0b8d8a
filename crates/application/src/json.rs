//! Small helpers to walk Kubernetes objects as JSON.
//!
//! Objects stay `serde_json::Value` everywhere in this crate: typed structs would drop the fields that a newer server, or a
//! custom resource, has and this build does not know.

use serde_json::{Map, Value};

/// The value at a path of field names, if every step is there.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, field| value.get(field))
}

/// The value at a path of field names, to be changed.
pub(crate) fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, field| value.get_mut(field))
}

/// The text at a path; empty where there is none, which is how Kubernetes itself treats an absent string.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of the list at a path; none where there is no list.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The elements of the list at a path, to be changed.
pub(crate) fn list_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    at_mut(value, path).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// Whether the value at a path is there and is `true`.
pub(crate) fn is_true(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// Takes the field at a path away; says whether it was there.
pub(crate) fn remove(value: &mut Value, path: &[&str]) -> bool {
    let Some((field, parents)) = path.split_last() else {
        return false;
    };
    at_mut(value, parents).and_then(Value::as_object_mut).is_some_and(|map| map.remove(*field).is_some())
}

/// Takes the field at a path away if it holds nothing (`null`, `{}` or `[]`).
pub(crate) fn remove_if_empty(value: &mut Value, path: &[&str]) {
    let empty = match at(value, path) {
        Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        _ => false,
    };
    if empty {
        remove(value, path);
    }
}

/// Takes map entries away whose key the predicate names, and the map itself when nothing is left of it.
pub(crate) fn remove_keys(value: &mut Value, path: &[&str], unwanted: impl Fn(&str) -> bool) {
    if let Some(map) = at_mut(value, path).and_then(Value::as_object_mut) {
        map.retain(|key, _| !unwanted(key));
    }
    remove_if_empty(value, path);
}

/// Sets the field at a path (the value itself where the path is empty), making the maps on the way. A step that is there and is
/// no map is left alone.
pub(crate) fn set(value: &mut Value, path: &[&str], new: Value) {
    let Some((field, parents)) = path.split_last() else {
        *value = new;
        return;
    };
    let mut here = value;
    for parent in parents {
        let Some(map) = here.as_object_mut() else {
            return;
        };
        here = map.entry(*parent).or_insert_with(|| Value::Object(Map::new()));
    }
    if let Some(map) = here.as_object_mut() {
        map.insert((*field).to_owned(), new);
    }
}

/// Keeps only the elements of a list that the predicate wants, and removes the field when none is left.
pub(crate) fn retain(value: &mut Value, path: &[&str], wanted: impl FnMut(&Value) -> bool) {
    if let Some(items) = at_mut(value, path).and_then(Value::as_array_mut) {
        items.retain(wanted);
    }
    remove_if_empty(value, path);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_paths_read_as_empty() {
        let value = json!({"a": {"b": "x", "c": 1}});
        assert_eq!(text(&value, &["a", "b"]), "x");
        assert_eq!(text(&value, &["a", "c"]), "");
        assert_eq!(text(&value, &["q", "b"]), "");
        assert!(list(&value, &["a"]).is_empty());
    }

    #[test]
    fn set_makes_the_maps_on_the_way_and_remove_undoes_it() {
        let mut value = json!({});
        set(&mut value, &["metadata", "labels", "x"], json!("1"));
        assert_eq!(value, json!({"metadata": {"labels": {"x": "1"}}}));
        assert!(remove(&mut value, &["metadata", "labels", "x"]));
        assert!(!remove(&mut value, &["metadata", "labels", "x"]));
        remove_if_empty(&mut value, &["metadata", "labels"]);
        assert_eq!(value, json!({"metadata": {}}));
    }
}
