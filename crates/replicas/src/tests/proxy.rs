//! A network between two ends that is cut, held up, or slow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They pass.
    Open,
    /// Each piece waits so long.
    Slow(Duration),
    /// They wait until another mode is set; connections stay.
    Stuck,
    /// Connections are ended, and new ones too.
    Cut,
}

/// Passes connections on to an address that may change.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<SocketAddr>,
    passed: Arc<[AtomicU64; 2]>,
    _stop: DropGuard,
}

impl Proxy {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Open);
        let (target, targets) = watch::channel(target);
        let passed = Arc::<[AtomicU64; 2]>::default();
        let stop = CancellationToken::new();
        let (counter, all) = (passed.clone(), stop.clone());
        tokio::spawn(all.clone().run_until_cancelled_owned(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                if *modes.borrow() == Mode::Cut {
                    continue;
                }
                let (modes, target, counter) = (modes.clone(), *targets.borrow(), counter.clone());
                let pass = async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let (near, far) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = pump(near.0, far.1, modes.clone(), &counter[0]) => {}
                        () = pump(far.0, near.1, modes.clone(), &counter[1]) => {}
                        () = cut(modes) => {}
                    }
                };
                tokio::spawn(all.clone().run_until_cancelled_owned(pass));
            }
        }));
        Self { address, mode, target, passed, _stop: stop.drop_guard() }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(super) fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Bytes that have passed, to the other end and back.
    pub(super) fn passed(&self) -> (u64, u64) {
        (self.passed[0].load(Ordering::Relaxed), self.passed[1].load(Ordering::Relaxed))
    }
}

async fn cut(mut modes: watch::Receiver<Mode>) {
    drop(modes.wait_for(|mode| *mode == Mode::Cut).await);
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: watch::Receiver<Mode>, passed: &AtomicU64) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let Ok(len @ 1..) = from.read(&mut piece).await else { return };
        if modes.wait_for(|mode| *mode != Mode::Stuck).await.is_err() {
            return;
        }
        let mode = *modes.borrow();
        if let Mode::Slow(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..len]).await.is_err() {
            return;
        }
        passed.fetch_add(len as u64, Ordering::Relaxed);
    }
}
