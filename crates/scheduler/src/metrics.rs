//! What the extender has done, in the OpenMetrics text format.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// From an answer out of a small cache to one that a scheduler does not wait for.
const SECONDS: [f64; 8] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.5, 5.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Verb {
    verb: &'static str,
}

/// Counts of requests.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    seconds: Family<Verb, Histogram>,
    refused: Counter,
    failed_open: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("orlop_scheduler");
        let seconds = Family::<Verb, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let (refused, failed_open) = (Counter::default(), Counter::default());
        registry.register_with_unit("request", "How long answers took", Unit::Seconds, seconds.clone());
        registry.register("nodes_refused", "Nodes that a pod must not be put on", refused.clone());
        let what = "Requests that were answered with all nodes, since it was not known how storage is";
        registry.register("failed_open", what, failed_open.clone());
        Self { registry, seconds, refused, failed_open }
    }
}

impl Metrics {
    pub(crate) fn answered(&self, verb: &'static str, took: Duration) {
        self.seconds.get_or_create(&Verb { verb }).observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, nodes: usize) {
        self.refused.inc_by(u64::try_from(nodes).unwrap_or(u64::MAX));
    }

    pub(crate) fn failed_open(&self) {
        self.failed_open.inc();
    }

    /// All of them, as text.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
