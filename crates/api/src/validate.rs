//! Checks that a schema cannot make, or that older API servers, which ignore CEL, do not make.
//!
//! Every check names the field, the value and what is allowed; all findings are given at once.

use jiff::civil::{Time, Weekday};

use crate::common::ObjectFilter;
use crate::{ADMIN_NAMESPACE, ApplicationBackupSpec, BackupLocationSpec, SchedulePolicySpec};

mod clone;
mod placement;
mod restore;
mod rule;
mod selectors;
mod transformation;

use selectors::selectors;

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

/// The longest interval between two runs, in minutes: a year.
const MOST_MINUTES: u32 = 525_600;
const TIME_OF_DAY: &str = "a time of day, such as 23:05 or 11:05PM";
const DAY_OF_WEEK: &str = "a day of the week, such as Sunday or Sun";

/// Reads a time of day: of 24 hours, or of 12 with `AM` or `PM`.
#[must_use]
pub fn time_of_day(text: &str) -> Option<Time> {
    let text = text.trim().to_ascii_uppercase();
    let half = text.strip_suffix("AM").map(|rest| (rest, 0)).or(text.strip_suffix("PM").map(|rest| (rest, 12)));
    let digits = half.map_or(text.as_str(), |(rest, _)| rest).trim_end();
    let (hour, minute) = digits.split_once(':')?;
    let number =
        |text: &str| text.parse::<i8>().ok().filter(|_| text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit()));
    let (hour, minute) = (number(hour)?, number(minute).filter(|_| minute.len() == 2)?);
    let hour = match half {
        None => hour,
        Some((_, offset)) if (1..=12).contains(&hour) => hour % 12 + offset,
        Some(_) => return None,
    };
    Time::new(hour, minute, 0, 0).ok()
}

/// Reads the name of a day of the week, or its first three letters.
#[must_use]
pub fn weekday(text: &str) -> Option<Weekday> {
    const DAYS: [(&str, Weekday); 7] = [
        ("MONDAY", Weekday::Monday),
        ("TUESDAY", Weekday::Tuesday),
        ("WEDNESDAY", Weekday::Wednesday),
        ("THURSDAY", Weekday::Thursday),
        ("FRIDAY", Weekday::Friday),
        ("SATURDAY", Weekday::Saturday),
        ("SUNDAY", Weekday::Sunday),
    ];
    let text = text.trim().to_ascii_uppercase();
    DAYS.into_iter().find(|(name, _)| *name == text || name[..3] == text).map(|(_, day)| day)
}

impl SchedulePolicySpec {
    /// What is wrong with the spec; empty when nothing is. Whether there is such a time zone, and what cron makes of an expression, is not known here.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let (mut errors, policy) = (Vec::new(), &self.policy);
        let mut retains = Vec::new();
        if let Some(interval) = &policy.interval {
            retains.push(("interval", interval.retain));
            let minutes = interval.interval_minutes;
            if !(1..=MOST_MINUTES).contains(&minutes) {
                let allowed = format!("1 to {MOST_MINUTES} minutes");
                errors.push(wrong("spec.policy.interval.intervalMinutes", minutes.to_string(), &allowed));
            }
        }
        let mut time = |name: &str, text: &str| {
            if time_of_day(text).is_none() {
                errors.push(wrong(format!("spec.policy.{name}.time"), text, TIME_OF_DAY));
            }
        };
        if let Some(daily) = &policy.daily {
            retains.push(("daily", daily.retain));
            time("daily", &daily.time);
        }
        if let Some(weekly) = &policy.weekly {
            retains.push(("weekly", weekly.retain));
            time("weekly", &weekly.time);
        }
        if let Some(monthly) = &policy.monthly {
            retains.push(("monthly", monthly.retain));
            time("monthly", &monthly.time);
        }
        if let Some(weekly) = policy.weekly.as_ref().filter(|weekly| weekday(&weekly.day).is_none()) {
            errors.push(wrong("spec.policy.weekly.day", &weekly.day, DAY_OF_WEEK));
        }
        if let Some(monthly) = policy.monthly.as_ref().filter(|monthly| !(1..=31).contains(&monthly.date)) {
            errors.push(wrong("spec.policy.monthly.date", monthly.date.to_string(), "1 to 31"));
        }
        retains.extend(policy.cron.as_ref().map(|cron| ("cron", cron.retain)));
        for (name, _) in retains.iter().filter(|(_, retain)| *retain == 0) {
            errors.push(wrong(format!("spec.policy.{name}.retain"), "0", "at least 1"));
        }
        if retains.is_empty() {
            errors.push(wrong("spec.policy", "{}", "at least one of interval, daily, weekly, monthly and cron"));
        }
        errors
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
        selectors(&mut errors, "spec.selectors", &self.selectors);
        filters(&mut errors, &self.include_resources);
        kinds(&mut errors, "spec.resourceTypes", &self.resource_types);
        kinds(&mut errors, "spec.excludeResourceTypes", &self.exclude_resource_types);
        subdomain(&mut errors, "spec.backupLocation", &self.backup_location);
        for (field, rule) in [("spec.preExecRule", &self.pre_exec_rule), ("spec.postExecRule", &self.post_exec_rule)] {
            if let Some(rule) = rule {
                subdomain(&mut errors, field, rule);
            }
        }
        for (driver, class) in &self.csi_snapshot_class_map {
            subdomain(&mut errors, format!("spec.csiSnapshotClassMap.{driver}"), class);
        }
        for (i, policy) in self.volume_policies.iter().enumerate() {
            selectors(&mut errors, &format!("spec.volumePolicies[{i}].selectors"), &policy.selectors);
            for class in policy.storage_classes.iter().filter(|class| !class.is_empty()) {
                subdomain(&mut errors, format!("spec.volumePolicies[{i}].storageClasses"), class);
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Encryption;
    use crate::schedule::{Daily, Interval, Monthly, Policy, Weekly};
    use crate::{ApplicationRestoreSpec, LocationType, SecretKeyRef};

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

    #[test]
    fn times_and_days_are_read_as_people_write_them() {
        let at = |hour, minute| Some(jiff::civil::time(hour, minute, 0, 0));
        let good = [
            ("23:05", at(23, 5)),
            ("0:00", at(0, 0)),
            ("12:04PM", at(12, 4)),
            ("12:30 am", at(0, 30)),
            ("1:00pm", at(13, 0)),
        ];
        for (text, time) in good {
            assert_eq!(time_of_day(text), time, "{text}");
        }
        for wrong in ["", "24:00", "13:00PM", "0:10AM", "7", "7:5", "+7:05", "07:05:00", "007:05"] {
            assert_eq!(time_of_day(wrong), None, "{wrong}");
        }
        assert_eq!(
            (weekday("sunday"), weekday("Thu"), weekday("T")),
            (Some(Weekday::Sunday), Some(Weekday::Thursday), None)
        );
    }

    #[test]
    fn each_wrong_field_of_a_policy_is_named() {
        let policy = Policy {
            interval: Some(Interval { interval_minutes: 0, retain: 0 }),
            daily: Some(Daily { time: "noon".into(), retain: 1 }),
            weekly: Some(Weekly { day: "Caturday".into(), time: "1:00PM".into(), retain: 1 }),
            monthly: Some(Monthly { date: 32, time: "1:00".into(), retain: 1 }),
            cron: None,
        };
        let spec = SchedulePolicySpec { policy, ..SchedulePolicySpec::default() };
        let wrong = [
            "spec.policy.interval.intervalMinutes",
            "spec.policy.daily.time",
            "spec.policy.weekly.day",
            "spec.policy.monthly.date",
            "spec.policy.interval.retain",
        ];
        assert_eq!(fields(&spec.validate()), wrong);
        assert_eq!(fields(&SchedulePolicySpec::default().validate()), ["spec.policy"]);
    }
}
