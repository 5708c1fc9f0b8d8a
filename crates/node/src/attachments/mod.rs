//! What this node serves: volumes and snapshots as block devices or NBD exports.
//!
//! ```text
//! block device or NBD ─► counted ─► held back at times ─► limited and shared out ─► encrypted ─┬► a pool
//!                                                                                              └► replicas
//! ```

mod exports;
mod gate;
mod journal;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use journal::{Entry, FrontEnd, Journal};
pub(crate) use target::{Local, REPLICATED, Source, Target, label_of};

use crate::crypt::{DataKey, Encrypted};
use crate::error::{Error, Kind, Result};
use crate::meter::{Measured, Meter};
use crate::metrics::Metrics;
use crate::qos::{Bounds, Limits, Scheduler, Shared};
use crate::store::Store;
use block::Device;
use exports::Exports;
use fuse::{AttachError, DetachError, Host, Keeper};
use gate::{Closed, Gate, Gated};
use replication::units::VolumeId;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) front_end: FrontEnd,
    /// The path of the block device, or the URI of the export.
    pub(crate) place: String,
    pub(crate) read_only: bool,
}

struct Attached {
    place: Place,
    pool: String,
    limits: Limits,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    meter: Arc<Meter>,
}

/// Everything that is attached here.
pub(crate) struct Attachments {
    host: Host,
    exports: Exports,
    journal: Mutex<Journal>,
    attached: Mutex<BTreeMap<String, Attached>>,
    /// One for each pool, by its name, and one for all replicated volumes.
    schedulers: BTreeMap<String, Scheduler>,
    metrics: Arc<Metrics>,
}

/// What lies between a volume and who uses it: the whole, and two of its parts that are changed while it is used.
struct Layers {
    device: Arc<dyn Device>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
}

impl Attachments {
    pub(crate) fn new(
        host: Host,
        (runtime, nbd_tls): (&Path, Option<nbd::Tls>),
        pools: &[Arc<Store>],
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let journal = Journal::open(runtime)?;
        let exports = Exports::new(journal.folder().join("nbd"), nbd_tls);
        let mut schedulers = BTreeMap::new();
        for name in pools.iter().map(|store| store.name.as_str()).chain([REPLICATED]) {
            let scheduler = Scheduler::new(Bounds::default());
            let scheduler = scheduler.map_err(|e| Error::new(Kind::Failed, "start to share out pools").because(e))?;
            schedulers.insert(name.to_owned(), scheduler);
        }
        Ok(Self { host, exports, journal: Mutex::new(journal), attached: Mutex::default(), schedulers, metrics })
    }

    /// Whoever keeps the block devices answers.
    pub(crate) fn is_kept(&self) -> bool {
        self.host.kept().is_ok()
    }

    /// Has another keeper keep the block devices.
    pub(crate) fn keep_with(&self, keeper: Keeper) -> Result<()> {
        let kept = self.host.keep_with(keeper);
        kept.map_err(|e| Error::new(Kind::Failed, "have the block devices kept by another keeper").because(e))
    }

    /// What the process before this one had attached.
    pub(crate) fn left(&self) -> Vec<Entry> {
        self.journal().entries().to_vec()
    }

    /// Forgets what the process before this one had attached and nobody can serve any more. Who still uses it gets errors, in place of waiting for ever.
    pub(crate) fn give_up(&self, entry: &Entry) -> Result<()> {
        if let (FrontEnd::Device, Some(label)) = (entry.front_end, &entry.label)
            && let Err(error) = self.host.give_up(label)
        {
            // It stays listed, so that the next process tries again.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(name = entry.name, error, "the block device of what is not there any more is not gone yet");
            return Ok(());
        }
        self.journal().remove(&entry.name)
    }

    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        self.attached().get(name).map(|attached| attached.place.clone())
    }

    pub(crate) fn meter(&self, name: &str) -> Option<Arc<Meter>> {
        self.attached().get(name).map(|attached| attached.meter.clone())
    }

    /// Serves it. What is served already stays so, if it is to be served in the same way.
    pub(crate) fn attach(&self, target: &Target, front_end: FrontEnd, key: Option<DataKey>) -> Result<Place> {
        let mut attached = self.attached();
        let name = &target.name;
        if let Some(other) = attached.get(name).filter(|other| !other.place.front_end.is_as(front_end)) {
            let what = format!("attach {name}: it is served as {} already; detach it first", other.place.place);
            return Err(Error::new(Kind::Precondition, what));
        }
        // The kernel may have ended a device meanwhile, so a block device is asked for again.
        if let Some(there) = attached.get(name)
            && front_end != FrontEnd::Device
        {
            return Ok(there.place.clone());
        }
        let pool = target.source.pool().to_owned();
        let label = self.label(name, &target.source.label());
        let before = self.journal().entry(name).cloned();
        let entry = Entry {
            pool: pool.clone(),
            name: name.clone(),
            front_end,
            label: Some(label.clone()),
            key: key.clone(),
            replicated: target.source.served(),
        };
        self.journal().add(entry.clone())?;
        let meter = Arc::new(self.metrics.meter(&pool, name));
        let served = self.serve(target, (front_end, &label), key, &meter).and_then(|served| {
            let chosen = served.0.front_end;
            // The next process serves it where it is now; what is not written down is not served.
            if chosen != front_end
                && let Err(error) = self.journal().add(Entry { front_end: chosen, ..entry })
            {
                self.exports.end(name)?;
                return Err(error);
            }
            Ok(served)
        });
        if served.is_err() {
            if !attached.contains_key(name) {
                self.metrics.forget(&pool, name);
            }
            // What an earlier process has left stays listed as it was: whoever uses it still waits for somebody to serve it.
            match before {
                Some(before) => self.journal().add(before)?,
                None => self.journal().remove(name)?,
            }
        }
        let (place, shared, gate) = served?;
        // A block device that was there already goes on with the device that it had, and this one was dropped.
        if Arc::strong_count(&shared) > 1 || !attached.contains_key(name) {
            attached.insert(
                name.clone(),
                Attached { place: place.clone(), pool, limits: target.limits, shared, gate, meter },
            );
        }
        Ok(place)
    }

    /// Tells where, and gives the parts that are changed while it is used.
    fn serve(
        &self,
        target: &Target,
        (front_end, label): (FrontEnd, &str),
        key: Option<DataKey>,
        meter: &Arc<Meter>,
    ) -> Result<(Place, Arc<Shared>, Arc<Gate>)> {
        let Layers { device, shared, gate } = self.layers(target, key, meter)?;
        let (front_end, place) = match front_end {
            FrontEnd::Device => (front_end, self.attach_device(&target.name, label, device)?),
            FrontEnd::Nbd => (front_end, self.exports.serve(&target.name, label, device)?),
            FrontEnd::Tcp(address) => {
                let (address, uri) = self.exports.serve_tcp(&target.name, address, device)?;
                (FrontEnd::Tcp(address), uri)
            }
        };
        Ok((Place { front_end, place, read_only: target.source.is_read_only() }, shared, gate))
    }

    fn layers(&self, target: &Target, key: Option<DataKey>, meter: &Arc<Meter>) -> Result<Layers> {
        let stored = target.source.device();
        let plain = match key {
            None => stored,
            Some(key) => {
                let what = || format!("attach {} encrypted", target.name);
                let encrypted =
                    Encrypted::new(stored, &key).map_err(|e| Error::new(Kind::Failed, what()).because(e))?;
                Arc::new(encrypted) as Arc<dyn Device>
            }
        };
        let pool = target.source.pool();
        let scheduler = self.schedulers.get(pool);
        let scheduler = scheduler.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no pool {pool}")))?;
        let shared = Arc::new(Shared::new(scheduler, plain, target.limits));
        let gate = Arc::new(Gate::default());
        let gated = Arc::new(Gated::new(shared.clone(), gate.clone()));
        let device = Arc::new(Measured::new(gated, meter.clone()));
        Ok(Layers { device, shared, gate })
    }

    fn attach_device(&self, name: &str, label: &str, device: Arc<dyn Device>) -> Result<String> {
        let path = self.host.attach(label, device).map_err(|error| {
            let kind = if matches!(error, AttachError::Left { .. } | AttachError::Size { .. }) {
                Kind::Precondition
            } else {
                Kind::Failed
            };
            Error::new(kind, format!("attach {name}")).because(error)
        })?;
        Ok(path.display().to_string())
    }

    /// Ends it, unless somebody uses it. What is not attached is a success.
    /// `label` is what its source is called.
    pub(crate) fn detach(&self, name: &str, label: &str) -> Result<()> {
        let mut attached = self.attached();
        let front_end = attached.get(name).map(|attached| attached.place.front_end);
        if front_end.is_some_and(|front_end| front_end != FrontEnd::Device) {
            self.exports.end(name)?;
        } else {
            self.host.detach(&self.label(name, label)).map_err(|error| {
                let kind = if matches!(error, DetachError::InUse { .. }) { Kind::Precondition } else { Kind::Failed };
                Error::new(kind, format!("detach {name}")).because(error)
            })?;
        }
        if let Some(gone) = attached.remove(name) {
            gone.shared.close();
            self.metrics.forget(&gone.pool, name);
        }
        self.journal().remove(name)
    }

    /// Changes how much may be asked of something that is attached.
    pub(crate) fn limit(&self, name: &str, limits: Limits) {
        if let Some(attached) = self.attached().get_mut(name).filter(|attached| attached.limits != limits) {
            attached.shared.set_limits(limits);
            attached.limits = limits;
        }
    }

    /// Holds changes of volumes back, of those that are attached, until what is returned is dropped.
    pub(crate) fn hold<'a>(&self, names: impl Iterator<Item = &'a str>) -> Closed {
        let attached = self.attached();
        Closed::all(names.filter_map(|name| Some(attached.get(name)?.gate.clone())).collect())
    }

    /// Tells the kernel that a replicated volume has grown, and notes it for the next process.
    pub(crate) fn grown_replicated(&self, name: &str, volume: VolumeId, bytes: u64) -> Result<()> {
        let mut journal = self.journal();
        if let Some(entry) = journal.entry(name).filter(|entry| entry.replicated.is_some()).cloned() {
            let replicated = entry.replicated.map(|served| served.grown(bytes));
            journal.add(Entry { replicated, ..entry })?;
        }
        drop(journal);
        self.grown(name, &label_of(volume))
    }

    /// Tells the kernel that a volume has grown.
    pub(crate) fn grown(&self, name: &str, label: &str) -> Result<()> {
        let is_device = self.place(name).is_some_and(|place| place.front_end == FrontEnd::Device);
        if is_device {
            let what = format!("tell the kernel of the new size of {name}");
            let label = self.label(name, label);
            self.host.grown(&label).map_err(|error| Error::new(Kind::Failed, what).because(error))?;
        }
        Ok(())
    }

    /// Stops serving; block devices are left for the next process, in which requests that come meanwhile wait. When it says no, some request is under way
    /// still: whoever would answer it must not end before the process does, since the next one is asked it again.
    pub(crate) fn hand_over(self: &Arc<Self>) -> bool {
        self.exports.end_all();
        let Err(error) = self.host.hand_over() else { return true };
        tracing::error!(error = &error as &dyn std::error::Error, "a device was not handed over in order");
        // What waits for its limit still must not be answered with an error, but be left to the next process with the rest.
        std::mem::forget(self.clone());
        false
    }

    /// The name of a block device or socket: the one that it was begun with, since whoever uses it waits for that; or a new one, which no other node on this
    /// kernel has, though its pool be a copy of this one's.
    fn label(&self, name: &str, short: &str) -> String {
        let journal = self.journal();
        match journal.entry(name) {
            Some(entry) => entry.label.clone().unwrap_or_else(|| short.to_owned()),
            None => format!("{short}-{:08x}", journal.folder_id()),
        }
    }

    fn attached(&self) -> MutexGuard<'_, BTreeMap<String, Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
