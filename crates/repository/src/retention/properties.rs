//! What holds of every policy and every history. proptest tells how to replay a case that fails.

use super::cases::{europe, policy};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Some years around two changes of the clocks and two ends of a year, in seconds.
const SPAN: std::ops::Range<i64> = 1_700_000_000..1_780_000_000;

fn a_point() -> impl Strategy<Value = (i64, u8, u8, bool, bool)> {
    // Steps of ten minutes, half of them within two days, so that hours and days are shared often.
    let instant = prop_oneof![SPAN, 1_774_600_000..1_774_800_000i64].prop_map(|second| second / 600 * 600);
    (instant, 0..3u8, 0..4u8, proptest::bool::weighted(0.1), proptest::bool::weighted(0.7))
}

fn a_history() -> impl Strategy<Value = Vec<Known>> {
    proptest::collection::vec(a_point(), 0..60).prop_map(|points| {
        let known = |(index, (second, group, tag, pinned, complete)): (usize, _)| Known {
            id: format!("p{index}").parse().unwrap(),
            created: Timestamp::from_second(second).unwrap(),
            group: Group { host: Some(format!("h{group}")), ..Group::default() },
            tags: Tags::new((tag == 0).then(|| "keep".parse().unwrap())).unwrap(),
            pinned,
            complete,
        };
        points.into_iter().enumerate().map(known).collect()
    })
}

/// Rules with the number that each has.
fn some_rules() -> impl Strategy<Value = Vec<(&'static str, u32)>> {
    let rule =
        prop_oneof![Just("last"), Just("hourly"), Just("daily"), Just("weekly"), Just("monthly"), Just("yearly")];
    proptest::collection::btree_map(rule, 1..9u32, 1..4).prop_map(|rules| rules.into_iter().collect())
}

fn a_policy() -> impl Strategy<Value = (Vec<(&'static str, u32)>, Option<u32>, bool)> {
    (some_rules(), proptest::option::of(1..900u32), any::<bool>())
}

fn made((rules, days, tag): &(Vec<(&'static str, u32)>, Option<u32>, bool), more: u32) -> Policy {
    let mut texts: Vec<_> = rules.iter().map(|(name, count)| format!("{name} {}", count + more)).collect();
    texts.extend(days.map(|days| format!("within {}d", days + more)));
    texts.extend(tag.then(|| "tag keep".to_owned()));
    policy(&texts.join(", "))
}

fn now() -> Timestamp {
    Timestamp::from_second(SPAN.end).unwrap()
}

fn kept(policy: &Policy, points: &[Known]) -> BTreeSet<PointId> {
    let decisions = decide(policy, points.to_vec(), now(), &europe());
    assert_eq!(decisions.len(), points.len());
    decisions.into_iter().filter(Decision::is_kept).map(|decision| decision.point.id).collect()
}

proptest! {
    #[test]
    fn the_newest_complete_of_a_group_and_what_is_pinned_are_never_forgotten(
        points in a_history(),
        rules in a_policy(),
    ) {
        let kept = kept(&made(&rules, 0), &points);
        for point in &points {
            let same = || points.iter().filter(|other| other.group == point.group);
            let newest = |of: &mut dyn Iterator<Item = &Known>| of.map(|p| (p.created, p.id.clone())).max().map(|p| p.1);
            let newest_complete = newest(&mut same().filter(|other| other.complete));
            if point.pinned || newest_complete.as_ref() == Some(&point.id) || newest(&mut same()).as_ref() == Some(&point.id) {
                prop_assert!(kept.contains(&point.id), "{point:?}");
            }
        }
    }

    #[test]
    fn larger_numbers_keep_no_less(points in a_history(), rules in a_policy(), more in 0..5u32) {
        let (fewer, larger) = (kept(&made(&rules, 0), &points), kept(&made(&rules, more), &points));
        prop_assert!(fewer.is_subset(&larger), "{fewer:?} {larger:?}");
    }

    #[test]
    fn more_rules_keep_no_less(points in a_history(), rules in a_policy(), others in some_rules()) {
        let mut all = rules.clone();
        all.0.extend(others.into_iter().filter(|(name, _)| rules.0.iter().all(|(known, _)| known != name)));
        prop_assert!(kept(&made(&rules, 0), &points).is_subset(&kept(&made(&all, 0), &points)));
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(
        (points, shuffled) in a_history().prop_flat_map(|points| (Just(points.clone()), Just(points).prop_shuffle())),
        rules in a_policy(),
    ) {
        let policy = made(&rules, 0);
        prop_assert_eq!(decide(&policy, points, now(), &europe()), decide(&policy, shuffled, now(), &europe()));
    }

    #[test]
    fn deciding_again_about_what_is_left_forgets_nothing_more(points in a_history(), rules in a_policy()) {
        let policy = made(&rules, 0);
        let first = kept(&policy, &points);
        let left: Vec<_> = points.into_iter().filter(|point| first.contains(&point.id)).collect();
        prop_assert_eq!(kept(&policy, &left), first);
    }

    /// For each rule alone: an incomplete point gets a place only when no complete one could have used it.
    #[test]
    fn an_incomplete_point_never_takes_the_place_of_a_complete_one(points in a_history(), rules in some_rules()) {
        for (name, count) in rules {
            let policy = policy(&format!("{name} {count}"));
            let complete: Vec<_> = points.iter().filter(|point| point.complete).cloned().collect();
            let with = kept(&policy, &points);
            for id in kept(&policy, &complete) {
                prop_assert!(with.contains(&id), "{name} {count}: {id}");
            }
        }
    }

    /// No rule keeps more than its number, apart from what is kept whatever the rules say.
    #[test]
    fn no_rule_keeps_more_than_its_number(points in a_history(), rules in some_rules()) {
        for (name, count) in rules {
            let decisions = decide(&policy(&format!("{name} {count}")), points.clone(), now(), &europe());
            let mut by_group = BTreeMap::<_, u32>::new();
            for decision in decisions {
                let by_rule = |reason: &&Reason| matches!(reason, Reason::Last { .. } | Reason::Every { .. });
                if decision.reasons.iter().any(|reason| by_rule(&reason)) {
                    *by_group.entry(decision.point.group).or_default() += 1;
                }
            }
            prop_assert!(by_group.values().all(|kept| *kept <= count), "{name} {count}: {by_group:?}");
        }
    }
}
