//! Attaching, detaching, and what was asked of what is attached.

use crate::attachments::{Attachments, FrontEnd};
use crate::error::{Error, Kind, Result};
use crate::meter::Operation;
use crate::node::Node;
use crate::proto;
use crate::volumes::{id_of, told_place};
use std::sync::Arc;

impl Node {
    pub(crate) fn serving(&self, what: &str) -> Result<&Arc<Attachments>> {
        let reason = "a pool that is used offline serves nothing; start `orlop node` with the pool, and ask that";
        self.attachments.as_ref().ok_or_else(|| Error::new(Kind::Precondition, format!("{what}: {reason}")))
    }

    pub(crate) fn attach(&self, name: &str, front_end: FrontEnd, secret: &[u8]) -> Result<proto::Attachment> {
        let attachments = self.serving(&format!("attach {name}"))?;
        let _changing = self.change();
        let target = self.target(name)?;
        let key = self.unwrap_key(&target.store, id_of(target.state), name, secret)?;
        attachments.attach(&target.target(), front_end, key).map(told_place)
    }

    pub(crate) fn detach(&self, name: &str) -> Result<()> {
        let attachments = self.serving(&format!("detach {name}"))?;
        let _changing = self.change();
        match self.target(name) {
            Ok(target) => attachments.detach(name, &target.target().source.label()),
            // What is not there is not attached: it could not have been deleted otherwise.
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn stats(&self, name: &str) -> Result<proto::Stats> {
        self.target(name)?;
        let meter = self.serving(&format!("tell what is asked of {name}"))?.meter(name);
        let meter = meter.ok_or_else(|| {
            Error::new(Kind::Precondition, format!("{name} is not attached, so nothing is asked of it"))
        })?;
        let told = |operation| {
            let gauges = meter.of(operation);
            Some(proto::Operations {
                count: gauges.count.get(),
                bytes: gauges.bytes.get(),
                failed: gauges.failed.get(),
                nanoseconds: gauges.nanoseconds.get(),
            })
        };
        Ok(proto::Stats {
            reads: told(Operation::Read),
            writes: told(Operation::Write),
            flushes: told(Operation::Flush),
            discards: told(Operation::Discard),
            in_flight: u64::try_from(meter.in_flight.get()).unwrap_or(0),
        })
    }
}
