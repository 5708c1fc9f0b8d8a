//! Checks that a schema cannot make, or that older API servers, which ignore CEL, do not make.
//!
//! Every check names the field, the value and what is allowed; all findings are given at once.

use std::collections::BTreeMap;

use crate::common::ObjectFilter;
use crate::{ADMIN_NAMESPACE, ApplicationBackupSpec, ApplicationRestoreSpec, BackupLocationSpec};

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not allowed: {allowed}")]
pub struct FieldError {
    /// Path of the field, such as `spec.namespaces[1]`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

fn wrong(field: impl Into<String>, value: impl Into<String>, allowed: &str) -> FieldError {
    FieldError { field: field.into(), value: value.into(), allowed: allowed.into() }
}

const LABEL: &str =
    "lower-case letters, digits and '-', beginning and ending with a letter or digit, at most 63 characters";
const SUBDOMAIN: &str =
    "lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters";

fn is_label(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !s.is_empty() && s.len() <= 63 && s.bytes().all(inner) && !s.starts_with('-') && !s.ends_with('-')
}

fn is_subdomain(s: &str) -> bool {
    s.len() <= 253 && s.split('.').all(is_label)
}

fn label(errors: &mut Vec<FieldError>, field: impl Into<String>, value: &str) {
    if !is_label(value) {
        errors.push(wrong(field, value, LABEL));
    }
}

fn subdomain(errors: &mut Vec<FieldError>, field: impl Into<String>, value: &str) {
    if !is_subdomain(value) {
        errors.push(wrong(field, value, SUBDOMAIN));
    }
}

fn filters(errors: &mut Vec<FieldError>, filters: &[ObjectFilter]) {
    for (i, f) in filters.iter().enumerate() {
        if *f == ObjectFilter::default() {
            errors.push(wrong(
                format!("spec.includeResources[{i}]"),
                "{}",
                "at least one of group, kind, namespace and name",
            ));
        }
        if let Some(namespace) = &f.namespace {
            label(errors, format!("spec.includeResources[{i}].namespace"), namespace);
        }
    }
}

fn kinds(errors: &mut Vec<FieldError>, field: &str, kinds: &[String]) {
    for (i, k) in kinds.iter().enumerate() {
        let (kind, group) = k.split_once('.').map_or((k.as_str(), None), |(kind, group)| (kind, Some(group)));
        let is_name = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric());
        let is_all_of_a_group = kind == "*" && group.is_some();
        if !(is_name || is_all_of_a_group) || !group.is_none_or(is_subdomain) {
            errors.push(wrong(
                format!("{field}[{i}]"),
                k,
                "a kind, such as ConfigMap, or kind and group, such as Deployment.apps or Secret.core, or all kinds of a group, such as *.example.com",
            ));
        }
    }
}

impl BackupLocationSpec {
    /// What is wrong with the spec; empty when nothing is.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let bucket = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if !(3..=63).contains(&self.path.len()) || !self.path.bytes().all(bucket) {
            errors.push(wrong(
                "spec.path",
                &self.path,
                "the name of a bucket: 3 to 63 letters, digits, '-', '.' and '_'; a folder in it is the prefix",
            ));
        }
        if let Some(prefix) = &self.prefix {
            let component = |c: &str| !c.is_empty() && c != "." && c != "..";
            if !prefix.split('/').all(component) {
                errors.push(wrong(
                    "spec.prefix",
                    prefix,
                    "names separated by single slashes, with none at either end; leave it out for the whole bucket",
                ));
            }
        }
        if let Some(endpoint) = self.s3.as_ref().and_then(|s3| s3.endpoint.as_ref()) {
            let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if host.is_none_or(|h| h.is_empty() || h.starts_with('/')) {
                errors.push(wrong("spec.s3.endpoint", endpoint, "a URL with http:// or https:// and a host"));
            }
        }
        subdomain(&mut errors, "spec.credentialsSecret", &self.credentials_secret);
        subdomain(&mut errors, "spec.encryption.secretRef.name", &self.encryption.secret_ref.name);
        errors
    }
}

impl ApplicationBackupSpec {
    /// The namespaces that the run is about, for a resource that lives in `own`.
    #[must_use]
    pub fn namespaces_or(&self, own: &str) -> Vec<String> {
        let mut namespaces = if self.namespaces.is_empty() { vec![own.to_owned()] } else { self.namespaces.clone() };
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }

    /// What is wrong with the spec of a resource that lives in the namespace `own`; empty when nothing is.
    #[must_use]
    pub fn validate(&self, own: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, namespace) in self.namespaces.iter().enumerate() {
            let field = format!("spec.namespaces[{i}]");
            label(&mut errors, &field, namespace);
            if own != ADMIN_NAMESPACE && namespace != own {
                errors.push(wrong(
                    &field,
                    namespace,
                    &format!("the resource's own namespace, {own}; create it in {ADMIN_NAMESPACE} to back up others"),
                ));
            }
        }
        if self.namespaces.is_empty() && own == ADMIN_NAMESPACE {
            errors.push(wrong(
                "spec.namespaces",
                "",
                &format!("at least one namespace, since the resource lives in {ADMIN_NAMESPACE}"),
            ));
        }
        filters(&mut errors, &self.include_resources);
        kinds(&mut errors, "spec.resourceTypes", &self.resource_types);
        kinds(&mut errors, "spec.excludeResourceTypes", &self.exclude_resource_types);
        subdomain(&mut errors, "spec.backupLocation", &self.backup_location);
        errors
    }
}

impl ApplicationRestoreSpec {
    /// The namespace that what was in `source` goes to.
    #[must_use]
    pub fn target<'a>(&'a self, source: &'a str) -> &'a str {
        self.namespace_mapping.get(source).map_or(source, String::as_str)
    }

    /// What is wrong with the spec; empty when nothing is.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match (&self.backup_name, &self.recovery_point) {
            (Some(name), None) => subdomain(&mut errors, "spec.backupName", name),
            (None, Some(point)) => label(&mut errors, "spec.recoveryPoint", point),
            (None, None) => {
                errors.push(wrong("spec.backupName", "", "either this or spec.recoveryPoint must be given"))
            }
            (Some(name), Some(_)) => {
                errors.push(wrong("spec.backupName", name, "this or spec.recoveryPoint, not both"))
            }
        }
        let mut sources_of = BTreeMap::<&str, &str>::new();
        for (from, to) in &self.namespace_mapping {
            label(&mut errors, "spec.namespaceMapping (key)", from);
            label(&mut errors, format!("spec.namespaceMapping.{from}"), to);
            if let Some(other) = sources_of.insert(to, from) {
                errors.push(wrong(
                    format!("spec.namespaceMapping.{from}"),
                    to,
                    &format!("a namespace that {other} does not go to as well"),
                ));
            }
        }
        for (from, to) in &self.storage_class_mapping {
            // The empty name is that of claims which say that they have no class.
            if !from.is_empty() {
                subdomain(&mut errors, "spec.storageClassMapping (key)", from);
            }
            subdomain(&mut errors, format!("spec.storageClassMapping.{from}"), to);
        }
        filters(&mut errors, &self.include_resources);
        subdomain(&mut errors, "spec.backupLocation", &self.backup_location);
        errors
    }

    /// What is wrong with where it goes, once the namespaces of the recovery point are known.
    #[must_use]
    pub fn validate_targets(&self, own: &str, sources: &[String]) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for from in self.namespace_mapping.keys().filter(|from| !sources.contains(from)) {
            errors.push(wrong(
                "spec.namespaceMapping (key)",
                from,
                &format!("a namespace of the recovery point: {}", sources.join(", ")),
            ));
        }
        let mut sources_of = BTreeMap::<&str, &str>::new();
        for source in sources {
            let target = self.target(source);
            if own != ADMIN_NAMESPACE && target != own {
                let allowed = format!(
                    "the resource's own namespace, {own}; create it in {ADMIN_NAMESPACE} to restore into others"
                );
                errors.push(wrong(format!("spec.namespaceMapping.{source}"), target, &allowed));
            }
            if let Some(other) = sources_of.insert(target, source) {
                errors.push(wrong(
                    format!("spec.namespaceMapping.{source}"),
                    target,
                    &format!("a namespace that {other} does not go to as well"),
                ));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Encryption;
    use crate::{LocationType, SecretKeyRef};

    fn fields(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|e| e.field.as_str()).collect()
    }

    fn location(path: &str, prefix: Option<&str>) -> BackupLocationSpec {
        BackupLocationSpec {
            type_: LocationType::S3,
            path: path.into(),
            prefix: prefix.map(Into::into),
            s3: None,
            credentials_secret: "keys".into(),
            encryption: Encryption { secret_ref: SecretKeyRef { name: "keys".into(), key: "passphrase".into() } },
        }
    }

    #[test]
    fn a_location_names_a_bucket_and_a_clean_prefix() {
        let check = |path, prefix, expected: &[&str]| {
            assert_eq!(fields(&location(path, prefix).validate()), expected, "{path} {prefix:?}")
        };
        check("backups", None, &[]);
        check("backups", Some("east/prod"), &[]);
        check("a/b", None, &["spec.path"]);
        check("ab", None, &["spec.path"]);
        for prefix in ["", "/", "/east", "east/", "a//b", "../b", "a/./b"] {
            check("backups", Some(prefix), &["spec.prefix"]);
        }
    }

    #[test]
    fn an_endpoint_has_a_scheme_and_a_host() {
        for (endpoint, good) in [
            ("http://127.0.0.1:9000", true),
            ("https://s3.example", true),
            ("s3.example", false),
            ("ftp://x", false),
            ("http://", false),
        ] {
            let mut spec = location("backups", None);
            spec.s3 = Some(crate::S3Config { endpoint: Some(endpoint.into()), ..Default::default() });
            assert_eq!(spec.validate().is_empty(), good, "{endpoint}");
        }
    }

    #[test]
    fn a_backup_in_an_ordinary_namespace_is_of_that_namespace() {
        let check = |own: &str, namespaces: &[&str], expected: &[&str]| {
            let spec = ApplicationBackupSpec {
                namespaces: namespaces.iter().map(ToString::to_string).collect(),
                backup_location: "main".into(),
                ..Default::default()
            };
            assert_eq!(fields(&spec.validate(own)), expected, "{own} {namespaces:?}");
        };
        check("shop", &[], &[]);
        check("shop", &["shop"], &[]);
        check("shop", &["bank"], &["spec.namespaces[0]"]);
        check(ADMIN_NAMESPACE, &["shop", "bank"], &[]);
        check(ADMIN_NAMESPACE, &[], &["spec.namespaces"]);
        check(ADMIN_NAMESPACE, &["Shop"], &["spec.namespaces[0]"]);
    }

    #[test]
    fn kinds_are_named_alone_with_their_group_or_by_the_group() {
        for (kind, good) in [
            ("ConfigMap", true),
            ("Deployment.apps", true),
            ("Secret.core", true),
            ("widgets.example.com", true),
            ("*.metrics.example.com", true),
            ("*.core", true),
            ("*", false),
            ("*.", false),
            ("", false),
            (".apps", false),
            ("Config*", false),
            ("ConfigMap.", false),
            ("a b", false),
        ] {
            let mut spec = ApplicationBackupSpec { backup_location: "main".into(), ..Default::default() };
            spec.exclude_resource_types = vec![kind.into()];
            assert_eq!(spec.validate("shop").is_empty(), good, "{kind}");
        }
    }

    #[test]
    fn an_empty_filter_would_match_everything_and_is_refused() {
        let spec = ApplicationBackupSpec {
            include_resources: vec![ObjectFilter::default()],
            backup_location: "main".into(),
            ..Default::default()
        };
        assert_eq!(fields(&spec.validate("shop")), ["spec.includeResources[0]"]);
    }

    fn restore(mapping: &[(&str, &str)]) -> ApplicationRestoreSpec {
        ApplicationRestoreSpec {
            recovery_point: Some("p1".into()),
            backup_location: "main".into(),
            namespace_mapping: mapping.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_restore_has_one_source() {
        let mut spec = restore(&[]);
        assert!(spec.validate().is_empty());
        spec.backup_name = Some("b".into());
        assert_eq!(fields(&spec.validate()), ["spec.backupName"]);
        spec = ApplicationRestoreSpec { backup_location: "main".into(), ..Default::default() };
        assert_eq!(fields(&spec.validate()), ["spec.backupName"]);
    }

    #[test]
    fn claims_without_a_class_can_be_given_one() {
        let check = |from: &str, to: &str, expected: &[&str]| {
            let mut spec = restore(&[]);
            spec.storage_class_mapping = [(from.to_owned(), to.to_owned())].into();
            assert_eq!(fields(&spec.validate()), expected, "{from:?} {to:?}");
        };
        check("fast", "ssd", &[]);
        check("", "ssd", &[]);
        check("a/b", "ssd", &["spec.storageClassMapping (key)"]);
        check("fast", "", &["spec.storageClassMapping.fast"]);
    }

    #[test]
    fn two_namespaces_cannot_go_to_one() {
        assert_eq!(fields(&restore(&[("a", "c"), ("b", "c")]).validate()), ["spec.namespaceMapping.b"]);
        let sources = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            fields(&restore(&[("a", "b")]).validate_targets(ADMIN_NAMESPACE, &sources)),
            ["spec.namespaceMapping.b"]
        );
        assert!(restore(&[("a", "b"), ("b", "a")]).validate_targets(ADMIN_NAMESPACE, &sources).is_empty());
    }

    #[test]
    fn a_restore_in_an_ordinary_namespace_goes_there() {
        let sources = ["shop".to_owned()];
        assert!(restore(&[]).validate_targets("shop", &sources).is_empty());
        assert!(restore(&[("shop", "shop2")]).validate_targets("shop2", &sources).is_empty());
        assert_eq!(fields(&restore(&[]).validate_targets("bank", &sources)), ["spec.namespaceMapping.shop"]);
        assert_eq!(
            fields(&restore(&[("bank", "shop")]).validate_targets("shop", &sources)),
            ["spec.namespaceMapping (key)"]
        );
    }
}
