//! Sizes as Kubernetes writes them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// What sizes of volumes are written under.
pub(crate) const STORAGE: &str = "storage";

/// Bytes, rounded up as a size to be asked for is; nothing if it is none.
pub(crate) fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match &text[digits..] {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u64.pow(2),
        "G" => 1000_u64.pow(3),
        "T" => 1000_u64.pow(4),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "m" => return Some(number.div_ceil(1000)),
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The size in a list of resources.
pub(crate) fn storage(resources: Option<&BTreeMap<String, Quantity>>) -> Option<u64> {
    bytes(resources?.get(STORAGE)?)
}

/// A size as whole as it can be written.
pub(crate) fn quantity(bytes: u64) -> Quantity {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let whole = units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    Quantity(whole.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, expected) in [
            ("10", Some(10)),
            ("1Gi", Some(1 << 30)),
            ("5M", Some(5_000_000)),
            ("1500m", Some(2)),
            ("x", None),
            ("1.5Gi", None),
            ("99999999Ti", None),
        ] {
            assert_eq!(bytes(&Quantity(text.into())), expected, "{text}");
        }
        for (number, expected) in [(1 << 30, "1Gi"), (3 << 20, "3Mi"), (1025, "1025"), (0, "0")] {
            assert_eq!(quantity(number).0, expected);
        }
    }
}
