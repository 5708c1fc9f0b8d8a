//! Cluster roles that the cluster puts together from others: which others, told by the labels that they are selected by.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{json, key::ObjectKey, needs};

/// What matters of the cluster roles of a cluster. Rules are not kept, so this is small: a large cluster has some thousand roles.
#[derive(Default)]
pub(crate) struct Roles {
    roles: Vec<Role>,
}

struct Role {
    name: String,
    labels: Value,
    selectors: Vec<Value>,
    is_built_in: bool,
}

impl Roles {
    /// Adds a role of the cluster.
    pub(crate) fn add(&mut self, key: &ObjectKey, role: &Value) {
        self.roles.push(Role {
            name: key.name.clone(),
            labels: json::at(role, &["metadata", "labels"]).cloned().unwrap_or_default(),
            selectors: json::list(role, &["aggregationRule", "clusterRoleSelectors"]).to_vec(),
            is_built_in: needs::is_built_in(key, role),
        });
    }

    /// The roles that the named ones are put together from, directly or by way of others, without those that every cluster has.
    pub(crate) fn parts_of(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let mut reached: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let mut waiting: Vec<&Role> = self.roles.iter().filter(|role| names.contains(&role.name)).collect();
        let mut parts = BTreeSet::new();
        while let Some(whole) = waiting.pop() {
            let is_part = |role: &&Role| whole.selectors.iter().any(|selector| selects(selector, &role.labels));
            for part in self.roles.iter().filter(is_part) {
                if reached.insert(&part.name) {
                    waiting.push(part);
                    if !part.is_built_in {
                        parts.insert(part.name.clone());
                    }
                }
            }
        }
        parts
    }
}

/// Whether a label selector selects an object with these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = json::at(selector, &["matchLabels"]).and_then(Value::as_object);
    equal.is_none_or(|wanted| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
        && json::list(selector, &["matchExpressions"]).iter().all(|expression| holds(expression, labels))
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let label = labels.get(json::text(expression, &["key"]));
    let is_among = || label.is_some_and(|label| json::list(expression, &["values"]).contains(label));
    match json::text(expression, &["operator"]) {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn roles(all: &[(&str, Value, Value)]) -> Roles {
        let mut roles = Roles::default();
        for (name, labels, selectors) in all {
            let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name, "labels": labels}, "aggregationRule": {"clusterRoleSelectors": selectors}});
            roles.add(&ObjectKey::of(&role).expect("named"), &role);
        }
        roles
    }

    #[test]
    fn the_parts_of_a_role_are_found_by_their_labels_and_through_one_another() {
        let default = "kubernetes.io/bootstrapping";
        let roles = roles(&[
            ("admin", json!({default: "rbac-defaults"}), json!([{"matchLabels": {"to-admin": "true"}}])),
            (
                "edit",
                json!({default: "rbac-defaults", "to-admin": "true"}),
                json!([{"matchLabels": {"to-edit": "true"}}]),
            ),
            ("shop-edit", json!({"to-edit": "true"}), json!([])),
            ("shop-admin", json!({"to-admin": "true"}), json!([{"matchLabels": {"to-admin": "true"}}])),
            ("none", json!({"to-admin": "false"}), json!([])),
            ("bare", Value::Null, json!([])),
        ]);
        let parts = |name: &str| roles.parts_of(&BTreeSet::from([name.to_owned()])).into_iter().collect::<Vec<_>>();
        assert_eq!(parts("admin"), ["shop-admin", "shop-edit"]);
        assert_eq!(parts("edit"), ["shop-edit"]);
        assert!(parts("shop-edit").is_empty());
        assert!(parts("gone").is_empty());
    }

    #[test]
    fn selectors_mean_what_they_mean_to_the_server() {
        let labels = json!({"app": "shop", "tier": "web"});
        let check = |selector: Value, expected: bool| assert_eq!(selects(&selector, &labels), expected, "{selector}");
        let expression = |operator: &str, key: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        check(json!({}), true);
        check(json!({"matchLabels": {"app": "shop"}}), true);
        check(json!({"matchLabels": {"app": "shop", "tier": "db"}}), false);
        check(expression("In", "tier", json!(["db", "web"])), true);
        check(expression("In", "zone", json!(["a"])), false);
        check(expression("NotIn", "tier", json!(["web"])), false);
        check(expression("NotIn", "zone", json!(["a"])), true);
        check(expression("Exists", "app", Value::Null), true);
        check(expression("DoesNotExist", "app", Value::Null), false);
        check(
            json!({"matchLabels": {"app": "shop"}, "matchExpressions": [{"key": "zone", "operator": "Exists"}]}),
            false,
        );
    }
}
