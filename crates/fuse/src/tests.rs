//! What needs a view into a host: devices of the kernel in states that its interface does not lead to. They need root, FUSE and loop devices.

use crate::attachment::PATIENCE;
use crate::keeper::{Keeper, KeeperError, KeeperServer};
use crate::loop_device::{LoopDevice, LoopError};
use crate::session::{LONGEST, Session};
use crate::threads::Threads;
use crate::{AttachError, DetachError, Host, mount, own_files};
use block::testing::Memory;
use block::{BlockSizes, Buffer, Description, Device, Done, Failure, PAGE, Pool};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const SIZE: usize = 8 << 20;
/// How long anything may take that is to end by itself.
const LONG: Duration = Duration::from_secs(20);

fn lacks() -> Option<String> {
    skips::lacks_root().or_else(|| {
        let mut devices = ["/dev/fuse", "/dev/loop-control"].into_iter();
        devices.find_map(|device| std::fs::File::open(device).err().map(|error| format!("{device}: {error}")))
    })
}

macro_rules! require {
    () => {
        if let Some(reason) = lacks() {
            skips::skip!("{reason}");
        }
    };
}

fn unique(name: &str) -> String {
    format!("test-{}-{name}", std::process::id())
}

fn label(name: &str) -> String {
    crate::host::label(name).unwrap()
}

fn writable() -> Arc<Memory> {
    Arc::new(Memory::writable(&vec![7; SIZE]))
}

/// A keeper in a thread.
struct Running {
    folder: tempfile::TempDir,
    stop: Option<std::io::PipeWriter>,
    thread: Option<std::thread::JoinHandle<Result<(), rustix::io::Errno>>>,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = KeeperServer::bind(&folder.path().join("keeper")).unwrap();
        let (waits, stop) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || server.run(waits));
        Self { folder, stop: Some(stop), thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("keeper")
    }

    fn client(&self) -> Keeper {
        Keeper::connect(&self.path()).unwrap()
    }

    fn host(&self) -> Host {
        Host::new(Some(self.client()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.unwrap().is_ok());
    }
}

/// One whose kernel asks for the attributes of a file whenever it is asked for anything about it.
fn unsure(mut host: Host) -> Host {
    host.valid_s = 0;
    host
}

/// Detaches what a test leaves. Made first it goes last, after the keeper: so nothing waits for a server any more.
struct Cleared(String);

impl Drop for Cleared {
    fn drop(&mut self) {
        let _ = Host::new(None).detach(&self.0);
    }
}

/// Does it in another thread, and does not wait for ever: what hangs is a failure. It ends the process, since cleaning up would hang with it.
fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(LONG).unwrap_or_else(|error| {
        eprintln!("{what}: {error}");
        std::process::abort()
    })
}

#[test]
fn nothing_is_asked_of_a_loop_device_before_somebody_serves_it() {
    require!();
    let (first, second) = (unique("first"), unique("second"));
    let _cleared = (Cleared(first.clone()), Cleared(second.clone()));
    let keeper = Running::start();
    let host = || unsure(keeper.host());
    let (before, memory) = (host(), writable());
    let path = before.attach(&first, memory.clone()).unwrap();
    before.hand_over().unwrap();
    drop(before);
    // Now the first is kept, and nobody serves it: neither detaching it, attaching another nor going on with it may wait for that.
    let after = host();
    let name = first.clone();
    let (after, elsewhere) = within("detach what nobody serves", move || {
        let outcome = after.detach(&name);
        (after, outcome)
    });
    assert!(matches!(elsewhere, Err(DetachError::Elsewhere(_))), "{elsewhere:?}");
    let (name, other) = (second.clone(), memory.clone());
    let after = within("attach another device", move || {
        after.attach(&name, other).unwrap();
        after
    });
    let name = first.clone();
    let (after, again) = within("go on with a device", move || {
        let path = after.attach(&name, memory).unwrap();
        (after, path)
    });
    assert_eq!(again, path);
    after.detach(&first).unwrap();
    after.detach(&second).unwrap();
}

#[test]
fn a_keeper_that_cannot_take_over_all_has_nothing_that_is_served() {
    require!();
    let (first, second) = (unique("a"), unique("b"));
    let _cleared = (Cleared(first.clone()), Cleared(second.clone()));
    let (former, newer) = (Running::start(), Running::start());
    let host = former.host();
    host.attach(&first, writable()).unwrap();
    host.attach(&second, writable()).unwrap();
    let other = newer.client();
    other.keep(&second, b"another's", tempfile::tempfile().unwrap().as_fd()).unwrap();
    let outcome = host.keep_with(newer.client());
    assert!(matches!(outcome, Err(KeeperError::Held { .. })), "{outcome:?}");
    assert!(newer.client().take(&first).unwrap().is_none(), "what is served here can be taken there");
    assert!(matches!(former.client().take(&first), Err(KeeperError::Held { .. })));
    // When the name is free, it is done.
    other.forget(&second).unwrap();
    host.keep_with(newer.client()).unwrap();
    for name in [&first, &second] {
        assert!(matches!(newer.client().take(name), Err(KeeperError::Held { .. })));
        host.detach(name).unwrap();
    }
}

#[test]
fn a_former_keeper_that_lives_after_all_has_nothing_that_is_served() {
    require!();
    let name = unique("moved");
    let _cleared = Cleared(name.clone());
    let (former, newer) = (Running::start(), Running::start());
    let host = former.host();
    host.attach(&name, writable()).unwrap();
    host.keep_with(newer.client()).unwrap();
    assert!(former.client().names().unwrap().is_empty());
    assert!(matches!(newer.client().take(&name), Err(KeeperError::Held { .. })));
    host.detach(&name).unwrap();
    assert!(newer.client().names().unwrap().is_empty());
}

/// A device at whose description somebody else has its name kept.
struct Overtaken(Memory, Mutex<Option<Keeper>>, String, PathBuf);

impl Device for Overtaken {
    fn describe(&self) -> Result<Description, Failure> {
        let keeper = Keeper::connect(&self.3).unwrap();
        keeper.keep(&self.2, b"another's", tempfile::tempfile().unwrap().as_fd()).unwrap();
        *self.1.lock().unwrap() = Some(keeper);
        self.0.describe()
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.0.read(offset, buffer, done);
    }
}

#[test]
fn of_a_device_that_is_not_kept_nothing_is_left() {
    require!();
    let name = unique("overtaken");
    let _cleared = Cleared(name.clone());
    let keeper = Running::start();
    let device = Arc::new(Overtaken(Memory::new(&[7; SIZE]), Mutex::default(), name.clone(), keeper.path()));
    let host = keeper.host();
    let refused = host.attach(&name, device);
    assert!(matches!(refused, Err(AttachError::Keeper(KeeperError::Held { .. }))), "{refused:?}");
    assert_eq!(LoopDevice::find(&label(&name)).unwrap(), None);
    assert_eq!(threads_of(&name), 0);
    assert!(host.attached().is_empty());
}

/// How many threads serve it.
fn threads_of(name: &str) -> usize {
    let comm = format!("fuse {name}");
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|found| found.trim_end() == &comm[..15]).count()
}

#[test]
fn that_a_label_cannot_be_read_is_an_error_and_not_another_label() {
    require!();
    let name = unique("unreadable");
    let host = unsure(Host::new(None));
    host.attach(&name, writable()).unwrap();
    let device = LoopDevice::find(&label(&name)).unwrap().expect("it is attached");
    assert!(device.has_label(&label(&name)).unwrap());
    assert!(!device.has_label(&label("other")).unwrap());
    // Nobody serves it any more, so the kernel cannot ask for the attributes.
    drop(host);
    let outcome = device.has_label(&label(&name));
    let other = device.has_label(&label("other"));
    let attached = Host::new(None).attach(&name, writable());
    LoopDevice::clear(&device.open(OFlags::RDWR).unwrap()).unwrap();
    assert!(outcome.is_err(), "{outcome:?}");
    assert!(!other.unwrap(), "that it is not another's is seen without asking it");
    assert!(matches!(attached, Err(AttachError::System { .. })), "a second one: {attached:?}");
}

#[test]
fn the_kernel_knows_the_size_of_a_file_before_a_loop_device_is_made_of_it() {
    require!();
    let memory = writable();
    let about = memory.describe().unwrap();
    let fuse = mount::connect().unwrap();
    let made = mount::make(&fuse).unwrap();
    let session = Arc::new(Session::new(fuse, memory, about, LONGEST, Pool::resident(1 << 20)));
    let threads = Threads::start(&session, 2, "size", PATIENCE).unwrap();
    let file = mount::open(&made, true).unwrap();
    // What a loop device before Linux 6.17 sees.
    let known = statx(&file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::SIZE).unwrap();
    assert_eq!(known.stx_size, SIZE as u64);
    drop((file, threads));
}

/// Set in a process that waits for itself.
const WAITS: &str = "ORLOP_TEST_WAITS_FOR_ITSELF";

/// Opens a file that it serves itself, and does not answer.
fn wait_for_oneself() {
    let memory = writable();
    let about = memory.describe().unwrap();
    let fuse = mount::connect().unwrap();
    let made = mount::make(&fuse).unwrap();
    let session = Arc::new(Session::new(fuse, memory, about, LONGEST, Pool::resident(1 << 20)));
    std::thread::spawn(move || {
        session.turn().unwrap();
        assert!(session.has_begun());
        rustix::io::read(session.fuse(), &mut vec![0; PAGE + LONGEST as usize][..]).unwrap();
        println!("\nasked");
        std::thread::park();
    });
    drop(own_files::with_only(made.as_fd(), || mount::open(&made, true).is_ok()));
    unreachable!("nobody answers");
}

#[test]
fn a_process_that_is_killed_while_it_waits_for_itself_ends() {
    require!();
    if std::env::var_os(WAITS).is_some() {
        return wait_for_oneself();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "tests::a_process_that_is_killed_while_it_waits_for_itself_ends"]);
    let mut child = command.env(WAITS, "1").stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    assert!(said.lines().map_while(Result::ok).any(|line| line == "asked"), "{:?}", child.try_wait());
    child.kill().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < PATIENCE, "it waits for an answer that only it could give");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_block_device_of_another_size_than_its_device_is_not_handed_out() {
    require!();
    let (host, name) = (Host::new(None), unique("sized"));
    host.attach(&name, writable()).unwrap();
    let device = LoopDevice::find(&label(&name)).unwrap().expect("it is attached");
    device.expect_size(SIZE as u64).unwrap();
    let outcome = device.expect_size(SIZE as u64 + 4096);
    host.detach(&name).unwrap();
    assert!(matches!(outcome, Err(LoopError::Size { seen: 8_388_608, wanted: 8_392_704, .. })), "{outcome:?}");
}

#[test]
fn a_device_for_shorter_requests_does_not_go_on_where_one_for_longer_ones_was() {
    require!();
    let name = unique("shorter");
    let _cleared = Cleared(name.clone());
    let keeper = Running::start();
    let device = |maximum| {
        let mut memory = Memory::writable(&vec![7; SIZE]);
        memory.blocks = BlockSizes { maximum, ..memory.blocks };
        Arc::new(memory)
    };
    let host = keeper.host();
    let path = host.attach(&name, device(256 << 10)).unwrap();
    host.hand_over().unwrap();
    drop(host);
    let host = keeper.host();
    match host.attach(&name, device(64 << 10)) {
        Err(AttachError::Longest { agreed, longest, .. }) => assert_eq!((agreed, longest), (256 << 10, 64 << 10)),
        other => panic!("{other:?}"),
    }
    // One that takes longer ones does.
    assert_eq!(host.attach(&name, device(1 << 20)).unwrap(), path);
    host.detach(&name).unwrap();
}

/// A device that is smaller when it is described again.
struct Shrinking(Memory, AtomicBool);

impl Device for Shrinking {
    fn describe(&self) -> Result<Description, Failure> {
        let about = self.0.describe()?;
        let size = if self.1.swap(true, Ordering::Relaxed) { about.size / 2 } else { about.size };
        Ok(Description { size, ..about })
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.0.read(offset, buffer, done);
    }
}

#[test]
fn of_an_attachment_that_cannot_go_on_nothing_is_left_and_the_next_host_goes_on_with_it() {
    require!();
    let name = unique("shrinking");
    let _cleared = Cleared(name.clone());
    let keeper = Running::start();
    let host = keeper.host();
    let path = host.attach(&name, writable()).unwrap();
    host.hand_over().unwrap();
    drop(host);
    let host = keeper.host();
    let device = Arc::new(Shrinking(Memory::new(&[7; SIZE]), AtomicBool::new(false)));
    // By then it is served already.
    let refused = host.attach(&name, device.clone());
    assert!(matches!(refused, Err(AttachError::Size { attached: 8_388_608, size: 4_194_304, .. })), "{refused:?}");
    // Each thread that serves it would have it.
    assert_eq!((host.attached(), Arc::strong_count(&device)), (vec![], 1));
    // Nobody else got it meanwhile, and whoever uses the block device can be served still.
    assert_eq!(host.kept().unwrap(), std::slice::from_ref(&name));
    drop(host);
    let host = keeper.host();
    assert_eq!(host.attach(&name, writable()).unwrap(), path);
    host.detach(&name).unwrap();
    assert!(keeper.client().names().unwrap().is_empty());
    assert_eq!(LoopDevice::find(&label(&name)).unwrap(), None);
}
