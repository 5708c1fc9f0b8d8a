//! What became of the objects that a run makes, in figures and in words for people.

use std::fmt::Display;

use api::{Missed, ObjectOutcomes};
use application::{Applied, Loss, ObjectKey, ReplacePolicy, Rule};

use crate::conditions::shorten;
use crate::config::Limits;

/// What a run does with objects that exist.
pub(crate) fn policy(policy: api::ReplacePolicy) -> ReplacePolicy {
    match policy {
        api::ReplacePolicy::Retain => ReplacePolicy::Retain,
        api::ReplacePolicy::Delete => ReplacePolicy::Delete,
        api::ReplacePolicy::Update => ReplacePolicy::Update,
    }
}

/// Counts. Every object that is wanted is counted once.
pub(crate) struct Tally {
    /// The figures, with the first of what people have to know.
    pub(crate) outcomes: ObjectOutcomes,
    /// A failure that may pass.
    pub(crate) passing: Option<String>,
    most_items: usize,
    reason_chars: usize,
}

impl Tally {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            outcomes: ObjectOutcomes::default(),
            passing: None,
            most_items: limits.missed_items,
            reason_chars: limits.reason_chars,
        }
    }

    /// Notes who else writes an object that was made.
    pub(crate) fn note_manager(&mut self, manager: Option<String>) {
        let known = &mut self.outcomes.managed_by;
        if let Some(manager) = manager.filter(|manager| !known.contains(manager))
            && known.len() < self.most_items
        {
            known.push(manager);
            known.sort();
        }
    }

    /// Counts an object that a rule leaves out.
    pub(crate) fn skip(&mut self, key: &ObjectKey, rule: Rule) {
        self.outcomes.wanted += 1;
        self.outcomes.skipped += 1;
        self.note(key, &format!("not made ({}): {}", rule.name(), rule.why()));
    }

    /// Counts an object that was to be made.
    pub(crate) fn count(&mut self, key: &ObjectKey, outcome: Applied, loss: Option<Loss>) {
        self.outcomes.wanted += 1;
        if let (Applied::Created | Applied::Replaced | Applied::Reduced { .. }, Some(loss)) = (&outcome, loss) {
            let rule = format!("({}): {}", loss.rule.name(), loss.rule.why());
            self.note(key, &format!("made without its conversion, and served in its stored version only {rule}"));
        }
        match outcome {
            Applied::Created => self.outcomes.created += 1,
            Applied::Updated => self.outcomes.updated += 1,
            Applied::Replaced => self.outcomes.replaced += 1,
            Applied::Reduced { replaced, fields } => {
                let count = if replaced { &mut self.outcomes.replaced } else { &mut self.outcomes.created };
                *count += 1;
                self.note(key, &format!("made without fields that this cluster does not know: {}", fields.join(", ")));
            }
            Applied::Kept { why } => {
                tracing::debug!(object = %key, why, "kept");
                self.outcomes.kept += 1;
            }
            Applied::Failed { reason, retryable } => self.fail(key, &reason, retryable),
        }
    }

    /// Notes something for people.
    pub(crate) fn note(&mut self, what: impl Display, why: &str) {
        if self.outcomes.notes.len() < self.most_items {
            let reason = shorten(why, self.reason_chars);
            self.outcomes.notes.push(Missed { item: what.to_string(), reason });
        }
    }

    fn fail(&mut self, key: &ObjectKey, reason: &str, retryable: bool) {
        self.outcomes.failed += 1;
        if retryable {
            self.passing.get_or_insert_with(|| format!("{key}: {reason}"));
        }
        if self.outcomes.failed_items.len() < self.most_items {
            let reason = shorten(reason, self.reason_chars);
            self.outcomes.failed_items.push(Missed { item: key.to_string(), reason });
        }
    }
}
