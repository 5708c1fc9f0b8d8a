//! Whether a rule can be meant.

use std::time::Duration;

use jiff::SignedDuration;

use super::{FieldError, label, selectors, wrong};
use crate::rule::{PodRule, RuleAction, RuleSpec, WAIT_COMMAND};

/// The longest time that a command may take.
const LONGEST_ACTION: SignedDuration = SignedDuration::from_hours(24);
/// The longest command, in bytes: far below what a kernel takes as one argument.
const LONGEST_VALUE: usize = 16_384;
/// How often an action may be tried again.
const MOST_RETRIES: u32 = 20;

impl RuleAction {
    /// How long it may take.
    ///
    /// # Errors
    /// What is written is no length of time, or is too long.
    pub fn time_limit(&self) -> Result<Duration, FieldError> {
        let Some(text) = &self.timeout else {
            return Ok(Duration::from_secs(if self.background { 900 } else { 300 }));
        };
        let parsed = text.parse::<SignedDuration>().ok().filter(|d| d.is_positive() && *d <= LONGEST_ACTION);
        let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
        parsed.ok_or_else(|| wrong("timeout", text, "a length of time up to 24 hours, such as 90s, 15m or 1h30m"))
    }

    fn validate(&self, errors: &mut Vec<FieldError>, field: &str, may_hold: bool) {
        if self.value.trim().is_empty() || self.value.len() > LONGEST_VALUE {
            let allowed = format!("a command of at most {LONGEST_VALUE} bytes");
            errors.push(wrong(format!("{field}.value"), self.value.chars().take(40).collect::<String>(), &allowed));
        }
        if self.background && !may_hold {
            let allowed = "false here: only what runs before a backup has something to wait for";
            errors.push(wrong(format!("{field}.background"), "true", allowed));
        }
        if !self.background && self.value.contains(WAIT_COMMAND) {
            let allowed = format!("a command without {WAIT_COMMAND}, or background: true");
            errors.push(wrong(format!("{field}.value"), WAIT_COMMAND, &allowed));
        }
        if let Err(error) = self.time_limit() {
            errors.push(FieldError { field: format!("{field}.timeout"), ..error });
        }
        if self.retries > MOST_RETRIES {
            errors.push(wrong(format!("{field}.retries"), self.retries.to_string(), "0 to 20"));
        }
    }
}

impl RuleSpec {
    /// What is wrong with the spec; empty when nothing is. Only a rule that runs before the data is taken may hold something until it is.
    #[must_use]
    pub fn validate(&self, may_hold: bool) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.rules.is_empty() {
            errors.push(wrong("spec.rules", "[]", "at least one"));
        }
        for (i, PodRule { pod_selector, container, actions }) in self.rules.iter().enumerate() {
            let field = format!("spec.rules[{i}]");
            if pod_selector.is_empty() {
                errors.push(wrong(format!("{field}.podSelector"), "{}", "at least one label"));
            }
            selectors(&mut errors, &format!("{field}.podSelector"), pod_selector);
            if let Some(container) = container {
                label(&mut errors, format!("{field}.container"), container);
            }
            if actions.is_empty() {
                errors.push(wrong(format!("{field}.actions"), "[]", "at least one"));
            }
            for (k, action) in actions.iter().enumerate() {
                action.validate(&mut errors, &format!("{field}.actions[{k}]"), may_hold);
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(change: impl FnOnce(&mut PodRule)) -> RuleSpec {
        let action = RuleAction { value: "sync".into(), ..RuleAction::default() };
        let selector = [("app".to_owned(), "shop".to_owned())].into();
        let mut rule = PodRule { pod_selector: selector, container: None, actions: vec![action] };
        change(&mut rule);
        RuleSpec { rules: vec![rule], ..RuleSpec::default() }
    }

    #[test]
    fn each_wrong_field_of_a_rule_is_named() {
        let check = |before: bool, spec: RuleSpec, expected: &[&str]| {
            let wrong = spec.validate(before);
            let fields: Vec<&str> = wrong.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, expected, "{spec:?}");
        };
        let hold = |rule: &mut PodRule| {
            rule.actions[0].background = true;
            rule.actions[0].value = format!("lock; {WAIT_COMMAND}");
        };
        check(true, rule(|_| ()), &[]);
        check(false, rule(|_| ()), &[]);
        check(true, rule(hold), &[]);
        check(false, rule(hold), &["spec.rules[0].actions[0].background"]);
        check(true, RuleSpec::default(), &["spec.rules"]);
        check(true, rule(|r| r.pod_selector.clear()), &["spec.rules[0].podSelector"]);
        check(true, rule(|r| r.container = Some("no name".into())), &["spec.rules[0].container"]);
        check(true, rule(|r| r.actions.clear()), &["spec.rules[0].actions"]);
        check(true, rule(|r| r.actions[0].value = " ".into()), &["spec.rules[0].actions[0].value"]);
        check(true, rule(|r| r.actions[0].value = WAIT_COMMAND.into()), &["spec.rules[0].actions[0].value"]);
        check(true, rule(|r| r.actions[0].timeout = Some("soon".into())), &["spec.rules[0].actions[0].timeout"]);
        check(true, rule(|r| r.actions[0].retries = 21), &["spec.rules[0].actions[0].retries"]);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let check = |text: Option<&str>, background: bool, seconds: Option<u64>| {
            let timeout = text.map(Into::into);
            let action = RuleAction { timeout, background, ..RuleAction::default() };
            assert_eq!(action.time_limit().ok().map(|d| d.as_secs()), seconds, "{text:?}");
        };
        check(None, false, Some(300));
        check(None, true, Some(900));
        check(Some("90s"), true, Some(90));
        check(Some("1h30m"), false, Some(5400));
        check(Some("24h"), false, Some(86_400));
        for wrong in ["", "25h", "0s", "-1s", "10", "10 apples"] {
            check(Some(wrong), false, None);
        }
    }
}
