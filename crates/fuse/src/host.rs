//! The devices of one process: attaching, detaching, and handing them over.

use crate::attachment::{Attachment, PATIENCE, Resources};
use crate::keeper::{Keeper, KeeperError};
use crate::loop_device::{LoopDevice, LoopError, MOST_LABEL_LEN};
use crate::mount::MountError;
use crate::protocol::ALWAYS;
use crate::users::User;
use block::{BlockSizes, Device, Failure, Pool};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Before the names of devices, in what loop devices are found by.
const LABEL: &str = "orlop:";
/// Bytes of buffers that all devices together keep for requests to come.
const MOST_IDLE: usize = 128 << 20;

/// Why a device is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The name cannot be one.
    #[error("{0:?} is no name of a device: it has 1 to {most} bytes and no NUL", most = MOST_LABEL_LEN - LABEL.len())]
    Name(String),
    /// The kernel's loop device has blocks of 4096 bytes.
    #[error("a device of {size} bytes in blocks of {sizes:?} cannot be attached: both must divide into 4096 bytes")]
    Shape {
        /// Its size.
        size: u64,
        /// Its blocks.
        sizes: BlockSizes,
    },
    /// It does not say what it is.
    #[error("ask the device what it is")]
    Device(#[from] Failure),
    /// The file system was not made.
    #[error("make the file of FUSE")]
    Mount(#[from] MountError),
    /// The loop device was not.
    #[error("make the loop device")]
    Loop(#[from] LoopError),
    /// The keeper did not keep it, or does not give it.
    #[error("have the connection kept")]
    Keeper(#[from] KeeperError),
    /// What the keeper keeps is not this device.
    #[error(
        "the device {name} is attached with {attached} bytes, and has {size} now; detach it with a device of its size first"
    )]
    Size {
        /// Its name.
        name: String,
        /// The bytes of the block device.
        attached: u64,
        /// The bytes that are there now.
        size: u64,
    },
    /// What the keeper keeps was agreed on with the kernel for a device that takes longer requests.
    #[error(
        "the device {name} is attached for requests of up to {agreed} bytes, and takes {longest} now; serve it as before and detach it first"
    )]
    Longest {
        /// Its name.
        name: String,
        /// What the kernel was told.
        agreed: u32,
        /// What the device takes now, as far as the kernel can be told.
        longest: u32,
    },
    /// A server has died without a keeper, and somebody still uses what it left.
    #[error("the block device {path} that an earlier server of {name} has left is in use: {}; end that first", list(.users))]
    Left {
        /// Of which device.
        name: String,
        /// The block device, which answers with errors.
        path: PathBuf,
        /// By whom.
        users: Vec<User>,
    },
    /// The system said no.
    #[error("{action}")]
    System {
        /// What was asked.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Why a device is still attached.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Somebody uses it.
    #[error("{path} is in use: {}; end that first", list(.users))]
    InUse {
        /// The block device.
        path: PathBuf,
        /// By whom.
        users: Vec<User>,
    },
    /// Another process serves it, or could.
    #[error("the device {0} is attached, and this process does not serve it; attach it here first")]
    Elsewhere(String),
    /// The keeper did not forget it.
    #[error("have the connection closed")]
    Keeper(#[from] KeeperError),
    /// The system said no.
    #[error("{action} {path}")]
    System {
        /// What was asked.
        action: &'static str,
        /// Of which block device.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn list(users: &[User]) -> String {
    users.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Serves devices as block devices of this node.
///
/// Dropping it ends its threads, as [`Host::hand_over`] does, and tells nobody how that went. With a keeper the devices are there for the next
/// host, without one they end in errors. A device that is still being asked something is held until it has answered: no other host gets it before.
pub struct Host {
    /// Another one takes its place when it has died. Looked at while `attached` is held, or for a moment.
    keeper: Mutex<Option<Arc<Keeper>>>,
    pool: Pool,
    threads: usize,
    patience: Duration,
    pub(crate) valid_s: u64,
    attached: Mutex<BTreeMap<String, Attachment>>,
}

impl Host {
    /// With a keeper, or without one: then the devices end with this process.
    ///
    /// Each device is read by as many threads as there are processors, but by two to four: one would be a queue, and more only wake later.
    #[must_use]
    pub fn new(keeper: Option<Keeper>) -> Self {
        // A server that is killed while the kernel faults a page of its buffer in makes the kernel end the request with an error, and no
        // other server gets it. So there must be nothing to fault in.
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            keeper: Mutex::new(keeper.map(Arc::new)),
            pool: Pool::resident(MOST_IDLE),
            threads: processors.clamp(2, 4),
            patience: PATIENCE,
            valid_s: ALWAYS,
            attached: Mutex::default(),
        }
    }

    /// The same, where devices may take so long to answer their last requests when they are detached or handed over; else 20 seconds.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes a block device of a device, and tells its path.
    ///
    /// A device of this name that is attached already stays so, and its path is told. One that an earlier process has attached, and the keeper
    /// keeps, is taken over: whoever uses the block device has waited, and goes on.
    pub fn attach(&self, name: &str, device: Arc<dyn Device>) -> Result<PathBuf, AttachError> {
        let label = label(name)?;
        let mut attached = self.lock();
        if let Some(attachment) = attached.get(name) {
            let action = "look at the block device that is attached";
            if attachment.is_alive(&label).map_err(|source| AttachError::System { action, source })? {
                return Ok(attachment.path());
            }
            // The kernel has ended it, as when somebody has cleared the loop device.
            attached.remove(name);
        }
        let keeper = self.keeper();
        let resources = Resources {
            pool: &self.pool,
            threads: self.threads,
            keeper: keeper.as_ref(),
            patience: self.patience,
            valid_s: self.valid_s,
        };
        let attachment = match Attachment::resume(name, &label, device.clone(), resources)? {
            Some(resumed) => resumed,
            None => Attachment::begin(name, &label, device, resources)?,
        };
        let path = attachment.path();
        attached.insert(name.to_owned(), attachment);
        Ok(path)
    }

    /// Gives a block device the size that its device has now, after that has grown, whoever uses it; one that is not attached here is a success.
    pub fn grown(&self, name: &str) -> Result<(), AttachError> {
        self.lock().get(name).map_or(Ok(()), |attachment| attachment.grow(name))
    }

    /// Ends a block device, unless somebody uses it. One that is not attached is a success.
    pub fn detach(&self, name: &str) -> Result<(), DetachError> {
        let mut attached = self.lock();
        let Ok(label) = label(name) else { return Ok(()) };
        let Some(attachment) = attached.get_mut(name) else { return self.detach_left(name, &label) };
        attachment.end(&label)?;
        if let Some(keeper) = self.keeper() {
            keeper.forget(name)?;
        }
        attached.remove(name);
        Ok(())
    }

    /// Ends a block device that an earlier process has attached, and that nobody can serve any more. Whoever uses it gets errors from now on, and it is gone
    /// with the last of them.
    pub fn give_up(&self, name: &str) -> Result<(), DetachError> {
        let Ok(label) = label(name) else { return Ok(()) };
        if let Some(keeper) = self.keeper() {
            keeper.forget(name)?;
        }
        let system = |action| move |source| DetachError::System { action, path: PathBuf::from(name), source };
        let Some(device) = LoopDevice::find(&label).map_err(system("look for the block device of"))? else {
            return Ok(());
        };
        let opened = device.open(OFlags::RDWR).map_err(|e| system("open the block device of")(e.into()))?;
        // Looked at again, now that it is open and cannot become another's.
        if !device.has_label(&label).map_err(system("look for the block device of"))? {
            return Ok(());
        }
        LoopDevice::clear(&opened).map_err(|e| system("clear the block device of")(e.into()))
    }

    fn detach_left(&self, name: &str, label: &str) -> Result<(), DetachError> {
        let action = "look for the block device of";
        let system = |source| DetachError::System { action, path: PathBuf::from(name), source };
        if let Some(keeper) = self.keeper()
            && keeper.names()?.iter().any(|kept| kept == name)
        {
            // Perhaps nobody serves it now, so it must not be asked for its label.
            return match LoopDevice::marked(label).map_err(system)?[..] {
                [] => Ok(keeper.forget(name)?),
                _ => Err(DetachError::Elsewhere(name.to_owned())),
            };
        }
        match LoopDevice::find(label).map_err(system)? {
            // What has lost its server and its connection answers with errors, and can go without them.
            Some(device) => crate::attachment::clear(device, label),
            None => Ok(()),
        }
    }

    /// Stops serving all devices, and leaves them for the next process, in which requests that come meanwhile wait.
    ///
    /// What was asked before is answered. Without a keeper the devices end in errors. It fails for those whose requests are not answered in
    /// time: the next process gets them when they are, or when this one has ended. The keeper gives them to nobody before this host is dropped.
    pub fn hand_over(&self) -> Result<(), DetachError> {
        let mut attached = std::mem::take(&mut *self.lock());
        tell_all(&mut attached);
        attached.values_mut().map(Attachment::leave).fold(Ok(()), Result::and)
    }

    /// The names of the devices that are attached here, and their paths.
    #[must_use]
    pub fn attached(&self) -> Vec<(String, PathBuf)> {
        self.lock().iter().map(|(name, attachment)| (name.clone(), attachment.path())).collect()
    }

    /// The names of the devices that an earlier process has attached, and that are kept for this one to attach.
    pub fn kept(&self) -> Result<Vec<String>, KeeperError> {
        let names = self.keeper().map_or(Ok(Vec::new()), |keeper| keeper.names())?;
        let attached = self.lock();
        Ok(names.into_iter().filter(|name| !attached.contains_key(name)).collect())
    }

    /// Has all that is attached here kept by another keeper: one that was started in place of one that has died.
    ///
    /// When it fails, this host goes on with the keeper that it had, and the other has nothing of it; or it has, and holds it for this host,
    /// when it cannot be told to forget it.
    pub fn keep_with(&self, keeper: Keeper) -> Result<(), KeeperError> {
        let keeper = Arc::new(keeper);
        let attached = self.lock();
        for (count, (name, attachment)) in attached.iter().enumerate() {
            if let Err(error) = attachment.keep(name, &keeper) {
                forget_all(attached.iter().take(count), &keeper);
                return Err(error);
            }
        }
        let former = self.keeper();
        for (name, attachment) in attached.iter() {
            // One that lives after all would have it free for anybody when it is not held there any more.
            if let Some(Err(error)) = former.as_ref().map(|former| former.forget(name)) {
                tracing::debug!(%error, "the former keeper is gone");
            }
            attachment.hold_only(&keeper);
        }
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Ok(())
    }

    fn keeper(&self) -> Option<Arc<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Attachment>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // All at once, so that it takes as long as the slowest of them and not as all.
        tell_all(&mut self.lock());
    }
}

/// Has a keeper that does not have all of them have none.
fn forget_all<'a>(attached: impl Iterator<Item = (&'a String, &'a Attachment)>, keeper: &Arc<Keeper>) {
    for (name, attachment) in attached {
        if let Err(error) = attachment.forget(name, keeper) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                device = name,
                "a second keeper has a block device, too, and holds it for this process"
            );
        }
    }
}

fn tell_all(attached: &mut BTreeMap<String, Attachment>) {
    for (name, attachment) in attached {
        if let Err(error) = attachment.tell_to_end() {
            tracing::debug!(%error, device = name, "the threads of a block device could not be told to end");
        }
    }
}

pub(crate) fn label(name: &str) -> Result<String, AttachError> {
    let label = format!("{LABEL}{name}");
    let fits = !name.is_empty() && label.len() <= MOST_LABEL_LEN && !name.contains('\0');
    if fits { Ok(label) } else { Err(AttachError::Name(name.to_owned())) }
}
