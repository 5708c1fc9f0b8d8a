//! Rules about where replicas may or should be.
//!
//! A rule is about a number of replicas: all, or at least so many. For each rule there is a count of the replicas of a choice that keep it; the rule is kept
//! when the count is high enough. A replica that there is already and that breaks a rule is not held against the others.

use crate::cluster::Labels;
use std::fmt;

/// All rules for a volume. An empty one asks for nothing; replicas are on different nodes and spread all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strategy {
    /// Replicas together, or on nodes with certain labels.
    pub replica_affinity: Vec<ReplicaRule>,
    /// Replicas apart, or away from nodes with certain labels.
    pub replica_anti_affinity: Vec<ReplicaRule>,
    /// Near other volumes.
    pub volume_affinity: Vec<VolumeRule>,
    /// Away from other volumes.
    pub volume_anti_affinity: Vec<VolumeRule>,
}

/// What a rule means that cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// The volume is not placed.
    Required,
    /// It is placed otherwise. Of rules that exclude each other the one with the greater weight wins; each replica that keeps a rule counts its weight.
    Preferred {
        /// Against other preferred rules.
        weight: u32,
    },
}

/// What a rule about replicas looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Labels of the pool and its node. Affinity: a replica is where all of these hold. Anti-affinity: it is not where all of these hold.
    Match(Vec<Expression>),
    /// The value of one label of the node. Affinity: the replicas have the same. Anti-affinity: each has another. A node without the label keeps neither.
    Topology(String),
}

/// A rule about the replicas of the volume itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRule {
    /// Whether it must be kept.
    pub enforcement: Enforcement,
    /// For how many replicas at least; for all if it is not given.
    pub affected: Option<usize>,
    /// What it looks at.
    pub scope: Scope,
}

/// A rule about the replicas of other volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRule {
    /// Whether it must be kept.
    pub enforcement: Enforcement,
    /// For how many replicas at least; for all if it is not given.
    pub affected: Option<usize>,
    /// Which volumes it is about: those with labels for which all of these hold.
    ///
    /// An affinity to volumes of which none is there is kept by a volume that is one of them itself: somebody has to be the first.
    pub volumes: Vec<Expression>,
    /// What near means: nodes with the same value of this label; if it is not given, the same node.
    pub topology_key: Option<String>,
}

/// Something that holds for labels, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

/// What is asked of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// It is there, with one of these values.
    In(Vec<String>),
    /// It is not there, or has another value than these.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is a whole number below this one.
    Lt(i64),
    /// It is a whole number above this one.
    Gt(i64),
}

impl Expression {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Lt(bound) => number().is_some_and(|number| number < *bound),
            Operator::Gt(bound) => number().is_some_and(|number| number > *bound),
        }
    }
}

/// Whether all of them hold.
pub(crate) fn all_hold(expressions: &[Expression], labels: &Labels) -> bool {
    expressions.iter().all(|expression| expression.holds(labels))
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) => write!(f, "{key} In ({})", values.join(", ")),
            Operator::NotIn(values) => write!(f, "{key} NotIn ({})", values.join(", ")),
            Operator::Exists => write!(f, "{key} Exists"),
            Operator::DoesNotExist => write!(f, "{key} DoesNotExist"),
            Operator::Lt(bound) => write!(f, "{key} Lt {bound}"),
            Operator::Gt(bound) => write!(f, "{key} Gt {bound}"),
        }
    }
}

/// Several expressions, as a person reads them.
pub(crate) fn listed(expressions: &[Expression]) -> String {
    let all: Vec<_> = expressions.iter().map(ToString::to_string).collect();
    if all.is_empty() { "any".to_owned() } else { all.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::{Expression, Operator};

    #[test]
    fn expressions_hold_as_kubernetes_has_them() {
        let labels = [("media", "ssd"), ("speed", "7")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let check = |key: &str, operator: Operator, expected: bool| {
            let expression = Expression { key: key.into(), operator };
            assert_eq!(expression.holds(&labels), expected, "{expression}");
        };
        let values = || vec!["ssd".to_owned(), "nvme".to_owned()];
        check("media", Operator::In(values()), true);
        check("media", Operator::NotIn(values()), false);
        check("other", Operator::In(values()), false);
        check("other", Operator::NotIn(values()), true);
        check("media", Operator::Exists, true);
        check("media", Operator::DoesNotExist, false);
        check("other", Operator::Exists, false);
        check("other", Operator::DoesNotExist, true);
        check("speed", Operator::Lt(8), true);
        check("speed", Operator::Lt(7), false);
        check("speed", Operator::Gt(6), true);
        check("speed", Operator::Gt(7), false);
        check("media", Operator::Gt(0), false);
        check("other", Operator::Lt(0), false);
    }
}
