//! Replicated volumes are served, given back, and served again by the next process.

use super::lost::Lost;
use super::{Inner, ReplicatedVolume};
use crate::attachments::{Entry, FrontEnd, Place, Source, Target, label_of};
use crate::crypt::{DataKey, Secret};
use crate::error::{Error, Kind, Result};
use crate::qos::Limits;
use block::{Buffer, Device, Done};
use replicas::{AttachError, Attachment, Options, Status};
use replication::attachment::{Ending, Notice};
use replication::record::Standing;
use replication::record::store::{RecordStore, StoreError};
use replication::units::{AttachmentId, NodeId, VolumeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, watch};
use zeroize::Zeroizing;

/// How long somebody who wants a volume waits until it is served. A takeover takes the other's lease, and replicas that have to be made equal take longer; then it
/// is asked for again, and goes on. Below what kubelets wait for one call, which is two minutes.
const ATTACH_LIMIT: Duration = Duration::from_secs(45);
/// How long somebody who gives a volume back waits for its replicas; it goes on by itself.
const DETACH_LIMIT: Duration = Duration::from_secs(20);
/// How soon a record that cannot be read is read again, for a volume that somebody uses.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Bytes that are read at once to see whether there are any; no request is longer.
const LOOK: u64 = 4 << 20;

/// An attachment that was begun.
pub(super) struct Running {
    attachment: Attachment,
    seen: watch::Receiver<Seen>,
    /// Why what the record wants of all replicas is not done for now.
    unfulfilled: watch::Receiver<Option<String>>,
}

/// What was last heard of an attachment. (Whether it is suspended just now is another matter.)
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Waiting,
    Served,
    Ended(Ending),
}

/// Why no attachment was begun.
pub(super) enum Refused {
    Elsewhere(NodeId),
    /// Nobody has it now, and somebody else has had it since this node served it.
    Since,
    NoRecord,
    Unknown(Error),
}

/// Whether an attachment goes on for those who use the device of an earlier one.
#[derive(Clone, Copy)]
enum Resuming {
    No,
    /// That one has served it.
    From(AttachmentId),
}

pub(super) type Guard = OwnedMutexGuard<Option<Running>>;

impl Running {
    pub(super) fn status(&self) -> Status {
        self.attachment.status()
    }

    async fn heard(&self) -> Seen {
        let mut seen = self.seen.clone();
        let heard = seen.wait_for(|seen| *seen != Seen::Waiting).await;
        // Its sender lives as long as the attachment, which this holds.
        heard.map_or(Seen::Ended(Ending::Displaced), |heard| heard.clone())
    }

    /// Waits until it has ended, or a replica has no room for what the record wants; tells why.
    pub(super) async fn given_up(&self) -> String {
        let (mut seen, mut unfulfilled) = (self.seen.clone(), self.unfulfilled.clone());
        tokio::select! {
            ended = seen.wait_for(|seen| matches!(seen, Seen::Ended(_))) => match ended.as_deref() {
                Ok(Seen::Ended(ending)) => ending.to_string(),
                _ => "it is not served any more".into(),
            },
            why = unfulfilled.wait_for(Option::is_some) => {
                why.ok().and_then(|why| why.clone()).unwrap_or_else(|| "it is not served any more".into())
            }
        }
    }

    fn ending(&self) -> Option<Ending> {
        match &*self.seen.borrow() {
            Seen::Ended(ending) => Some(ending.clone()),
            Seen::Waiting | Seen::Served => None,
        }
    }
}

/// The key that a volume is encrypted with.
pub(super) fn unwrap_key(wanted: &ReplicatedVolume, secret: &[u8]) -> Result<Option<DataKey>> {
    let name = &wanted.name;
    match (&wanted.key, secret) {
        (None, []) => Ok(None),
        (None, _) => Err(Error::new(Kind::Precondition, format!("{name} is not encrypted; leave the secret out"))),
        (Some(_), []) => Err(Error::new(Kind::Denied, format!("{name} is encrypted; its secret is needed"))),
        (Some(wrapped), secret) => {
            let what = || format!("unwrap the key of {name}");
            let secret = Secret::new(Zeroizing::new(secret.to_vec()));
            let secret = secret.map_err(|e| Error::new(Kind::Invalid, what()).because(e))?;
            wrapped.unwrap(&secret).map(Some).map_err(|e| Error::new(Kind::Denied, what()).because(e))
        }
    }
}

impl Inner {
    pub(super) fn attach(
        self: &Arc<Self>,
        wanted: &ReplicatedVolume,
        take_over: Option<&NodeId>,
        key: Option<DataKey>,
    ) -> Result<Place> {
        let (name, volume) = (&wanted.name, wanted.id);
        let mut running = self.hold(volume, name, "attach")?;
        if let Some(ending) = running.as_ref().and_then(Running::ending) {
            if self.is_left(name) {
                return Err(lost(name, &ending));
            }
            *running = None;
        }
        if running.is_none() {
            // Its device must not come to life over what others have written meanwhile.
            if self.is_left(name) {
                return Err(lost(name, &"another node has had it"));
            }
            match self.runtime.block_on(self.claim(volume, take_over, Resuming::No)) {
                Ok(begun) => *running = Some(begun),
                Err(refused) => {
                    self.forget(volume);
                    return Err(refused.error(name));
                }
            }
        }
        let Some(there) = running.as_ref() else { return Err(busy("attach", name)) };
        let heard = self.runtime.block_on(async { tokio::time::timeout(ATTACH_LIMIT, there.heard()).await });
        match heard {
            Ok(Seen::Served) => {}
            Ok(Seen::Ended(ending)) if self.is_left(name) => return Err(lost(name, &ending)),
            Ok(Seen::Ended(ending)) => {
                *running = None;
                self.forget(volume);
                return Err(Error::new(Kind::Precondition, format!("attach {name}")).because(ending));
            }
            Ok(Seen::Waiting) | Err(_) => {
                let why = there.status().suspended.map(|suspended| format!(" ({:?})", suspended.why));
                let what = format!(
                    "attach {name}: it is not served after {} s{}; it goes on, so ask again",
                    ATTACH_LIMIT.as_secs(),
                    why.unwrap_or_default()
                );
                return Err(Error::new(Kind::Busy, what));
            }
        }
        self.present((name, volume), wanted.limits, key, there)
    }

    /// Tells the kernel that a volume that is served here has grown, as its record says.
    pub(super) fn grown(&self, name: &str, least: u64) -> Result<()> {
        let Some((volume, slot)) = self.named(name) else { return Ok(()) };
        let running = slot.running.try_lock().map_err(|_| busy("grow", name))?;
        let Some(there) = running.as_ref() else { return Ok(()) };
        let described = there.attachment.device().describe();
        let bytes = described.map_err(|e| Error::new(Kind::Failed, format!("grow {name}: {}", e.message)))?.size;
        if bytes < least {
            let what = format!("grow {name}: it is not known here yet that its replicas have grown; ask again");
            return Err(Error::new(Kind::Busy, what));
        }
        self.attachments.grown_replicated(name, volume, bytes)
    }

    /// Whether somebody may use its device here, by this process or one before it.
    pub(super) fn is_left(&self, name: &str) -> bool {
        self.attachments.left().iter().any(|entry| entry.name == name)
    }

    /// Serves it to whoever uses this machine.
    fn present(
        &self,
        (name, volume): (&str, VolumeId),
        limits: Limits,
        key: Option<DataKey>,
        by: &Running,
    ) -> Result<Place> {
        let device = by.attachment.device();
        let bytes = device.describe().map_err(|e| Error::new(Kind::Failed, format!("attach {name}: {}", e.message)))?;
        let source =
            Source::Replicated { volume, by: Some(by.attachment.id()), bytes: bytes.size, device: Arc::new(device) };
        self.attachments.attach(&Target { name: name.to_owned(), source, limits }, FrontEnd::Device, key)
    }

    /// Begins to attach a volume, if this node may have it.
    ///
    /// What is read here may change before the attachment reads it itself, by somebody who attaches it elsewhere in that instant; then it ends, since it is told
    /// what was read here.
    async fn claim(
        &self,
        volume: VolumeId,
        take_over: Option<&NodeId>,
        resuming: Resuming,
    ) -> std::result::Result<Running, Refused> {
        let unknown = |e: StoreError| Refused::Unknown(Error::new(Kind::Failed, "read the record").because(e));
        let record = self.records.get(volume).await.map_err(unknown)?.ok_or(Refused::NoRecord)?.record;
        let expected = Some(record.attached.as_ref().map(|by| by.id));
        let (force, ended) = match (record.attached, resuming) {
            // An attachment leaves the record only when its device is gone, or by a takeover. What its users have in memory may be older than the replicas.
            (None, Resuming::From(_)) => return Err(Refused::Since),
            (None, Resuming::No) => (false, None),
            // By an earlier process of this node, which has ended. If it is known to have served, nobody before it lives.
            (Some(by), Resuming::From(served)) if by.node == self.network.node => (by.id != served, Some(served)),
            (Some(by), Resuming::No) if by.node == self.network.node => (true, None),
            (Some(by), Resuming::No) if take_over == Some(&by.node) => (true, None),
            (Some(by), _) => return Err(Refused::Elsewhere(by.node)),
        };
        let (sender, seen) = watch::channel(Seen::Waiting);
        let (refusal, unfulfilled) = watch::channel(None);
        let listener = move |notice: &Notice| {
            tracing::info!(volume = %format_args!("{:032x}", volume.0), ?notice, "a replicated volume");
            match notice {
                Notice::Serving => drop(sender.send_replace(Seen::Served)),
                Notice::Ended(ending) => drop(sender.send_replace(Seen::Ended(ending.clone()))),
                Notice::Unfulfilled(_, replica, why) => {
                    drop(refusal.send_replace(Some(format!("{replica} has no room for it: {why}"))));
                }
                _ => {}
            }
        };
        let (limits, listener) = (self.limits.clone(), Arc::new(listener));
        let options = Options { force, expected, ended, limits, listener, ..Options::new(volume) };
        let (records, offered) = (self.records.clone(), self.holder.offered.clone());
        match Attachment::start(records, offered, self.network.clone(), options).await {
            Ok(attachment) => Ok(Running { attachment, seen, unfulfilled }),
            Err(AttachError::NoRecord(_)) => Err(Refused::NoRecord),
            Err(error) => Err(Refused::Unknown(Error::new(Kind::Failed, "begin to attach").because(error))),
        }
    }

    /// The same for a volume that nobody is to use.
    pub(super) async fn claim_for_nobody(&self, volume: VolumeId) -> std::result::Result<Running, Refused> {
        self.claim(volume, None, Resuming::No).await
    }

    pub(super) fn detach(self: &Arc<Self>, name: &str) -> Result<()> {
        let Some((volume, _)) = self.named(name) else { return Ok(()) };
        let running = self.hold(volume, name, "detach")?;
        self.attachments.detach(name, &label_of(volume))?;
        let me = self.clone();
        // By itself: whoever asked may not wait so long, and the record should say what is so.
        let ending = self.tasks.spawn_on(async move { me.end(volume, running).await }, &self.runtime);
        match self.runtime.block_on(async { tokio::time::timeout(DETACH_LIMIT, ending).await }) {
            Ok(_) => Ok(()),
            Err(_) => {
                let limit = DETACH_LIMIT.as_secs();
                let what =
                    format!("detach {name}: its replicas have not flushed it in {limit} s; it goes on, so ask again");
                Err(Error::new(Kind::Busy, what))
            }
        }
    }

    /// Ends an attachment well, and then forgets it. When the process is told to stop first, the next one does it.
    pub(super) async fn end(&self, volume: VolumeId, mut running: Guard) {
        if let Some(there) = running.as_ref() {
            let ended = self.stop.run_until_cancelled(there.attachment.detach()).await;
            tracing::info!(volume = %format_args!("{:032x}", volume.0), ?ended, "a replicated volume is not served any more");
        }
        *running = None;
        self.forget(volume);
    }

    pub(super) async fn give_back(self: &Arc<Self>, volume: VolumeId) -> Result<()> {
        let what = || format!("give volume {:032x} back", volume.0);
        let found = self.records.get(volume).await.map_err(|e| Error::new(Kind::Failed, what()).because(e))?;
        let by = found.and_then(|found| found.record.attached);
        if by.is_none_or(|by| by.node != self.network.node) || self.slots().contains_key(&volume) {
            return Ok(());
        }
        let name = format!("volume {:032x}", volume.0);
        let mut running = self.hold(volume, &name, "give back")?;
        if running.is_some() {
            return Ok(());
        }
        match self.claim(volume, None, Resuming::No).await {
            Ok(begun) => *running = Some(begun),
            Err(refused) => {
                self.forget(volume);
                return Err(refused.error(&name));
            }
        }
        if let Some(there) = running.as_ref() {
            self.stop.run_until_cancelled(there.heard()).await;
        }
        self.end(volume, running).await;
        Ok(())
    }

    pub(super) fn is_blank(&self, name: &str) -> Result<bool> {
        let what = || format!("look whether {name} has data");
        let absent = || Error::new(Kind::Precondition, format!("{}: it is not served here", what()));
        let (volume, slot) = self.named(name).ok_or_else(absent)?;
        let running = slot.running.try_lock().map_err(|_| busy("look at", name))?;
        let there = running.as_ref().ok_or_else(absent)?;
        let mut members = there.status().members.into_iter();
        // A replica that holds every acknowledged write knows without reading.
        let local = members.find(|member| member.is_here && member.standing == Standing::InSync);
        if let Some(known) = local.and_then(|member| self.holder.is_blank(volume, member.replica)) {
            return known;
        }
        let failed = |e: block::Failure| Error::new(Kind::Failed, format!("{}: {}", what(), e.message));
        let device = there.attachment.device();
        let size = device.describe().map_err(failed)?.size;
        for at in (0..size).step_by(usize::try_from(LOOK).unwrap_or(usize::MAX)) {
            let len = usize::try_from(LOOK.min(size - at)).unwrap_or(usize::MAX);
            let (sender, receiver) = std::sync::mpsc::channel();
            device.read(at, Buffer::zeroed(len), Done::new(move |read| drop(sender.send(read))));
            let read = receiver.recv().map_err(|e| Error::new(Kind::Failed, what()).because(e))?.map_err(failed)?;
            if read.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn hold(&self, volume: VolumeId, name: &str, verb: &str) -> Result<Guard> {
        let slot = self.slot(volume, name);
        let held = slot.running.clone().try_lock_owned().map_err(|_| busy(verb, name))?;
        // Whoever held it before may have taken it out of the table.
        let is_current = |now: &super::Slot| Arc::ptr_eq(&now.running, &slot.running);
        if self.slots().get(&volume).is_some_and(is_current) { Ok(held) } else { Err(busy(verb, name)) }
    }

    pub(super) fn forget(&self, volume: VolumeId) {
        self.slots().remove(&volume);
    }
}

pub(super) fn busy(verb: &str, name: &str) -> Error {
    Error::new(Kind::Busy, format!("{verb} {name}: it is being attached or detached just now; ask again"))
}

/// What was shown to who uses it here are errors, and will be.
fn lost(name: &str, why: &dyn std::fmt::Display) -> Error {
    let what = format!("attach {name}: who uses it here has lost it ({why}); detach it first");
    Error::new(Kind::Precondition, what)
}

impl Refused {
    pub(super) fn error(self, name: &str) -> Error {
        match self {
            Self::Elsewhere(node) => Error::new(
                Kind::Precondition,
                format!("attach {name}: {node} serves it; it has to be detached there first"),
            ),
            Self::Since => lost(name, &"another node has had it since"),
            Self::NoRecord => Error::new(
                Kind::NotFound,
                format!("attach {name}: it has no record; it was deleted, or is not placed yet"),
            ),
            Self::Unknown(error) => {
                let what = format!("attach {name}: {}", error.story());
                Error::new(Kind::Failed, what)
            }
        }
    }
}

/// Serves again what an earlier process has served.
pub(super) fn resume(inner: &Arc<Inner>, entry: Entry) {
    let Some(volume) = entry.replicated.as_ref().and_then(|served| served.volume()) else {
        tracing::error!(name = entry.name, "the list of what is attached has no id of this volume; it is not served");
        return;
    };
    // Nobody else can have it yet.
    let Ok(running) = inner.hold(volume, &entry.name, "serve") else { return };
    let me = inner.clone();
    let bring = async move {
        let mut running = running;
        // Broken off before anything is shown, and not while it is: then it is handed over like all else.
        let brought = me.bringing.stop.run_until_cancelled(me.bring_back(volume, &entry, &mut running)).await;
        if brought.is_some() {
            me.show_again(volume, entry, running).await;
        }
    };
    inner.bringing.tasks.spawn_on(bring, &inner.runtime);
}

impl Inner {
    async fn bring_back(&self, volume: VolumeId, entry: &Entry, running: &mut Guard) {
        let Some(served) = entry.replicated.as_ref().and_then(|served| served.by()) else {
            tracing::warn!(name = entry.name, "it was lost before; who uses it gets errors until it is detached");
            return;
        };
        let mut is_told = false;
        let why = loop {
            match self.claim(volume, None, Resuming::From(served)).await {
                Ok(begun) => match begun.heard().await {
                    Seen::Ended(ending) => break ending.to_string(),
                    Seen::Served | Seen::Waiting => {
                        **running = Some(begun);
                        return;
                    }
                },
                Err(Refused::Elsewhere(node)) => break format!("{node} has taken it over"),
                Err(Refused::Since) => break "another node has had it since".to_owned(),
                Err(Refused::NoRecord) => break "it was deleted".to_owned(),
                Err(Refused::Unknown(error)) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(name = entry.name, error = error.story(), "who uses a replicated volume waits");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tracing::error!(name = entry.name, why, "a replicated volume was lost; who uses it gets errors");
    }

    /// With nothing running, what is shown is a device that only fails.
    async fn show_again(self: &Arc<Self>, volume: VolumeId, entry: Entry, running: Guard) {
        let me = self.clone();
        let shown = tokio::task::spawn_blocking(move || {
            let name = entry.name.clone();
            let shown = match running.as_ref() {
                Some(there) => me.present((&name, volume), Limits::default(), entry.key, there),
                None => {
                    let bytes = entry.replicated.map_or(0, |served| served.bytes);
                    let lost = Lost { bytes, why: "the volume is not served here any more".into() };
                    let source = Source::Replicated { volume, by: None, bytes, device: Arc::new(lost) };
                    let target = Target { name: name.clone(), source, limits: Limits::default() };
                    me.attachments.attach(&target, FrontEnd::Device, None)
                }
            };
            match shown {
                Ok(place) => tracing::info!(name, place = place.place, "served again"),
                Err(error) => tracing::error!(name, error = error.story(), "what was attached is not served"),
            }
        });
        if shown.await.is_err() {
            tracing::error!("serving a volume again has panicked, which is a defect");
        }
    }
}
