//! Recovery points that are of the same thing.

use super::Known;
use crate::point::{RecoveryPoint, Source};
use serde::Serialize;
use std::fmt;

/// What makes recovery points compete with each other for the places of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Nothing: all are one group.
    None,
    /// The machine, or the cluster.
    Host,
    /// The machine and the names of the contents, or the cluster and the namespaces.
    #[default]
    Source,
}

/// A group of recovery points; groups are equal when these are.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The machine of folders and images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The cluster of an application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The names of contents, or the namespaces; sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<String>>,
}

impl GroupBy {
    /// The group of a recovery point.
    pub fn group(self, point: &RecoveryPoint) -> Group {
        let (host, cluster, mut parts) = match &point.source {
            Source::Paths { host } => {
                (Some(host.clone()), None, point.roots.iter().map(|root| root.name.clone()).collect::<Vec<_>>())
            }
            Source::Application { cluster_id, namespaces, .. } => (None, Some(cluster_id.clone()), namespaces.clone()),
        };
        parts.sort_unstable();
        match self {
            Self::None => Group::default(),
            Self::Host => Group { host, cluster, parts: None },
            Self::Source => Group { host, cluster, parts: Some(parts) },
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.as_ref().map(|parts| parts.join(", "));
        match (&self.host, &self.cluster, parts) {
            (Some(host), _, Some(parts)) => write!(f, "{parts} of host {host}"),
            (Some(host), _, None) => write!(f, "host {host}"),
            (None, Some(cluster), Some(parts)) => write!(f, "namespaces {parts} of cluster {cluster}"),
            (None, Some(cluster), None) => write!(f, "cluster {cluster}"),
            (None, None, _) => f.write_str("all"),
        }
    }
}

impl Known {
    /// What the planner needs of a recovery point.
    pub fn new(point: &RecoveryPoint, group_by: GroupBy, pinned: bool) -> Self {
        Self {
            id: point.id.clone(),
            created: point.created,
            group: group_by.group(point),
            tags: point.tags.clone(),
            pinned,
            complete: point.complete,
        }
    }
}
