//! What a plan says, and its hash. Pure.
//!
//! Invariant: the hash is over everything that would be done, and not only over what is listed. Values of Secrets are neither shown nor hashed: what is there
//! is told apart by its version, and what would be made follows from the recovery point.

use std::collections::BTreeSet;

use api::{ObjectPlan, PlanCounts, PlannedAction, PlannedChange, RestorePlan, VolumePlan};
use application::{Change, Foreseen, ObjectKey, Will, canonical};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::conditions::shorten;
use crate::config::PlanLimits;

/// What stands for a value that is not shown.
const HIDDEN: &str = "(not shown)";
/// Why an object stays that would be changed to what it is.
const SAME: &str = "it is as the recovery point has it";
/// Part of the hash, so that a plan of another make is another plan.
const VERSION: &[u8] = b"orlop.io/v1alpha1 restore plan 1";

/// An object that would be made.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) object: &'a Value,
    /// What transformations changed in it.
    pub(super) transformed: &'a [Change],
    /// The status that would be written back.
    pub(super) status: Option<&'a Value>,
}

/// A plan that is being made.
pub(super) struct Tally<'a> {
    limits: &'a PlanLimits,
    reason_chars: usize,
    hasher: blake3::Hasher,
    counts: PlanCounts,
    items: Vec<ObjectPlan>,
    volumes: Vec<VolumePlan>,
    managed_by: BTreeSet<String>,
}

impl<'a> Tally<'a> {
    /// Begins a plan. `terms` is what decides beside objects and volumes what is done.
    pub(super) fn new(limits: &'a PlanLimits, reason_chars: usize, terms: &Value) -> Self {
        let mut new = Self {
            limits,
            reason_chars,
            hasher: blake3::Hasher::new(),
            counts: PlanCounts::default(),
            items: Vec::new(),
            volumes: Vec::new(),
            managed_by: BTreeSet::new(),
        };
        new.hash(VERSION);
        new.hash(&canonical::to_bytes(terms));
        new
    }

    /// Each part with its length before it, so that no two lists of parts are the same bytes.
    fn hash(&mut self, part: &[u8]) {
        self.hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.hasher.update(part);
    }

    fn hash_value(&mut self, value: Option<&Value>) {
        self.hash(&value.map(canonical::to_bytes).unwrap_or_default());
    }

    /// An object, and what would become of it.
    pub(super) fn object(&mut self, candidate: &Candidate<'_>, foreseen: Foreseen) {
        let Candidate { key, object, transformed, status } = *candidate;
        let is_secret = key.is("", "Secret");
        let (action, reason, changes) = match foreseen.will {
            Will::Create => (PlannedAction::Create, None, Vec::new()),
            Will::CreateAfterEnd => {
                let reason = "one is there and is being deleted: it is waited until that is gone";
                (PlannedAction::Create, Some(reason.to_owned()), Vec::new())
            }
            Will::Update(changes) if changes.is_empty() => (PlannedAction::Keep, Some(SAME.to_owned()), changes),
            Will::Update(changes) => (PlannedAction::Update, None, changes),
            Will::Replace(changes) => (PlannedAction::Replace, None, changes),
            Will::Keep(why) => (PlannedAction::Keep, Some(why), Vec::new()),
            Will::Conflict(why) => (PlannedAction::Conflict, Some(why), Vec::new()),
        };
        self.hash(&key.encode());
        self.hash(format!("{action:?}").as_bytes());
        let is_made = matches!(action, PlannedAction::Create | PlannedAction::Update | PlannedAction::Replace);
        if is_made && is_secret {
            self.hash(foreseen.version.unwrap_or_default().as_bytes());
        } else if is_made {
            self.hash_value(Some(object));
        }
        let is_new = matches!(action, PlannedAction::Create | PlannedAction::Replace);
        let status = status.filter(|status| is_new && !status.is_null());
        if let Some(status) = status {
            self.hash_value(Some(status));
        }
        for change in &changes {
            self.hash(change.path.as_bytes());
            if !is_secret {
                self.hash_value(change.from.as_ref());
                self.hash_value(change.to.as_ref());
            }
        }
        let managed_by = foreseen.managed_by.filter(|_| is_made);
        self.managed_by.extend(managed_by.clone());
        self.list(ObjectPlan {
            item: key.to_string(),
            action,
            reason: reason.map(|reason| shorten(&reason, self.reason_chars)),
            changes: changes.iter().map(|change| self.shown(change, is_secret)).collect(),
            unlisted_changes: 0,
            transformed: transformed.iter().map(|change| self.shown(change, is_secret)).collect(),
            unlisted_transformed: 0,
            restores_status: status.is_some(),
            managed_by,
        });
    }

    /// An object that is kept, or left out by a rule, whatever is there.
    pub(super) fn left(&mut self, key: &ObjectKey, action: PlannedAction, reason: &str) {
        self.hash(&key.encode());
        self.hash(format!("{action:?}").as_bytes());
        self.list(ObjectPlan {
            item: key.to_string(),
            action,
            reason: Some(shorten(reason, self.reason_chars)),
            changes: Vec::new(),
            unlisted_changes: 0,
            transformed: Vec::new(),
            unlisted_transformed: 0,
            restores_status: false,
            managed_by: None,
        });
    }

    /// Objects that are left alone without being looked at.
    pub(super) fn left_alone(&mut self, count: u64) {
        self.hash(&count.to_le_bytes());
        self.counts.keep += count;
    }

    /// A volume, the claim that would be made for it, and what transformations changed in that.
    pub(super) fn volume(&mut self, mut volume: VolumePlan, claim: &Value, transformed: &[Change]) {
        let shown = transformed.iter().take(self.limits.changes_of_one);
        volume.transformed = shown.map(|change| self.shown(change, false)).collect();
        self.hash(volume.namespace.as_bytes());
        self.hash(volume.claim.as_bytes());
        self.hash(format!("{:?}", volume.action).as_bytes());
        self.hash_value(Some(claim));
        self.volumes.push(volume);
    }

    fn shown(&self, change: &Change, is_secret: bool) -> PlannedChange {
        let show = |value: &Value| match is_secret {
            true => HIDDEN.to_owned(),
            false => shorten(&value.to_string(), self.limits.value_chars),
        };
        let path = shorten(&change.path, self.reason_chars);
        PlannedChange { path, from: change.from.as_ref().map(show), to: change.to.as_ref().map(show) }
    }

    fn list(&mut self, item: ObjectPlan) {
        let count = match item.action {
            PlannedAction::Create => &mut self.counts.create,
            PlannedAction::Update => &mut self.counts.update,
            PlannedAction::Replace => &mut self.counts.replace,
            PlannedAction::Keep => &mut self.counts.keep,
            PlannedAction::Skip => &mut self.counts.skip,
            PlannedAction::Conflict => &mut self.counts.conflict,
        };
        *count += 1;
        self.items.push(item);
    }

    /// The plan, cut to what a status may hold.
    pub(super) fn finish(mut self, now: Timestamp) -> RestorePlan {
        self.items.sort_by_key(|item| item.action);
        let unlisted = self.items.len().saturating_sub(self.limits.objects);
        self.items.truncate(self.limits.objects);
        let mut left = self.limits.changes;
        for item in &mut self.items {
            item.unlisted_changes = cut(&mut item.changes, self.limits.changes_of_one, &mut left);
            item.unlisted_transformed = cut(&mut item.transformed, self.limits.changes_of_one, &mut left);
        }
        let filled = |volume: &&VolumePlan| volume.action.fills();
        RestorePlan {
            hash: self.hasher.finalize().to_hex().to_string(),
            made_at: Time(now),
            objects: self.counts,
            unlisted: number(unlisted),
            items: self.items,
            files: self.volumes.iter().filter(filled).map(|volume| volume.files).sum(),
            bytes: self.volumes.iter().filter(filled).map(|volume| volume.bytes).sum(),
            volumes: self.volumes,
            estimated_seconds: None,
            managed_by: self.managed_by.into_iter().collect(),
            holds: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Leaves no more changes than that, and than are left of all; how many go.
fn cut(changes: &mut Vec<PlannedChange>, most: usize, left: &mut usize) -> u64 {
    let shown = changes.len().min(most).min(*left);
    *left -= shown;
    let gone = changes.len() - shown;
    changes.truncate(shown);
    number(gone)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(kind: &str, name: &str) -> ObjectKey {
        let namespace = Some("shop".to_owned());
        ObjectKey { group: String::new(), version: "v1".into(), kind: kind.into(), namespace, name: name.into() }
    }

    fn foreseen(will: Will) -> Foreseen {
        Foreseen { will, managed_by: None, version: Some("u/7".into()) }
    }

    fn bare<'a>(key: &'a ObjectKey, object: &'a Value) -> Candidate<'a> {
        Candidate { key, object, transformed: &[], status: None }
    }

    fn changed(from: Value, to: Value) -> Will {
        Will::Update(vec![Change { path: "/data/color".into(), from: Some(from), to: Some(to) }])
    }

    fn plan(fill: impl FnOnce(&mut Tally<'_>)) -> RestorePlan {
        let limits = PlanLimits { objects: 3, changes: 3, changes_of_one: 2, value_chars: 8 };
        let mut tally = Tally::new(&limits, 100, &json!({"point": "p"}));
        fill(&mut tally);
        tally.finish(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn whatever_would_be_done_otherwise_has_another_hash() {
        let map = key("ConfigMap", "a");
        let of = |will: Will, object: Value| plan(|tally| tally.object(&bare(&map, &object), foreseen(will))).hash;
        let create = of(Will::Create, json!({"data": 1}));
        assert_eq!(create, of(Will::Create, json!({"data": 1})));
        let others = [
            of(Will::Create, json!({"data": 2})),
            of(changed(json!("red"), json!("blue")), json!({"data": 1})),
            of(changed(json!("green"), json!("blue")), json!({"data": 1})),
            of(Will::Keep("there".into()), json!({"data": 1})),
            plan(|tally| tally.left_alone(1)).hash,
            plan(|_| ()).hash,
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(&create, other, "{i}");
            assert!(!others[..i].contains(other), "{i}");
        }
        // Why it stays, and what is in it, is all the same then.
        assert_eq!(of(Will::Keep("a".into()), json!(1)), of(Will::Keep("b".into()), json!(2)));
    }

    #[test]
    fn a_status_counts_where_it_would_be_written() {
        let widget = key("Widget", "a");
        let of = |will: Will, status: Option<&Value>| {
            let object = json!({});
            let candidate = Candidate { status, ..bare(&widget, &object) };
            plan(|tally| tally.object(&candidate, foreseen(will)))
        };
        let (none, some, other) = (json!(null), json!({"a": 1}), json!({"a": 2}));
        let with = of(Will::Create, Some(&some));
        assert!(with.items[0].restores_status);
        assert_ne!(with.hash, of(Will::Create, None).hash);
        assert_ne!(with.hash, of(Will::Create, Some(&other)).hash);
        assert_eq!(of(Will::Create, None).hash, of(Will::Create, Some(&none)).hash);
        let kept = || Will::Keep("there".into());
        assert_eq!(of(kept(), Some(&some)).hash, of(kept(), None).hash, "what stays keeps its own");
    }

    #[test]
    fn what_would_be_changed_to_what_it_is_stays() {
        let found =
            plan(|tally| tally.object(&bare(&key("ConfigMap", "a"), &json!({})), foreseen(Will::Update(Vec::new()))));
        assert_eq!((found.objects.keep, found.objects.update), (1, 0));
        assert_eq!(found.items[0].reason.as_deref(), Some(SAME));
    }

    #[test]
    fn values_of_secrets_are_in_no_plan() {
        let secret = key("Secret", "token");
        let with = |value: &str, version: &str| {
            let foreseen = Foreseen {
                version: Some(version.into()),
                ..foreseen(changed(json!(value), json!(format!("{value}-new"))))
            };
            plan(|tally| tally.object(&bare(&secret, &json!({"data": value})), foreseen))
        };
        let found = with("hunter2", "u/7");
        assert!(!serde_json::to_string(&found).expect("a plan is JSON").contains("hunter2"), "{found:?}");
        assert_eq!(found.items[0].changes[0].from.as_deref(), Some(HIDDEN));
        // Nobody can find them by trying what would have the same hash.
        assert_eq!(found.hash, with("another", "u/7").hash);
        assert_ne!(found.hash, with("hunter2", "u/8").hash);
    }

    #[test]
    fn what_would_change_comes_first_and_long_plans_are_cut() {
        let many = |count: usize| {
            let change = |n| Change { path: format!("/{n}"), from: None, to: Some(json!("a very long value")) };
            foreseen(Will::Update((0..count).map(change).collect()))
        };
        let found = plan(|tally| {
            tally.object(&bare(&key("ConfigMap", "a"), &json!({})), foreseen(Will::Keep("there".into())));
            tally.object(&bare(&key("ConfigMap", "b"), &json!({})), foreseen(Will::Create));
            tally.object(&bare(&key("ConfigMap", "c"), &json!({})), many(5));
            tally.object(&bare(&key("ConfigMap", "d"), &json!({})), many(2));
            tally.object(&bare(&key("ConfigMap", "e"), &json!({})), foreseen(Will::Conflict("no".into())));
        });
        let listed: Vec<_> = found.items.iter().map(|i| (i.action, i.changes.len(), i.unlisted_changes)).collect();
        use PlannedAction::{Conflict, Update};
        assert_eq!(listed, [(Conflict, 0, 0), (Update, 2, 3), (Update, 1, 1)]);
        let PlanCounts { create, update, replace, keep, skip, conflict } = found.objects;
        assert_eq!((create, update, replace, keep, skip, conflict, found.unlisted), (1, 2, 0, 1, 0, 1, 2));
        assert_eq!(found.items[1].changes[0].to.as_deref(), Some("\"a very…"));
    }
}
