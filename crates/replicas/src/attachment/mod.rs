//! An attachment at work: the state machine with everything around it.
//!
//! Like a replica, it has no thread of its own: whoever brings an event does what follows, and others leave their events with him meanwhile. At one request at a time nothing
//! is handed from thread to thread that need not be; at many, those that come together are taken together.

mod device;
mod owner;
mod records;
mod status;
mod timer;

pub use device::AttachedVolume;
pub use status::{MemberStatus, Status, Suspended};

use crate::net::Network;
use crate::replica::Replicas;
use owner::{Owner, Shared};
use replication::attachment::{Ending, Event, Notice};
use replication::limits::Limits;
use replication::record::Attached;
use replication::record::store::{RecordStore, StoreError};
use replication::units::{AttachmentId, VolumeId};
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Questions to the record store that wait to be asked. The machine has one under way, and gives up what is late; one that does not fit is late.
const MOST_CALLS: usize = 16;

/// Who learns what whoever runs an attachment should know; called from any thread with no lock held, and must not wait.
pub type Listener = Arc<dyn Fn(&Notice) + Send + Sync>;

/// How a volume is attached.
#[derive(Clone)]
pub struct Options {
    /// Which volume.
    pub volume: VolumeId,
    /// Take it over from another attachment that may live still. Nothing is served before its leases have ended.
    pub force: bool,
    /// Whose volume it must be still when it is claimed, or nobody's. Without it, that is not looked at.
    pub expected: Option<Option<AttachmentId>>,
    /// This attachment has served the volume, and its process has ended for certain: its leases are not waited for. Never one that has not served: it may not have waited
    /// for the one before it.
    pub ended: Option<AttachmentId>,
    /// Go on without replicas that cannot be reached even if all others have lost their power: what was acknowledged and not flushed may be lost.
    pub give_up_unflushed: bool,
    /// Waiting times and sizes of the protocol; all attachments of a cluster must have the same lease.
    pub limits: Limits,
    /// Bytes of operations that are under way at most; what comes beyond waits. At least 4 MiB, the longest operation.
    pub most_bytes: usize,
    /// Who is told what happens.
    pub listener: Listener,
}

impl Options {
    /// Those of an ordinary attachment, which tells the log.
    #[must_use]
    pub fn new(volume: VolumeId) -> Self {
        let listener = move |notice: &Notice| tracing::info!(volume = %format_args!("{:x}", volume.0), ?notice);
        Self {
            volume,
            force: false,
            expected: None,
            ended: None,
            give_up_unflushed: false,
            limits: Limits::default(),
            most_bytes: 64 << 20,
            listener: Arc::new(listener),
        }
    }
}

/// Why a volume is not being attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The record cannot be read.
    #[error("read the record of the volume")]
    Records(#[from] StoreError),
    /// There is no such volume.
    #[error("volume {id:x} has no record; it was deleted, or never made", id = .0.0)]
    NoRecord(VolumeId),
    /// It is not possible.
    #[error("{bytes} bytes of operations under way are too few; {least} are the least")]
    Bytes {
        /// What was wanted.
        bytes: usize,
        /// The least.
        least: usize,
    },
}

/// A volume that is attached here, or is going to be. When it is dropped, it ends as if its process had been killed.
pub struct Attachment {
    shared: Arc<Shared>,
    ending: watch::Receiver<Option<Ending>>,
    _stop: DropGuard,
}

impl Attachment {
    /// Begins to attach a volume. Its device may be used at once: what is asked of it waits until the volume is served.
    ///
    /// # Errors
    /// Its record cannot be read, or there is none.
    pub async fn start<R: RecordStore + 'static>(
        records: Arc<R>,
        replicas: Arc<Replicas>,
        network: Network,
        options: Options,
    ) -> Result<Self, AttachError> {
        let least = replication::wire::MOST_DATA;
        if options.most_bytes < least {
            return Err(AttachError::Bytes { bytes: options.most_bytes, least });
        }
        let volume = options.volume;
        let record = records.get(volume).await?.ok_or(AttachError::NoRecord(volume))?.record;
        let here = record.members.iter().filter(|(_, member)| member.node == network.node);
        let local = here.map(|(id, _)| *id).find(|id| replicas.find(volume, *id).is_some());
        let me = Attached { node: network.node.clone(), id: AttachmentId(rand::random()) };
        let (calls, asked) = mpsc::channel(MOST_CALLS);
        let (ended, ending) = watch::channel(None);
        let owner = Owner::new(me, local, &options);
        let listener = options.listener.clone();
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| Shared {
            me: shared.clone(),
            volume,
            blocks: record.blocks.into(),
            owner: Mutex::new(owner),
            network,
            replicas,
            answers: Arc::new(owner::ToAttachment(shared.clone())),
            runtime: Handle::current(),
            calls,
            timer: Notify::new(),
            ended,
            listener,
        });
        let stop = CancellationToken::new();
        let retry = options.limits.record_retry;
        records::start(records, volume, Arc::downgrade(&shared), (asked, retry), &stop);
        timer::start(Arc::downgrade(&shared), &options.limits, &stop);
        shared.tell(Event::Tick);
        Ok(Self { shared, ending, _stop: stop.drop_guard() })
    }

    /// Who it is, in the record and to the replicas.
    #[must_use]
    pub fn id(&self) -> AttachmentId {
        self.shared.lock().id()
    }

    /// The volume as a block device.
    #[must_use]
    pub fn device(&self) -> AttachedVolume {
        AttachedVolume::new(self.shared.clone())
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        status::of(&self.shared)
    }

    /// Ends it well: what is under way is done, all is flushed, and the record says that nobody is attached. It waits for replicas that are needed for that. Tells how it
    /// has ended, which may be otherwise.
    pub async fn detach(&self) -> Ending {
        self.shared.tell(Event::Detach);
        self.ended().await
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> Ending {
        let mut ending = self.ending.clone();
        // What it waits for is sent by what this holds.
        ending.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone()).unwrap_or(Ending::Displaced)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attachment({:?})", self.status())
    }
}
