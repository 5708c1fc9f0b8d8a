//! Placement strategies: as the cluster has them, and as `placement` wants them.

use api::{
    LabelExpression, LabelOperator, PlacementEnforcement, PlacementStrategy, PlacementStrategySpec,
    ReplicaPlacementRule, VolumePlacementRule,
};
use kube::runtime::reflector::{ObjectRef, Store};
use placement::{Enforcement, Expression, Operator, ReplicaRule, Scope, Strategy, VolumeRule};

/// The rules of a volume that names a strategy, or why there are none that can be kept.
pub(super) fn of(name: Option<&str>, known: &Store<PlacementStrategy>) -> Result<Strategy, String> {
    let Some(name) = name else { return Ok(Strategy::default()) };
    let found =
        known.get(&ObjectRef::new(name)).ok_or_else(|| format!("there is no PlacementStrategy {name}; make it"))?;
    let errors: Vec<String> = found.spec.validate().iter().map(ToString::to_string).collect();
    if !errors.is_empty() {
        return Err(format!("the PlacementStrategy {name} is wrong: {}", errors.join("; ")));
    }
    Ok(converted(&found.spec))
}

/// It has rules about other volumes.
pub(super) fn is_about_volumes(strategy: &Strategy) -> bool {
    !strategy.volume_affinity.is_empty() || !strategy.volume_anti_affinity.is_empty()
}

fn converted(spec: &PlacementStrategySpec) -> Strategy {
    let replicas = |rules: &[ReplicaPlacementRule]| rules.iter().map(replica_rule).collect();
    let volumes = |rules: &[VolumePlacementRule]| rules.iter().map(volume_rule).collect();
    Strategy {
        replica_affinity: replicas(&spec.replica_affinity),
        replica_anti_affinity: replicas(&spec.replica_anti_affinity),
        volume_affinity: volumes(&spec.volume_affinity),
        volume_anti_affinity: volumes(&spec.volume_anti_affinity),
    }
}

fn replica_rule(rule: &ReplicaPlacementRule) -> ReplicaRule {
    let scope = match &rule.topology_key {
        Some(key) => Scope::Topology(key.clone()),
        None => Scope::Match(expressions(&rule.match_expressions)),
    };
    ReplicaRule { enforcement: strength(rule.enforcement, rule.weight), affected: count(rule.affected_replicas), scope }
}

fn volume_rule(rule: &VolumePlacementRule) -> VolumeRule {
    VolumeRule {
        enforcement: strength(rule.enforcement, rule.weight),
        affected: count(rule.affected_replicas),
        volumes: expressions(&rule.match_expressions),
        topology_key: rule.topology_key.clone(),
    }
}

fn strength(enforcement: PlacementEnforcement, weight: Option<u32>) -> Enforcement {
    match enforcement {
        PlacementEnforcement::Required => Enforcement::Required,
        PlacementEnforcement::Preferred => Enforcement::Preferred { weight: weight.unwrap_or(1) },
    }
}

fn count(affected: Option<u32>) -> Option<usize> {
    affected.and_then(|affected| usize::try_from(affected).ok())
}

fn expressions(all: &[LabelExpression]) -> Vec<Expression> {
    let one = |LabelExpression { key, operator, values }: &LabelExpression| {
        // That there is one has been checked.
        let number = || values.first().and_then(|value| value.parse().ok()).unwrap_or_default();
        let operator = match operator {
            LabelOperator::In => Operator::In(values.clone()),
            LabelOperator::NotIn => Operator::NotIn(values.clone()),
            LabelOperator::Exists => Operator::Exists,
            LabelOperator::DoesNotExist => Operator::DoesNotExist,
            LabelOperator::Lt => Operator::Lt(number()),
            LabelOperator::Gt => Operator::Gt(number()),
        };
        Expression { key: key.clone(), operator }
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::{Value, json};

    fn known(specs: &[(&str, Value)]) -> Store<PlacementStrategy> {
        let (store, mut writer) = reflector::store();
        for (name, spec) in specs {
            let spec = serde_json::from_value(spec.clone()).unwrap();
            writer.apply_watcher_event(&Event::Apply(PlacementStrategy::new(name, spec)));
        }
        store
    }

    #[test]
    fn a_strategy_is_found_by_its_name_and_every_part_of_it_counts() {
        let rule = json!({"enforcement": "Preferred", "weight": 7, "affectedReplicas": 1,
            "matchExpressions": [{"key": "speed", "operator": "Gt", "values": ["6"]}]});
        let zone = json!({"topologyKey": "topology.kubernetes.io/zone"});
        let near =
            json!({"topologyKey": "rack", "matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]});
        let spec = json!({"replicaAffinity": [rule], "replicaAntiAffinity": [zone], "volumeAntiAffinity": [near]});
        let found = of(Some("fast"), &known(&[("fast", spec)])).unwrap();
        let expression = |key: &str, operator| vec![Expression { key: key.into(), operator }];
        assert_eq!(
            found.replica_affinity,
            [ReplicaRule {
                enforcement: Enforcement::Preferred { weight: 7 },
                affected: Some(1),
                scope: Scope::Match(expression("speed", Operator::Gt(6))),
            }]
        );
        assert_eq!(found.replica_anti_affinity[0].scope, Scope::Topology("topology.kubernetes.io/zone".into()));
        assert_eq!(found.replica_anti_affinity[0].enforcement, Enforcement::Required);
        assert_eq!(
            found.volume_anti_affinity,
            [VolumeRule {
                enforcement: Enforcement::Required,
                affected: None,
                volumes: expression("app", Operator::In(vec!["db".into()])),
                topology_key: Some("rack".into()),
            }]
        );
    }

    #[test]
    fn one_that_is_not_there_or_is_wrong_is_told() {
        let store = known(&[("odd", json!({"replicaAffinity": [{}]}))]);
        assert_eq!(of(None, &store), Ok(Strategy::default()));
        assert!(of(Some("none"), &store).unwrap_err().contains("no PlacementStrategy none"));
        assert!(of(Some("odd"), &store).unwrap_err().contains("spec.replicaAffinity[0]"));
    }
}
