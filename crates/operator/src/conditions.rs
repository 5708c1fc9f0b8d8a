//! Conditions and stages in the statuses of all kinds.

use api::Timed;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// `BackupLocation`: it can be used.
pub const READY: &str = "Ready";
/// Runs: everything that was wanted is there.
pub const COMPLETE: &str = "Complete";
/// Runs: something outside of the run keeps it from going on; since when is the time of the condition's last change, and after
/// `location_patience` of it the run fails. Kept in the status so that a new operator goes on counting.
pub const BLOCKED: &str = "Blocked";
/// Runs that are deleted: what they stand for outside of the cluster is gone.
pub const RELEASED: &str = "Released";

/// The three answers of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It is not known yet.
    Unknown,
}

impl Answer {
    fn text(self) -> &'static str {
        match self {
            Self::Yes => "True",
            Self::No => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a condition is to say.
#[derive(Clone, Debug)]
pub struct Says {
    /// Its type: one of the constants of this module.
    pub type_: &'static str,
    /// Whether it holds.
    pub answer: Answer,
    /// One word in CamelCase, for programs.
    pub reason: String,
    /// A sentence, for people.
    pub message: String,
}

/// Sets one condition. The time of its last change moves only when its answer does, as the convention wants.
pub fn set(conditions: &mut Vec<Condition>, says: Says, generation: Option<i64>, now: Timestamp) {
    let status = says.answer.text();
    let unchanged = conditions.iter().find(|c| c.type_ == says.type_ && c.status == status);
    let condition = Condition {
        last_transition_time: unchanged.map_or(Time(now), |c| c.last_transition_time.clone()),
        message: says.message,
        observed_generation: generation,
        reason: says.reason,
        status: status.to_owned(),
        type_: says.type_.to_owned(),
    };
    match conditions.iter_mut().find(|c| c.type_ == says.type_) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// Sets one condition, unless it says the same already: the answer and the word. For messages with parts that differ each time, such as
/// how long somebody has waited: what is written wakes who wrote it, so new words for the same thing would be written for ever, and at
/// once.
pub fn set_once(conditions: &mut Vec<Condition>, says: Says, generation: Option<i64>, now: Timestamp) {
    let same = |c: &Condition| {
        let condition = (c.type_.as_str(), c.status.as_str(), c.reason.as_str(), c.observed_generation);
        condition == (says.type_, says.answer.text(), says.reason.as_str(), generation)
    };
    if !conditions.iter().any(same) {
        set(conditions, says, generation, now);
    }
}

/// What a condition says for people.
#[must_use]
pub fn said<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a str> {
    conditions.iter().find(|c| c.type_ == type_).map(|c| c.message.as_str())
}

/// Since when a condition says yes.
#[must_use]
pub fn yes_since(conditions: &[Condition], type_: &str) -> Option<Timestamp> {
    let yes = conditions.iter().find(|c| c.type_ == type_ && c.status == Answer::Yes.text())?;
    Some(yes.last_transition_time.0)
}

/// Notes that a stage begins: the one before ends at the same instant. Entering the stage that is open already changes nothing.
pub fn enter_stage(stages: &mut Vec<Timed>, stage: &str, now: Timestamp) {
    if stages.last().is_some_and(|s| s.stage == stage && s.finished_at.is_none()) {
        return;
    }
    end_stages(stages, now);
    stages.push(Timed { stage: stage.to_owned(), started_at: Time(now), finished_at: None });
}

/// Notes that no stage is open any more.
pub fn end_stages(stages: &mut [Timed], now: Timestamp) {
    for open in stages.iter_mut().filter(|s| s.finished_at.is_none()) {
        open.finished_at = Some(Time(now));
    }
}

/// `text`, cut to `chars` characters with a sign that it was.
#[must_use]
pub fn shorten(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
    }

    fn says(answer: Answer, message: &str) -> Says {
        Says { type_: READY, answer, reason: "Probed".into(), message: message.into() }
    }

    #[test]
    fn the_transition_time_moves_with_the_answer_only() {
        let mut conditions = Vec::new();
        set(&mut conditions, says(Answer::No, "a"), Some(1), at(1));
        set(&mut conditions, says(Answer::No, "b"), Some(2), at(2));
        assert_eq!((conditions[0].last_transition_time.0, conditions[0].message.as_str()), (at(1), "b"));
        assert_eq!(conditions[0].observed_generation, Some(2));
        set(&mut conditions, says(Answer::Yes, "c"), Some(2), at(3));
        assert_eq!((conditions.len(), conditions[0].last_transition_time.0), (1, at(3)));
    }

    #[test]
    fn other_words_for_the_same_are_not_written() {
        let mut conditions = Vec::new();
        set_once(&mut conditions, says(Answer::No, "after 1.2 s"), Some(1), at(1));
        let before = conditions.clone();
        set_once(&mut conditions, says(Answer::No, "after 2.1 s"), Some(1), at(2));
        assert_eq!(conditions, before);
        set_once(&mut conditions, Says { reason: "Lost".into(), ..says(Answer::No, "gone") }, Some(1), at(3));
        assert_eq!((said(&conditions, READY), conditions[0].last_transition_time.0), (Some("gone"), at(1)));
        set_once(&mut conditions, says(Answer::Yes, "there"), Some(1), at(4));
        assert_eq!((said(&conditions, READY), conditions[0].last_transition_time.0), (Some("there"), at(4)));
    }

    #[test]
    fn stages_follow_each_other_without_gaps() {
        let mut stages = Vec::new();
        enter_stage(&mut stages, "Preparing", at(1));
        enter_stage(&mut stages, "Preparing", at(2));
        enter_stage(&mut stages, "Volumes", at(3));
        end_stages(&mut stages, at(5));
        end_stages(&mut stages, at(6));
        let times: Vec<_> =
            stages.iter().map(|s| (s.stage.as_str(), s.started_at.0, s.finished_at.as_ref().map(|t| t.0))).collect();
        assert_eq!(times, [("Preparing", at(1), Some(at(3))), ("Volumes", at(3), Some(at(5)))]);
    }

    #[test]
    fn a_long_reason_is_cut_and_says_so() {
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten("äbcd", 3), "äb…");
    }
}
