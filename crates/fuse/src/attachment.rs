//! One device that is attached: how it begins, goes on in another process, and ends.
//!
//! Beginning, and what is there when the process dies after each step:
//!
//! 1. The connection is opened, the file system is made, threads read it: it ends with the process. What is asked of it from here on, as on the way to 2, is asked by
//!    a thread that does not have the connection open: else a process that is killed while it waits for itself never ends.
//! 2. The loop device is bound: it answers with errors, and the next attach finds it by its label and clears it. Nobody uses it, since
//!    nobody was told of it.
//! 3. Its size is looked at, and the keeper keeps the connection: the next attach goes on with it.
//!
//! Ending: 1. the loop device is cleared, with which the file system ends; 2. the keeper forgets the connection. Between them, the next
//! attach finds a connection that is over, has it forgotten, and begins.
//!
//! Going on in another process: what can be known without asking the block device is looked at first, since asking it may ask for something
//! that nobody serves; then the connection is served; then the block device is asked for its label.

use crate::host::{AttachError, DetachError};
use crate::keeper::{Keeper, KeeperError, Taken};
use crate::loop_device::{BLOCK, LoopDevice};
use crate::mount;
use crate::own_files;
use crate::session::{self, LONGEST, Session};
use crate::state::State;
use crate::threads::Threads;
use crate::users::{User, users};
use block::{Description, Device, PAGE, Pool};
use rustix::fd::AsFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to end what was told to end, and a device to answer the last requests: far longer than either does, and
/// short enough to tell somebody.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at whether the kernel is done.
const LOOK: Duration = Duration::from_millis(5);
/// Looks after which who was seen in all of them counts as a user.
const LOOKS: usize = 10;

/// What attachments share.
#[derive(Clone, Copy)]
pub(crate) struct Resources<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) threads: usize,
    pub(crate) keeper: Option<&'a Arc<Keeper>>,
    /// How long a device may take to answer its last requests.
    pub(crate) patience: Duration,
    /// How long the kernel may go without asking for the attributes of the file again.
    pub(crate) valid_s: u64,
}

/// A block device, and the threads that serve it.
pub(crate) struct Attachment {
    device: LoopDevice,
    session: Arc<Session>,
    threads: Threads,
    state: State,
}

impl Attachment {
    /// Makes a block device.
    pub(crate) fn begin(
        name: &str,
        label: &str,
        device: Arc<dyn Device>,
        resources: Resources<'_>,
    ) -> Result<Self, AttachError> {
        let about = described(&*device)?;
        clear_left(name, label)?;
        let longest = longest(&about);
        let fuse = mount::connect()?;
        let writable = about.features.write;
        let made = mount::make(&fuse)?;
        let session = Session::new(fuse, device, about, longest, resources.pool.clone());
        let (session, threads) = serve(name, session, longest, resources)?;
        let bound = own_files::with_only(made.as_fd(), || {
            let file = mount::open(&made, writable)?;
            // From its end on the loop device alone holds the file.
            Ok::<_, AttachError>(LoopDevice::bind(file.as_fd(), label, writable)?)
        });
        let unbound = |source| AttachError::System { action: "have a thread of its own for the block device", source };
        let device = bound.map_err(unbound)??;
        drop(made);
        let state = State { device: device.0, longest };
        let mut attachment = Self { device, session, threads, state };
        let completed = attachment.complete(name, about.size, resources.keeper);
        if completed.is_err()
            && let Err(error) = attachment.end(label)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "a block device that nobody was told of is left");
        }
        completed.map(|()| attachment)
    }

    /// What is to be done before anybody is told of the block device.
    fn complete(&self, name: &str, size: u64, keeper: Option<&Arc<Keeper>>) -> Result<(), AttachError> {
        self.device.expect_size(size)?;
        match keeper {
            None => Ok(()),
            Some(keeper) if self.session.resends() => Ok(self.keep(name, keeper)?),
            Some(_) => {
                tracing::warn!(
                    device = name,
                    "this kernel does not repeat requests (it is older than 6.9): the block device ends with this process"
                );
                Ok(())
            }
        }
    }

    /// Goes on with a block device that another process has made, if the keeper has one.
    pub(crate) fn resume(
        name: &str,
        label: &str,
        device: Arc<dyn Device>,
        resources: Resources<'_>,
    ) -> Result<Option<Self>, AttachError> {
        let Some(keeper) = resources.keeper else { return Ok(None) };
        let Some(Taken { descriptor, state }) = keeper.take(name)? else { return Ok(None) };
        let system = |source| AttachError::System { action: "look at the block device that is kept", source };
        let over = session::is_over(descriptor.as_fd()).map_err(|error| system(error.into()))?;
        let Some(state) = State::decode(&state).filter(|_| !over) else {
            // It ended before the keeper was told; or it is of a later version, which no loop device of this label can be.
            keeper.forget(name)?;
            return Ok(None);
        };
        let about = described(&*device)?;
        let loop_device = LoopDevice(state.device);
        let attached = loop_device.size().map_err(system)?;
        // One that has grown, and of which the kernel was not told before the process ended, is told of below.
        if attached > about.size {
            return Err(AttachError::Size { name: name.to_owned(), attached, size: about.size });
        }
        if state.longest > longest(&about) {
            let (agreed, longest) = (state.longest, longest(&about));
            return Err(AttachError::Longest { name: name.to_owned(), agreed, longest });
        }
        // Before anybody reads: what this process had read already would be repeated too, and be done twice at once, the second time perhaps
        // after a newer write to the same place.
        let resent = session::resend(descriptor.as_fd());
        resent.map_err(|source| AttachError::System { action: "have requests repeated", source: source.into() })?;
        let about = Description { size: attached, ..about };
        let session = Session::new(descriptor, device, about, state.longest, resources.pool.clone()).resumed();
        let (session, threads) = serve(name, session, state.longest, resources)?;
        let resumed = Self { device: loop_device, session, threads, state };
        if loop_device.has_label(label).map_err(system)? {
            resumed.grow(name)?;
            return Ok(Some(resumed));
        }
        // It has ended just now, and the number is another's.
        drop(resumed);
        keeper.forget(name)?;
        Ok(None)
    }

    /// Gives the block device the size that the device has now. It may be in use.
    pub(crate) fn grow(&self, name: &str) -> Result<(), AttachError> {
        let (attached, size) = (self.session.size(), described(self.session.device())?.size);
        if size < attached {
            return Err(AttachError::Size { name: name.to_owned(), attached, size });
        }
        let seen = self.device.size();
        let seen =
            seen.map_err(|source| AttachError::System { action: "look at the size of the block device", source })?;
        if size == attached && seen == size {
            return Ok(());
        }
        let told = self.session.grow(size);
        told.map_err(|source| AttachError::System {
            action: "tell the kernel of the new size",
            source: source.into(),
        })?;
        self.device.take_size()?;
        Ok(self.device.expect_size(size)?)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.device.path()
    }

    /// Has it kept there. Its name is held there from now on.
    pub(crate) fn keep(&self, name: &str, keeper: &Arc<Keeper>) -> Result<(), KeeperError> {
        self.session.hold(keeper);
        let kept = keeper.keep(name, &self.state.encode(), self.session.fuse());
        if let Err(KeeperError::Held { .. } | KeeperError::Refused(_)) = kept {
            // After another error the keeper may have done it, and not have said so.
            self.session.let_go(keeper);
        }
        kept
    }

    /// Has it not kept there any more.
    pub(crate) fn forget(&self, name: &str, keeper: &Arc<Keeper>) -> Result<(), KeeperError> {
        keeper.forget(name)?;
        self.session.let_go(keeper);
        Ok(())
    }

    /// Its name is held nowhere else any more.
    pub(crate) fn hold_only(&self, keeper: &Arc<Keeper>) {
        self.session.hold_only(keeper);
    }

    /// Whether it is still the block device of this label.
    pub(crate) fn is_alive(&self, label: &str) -> io::Result<bool> {
        Ok(self.threads.are_alive() && self.device.has_label(label)?)
    }

    /// Ends the block device, unless somebody uses it.
    pub(crate) fn end(&mut self, label: &str) -> Result<(), DetachError> {
        clear(self.device, label)?;
        if self.threads.join() { Ok(()) } else { Err(self.late("end the threads of")) }
    }

    /// Tells its threads to end, and does not wait for it.
    pub(crate) fn tell_to_end(&mut self) -> Result<(), Errno> {
        self.threads.tell_to_end()
    }

    /// Stops serving it, and leaves it as it is.
    pub(crate) fn leave(&mut self) -> Result<(), DetachError> {
        self.threads.leave().map_err(|source| self.system("stop serving", source))
    }

    fn late(&self, action: &'static str) -> DetachError {
        self.system(action, io::ErrorKind::TimedOut.into())
    }

    fn system(&self, action: &'static str, source: io::Error) -> DetachError {
        DetachError::System { action, path: self.path(), source }
    }
}

/// What a device says of itself, if a loop device can be made of it.
fn described(device: &dyn Device) -> Result<Description, AttachError> {
    let about = device.describe()?;
    let sizes = about.blocks;
    let fits = sizes.are_valid() && sizes.minimum <= BLOCK && sizes.maximum >= BLOCK;
    if fits && about.size > 0 && about.size.is_multiple_of(u64::from(BLOCK)) {
        return Ok(about);
    }
    Err(AttachError::Shape { size: about.size, sizes })
}

/// The longest request of a device that the kernel may be told of.
fn longest(about: &Description) -> u32 {
    (about.blocks.maximum / BLOCK * BLOCK).min(LONGEST)
}

fn serve(
    name: &str,
    mut session: Session,
    longest: u32,
    resources: Resources<'_>,
) -> Result<(Arc<Session>, Threads), AttachError> {
    let Resources { pool, threads, keeper, patience, valid_s } = resources;
    // One for each thread to read into, and as many for requests that a device has.
    pool.prepare(PAGE + longest as usize, 2 * threads);
    session.valid_s = valid_s;
    if let Some(keeper) = keeper {
        session.hold(keeper);
    }
    let session = Arc::new(session);
    let started = Threads::start(&session, threads, name, patience);
    let threads = started.map_err(|source| AttachError::System { action: "start threads", source })?;
    Ok((session, threads))
}

/// Clears the block device that a server without a keeper has left, if there is one.
fn clear_left(name: &str, label: &str) -> Result<(), AttachError> {
    let system = |source| AttachError::System { action: "look for block devices that were left", source };
    let Some(device) = LoopDevice::find(label).map_err(system)? else { return Ok(()) };
    match clear(device, label) {
        Ok(()) => Ok(()),
        Err(DetachError::InUse { path, users }) => Err(AttachError::Left { name: name.to_owned(), path, users }),
        Err(DetachError::System { action, source, .. }) => Err(AttachError::System { action, source }),
        Err(other) => Err(AttachError::System { action: "clear a block device", source: io::Error::other(other) }),
    }
}

/// Clears a loop device, unless somebody uses it or it has become another's.
pub(crate) fn clear(device: LoopDevice, label: &str) -> Result<(), DetachError> {
    let path = device.path();
    let system = |action| {
        let path = path.clone();
        move |source: Errno| DetachError::System { action, path, source: source.into() }
    };
    let has_label = || {
        let action = "look whether it is still bound:";
        device.has_label(label).map_err(|source| DetachError::System { action, path: device.path(), source })
    };
    if !has_label()? {
        return Ok(());
    }
    let name = format!("loop{}", device.0);
    let in_use = |mut users: Vec<User>| {
        if users.is_empty() {
            users.push(User::Unknown);
        }
        Err(DetachError::InUse { path: path.clone(), users })
    };
    let found = lasting_users(device, &name);
    if !found.is_empty() {
        return in_use(found);
    }
    // The kernel gives it to one only who wants it alone, and a mount has it alone too, in whatever namespace it is.
    let opened = match device.open(OFlags::RDWR | OFlags::EXCL) {
        Err(Errno::BUSY) => return in_use(users(device.device(), &name)),
        other => other.map_err(system("open"))?,
    };
    LoopDevice::clear(&opened).map_err(system("clear"))?;
    drop(opened);
    // It goes with the last who has it open: this was the last, if nobody has come meanwhile.
    let begun = Instant::now();
    while has_label()? {
        let found = lasting_users(device, &name);
        if !found.is_empty() || begun.elapsed() > PATIENCE {
            return in_use(found);
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Who uses it for longer than a look: others that search for a loop device of theirs open each for a moment.
fn lasting_users(device: LoopDevice, name: &str) -> Vec<User> {
    let mut found = users(device.device(), name);
    for _ in 0..LOOKS {
        if found.is_empty() {
            break;
        }
        thread::sleep(LOOK);
        let now = users(device.device(), name);
        found.retain(|user| now.contains(user));
    }
    found
}
