//! Whether a restore can be meant.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;

use super::{FieldError, filters, kinds, label, subdomain, wrong};
use crate::{ADMIN_NAMESPACE, ApplicationRestoreSpec, GROUP};

/// How long workloads may take to be ready when nothing else is said: images are pulled, databases recover.
const DEFAULT_READY: Duration = Duration::from_secs(600);
/// The longest time that they may be given.
const LONGEST_READY: SignedDuration = SignedDuration::from_hours(24);
/// Transformations of one restore: it keeps all of them in its status.
const MOST_TRANSFORMS: usize = 8;
/// Digits of the hash of a plan: 256 bits.
const PLAN_HASH_DIGITS: usize = 64;

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
        for (field, rule) in [("spec.preExecRule", &self.pre_exec_rule), ("spec.postExecRule", &self.post_exec_rule)] {
            if let Some(rule) = rule {
                subdomain(&mut errors, field, rule);
            }
        }
        for (i, name) in self.transforms.iter().enumerate() {
            subdomain(&mut errors, format!("spec.transforms[{i}]"), name);
        }
        if self.transforms.len() > MOST_TRANSFORMS {
            let allowed = format!("at most {MOST_TRANSFORMS}");
            errors.push(wrong("spec.transforms", self.transforms.len().to_string(), &allowed));
        }
        kinds(&mut errors, "spec.restoreStatusFor", &self.restore_status_for);
        for (i, kind) in self.restore_status_for.iter().enumerate() {
            if kind.split_once('.').is_some_and(|(_, group)| group.eq_ignore_ascii_case(GROUP)) {
                let allowed = "kinds of other groups: what Orlop's own objects say of themselves is Orlop's to write";
                errors.push(wrong(format!("spec.restoreStatusFor[{i}]"), kind, allowed));
            }
        }
        self.validate_waiting(&mut errors);
        self.validate_plan(&mut errors);
        errors
    }

    /// How long the workloads may take to be ready; nothing if nobody waits for them.
    ///
    /// # Errors
    /// What is written is no length of time, or is too long.
    pub fn ready_within(&self) -> Result<Option<Duration>, FieldError> {
        let Some(text) = &self.ready_timeout else { return Ok(Some(DEFAULT_READY)) };
        let parsed = text.parse::<SignedDuration>().ok().filter(|d| !d.is_negative() && *d <= LONGEST_READY);
        let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
        let allowed = "a length of time up to 24 hours, such as 90s, 15m or 1h30m, or 0s";
        let parsed = parsed.ok_or_else(|| wrong("spec.readyTimeout", text, allowed))?;
        Ok(Some(parsed).filter(|within| !within.is_zero()))
    }

    fn validate_waiting(&self, errors: &mut Vec<FieldError>) {
        match self.ready_within() {
            Err(error) => errors.push(error),
            Ok(None) if self.post_exec_rule.is_some() => {
                let allowed = "more than nothing, or no spec.postExecRule: that runs when the workloads are ready";
                errors.push(wrong("spec.readyTimeout", self.ready_timeout.as_deref().unwrap_or_default(), allowed));
            }
            Ok(_) => {}
        }
    }

    fn validate_plan(&self, errors: &mut Vec<FieldError>) {
        let Some(hash) = &self.plan_hash else { return };
        if self.plan_only {
            errors.push(wrong("spec.planHash", hash, "absent with spec.planOnly, which does nothing"));
        }
        if hash.len() != PLAN_HASH_DIGITS || !hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            errors.push(wrong(
                "spec.planHash",
                hash,
                "the hash of a plan: 64 hexadecimal digits, as in status.plan.hash",
            ));
        }
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

    fn fields(change: impl FnOnce(&mut ApplicationRestoreSpec)) -> Vec<String> {
        let mut spec = ApplicationRestoreSpec {
            recovery_point: Some("p1".into()),
            backup_location: "main".into(),
            ..ApplicationRestoreSpec::default()
        };
        change(&mut spec);
        spec.validate().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn how_long_workloads_may_take_is_read_as_people_write_it() {
        let check = |text: Option<&str>, seconds: Option<u64>| {
            let spec = ApplicationRestoreSpec { ready_timeout: text.map(Into::into), ..Default::default() };
            assert_eq!(spec.ready_within().map(|within| within.map(|d| d.as_secs())), Ok(seconds), "{text:?}");
        };
        check(None, Some(600));
        check(Some("90s"), Some(90));
        check(Some("24h"), Some(86_400));
        check(Some("0s"), None);
        for text in ["", "10", "-1s", "25h", "soon"] {
            assert_eq!(fields(|spec| spec.ready_timeout = Some(text.into())), ["spec.readyTimeout"], "{text}");
        }
    }

    #[test]
    fn a_rule_that_runs_afterwards_needs_somebody_who_waits() {
        let rule = |spec: &mut ApplicationRestoreSpec| spec.post_exec_rule = Some("migrate".into());
        assert!(fields(rule).is_empty());
        let neither = fields(|spec| {
            rule(spec);
            spec.ready_timeout = Some("0s".into());
        });
        assert_eq!(neither, ["spec.readyTimeout"]);
        assert_eq!(fields(|spec| spec.pre_exec_rule = Some("No Name".into())), ["spec.preExecRule"]);
    }

    #[test]
    fn a_status_of_orlops_own_kinds_is_not_brought_back() {
        let check = |kind: &str, good: bool| {
            assert_eq!(fields(|spec| spec.restore_status_for = vec![kind.into()]).is_empty(), good, "{kind}");
        };
        check("Widget.example.com", true);
        check("*.not-orlop.io", true);
        for kind in ["*.orlop.io", "ApplicationRestore.orlop.io", "applicationbackups.orlop.io"] {
            check(kind, false);
        }
    }

    #[test]
    fn a_plan_is_named_by_all_of_its_hash_and_by_who_does_it() {
        let hash = "0123456789abcdef".repeat(4);
        let named =
            |hash: &str, only: bool| fields(|spec| (spec.plan_hash, spec.plan_only) = (Some(hash.to_owned()), only));
        assert!(named(&hash, false).is_empty());
        assert_eq!(named(&hash, true), ["spec.planHash"]);
        for wrong in ["", &hash[1..], &hash.to_uppercase()] {
            assert_eq!(named(wrong, false), ["spec.planHash"], "{wrong}");
        }
    }
}
