//! One file of FUSE that is a device: what becomes of each request.

use crate::dirt::Dirt;
use crate::in_flight::InFlight;
use crate::keeper::Keeper;
use crate::protocol::{
    ALWAYS, Fault, Init, MAJOR, Operation, Reply, Request, WRITE_HEADER, attributes, entry_flags, errno, flag, init,
    notify_resend, notify_retrieve, notify_size, opened, statistics, written,
};
use block::{Buffer, Description, Device, Done, FailureKind, PAGE, Pool, ZeroMode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The longest read or write that the kernel is told of; a device may take less.
pub(crate) const LONGEST: u32 = 1 << 20;

/// Requests under way that nobody waits for, which those of a loop device are: as many as its queue has. The kernel keeps more back. It
/// bounds the buffers that a slow device holds.
const BACKGROUND: u16 = 128;

/// The kernel does not read into less, in bytes.
const LEAST_ROOM: u32 = 8192;

/// In the mode of a FALLOCATE: the file does not grow, which it never does here.
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;

/// A connection to the kernel, and the device behind it. The threads that serve it share it, and so do the requests under way: it ends with
/// the last of them, and what it has, too.
pub(crate) struct Session {
    fuse: OwnedFd,
    device: Arc<dyn Device>,
    about: Description,
    /// Its size now; what `about` says is what it was.
    size: AtomicU64,
    pool: Pool,
    longest: u32,
    dirt: Dirt,
    /// What was agreed on with the kernel, once it was.
    resends: OnceLock<bool>,
    pub(crate) in_flight: Arc<InFlight>,
    complained: AtomicU32,
    /// How long the kernel may go without asking for the attributes again.
    pub(crate) valid_s: u64,
    /// Where the name of the device is held, which nobody else may take while anybody here can still answer: whoever has dropped or handed over
    /// all else, the names are free when the last thread and the last request are gone.
    held: Mutex<Vec<Arc<Keeper>>>,
}

/// Complaints that are logged of one connection; after these, one more helps nobody.
const MOST_COMPLAINTS: u32 = 20;

/// Has the kernel repeat what another process has read from a connection and not answered.
pub(crate) fn resend(fuse: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::write(fuse, &notify_resend()).map(|_| ())
}

/// Whether the file system of a connection is gone, and so the connection over.
pub(crate) fn is_over(fuse: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut waited = [PollFd::new(&fuse, PollFlags::IN)];
    poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(waited[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// What comes out of reading a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There was one, or it went before it was read.
    Served,
    /// There will be none any more.
    Over,
}

impl Session {
    pub(crate) fn new(fuse: OwnedFd, device: Arc<dyn Device>, about: Description, longest: u32, pool: Pool) -> Self {
        Self {
            fuse,
            device,
            size: AtomicU64::new(about.size),
            about,
            pool,
            longest,
            dirt: Dirt::default(),
            resends: OnceLock::new(),
            in_flight: Arc::default(),
            complained: AtomicU32::new(0),
            valid_s: ALWAYS,
            held: Mutex::default(),
        }
    }

    /// The same, of a connection that another process has begun and the kernel gives requests of again.
    pub(crate) fn resumed(self) -> Self {
        Self { resends: OnceLock::from(true), ..self }
    }

    /// The device's name is held there too, from now on.
    pub(crate) fn hold(&self, keeper: &Arc<Keeper>) {
        let mut held = self.held();
        if !held.iter().any(|other| Arc::ptr_eq(other, keeper)) {
            held.push(keeper.clone());
        }
    }

    /// The device's name is not held there any more; nobody can take it from there.
    pub(crate) fn let_go(&self, keeper: &Arc<Keeper>) {
        self.held().retain(|other| !Arc::ptr_eq(other, keeper));
    }

    /// The device's name is held nowhere else any more.
    pub(crate) fn hold_only(&self, keeper: &Arc<Keeper>) {
        self.held().retain(|other| Arc::ptr_eq(other, keeper));
    }

    fn held(&self) -> MutexGuard<'_, Vec<Arc<Keeper>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fuse(&self) -> BorrowedFd<'_> {
        rustix::fd::AsFd::as_fd(&self.fuse)
    }

    /// Whether the kernel has begun with the connection: before, it takes no messages.
    pub(crate) fn has_begun(&self) -> bool {
        self.resends.get().is_some()
    }

    /// Has one reader of the connection woken.
    pub(crate) fn kick(&self) -> Result<(), Errno> {
        rustix::io::write(&self.fuse, &notify_retrieve()).map(|_| ())
    }

    /// How many bytes the kernel may ask for.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The device has grown: the kernel may ask for so many bytes, and learns that the file has them. It takes no smaller size.
    pub(crate) fn grow(&self, size: u64) -> Result<(), Errno> {
        self.size.fetch_max(size, Ordering::AcqRel);
        rustix::io::write(&self.fuse, &notify_size(self.size())).map(|_| ())
    }

    pub(crate) fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Whether the kernel gives requests again; not before the connection has begun.
    pub(crate) fn resends(&self) -> bool {
        self.resends.get().copied().unwrap_or(false)
    }

    /// Reads one request and begins to work on it.
    ///
    /// The whole buffer must be in memory. The kernel takes the request off its list before it copies it; when the copy fails, since this
    /// process was killed and a page would have to be faulted in, it ends the request with an error, and does not repeat it.
    ///
    /// What is written lies at a page of the buffer, so that a disk can take it from there.
    pub(crate) fn turn(self: &Arc<Self>) -> Result<Turn, Errno> {
        let from = PAGE - WRITE_HEADER;
        let mut buffer = self.read_into();
        match rustix::io::read(&self.fuse, &mut buffer[..]) {
            Ok(len) => {
                buffer.choose(from..from + len);
                self.take(buffer);
                Ok(Turn::Served)
            }
            // The request was given up while it was read; or a signal came.
            Err(Errno::NOENT | Errno::INTR) => Ok(Turn::Served),
            Err(Errno::NODEV) => Ok(Turn::Over),
            Err(error) => Err(error),
        }
    }

    /// A buffer that the longest request fits into.
    pub(crate) fn read_into(&self) -> Buffer {
        let room = self.longest.max(LEAST_ROOM) as usize;
        let mut buffer = self.pool.take(PAGE + room);
        buffer.choose(PAGE - WRITE_HEADER..PAGE + room);
        buffer
    }

    pub(crate) fn take(self: &Arc<Self>, buffer: Buffer) {
        let request = match Request::decode(&buffer) {
            Ok(request) => request,
            Err(fault) => {
                self.complain(&fault.to_string());
                if let Fault::Body { unique, .. } = fault {
                    self.refuse(unique, errno::PROTOCOL);
                }
                return;
            }
        };
        let unique = request.unique;
        match request.operation {
            Operation::Read { offset, len } => self.read(unique, offset, len, buffer),
            Operation::Write { offset, len } => self.write(unique, offset, len, buffer),
            Operation::Sync => self.sync(unique),
            Operation::Fallocate { offset, len, mode } => self.fallocate(unique, offset, len, mode),
            Operation::Init(asked) => self.init(unique, &asked),
            Operation::Attributes => self.answer(unique, &self.attributes()),
            Operation::Open => {
                let flags = entry_flags::DIRECT_IO | entry_flags::NO_FLUSH | entry_flags::PARALLEL_DIRECT_WRITES;
                self.answer(unique, &opened(flags));
            }
            Operation::Statistics => self.answer(unique, &statistics(self.size(), 4096)),
            Operation::Flush | Operation::Release | Operation::Destroy => self.answer(unique, &[]),
            Operation::Forget | Operation::Retrieved => {}
            // That the kernel need not tell: what was asked is answered anyway.
            Operation::Interrupt | Operation::Other(_) => self.refuse(unique, errno::NO_SYSTEM_CALL),
        }
    }

    fn attributes(&self) -> [u8; 104] {
        attributes(self.size(), self.about.features.write, self.valid_s)
    }

    fn init(&self, unique: u64, asked: &Init) {
        if asked.major < MAJOR {
            self.complain(&format!("the kernel speaks FUSE {}.{}", asked.major, asked.minor));
            return self.refuse(unique, errno::PROTOCOL);
        }
        if asked.major == MAJOR {
            let _ = self.resends.set(asked.flags & flag::HAS_RESEND != 0);
        }
        // A kernel of a later major version asks again, by ours.
        self.answer(unique, &init(asked, self.longest, BACKGROUND));
    }

    /// A range that the device may be asked for, or the number of the error.
    fn range(&self, offset: u64, len: u64) -> Result<Range<u64>, u16> {
        let minimum = u64::from(self.about.blocks.minimum);
        let end = offset.checked_add(len).filter(|end| *end <= self.size()).ok_or(errno::NO_SPACE)?;
        if len == 0 || !offset.is_multiple_of(minimum) || !len.is_multiple_of(minimum) {
            return Err(errno::INVALID);
        }
        Ok(offset..end)
    }

    fn read(self: &Arc<Self>, unique: u64, offset: u64, len: u32, mut buffer: Buffer) {
        // Reading ends where the file ends.
        let len = u64::from(len).min(self.size().saturating_sub(offset));
        if len == 0 {
            return self.answer(unique, &[]);
        }
        let range = match self.range(offset, len) {
            Ok(range) if len <= u64::from(self.longest) => range,
            Ok(_) => return self.refuse(unique, errno::INVALID),
            Err(errno) => return self.refuse(unique, errno),
        };
        let len = usize::try_from(len).expect("it is at most the longest request");
        buffer.choose(PAGE..PAGE + len);
        let entered = self.in_flight.enter();
        let session = self.clone();
        let done = Done::new(move |result: Result<Buffer, block::Failure>| {
            match result {
                Ok(buffer) if buffer.len() == len => session.answer(unique, &buffer),
                Ok(buffer) => {
                    session.complain(&format!("the device read {} bytes of {len}", buffer.len()));
                    session.refuse(unique, errno::IO);
                }
                Err(failure) => session.failed(unique, &failure),
            }
            drop((session, entered));
        });
        self.device.read(range.start, buffer, done);
    }

    fn write(self: &Arc<Self>, unique: u64, offset: u64, len: u32, mut buffer: Buffer) {
        if !self.about.features.write {
            return self.refuse(unique, errno::READ_ONLY);
        }
        match self.range(offset, u64::from(len)) {
            Err(errno) => self.refuse(unique, errno),
            Ok(range) => {
                buffer.choose(PAGE..PAGE + len as usize);
                let done = self.changed(unique, move |session| session.answer(unique, &written(len)));
                self.device.write(range.start, buffer, false, done);
            }
        }
    }

    fn fallocate(self: &Arc<Self>, unique: u64, offset: u64, len: u64, mode: u32) {
        if !self.about.features.write {
            return self.refuse(unique, errno::READ_ONLY);
        }
        // The loop device punches holes also where zeros are to be written, so a hole must read as zeros: it is no mere hint.
        let keep_allocated = match mode & !KEEP_SIZE {
            PUNCH_HOLE => false,
            ZERO_RANGE => true,
            _ => return self.refuse(unique, errno::NOT_SUPPORTED),
        };
        if !self.about.features.write_zeroes {
            return self.refuse(unique, errno::NOT_SUPPORTED);
        }
        match self.range(offset, len) {
            Err(errno) => self.refuse(unique, errno),
            Ok(range) => {
                let done = self.changed(unique, move |session| session.answer(unique, &[]));
                self.device.write_zeroes(range, ZeroMode { durable: false, keep_allocated }, done);
            }
        }
    }

    /// For a request that changes the device.
    fn changed(self: &Arc<Self>, unique: u64, answer: impl FnOnce(&Self) + Send + 'static) -> Done<()> {
        let entered = self.in_flight.enter();
        let session = self.clone();
        Done::new(move |result| {
            // Before the answer: who has it and asks for a flush must find it. Also after a failure, which may have changed a part.
            session.dirt.add();
            match result {
                Ok(()) => answer(&session),
                Err(failure) => session.failed(unique, &failure),
            }
            drop((session, entered));
        })
    }

    /// Without anything to make durable it costs nothing: a loop device asks twice for each commit of a file system.
    fn sync(self: &Arc<Self>, unique: u64) {
        let features = self.about.features;
        let Some(upto) = self.dirt.look() else { return self.answer(unique, &[]) };
        if !features.write || !features.flush {
            return self.answer(unique, &[]);
        }
        let entered = self.in_flight.enter();
        let session = self.clone();
        self.device.flush(Done::new(move |result| {
            match result {
                Ok(()) => {
                    session.dirt.clean(upto);
                    session.answer(unique, &[]);
                }
                Err(failure) => session.failed(unique, &failure),
            }
            drop((session, entered));
        }));
    }

    fn failed(&self, unique: u64, failure: &block::Failure) {
        if failure.kind != FailureKind::ShuttingDown {
            self.complain(&failure.message);
        }
        self.refuse(unique, failure.kind.errno());
    }

    fn answer(&self, unique: u64, bytes: &[u8]) {
        self.send(unique, &Reply::header(unique, bytes.len()), bytes);
    }

    fn refuse(&self, unique: u64, errno: u16) {
        self.send(unique, &Reply::error(unique, errno), &[]);
    }

    fn send(&self, unique: u64, header: &[u8], bytes: &[u8]) {
        match rustix::io::writev(&self.fuse, &[IoSlice::new(header), IoSlice::new(bytes)]) {
            // Nobody waits for it any more, or nobody is there.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(error) => {
                self.complain(&format!("the kernel does not take the answer to request {unique}: {error}"));
                // Without any answer, whoever waits for it waits for ever.
                let _ = rustix::io::write(&self.fuse, &Reply::error(unique, errno::IO));
            }
        }
    }

    fn complain(&self, what: &str) {
        let already = self.complained.fetch_add(1, Ordering::Relaxed);
        if already < MOST_COMPLAINTS {
            tracing::warn!("a request to a block device failed: {what}");
        } else if already == MOST_COMPLAINTS {
            tracing::warn!("more failures of this block device are not logged");
        }
    }
}
