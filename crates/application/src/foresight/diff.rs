//! What differs between two states of an object. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// A field that is another than before.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where, as a JSON pointer; into a list by the place in the list that the field is in.
    pub path: String,
    /// What was there.
    pub from: Option<Value>,
    /// What is there then.
    pub to: Option<Value>,
}

/// What differs: the smallest parts that do.
pub(crate) fn differing(from: &Value, to: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(Some(from), Some(to), String::new(), true, &mut changes);
    changes
}

/// What differs when `to` is laid over `from`: what it does not have stays.
pub(super) fn overlaid(from: &Value, to: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(Some(from), Some(to), String::new(), false, &mut changes);
    changes
}

fn compare(from: Option<&Value>, to: Option<&Value>, path: String, removes: bool, changes: &mut Vec<Change>) {
    match (from, to) {
        (Some(from), Some(to)) if from == to => {}
        (Some(Value::Object(from)), Some(Value::Object(to))) => {
            let fields: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
            for field in fields {
                let is_gone = to.get(field).is_none();
                if removes || !is_gone {
                    let path = format!("{path}/{}", escaped(field));
                    compare(from.get(field), to.get(field), path, removes, changes);
                }
            }
        }
        (Some(Value::Array(from)), Some(Value::Array(to))) if are_named(from) && are_named(to) => {
            named(from, to, &path, removes, changes);
        }
        (Some(Value::Array(from)), Some(Value::Array(to))) if from.len() == to.len() => {
            for (index, (from, to)) in from.iter().zip(to).enumerate() {
                compare(Some(from), Some(to), format!("{path}/{index}"), removes, changes);
            }
        }
        (from, to) => changes.push(Change { path, from: from.cloned(), to: to.cloned() }),
    }
}

/// Items with names are compared with their namesakes, wherever these are.
fn named(from: &[Value], to: &[Value], path: &str, removes: bool, changes: &mut Vec<Change>) {
    for (index, item) in to.iter().enumerate() {
        let before = from.iter().find(|other| name(other) == name(item));
        compare(before, Some(item), format!("{path}/{index}"), removes, changes);
    }
    let is_gone = |item: &&Value| !to.iter().any(|other| name(other) == name(item));
    for (index, item) in from.iter().enumerate().filter(|(_, item)| removes && is_gone(item)) {
        compare(Some(item), None, format!("{path}/{index}"), removes, changes);
    }
}

fn name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// Whether all items have names of their own.
fn are_named(items: &[Value]) -> bool {
    let names: BTreeSet<&str> = items.iter().filter_map(name).collect();
    !items.is_empty() && names.len() == items.len()
}

fn escaped(field: &str) -> String {
    field.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(from: Value, to: Value, expected: &[(&str, Option<Value>, Option<Value>)]) {
        let found: Vec<_> = differing(&from, &to).into_iter().map(|c| (c.path, c.from, c.to)).collect();
        let expected: Vec<_> = expected.iter().map(|(p, f, t)| ((*p).to_owned(), f.clone(), t.clone())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_smallest_parts_that_differ_are_named() {
        let one = |value: Value| Some(value);
        check(json!({"a": 1, "b": {"c": 2}}), json!({"b": {"c": 2}, "a": 1}), &[]);
        check(
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"b": 3, "c": 2}}),
            &[("/a/b", one(json!(1)), one(json!(3)))],
        );
        check(json!({"a": {}}), json!({"a": {"b": {"c": 1}}}), &[("/a/b", None, one(json!({"c": 1})))]);
        check(json!({"a": 1}), json!({}), &[("/a", one(json!(1)), None)]);
        check(json!({"x/y~z": 1}), json!({"x/y~z": 2}), &[("/x~1y~0z", one(json!(1)), one(json!(2)))]);
        check(json!([1, 2]), json!([1, 3]), &[("/1", one(json!(2)), one(json!(3)))]);
        check(json!([1, 2]), json!([1]), &[("", one(json!([1, 2])), one(json!([1])))]);
    }

    #[test]
    fn items_with_names_are_compared_with_their_namesakes() {
        let container = |name: &str, image: &str| json!({"name": name, "image": image});
        check(
            json!({"c": [container("a", "1"), container("b", "1")]}),
            json!({"c": [container("new", "1"), container("b", "2")]}),
            &[
                ("/c/0", None, Some(container("new", "1"))),
                ("/c/1/image", Some(json!("1")), Some(json!("2"))),
                ("/c/0", Some(container("a", "1")), None),
            ],
        );
    }

    #[test]
    fn what_is_laid_over_leaves_what_it_does_not_have() {
        let changes = overlaid(&json!({"a": 1, "b": {"c": 2}}), &json!({"b": {"d": 3}}));
        assert_eq!(changes, [Change { path: "/b/d".into(), from: None, to: Some(json!(3)) }]);
    }
}
