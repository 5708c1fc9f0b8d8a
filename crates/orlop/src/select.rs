//! Arguments that pick objects, shared by backups and restores.

use std::collections::BTreeMap;

use api::{FieldError, ObjectFilter};

use crate::error::{Error, Result};

/// Reads `KIND[.GROUP][/NAME]`; for arguments.
pub(crate) fn parse_filter(text: &str) -> Result<ObjectFilter, String> {
    let (kind, name) = match text.split_once('/') {
        Some((kind, name)) => (kind, Some(name)),
        None => (text, None),
    };
    let (kind, group) = match kind.split_once('.') {
        Some((kind, group)) => (kind, Some(group)),
        None => (kind, None),
    };
    if kind.is_empty() || name == Some("") || group == Some("") {
        return Err(format!("{text:?} is not of the form KIND[.GROUP][/NAME], such as Deployment.apps/web"));
    }
    Ok(ObjectFilter {
        kind: Some(kind.to_owned()),
        group: group.map(str::to_owned),
        name: name.map(str::to_owned),
        namespace: None,
    })
}

/// Pairs as a map; a name that is given twice is an error.
pub(crate) fn map(option: &str, pairs: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if let Some(other) = map.insert(key.clone(), value.clone()) {
            return Err(Error::usage(format!("{option} names {key} twice: once for {other}, once for {value}")));
        }
    }
    Ok(map)
}

/// Turns what is wrong with a spec into one error that names every field.
pub(crate) fn valid(what: &str, errors: &[FieldError]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = errors.iter().map(|e| format!("\n  {e}")).collect();
    Err(Error::usage(format!("{what}: it is not valid:{}", lines.concat())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_kind_with_group_and_name_if_need_be() {
        let check = |text: &str, kind: &str, group: Option<&str>, name: Option<&str>| {
            let filter = parse_filter(text).expect("a filter");
            assert_eq!(filter.kind.as_deref(), Some(kind));
            assert_eq!((filter.group.as_deref(), filter.name.as_deref()), (group, name), "{text}");
        };
        check("ConfigMap", "ConfigMap", None, None);
        check("Deployment.apps", "Deployment", Some("apps"), None);
        check("Ingress.networking.k8s.io/web.a", "Ingress", Some("networking.k8s.io"), Some("web.a"));
        for text in ["", "/x", "A.", "A/"] {
            assert!(parse_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_mapped_twice_is_refused() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert!(map("--to", &[pair("a", "b"), pair("c", "b")]).is_ok());
        let error = map("--to", &[pair("a", "b"), pair("a", "c")]).expect_err("twice").to_string();
        assert_eq!(error, "--to names a twice: once for b, once for c");
    }
}
