//! In what two plans differ, for people. Pure.

use std::collections::BTreeMap;

use api::{GitOpsHold, ObjectPlan, RestorePlan, VolumePlan};

/// Differences that are named; the plan of now is in the status as a whole.
const MOST_NAMED: usize = 5;

/// Why what would be done now is not the plan with that hash, which is `then`, if somebody still has it.
pub(super) fn differences(hash: &str, then: Option<&RestorePlan>, now: &RestorePlan) -> String {
    let what = match then {
        None => {
            "no restore of this namespace has that plan any more, so it is not known in what they differ".to_owned()
        }
        Some(then) => named(then, now),
    };
    format!(
        "something else would be done now than by the plan {hash}: {what}; status.plan has what would be done now, under the hash {}",
        now.hash
    )
}

fn named(then: &RestorePlan, now: &RestorePlan) -> String {
    let (before, after) = (parts(then), parts(now));
    let names = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
    let differ = |name: &&&String| before.get(**name) != after.get(**name);
    let mut lines: Vec<String> = names
        .iter()
        .filter(differ)
        .map(|name| match (before.get(*name), after.get(*name)) {
            (Some((was, _)), Some((is, _))) if was != is => format!("{name} ({is}, it was {was})"),
            (_, Some((is, _))) if before.contains_key(*name) => format!("{name} ({is}, with other changes)"),
            (_, Some((is, _))) => format!("{name} ({is}, it was not in the plan)"),
            (_, None) => format!("{name} (it was in the plan)"),
        })
        .collect();
    if lines.is_empty() {
        return "in what they do not list, such as the content of Secrets, rules, transformations, or objects beyond the first ones"
            .into();
    }
    let more = lines.len().saturating_sub(MOST_NAMED);
    lines.truncate(MOST_NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", lines.join(", "))
}

type Parts = BTreeMap<String, (String, String)>;

/// What becomes of each thing, and the details of that.
fn parts(plan: &RestorePlan) -> Parts {
    let object = |one: &ObjectPlan| {
        (
            one.item.clone(),
            (
                format!("{:?}", one.action),
                format!("{:?} {} {:?} {}", one.changes, one.unlisted_changes, one.transformed, one.restores_status),
            ),
        )
    };
    let volume = |one: &VolumePlan| {
        let name = format!("the volume {}/{}", one.namespace, one.claim);
        (name, (format!("{:?}", one.action), format!("{} {} {:?}", one.files, one.bytes, one.transformed)))
    };
    let hold = |one: &GitOpsHold| {
        let name = format!("the hold of {} {}/{}", one.kind, one.namespace, one.name);
        (name, (format!("{:?}", one.state), String::new()))
    };
    let things = plan.items.iter().map(object).chain(plan.volumes.iter().map(volume));
    things.chain(plan.holds.iter().map(hold)).collect()
}

#[cfg(test)]
mod tests {
    use api::{HoldState, PlanCounts, PlannedAction, PlannedChange};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn plan(items: &[(&str, PlannedAction, &str)]) -> RestorePlan {
        let item = |(name, action, to): &(&str, PlannedAction, &str)| ObjectPlan {
            item: (*name).to_owned(),
            action: *action,
            reason: None,
            changes: vec![PlannedChange { path: "/a".into(), from: None, to: Some((*to).to_owned()) }],
            unlisted_changes: 0,
            transformed: Vec::new(),
            unlisted_transformed: 0,
            restores_status: false,
            managed_by: None,
        };
        RestorePlan {
            hash: "now".into(),
            made_at: Time(Timestamp::UNIX_EPOCH),
            objects: PlanCounts::default(),
            items: items.iter().map(item).collect(),
            unlisted: 0,
            volumes: Vec::new(),
            files: 0,
            bytes: 0,
            estimated_seconds: None,
            managed_by: Vec::new(),
            holds: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_differs_is_named() {
        use PlannedAction::{Create, Update};
        let then = plan(&[("a", Create, "1"), ("b", Update, "1"), ("c", Create, "1"), ("d", Create, "1")]);
        let now = plan(&[("a", Update, "1"), ("b", Update, "2"), ("d", Create, "1"), ("e", Create, "1")]);
        let said = differences("old", Some(&then), &now);
        let parts = [
            "a (Update, it was Create)",
            "b (Update, with other changes)",
            "c (it was in the plan)",
            "e (Create, it was not in the plan)",
        ];
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("d (") && said.contains("plan old") && said.contains("hash now"), "{said}");
        let hold = |name: &str, state| GitOpsHold {
            kind: "HelmRelease".into(),
            namespace: "t".into(),
            name: name.into(),
            state,
        };
        let (mut before, mut after) = (plan(&[]), plan(&[]));
        before.holds = vec![hold("a", HoldState::Held), hold("b", HoldState::Held), hold("c", HoldState::Held)];
        after.holds = vec![hold("a", HoldState::WasSuspended), hold("b", HoldState::Held)];
        let holds = differences("old", Some(&before), &after);
        assert!(holds.contains("the hold of HelmRelease t/a (WasSuspended, it was Held)"), "{holds}");
        assert!(
            holds.contains("the hold of HelmRelease t/c (it was in the plan)") && !holds.contains("t/b"),
            "{holds}"
        );
        assert!(differences("old", None, &now).contains("not known"));
        assert!(differences("old", Some(&now), &now).contains("do not list"));
    }
}
