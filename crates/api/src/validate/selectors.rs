//! Labels that objects are selected by.

use std::collections::BTreeMap;

use super::{FieldError, is_subdomain, wrong};

const KEY: &str = "the name of a label: letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, at most 63 characters; a domain and a slash may stand before it";
const VALUE: &str = "the value of a label: letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, at most 63 characters, or nothing";

/// Finds what no object can bear as a label. An API server would refuse to list by it each time that it is asked, or take it for something else: behind a comma another label
/// begins.
pub(super) fn selectors(errors: &mut Vec<FieldError>, field: &str, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        if !is_key(key) {
            errors.push(wrong(format!("{field} (key)"), key, KEY));
        }
        if !value.is_empty() && !is_name(value) {
            errors.push(wrong(format!("{field}.{key}"), value, VALUE));
        }
    }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => is_subdomain(domain) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let outer = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63 && text.bytes().all(inner) && text.starts_with(outer) && text.ends_with(outer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{PodRule, RuleSpec};
    use crate::transformation::{ResourceTransformationSpec, TransformSpec};
    use crate::{ADMIN_NAMESPACE, ApplicationBackupSpec, ApplicationCloneSpec, VolumePolicy};

    fn one(key: &str, value: &str) -> BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn only_what_an_object_can_bear_is_selected_by() {
        let long = "x".repeat(64);
        let check = |key: &str, value: &str, expected: &[&str]| {
            let mut errors = Vec::new();
            selectors(&mut errors, "spec.selectors", &one(key, value));
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, expected, "{key}={value}");
        };
        for (key, value) in [("app", "shop"), ("in", "notin"), ("example.com/A_b.c", ""), ("a", &long[1..])] {
            check(key, value, &[]);
        }
        for key in ["", "a b", "-a", "a/b/c", "Example.com/a", "/a", "a/", "!a", "a,b", "ä", &long] {
            check(key, "x", &["spec.selectors (key)"]);
        }
        for value in ["a b", "shop,tier=web", "(a", "-a", "a.", "ä", &long] {
            check("app", value, &["spec.selectors.app"]);
        }
    }

    #[test]
    fn whatever_selects_by_labels_looks_at_them() {
        let check = |errors: Vec<FieldError>, field: &str| {
            assert!(errors.iter().any(|error| error.field == field), "{field} in {errors:?}");
        };
        let wrong = || one("app", "a b");
        let policy = VolumePolicy { selectors: wrong(), ..VolumePolicy::default() };
        let backup = ApplicationBackupSpec { selectors: wrong(), volume_policies: vec![policy], ..Default::default() };
        check(backup.validate("shop"), "spec.selectors.app");
        check(backup.validate("shop"), "spec.volumePolicies[0].selectors.app");
        let clone = ApplicationCloneSpec { selectors: wrong(), ..Default::default() };
        check(clone.validate(ADMIN_NAMESPACE), "spec.selectors.app");
        let rule = PodRule { pod_selector: wrong(), ..PodRule::default() };
        let rule = RuleSpec { rules: vec![rule], ..RuleSpec::default() };
        check(rule.validate(true), "spec.rules[0].podSelector.app");
        let transformation = TransformSpec { selectors: wrong(), ..TransformSpec::default() };
        let transformation = ResourceTransformationSpec { transform_specs: vec![transformation] };
        check(transformation.validate(), "spec.transformSpecs[0].selectors.app");
    }
}
