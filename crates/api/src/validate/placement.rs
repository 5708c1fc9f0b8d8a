//! Rules about where replicas are.

use super::{FieldError, wrong};
use crate::placement_strategy::{LabelExpression, LabelOperator, PlacementEnforcement, PlacementStrategySpec};

impl PlacementStrategySpec {
    /// Everything that is wrong with it.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (name, rules) in
            [("replicaAffinity", &self.replica_affinity), ("replicaAntiAffinity", &self.replica_anti_affinity)]
        {
            for (i, rule) in rules.iter().enumerate() {
                let field = format!("spec.{name}[{i}]");
                strength(&mut errors, &field, rule.enforcement, rule.weight, rule.affected_replicas);
                topology(&mut errors, &field, rule.topology_key.as_deref());
                expressions(&mut errors, &field, &rule.match_expressions);
                if rule.topology_key.is_some() != rule.match_expressions.is_empty() {
                    let found = if rule.topology_key.is_some() { "both" } else { "neither" };
                    errors.push(wrong(field, found, "either topologyKey or matchExpressions"));
                }
            }
        }
        for (name, rules) in
            [("volumeAffinity", &self.volume_affinity), ("volumeAntiAffinity", &self.volume_anti_affinity)]
        {
            for (i, rule) in rules.iter().enumerate() {
                let field = format!("spec.{name}[{i}]");
                strength(&mut errors, &field, rule.enforcement, rule.weight, rule.affected_replicas);
                topology(&mut errors, &field, rule.topology_key.as_deref());
                expressions(&mut errors, &field, &rule.match_expressions);
                if rule.match_expressions.is_empty() {
                    errors.push(wrong(
                        format!("{field}.matchExpressions"),
                        "[]",
                        "at least one, which says what volumes the rule is about",
                    ));
                }
            }
        }
        errors
    }
}

fn strength(
    errors: &mut Vec<FieldError>,
    field: &str,
    enforcement: PlacementEnforcement,
    weight: Option<u32>,
    affected: Option<u32>,
) {
    match (enforcement, weight) {
        (PlacementEnforcement::Required, Some(weight)) => {
            errors.push(wrong(
                format!("{field}.weight"),
                weight.to_string(),
                "nothing, unless enforcement is Preferred",
            ));
        }
        (PlacementEnforcement::Preferred, Some(weight)) if !(1..=100).contains(&weight) => {
            errors.push(wrong(format!("{field}.weight"), weight.to_string(), "1 to 100"));
        }
        _ => {}
    }
    if let Some(affected) = affected.filter(|affected| !(1..=3).contains(affected)) {
        errors.push(wrong(format!("{field}.affectedReplicas"), affected.to_string(), "1 to 3"));
    }
}

fn topology(errors: &mut Vec<FieldError>, field: &str, key: Option<&str>) {
    if key == Some("") {
        errors.push(wrong(format!("{field}.topologyKey"), "", "a label of nodes, such as topology.kubernetes.io/zone"));
    }
}

fn expressions(errors: &mut Vec<FieldError>, field: &str, expressions: &[LabelExpression]) {
    for (i, LabelExpression { key, operator, values }) in expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        if key.is_empty() {
            errors.push(wrong(format!("{field}.key"), "", "a label"));
        }
        let is_number = |value: &String| value.parse::<i64>().is_ok();
        let allowed = match operator {
            LabelOperator::In | LabelOperator::NotIn if values.is_empty() => "at least one value",
            LabelOperator::Exists | LabelOperator::DoesNotExist if !values.is_empty() => "no values",
            LabelOperator::Lt | LabelOperator::Gt if values.len() != 1 || !values.iter().all(is_number) => {
                "one whole number"
            }
            _ => continue,
        };
        errors.push(wrong(format!("{field}.values"), format!("{values:?}"), allowed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(spec: Value) -> Vec<String> {
        let spec: PlacementStrategySpec = serde_json::from_value(spec).unwrap();
        spec.validate().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_that_mean_something_are_right() {
        let good = json!({
            "replicaAffinity": [{"enforcement": "Preferred", "weight": 5, "affectedReplicas": 1,
                "matchExpressions": [{"key": "media", "operator": "In", "values": ["ssd", "nvme"]}, {"key": "speed", "operator": "Gt", "values": ["6"]}]}],
            "replicaAntiAffinity": [{"topologyKey": "topology.kubernetes.io/zone"}],
            "volumeAntiAffinity": [{"matchExpressions": [{"key": "app", "operator": "Exists"}]}],
        });
        assert_eq!(found(good), Vec::<String>::new());
    }

    #[test]
    fn what_means_nothing_is_named() {
        let one = |rule: Value, said: &str| {
            let all = found(json!({"replicaAffinity": [rule]}));
            assert!(all.len() == 1 && all[0].contains(said), "{said:?} in {all:?}");
        };
        one(json!({}), "spec.replicaAffinity[0]: \"neither\"");
        one(json!({"topologyKey": "zone", "matchExpressions": [{"key": "a", "operator": "Exists"}]}), "\"both\"");
        one(json!({"topologyKey": ""}), "topologyKey");
        one(json!({"topologyKey": "zone", "weight": 3}), "weight");
        one(json!({"topologyKey": "zone", "enforcement": "Preferred", "weight": 101}), "1 to 100");
        one(json!({"topologyKey": "zone", "affectedReplicas": 4}), "1 to 3");
        let asks = |expression: Value, said: &str| one(json!({"matchExpressions": [expression]}), said);
        asks(json!({"key": "", "operator": "Exists"}), "matchExpressions[0].key");
        asks(json!({"key": "a", "operator": "In"}), "at least one value");
        asks(json!({"key": "a", "operator": "Exists", "values": ["b"]}), "no values");
        asks(json!({"key": "a", "operator": "Lt", "values": ["b"]}), "one whole number");
        let volumes = found(json!({"volumeAffinity": [{"matchExpressions": []}]}));
        assert!(volumes.len() == 1 && volumes[0].contains("what volumes"), "{volumes:?}");
    }
}
