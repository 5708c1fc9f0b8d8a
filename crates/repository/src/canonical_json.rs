//! JSON in one spelling: keys sorted by their bytes, nothing between the tokens.

use serde::Serialize;
use serde_json::Value;

/// Writes `value` so that equal values give equal bytes.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = String::new();
    write(&serde_json::to_value(value)?, &mut text)?;
    Ok(text.into_bytes())
}

/// Recursion is bounded where the value comes from: `serde_json` reads at most 128 levels.
fn write(value: &Value, text: &mut String) -> Result<(), serde_json::Error> {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, field)) in fields.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                text.push_str(&serde_json::to_string(name)?);
                text.push(':');
                write(field, text)?;
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write(item, text)?;
            }
            text.push(']');
        }
        plain => text.push_str(&serde_json::to_string(plain)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_nothing_is_between() {
        let value: Value =
            serde_json::from_str(r#"{ "b": [1, 2.5, null], "a": {"z": "\n", "A": true}, "": -1 }"#).unwrap();
        let expected = r#"{"":-1,"a":{"A":true,"z":"\n"},"b":[1,2.5,null]}"#;
        assert_eq!(String::from_utf8(to_bytes(&value).unwrap()).unwrap(), expected);
    }
}
