//! Canonical JSON: one value has one byte form, so that an unchanged object is stored once, whatever order it arrived in.
//!
//! Keys are sorted by their bytes, nothing stands between tokens, and numbers are written as they were read: integers digit by
//! digit, floats in the shortest form that reads back as the same number (which is also how the API server writes them).

use serde_json::Value;

/// The canonical bytes of a value.
pub fn to_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Reads canonical bytes (or any JSON) back.
pub fn from_bytes(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(bytes)
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            // Sorted here, not left to the map: its order depends on a feature flag that any crate of the tree may turn on.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            enclose(b'{', b'}', entries.into_iter(), out, |(key, value), out| {
                scalar(&Value::String(key.clone()), out);
                out.push(b':');
                write(value, out);
            });
        }
        Value::Array(items) => enclose(b'[', b']', items.iter(), out, write),
        scalar_value => scalar(scalar_value, out),
    }
}

fn enclose<T>(open: u8, close: u8, items: impl Iterator<Item = T>, out: &mut Vec<u8>, each: impl Fn(T, &mut Vec<u8>)) {
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(item, out);
    }
    out.push(close);
}

fn scalar(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(input: &str, expected: &str) {
        let value: Value = serde_json::from_str(input).expect("test input is JSON");
        let bytes = to_bytes(&value);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(from_bytes(&bytes).expect("canonical bytes are JSON"), value);
    }

    #[test]
    fn one_value_has_one_form() {
        check(r#"{ "b" : 1, "a" : [ true , null ] }"#, r#"{"a":[true,null],"b":1}"#);
        check(r#"{"é":1,"z":2,"Z":3}"#, r#"{"Z":3,"z":2,"é":1}"#);
        check(r#"[-9223372036854775808,18446744073709551615]"#, "[-9223372036854775808,18446744073709551615]");
        check("[0.1,1.5,100]", "[0.1,1.5,100]");
        check(r#""line\nbreak \"quoted\" \u0001""#, r#""line\nbreak \"quoted\" \u0001""#);
        check("{}", "{}");
        check("[]", "[]");
    }

    #[test]
    fn an_integer_stays_an_integer_and_a_float_a_float() {
        assert_eq!(to_bytes(&json!({"n": 3, "f": 3.25})), br#"{"f":3.25,"n":3}"#);
    }
}
