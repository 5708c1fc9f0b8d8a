//! Whether other nodes can be reached, of which the controller asks that.

use super::Agent;
use api::StorageNode;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::ResourceExt;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Agent {
    /// Notes of which nodes it is asked.
    pub(super) fn heed_questions(&self, nodes: &[Arc<StorageNode>]) {
        let is_asked = |node: &StorageNode| {
            let health = node.status.as_ref().and_then(|status| status.health.as_ref());
            health.is_some_and(|health| health.observers.contains(&self.me))
        };
        let asked: BTreeSet<String> = nodes.iter().filter(|node| is_asked(node)).map(|node| node.name_any()).collect();
        self.asked_for.send_if_modified(|before| {
            let is_news = *before != asked;
            *before = asked;
            is_news
        });
    }

    /// Those of them that cannot be reached now.
    pub(super) async fn unreachable(&self) -> Vec<String> {
        let asked = self.asked_for.borrow().clone();
        let looks = asked.into_iter().map(async |name| {
            let is_reached = self.network.reaches(&name.as_str().into()).await;
            (!is_reached).then_some(name)
        });
        let looks: FuturesUnordered<_> = looks.collect();
        let mut found: Vec<_> = looks.filter_map(std::future::ready).collect().await;
        found.sort_unstable();
        found
    }
}
