//! What an API server left out of an object that it took: fields that it does not know are not refused, but dropped without a word.

use serde_json::Value;

/// Paths named at most; what is dropped is mostly one field, in many places.
const MOST_NAMED: usize = 8;

/// The fields of what was sent that the answer does not have, as paths. Values that mean nothing (`null`, `""`, `0`, `false`, empty maps
/// and lists) are not looked for, since servers drop those that are the default.
pub(crate) fn absent_fields(sent: &Value, answer: &Value) -> Vec<String> {
    let mut absent = all_absent_fields(sent, answer);
    if absent.len() > MOST_NAMED {
        let more = absent.len() - MOST_NAMED;
        absent.truncate(MOST_NAMED);
        absent.push(format!("{more} more"));
    }
    absent
}

/// All of them.
pub(crate) fn all_absent_fields(sent: &Value, answer: &Value) -> Vec<String> {
    let mut absent = Vec::new();
    compare(sent, Some(answer), "", &mut absent);
    absent
}

fn compare(sent: &Value, answer: Option<&Value>, path: &str, absent: &mut Vec<String>) {
    let Some(answer) = answer else {
        if !means_nothing(sent) {
            absent.push(path.to_owned());
        }
        return;
    };
    match (sent, answer) {
        (Value::Object(sent), Value::Object(answer)) => {
            for (field, value) in sent {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                compare(value, answer.get(field), &path, absent);
            }
        }
        (Value::Array(sent), Value::Array(answer)) => {
            for (index, item) in sent.iter().enumerate() {
                compare(item, counterpart(item, index, answer), &format!("{path}[{index}]"), absent);
            }
        }
        _ => {} // another value, which admission or the server itself may choose
    }
}

/// The item of the answer that is the sent one: by its name where it has one, since admission may have put others before it.
fn counterpart<'a>(item: &Value, index: usize, answer: &'a [Value]) -> Option<&'a Value> {
    match item.get("name") {
        Some(name) => answer.iter().find(|other| other.get("name") == Some(name)),
        None => answer.get(index),
    }
}

fn means_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(means_nothing),
        Value::Object(map) => map.values().all(means_nothing),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dropped_fields_are_named_and_changed_ones_are_not() {
        let check = |sent: Value, answer: Value, expected: &[&str]| assert_eq!(absent_fields(&sent, &answer), expected);
        check(json!({"a": {"b": 1}}), json!({"a": {"b": 2}, "c": 3}), &[]);
        check(json!({"a": {"b": 1, "c": {"d": true}}}), json!({"a": {}}), &["a.b", "a.c"]);
        check(json!({"a": {"b": null, "c": "", "d": [], "e": {"f": 0}, "g": false}}), json!({}), &[]);
        check(json!({"list": ["x", "y"]}), json!({"list": ["x"]}), &["list[1]"]);
        let sent = json!({"containers": [{"name": "web", "resizePolicy": [1]}, {"name": "log"}]});
        let answer = json!({"containers": [{"name": "injected"}, {"name": "web"}, {"name": "log"}]});
        check(sent, answer, &["containers[0].resizePolicy"]);
        let many: serde_json::Map<String, Value> = (0..20).map(|n| (format!("f{n:02}"), json!(1))).collect();
        let named = absent_fields(&Value::Object(many), &json!({}));
        assert_eq!((named.len(), named[0].as_str(), named[8].as_str()), (9, "f00", "12 more"));
    }
}
