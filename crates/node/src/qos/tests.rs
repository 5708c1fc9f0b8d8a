//! The scheduler with its clock and its threads.

use super::{Bounds, Limits, Scheduler, Shared};
use block::testing::{self, Gate, Later, Memory, seed};
use block::{BlockSizes, Buffer, Device, Done, Failure, FailureKind};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const SIZE: usize = 1 << 20;
/// How long a test waits for what must come: far longer than it takes on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

const UNLIMITED: Limits = Limits { iops: None, bytes_per_second: None };

fn iops(iops: u64) -> Limits {
    Limits { iops: NonZeroU64::new(iops), bytes_per_second: None }
}

fn memory() -> Arc<Memory> {
    Arc::new(Memory::writable(&vec![0; SIZE]))
}

/// A device whose requests wait for a gate.
fn gated(threads: usize) -> (Arc<Later<Memory>>, Arc<Gate>) {
    let device = Later::new(memory(), threads);
    let gate = device.gate();
    (Arc::new(device), gate)
}

/// Asks for so many reads at once; their results come by the channel.
fn ask(device: &Shared, requests: usize) -> mpsc::Receiver<Result<(), Failure>> {
    let (sender, receiver) = mpsc::channel();
    for _ in 0..requests {
        let sender = sender.clone();
        let done = Done::new(move |result: Result<Buffer, Failure>| drop(sender.send(result.map(drop))));
        device.read(0, Buffer::zeroed(4096), done);
    }
    receiver
}

fn results(answers: &mpsc::Receiver<Result<(), Failure>>, requests: usize) -> Vec<Result<(), FailureKind>> {
    let next = |_| answers.recv_timeout(PATIENCE).expect("every request is answered").map_err(|failure| failure.kind);
    (0..requests).map(next).collect()
}

#[test]
fn a_device_that_shares_does_what_a_device_must() {
    let scheduler = Scheduler::new(Bounds { requests: 2, bytes: 8192 }).unwrap();
    let mut memory = Memory::writable(&vec![7; SIZE]);
    memory.blocks = BlockSizes { minimum: 512, preferred: 4096, maximum: 1 << 20 };
    testing::check(&Shared::new(&scheduler, Arc::new(memory), UNLIMITED), seed());
    let later = Later::new(self::memory(), 3);
    testing::check(&Shared::new(&scheduler, Arc::new(later), iops(5_000)), seed());
}

#[test]
fn a_volume_that_waits_for_tokens_is_woken_without_anybody_asking() {
    let scheduler = Scheduler::new(Bounds::default()).unwrap();
    let device = Shared::new(&scheduler, memory(), iops(100));
    let begin = Instant::now();
    let answers = ask(&device, 150);
    assert_eq!(results(&answers, 150), [Ok(()); 150]);
    // A hundred at once, and fifty at a hundred a second.
    assert!(begin.elapsed() >= Duration::from_millis(490), "{:?}", begin.elapsed());
}

#[test]
fn a_limit_that_is_raised_lets_go_what_waits() {
    let scheduler = Scheduler::new(Bounds::default()).unwrap();
    let device = Shared::new(&scheduler, memory(), iops(1));
    let answers = ask(&device, 1000);
    assert_eq!(results(&answers, 1), [Ok(())]);
    device.set_limits(iops(1_000_000));
    device.set_limits(UNLIMITED);
    assert_eq!(results(&answers, 999), [Ok(()); 999], "which would have taken a quarter of an hour");
}

#[test]
fn no_more_than_the_bound_is_under_way() {
    let scheduler = Scheduler::new(Bounds { requests: 5, bytes: 8 << 20 }).unwrap();
    let (below, gate) = gated(16);
    let devices = [0, 1].map(|_| Shared::new(&scheduler, below.clone(), UNLIMITED));
    gate.close();
    let answers = devices.each_ref().map(|device| ask(device, 200));
    gate.open();
    for answers in &answers {
        assert_eq!(results(answers, 200), [Ok(()); 200]);
    }
    assert_eq!(gate.most_at_once(), 5);
}

#[test]
fn what_waits_is_answered_when_a_volume_goes() {
    let scheduler = Scheduler::new(Bounds { requests: 3, bytes: 8 << 20 }).unwrap();
    let (below, gate) = gated(4);
    let (going, staying) =
        (Shared::new(&scheduler, below.clone(), UNLIMITED), Shared::new(&scheduler, below, UNLIMITED));
    gate.close();
    let (answers, others) = (ask(&going, 10), ask(&staying, 10));
    going.close();
    assert_eq!(results(&answers, 7), [Err(FailureKind::ShuttingDown); 7]);
    assert_eq!(results(&ask(&going, 1), 1), [Err(FailureKind::ShuttingDown)]);
    assert_eq!(testing::flush(&going).unwrap_err().kind, FailureKind::ShuttingDown);
    assert_eq!(testing::discard(&going, 0..4096).unwrap_err().kind, FailureKind::ShuttingDown);
    gate.open();
    assert_eq!(results(&answers, 3), [Ok(()); 3], "what was under way finishes");
    assert_eq!(results(&others, 10), [Ok(()); 10]);
}

#[test]
fn what_waits_is_answered_when_the_scheduler_goes() {
    let scheduler = Scheduler::new(Bounds::default()).unwrap();
    let held = Shared::new(&scheduler, memory(), iops(1));
    let answers = ask(&held, 5);
    assert_eq!(results(&answers, 1), [Ok(())]);
    drop(scheduler);
    assert_eq!(results(&answers, 4), [Err(FailureKind::ShuttingDown); 4]);
    assert_eq!(results(&ask(&held, 1), 1), [Err(FailureKind::ShuttingDown)]);
}

#[test]
fn a_device_that_answers_at_once_does_not_use_up_the_stack() {
    let scheduler = Scheduler::new(Bounds { requests: 1, bytes: 8 << 20 }).unwrap();
    let (below, gate) = gated(1);
    let slow = Shared::new(&scheduler, below, UNLIMITED);
    let quick = Shared::new(&scheduler, memory(), UNLIMITED);
    gate.close();
    let first = ask(&slow, 1);
    let answers = ask(&quick, 100_000);
    gate.open();
    assert_eq!(results(&first, 1), [Ok(())]);
    assert!(results(&answers, 100_000).iter().all(Result::is_ok));
}

/// Never answers, until it is told to.
#[derive(Default)]
struct Suspended(Mutex<Vec<Done<Buffer>>>);

impl Device for Suspended {
    fn describe(&self) -> Result<block::Description, Failure> {
        memory().describe()
    }

    fn read(&self, _offset: u64, _buffer: Buffer, done: Done<Buffer>) {
        self.0.lock().unwrap().push(done);
    }
}

#[test]
fn a_volume_that_is_suspended_does_not_suspend_the_others() {
    let scheduler = Scheduler::new(Bounds { requests: 4, bytes: 8 << 20 }).unwrap();
    let below = Arc::new(Suspended::default());
    let suspended = Shared::new(&scheduler, below.clone(), UNLIMITED);
    let other = Shared::new(&scheduler, memory(), UNLIMITED);
    let never = ask(&suspended, 20);
    assert_eq!(results(&ask(&other, 100), 100), [Ok(()); 100]);
    // Once it is answered, all that waits is.
    let mut answered = 0;
    while answered < 20 {
        let open: Vec<_> = below.0.lock().unwrap().drain(..).collect();
        answered += open.len();
        open.into_iter().for_each(|done| done.ok(Buffer::zeroed(4096)));
        std::thread::yield_now();
    }
    assert_eq!(results(&never, 20), [Ok(()); 20]);
}

/// Threads that ask, change limits and remove volumes all at once; whatever is asked is answered once.
#[test]
fn every_request_is_answered_whatever_happens() {
    let scheduler = Scheduler::new(Bounds { requests: 3, bytes: 32 << 10 }).unwrap();
    let below = Arc::new(Later::new(memory(), 3));
    let devices: Vec<_> = (0..4).map(|_| Arc::new(Shared::new(&scheduler, below.clone(), iops(50_000)))).collect();
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (sender, all) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        for device in &devices {
            let (asked, answered, sender) = (asked.clone(), answered.clone(), sender.clone());
            scope.spawn(move || {
                for request in 0..2000 {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let (answered, sender) = (answered.clone(), sender.clone());
                    let done = Done::new(move |_| {
                        answered.fetch_add(1, Ordering::SeqCst);
                        drop(sender);
                    });
                    device.write(0, Buffer::zeroed(512 << (request % 6)), false, done);
                    match request % 500 {
                        99 => device.set_limits(iops(20_000)),
                        199 => device.set_limits(UNLIMITED),
                        299 => device.set_limits(iops(u64::MAX)),
                        _ => {}
                    }
                }
            });
        }
        let last = devices[3].clone();
        scope.spawn(move || last.close());
    });
    drop(sender);
    // The last answer drops the last sender.
    assert_eq!(all.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    assert_eq!((answered.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (8000, 8000));
}

/// Answers without doing anything.
struct Nothing(AtomicU64);

impl Device for Nothing {
    fn describe(&self) -> Result<block::Description, Failure> {
        memory().describe()
    }

    fn read(&self, _offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        done.ok(buffer);
    }
}

#[test]
#[ignore = "a measurement: cargo test -p node --release -- --ignored --nocapture passing"]
fn passing_costs_little() {
    const REQUESTS: u32 = 200_000;
    let scheduler = Scheduler::new(Bounds::default()).unwrap();
    let below = Arc::new(Nothing(AtomicU64::new(0)));
    let limited = Limits { iops: NonZeroU64::new(1 << 40), bytes_per_second: NonZeroU64::new(1 << 50) };
    let cost = |device: &dyn Device| {
        let once = || {
            let mut buffer = Some(Buffer::zeroed(4096));
            let back = Arc::new(Mutex::new(None));
            let begin = Instant::now();
            for _ in 0..REQUESTS {
                let place = back.clone();
                let keep = move |result: Result<Buffer, Failure>| *place.lock().unwrap() = result.ok();
                device.read(0, buffer.take().unwrap(), Done::new(keep));
                buffer = back.lock().unwrap().take();
            }
            begin.elapsed() / REQUESTS
        };
        (0..20).map(|_| once()).min().unwrap()
    };
    let bare = cost(&*below);
    let free = cost(&Shared::new(&scheduler, below.clone(), UNLIMITED));
    let held = cost(&Shared::new(&scheduler, below.clone(), limited));
    println!("a request to nothing takes {bare:?}; through a scheduler {free:?}, with limits {held:?}");
}
