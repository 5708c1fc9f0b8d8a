//! Where a mover may run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm,
    Toleration,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Seconds for which a mover stays on a node that is not ready or cannot be reached; then another attempt is better.
const LOST_NODE_SECONDS: i64 = 60;

/// Where a mover may run. By affinity and never by `nodeName`: the scheduler then counts the pod, and says why it does not fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    tolerations: Vec<Toleration>,
    node_selector: BTreeMap<String, String>,
    affinity: NodeAffinity,
}

impl Placement {
    /// On every node, whatever its taints: for a mover that reads, since it goes where the volume is.
    #[must_use]
    pub fn anywhere() -> Self {
        let all = Toleration { operator: Some("Exists".into()), ..Toleration::default() };
        Self { tolerations: vec![all], ..Self::default() }
    }

    /// Where the pods of a workload may run, by their specification: for a mover that fills a volume, since where it runs decides where
    /// the volume is made. Affinity to pods and away from them is left out: the pods that it is about are not there yet.
    #[must_use]
    pub fn of_pods(spec: &Value) -> Self {
        Self {
            tolerations: part(&spec["tolerations"]),
            node_selector: part(&spec["nodeSelector"]),
            affinity: part(&spec["affinity"]["nodeAffinity"]),
        }
    }

    /// On that node and no other.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        self.within(&NodeSelector { node_selector_terms: vec![named(node)] })
    }

    /// On that node if it can be.
    #[must_use]
    pub fn rather_on(mut self, node: &str) -> Self {
        let wish = PreferredSchedulingTerm { preference: named(node), weight: 100 };
        self.affinity.preferred_during_scheduling_ignored_during_execution.get_or_insert_default().push(wish);
        self
    }

    /// The node that it must run on, if that is one.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        let required = self.affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let [term] = &required.node_selector_terms[..] else { return None };
        let names = |field: &NodeSelectorRequirement| field.key == "metadata.name" && field.operator == "In";
        let field = term.match_fields.iter().flatten().find(|field| names(field))?;
        let [node] = &field.values.as_ref()?[..] else { return None };
        Some(node)
    }

    /// Only on nodes that are selected by this too, such as those that can mount a certain volume.
    #[must_use]
    pub fn within(mut self, nodes: &NodeSelector) -> Self {
        let required = self.affinity.required_during_scheduling_ignored_during_execution.take();
        let terms = match required.map(|selector| selector.node_selector_terms).unwrap_or_default() {
            none if none.is_empty() => nodes.node_selector_terms.clone(),
            terms => terms.iter().flat_map(|a| nodes.node_selector_terms.iter().map(|b| both(a, b))).collect(),
        };
        self.affinity.required_during_scheduling_ignored_during_execution =
            Some(NodeSelector { node_selector_terms: terms });
        self
    }

    /// Writes it into the specification of a pod. A node that is lost is tolerated for a while only, whatever else is tolerated: the
    /// first toleration that fits a taint counts, so the narrow ones come first.
    pub(super) fn write(&self, spec: &mut PodSpec) {
        let lost = |key: &str| Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: Some(LOST_NODE_SECONDS),
            ..Toleration::default()
        };
        let mut tolerations = vec![lost("node.kubernetes.io/not-ready"), lost("node.kubernetes.io/unreachable")];
        tolerations.extend(self.tolerations.iter().cloned());
        spec.tolerations = Some(tolerations);
        spec.node_selector = (!self.node_selector.is_empty()).then(|| self.node_selector.clone());
        let none = self.affinity == NodeAffinity::default();
        spec.affinity = (!none).then(|| Affinity { node_affinity: Some(self.affinity.clone()), ..Affinity::default() });
    }
}

/// What cannot be read is left out: a mover that lands elsewhere is better than none.
fn part<T: DeserializeOwned + Default>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

fn named(node: &str) -> NodeSelectorTerm {
    let field = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    NodeSelectorTerm { match_fields: Some(vec![field]), ..NodeSelectorTerm::default() }
}

/// The term that selects what both select.
fn both(a: &NodeSelectorTerm, b: &NodeSelectorTerm) -> NodeSelectorTerm {
    type Requirements = Option<Vec<NodeSelectorRequirement>>;
    let join = |a: &Requirements, b: &Requirements| {
        let all: Vec<_> = a.iter().chain(b).flatten().cloned().collect();
        (!all.is_empty()).then_some(all)
    };
    NodeSelectorTerm {
        match_expressions: join(&a.match_expressions, &b.match_expressions),
        match_fields: join(&a.match_fields, &b.match_fields),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(placement: &Placement) -> Value {
        let mut spec = PodSpec::default();
        placement.write(&mut spec);
        serde_json::to_value(spec).expect("a pod specification is JSON")
    }

    fn terms(placement: &Placement) -> Value {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        written(placement)["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"].clone()
    }

    fn zone(zone: &str) -> Value {
        json!({"key": "zone", "operator": "In", "values": [zone]})
    }

    #[test]
    fn a_lost_node_is_tolerated_for_a_while_whatever_else_is() {
        for (placement, others) in [(Placement::default(), 0), (Placement::anywhere(), 1)] {
            let spec = written(&placement);
            let tolerations = spec["tolerations"].as_array().expect("there are some");
            let lost = tolerations.iter().filter(|t| t["tolerationSeconds"] == LOST_NODE_SECONDS).count();
            assert_eq!((lost, tolerations.len() - lost), (2, others), "{tolerations:?}");
        }
    }

    #[test]
    fn the_one_node_of_a_mover_is_told() {
        let zones: NodeSelector =
            serde_json::from_value(json!({"nodeSelectorTerms": [{"matchExpressions": [zone("a")]}]}))
                .expect("the test's selector is one");
        assert_eq!(Placement::anywhere().on("east1").node(), Some("east1"));
        assert_eq!(Placement::anywhere().on("east1").within(&zones).node(), Some("east1"));
        assert_eq!(Placement::anywhere().rather_on("east1").node(), None);
        assert_eq!(Placement::anywhere().within(&zones).node(), None);
        assert_eq!(Placement::anywhere().node(), None);
    }

    #[test]
    fn a_mover_goes_where_the_pods_of_the_workload_may_go() {
        let required = json!({"nodeSelectorTerms": [{"matchExpressions": [zone("a")]}]});
        let spec = json!({
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "db", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required},
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []},
            },
        });
        let mover = written(&Placement::of_pods(&spec));
        assert_eq!(mover["nodeSelector"], spec["nodeSelector"]);
        assert_eq!(mover["tolerations"][2], spec["tolerations"][0]);
        assert_eq!(mover["affinity"]["nodeAffinity"], spec["affinity"]["nodeAffinity"]);
        assert_eq!(mover["affinity"]["podAffinity"], Value::Null);
        assert_eq!(Placement::of_pods(&json!({"tolerations": "none"})), Placement::default(), "what cannot be read");
    }

    #[test]
    fn all_that_is_required_is_required_together() {
        let selector = |terms: Value| -> NodeSelector {
            serde_json::from_value(json!({"nodeSelectorTerms": terms})).expect("the test's selector is one")
        };
        let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [zone("a")]}, {"matchExpressions": [zone("b")]}]}}}});
        let volume = selector(json!([{"matchExpressions": [zone("b")]}]));
        let placed = Placement::of_pods(&spec).within(&volume);
        let expected =
            json!([{"matchExpressions": [zone("a"), zone("b")]}, {"matchExpressions": [zone("b"), zone("b")]}]);
        assert_eq!(terms(&placed), expected);
        let alone = Placement::default().within(&volume);
        assert_eq!(terms(&alone), json!([{"matchExpressions": [zone("b")]}]));
        let named = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]);
        assert_eq!(terms(&Placement::anywhere().on("n")), named);
        assert_eq!(terms(&Placement::anywhere().rather_on("n")), Value::Null);
    }
}
