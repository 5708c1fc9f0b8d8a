//! One connection: the handshake, then requests, several of which are worked on at once.
//!
//! ```text
//! reader ─► slot free? bytes free? ─► task: device ─► writer, one reply after the other
//! ```
//! The next request is not read before there is room for it, so a client that asks faster than the device answers, or than he takes the
//! answers, waits in his own socket.

use crate::device::Piece;
use crate::execute::execute;
use crate::handshake::{Closed, Ready, negotiate, skip};
use crate::limits::Limits;
use crate::reply::Style;
use crate::request::{Agreed, Command, Request};
use crate::server::Export;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a client sends.
pub(crate) type Reader = BufReader<Box<dyn AsyncRead + Send + Unpin>>;
/// What is sent to a client; small pieces of a reply go together.
pub(crate) type Writer = BufWriter<Box<dyn AsyncWrite + Send + Unpin>>;

/// Zeros that are sent at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Serves a client until he leaves, breaks the protocol, or the server is stopped.
pub(crate) async fn serve(
    mut reader: Reader,
    mut writer: Writer,
    exports: Arc<[Export]>,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), Closed> {
    let agreed = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        agreed = tokio::time::timeout(limits.handshake, negotiate(&mut reader, &mut writer, &exports)) => {
            agreed.map_err(|_| Closed::Slow("the handshake"))??
        }
    };
    let Some(ready) = agreed else { return Ok(()) };
    Transmission::new(ready, writer, limits, stop).run(reader).await
}

/// What the requests of a connection share.
struct Transmission {
    ready: Arc<Ready>,
    style: Style,
    answers: Arc<Answers>,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// Set when the server is stopped, or the client cannot be answered any more.
    stop: CancellationToken,
    farewell: Duration,
}

impl Transmission {
    fn new(ready: Ready, writer: Writer, limits: Limits, stop: CancellationToken) -> Self {
        let stop = stop.child_token();
        let budget = limits.bytes.max(ready.description.blocks.maximum) as usize;
        Self {
            style: Style { structured: ready.structured },
            answers: Arc::new(Answers { writer: Mutex::new(writer), stall: limits.stall, gone: stop.clone() }),
            slots: Arc::new(Semaphore::new(limits.requests)),
            bytes: Arc::new(Semaphore::new(budget)),
            tasks: JoinSet::new(),
            ready: Arc::new(ready),
            farewell: limits.farewell,
            stop,
        }
    }

    async fn run(mut self, mut reader: Reader) -> Result<(), Closed> {
        let stop = self.stop.clone();
        let end = tokio::select! {
            () = stop.cancelled() => Ok(()),
            end = self.take_requests(&mut reader) => end,
        };
        // What was taken is answered, if the client still listens.
        let tasks = &mut self.tasks;
        let rest = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.farewell, rest).await.is_err() {
            tracing::debug!("requests were still worked on when the connection ended");
        }
        let _ = tokio::time::timeout(self.farewell, async { self.answers.writer.lock().await.shutdown().await }).await;
        end
    }

    async fn take_requests(&mut self, reader: &mut Reader) -> Result<(), Closed> {
        while let Some(header) = read_header(reader).await? {
            while self.tasks.try_join_next().is_some() {}
            let Some(request) = Request::decode(&header) else {
                return Err(Closed::Broken("a request does not begin as one".to_owned()));
            };
            let agreed = Agreed {
                description: &self.ready.description,
                structured: self.ready.structured,
                has_contexts: !self.ready.contexts.is_empty(),
            };
            match request.check(&agreed) {
                Ok(Command::Disconnect) => return Ok(()),
                Ok(command) => self.take(reader, request.cookie, command).await?,
                Err(refusal) => {
                    skip(reader, request.payload_len()).await?;
                    let reply = self.style.error(request.cookie, refusal.errno, &refusal.message);
                    self.answers.send(reply).await;
                }
            }
        }
        Ok(())
    }

    /// Takes the bytes that belong to a request, and has it worked on.
    async fn take(&mut self, reader: &mut Reader, cookie: u64, command: Command) -> Result<(), Closed> {
        let moved = match &command {
            Command::Read { range, .. } | Command::Write { range, .. } => {
                u32::try_from(range.end - range.start).expect("a request is not longer than the longest of the device")
            }
            _ => 0,
        };
        let slot = acquire(&self.slots, 1).await;
        let bytes = acquire(&self.bytes, moved).await;
        let mut payload = Vec::new();
        if let Command::Write { .. } = command {
            payload = vec![0; moved as usize];
            reader.read_exact(&mut payload).await?;
        }
        let (ready, style, answers) = (self.ready.clone(), self.style, self.answers.clone());
        self.tasks.spawn(async move {
            let device = &*ready.export.device;
            let reply = execute(device, command, Bytes::from(payload), cookie, style, &ready.contexts).await;
            answers.send(reply).await;
            drop((slot, bytes));
        });
        Ok(())
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_many_owned(count).await.expect("nobody closes the semaphore")
}

/// The header of the next request; nothing when the client has closed his side between two.
async fn read_header(reader: &mut Reader) -> io::Result<Option<[u8; Request::LEN]>> {
    let mut header = [0; Request::LEN];
    if reader.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut header[1..]).await?;
    Ok(Some(header))
}

/// Where replies go, whole and one after the other.
struct Answers {
    writer: Mutex<Writer>,
    stall: Duration,
    /// Set when the client takes no more: half a reply cannot be followed by another.
    gone: CancellationToken,
}

impl Answers {
    async fn send(&self, reply: Vec<Piece>) {
        let mut writer = self.writer.lock().await;
        let sent = async {
            for piece in &reply {
                self.send_piece(&mut writer, piece).await?;
            }
            self.in_time(writer.flush()).await
        };
        if let Err(error) = sent.await {
            tracing::debug!(%error, "the client takes no more answers");
            self.gone.cancel();
        }
    }

    async fn send_piece(&self, writer: &mut Writer, piece: &Piece) -> io::Result<()> {
        match piece {
            Piece::Data(bytes) => {
                for part in bytes.chunks(ZEROS.len()) {
                    self.in_time(writer.write_all(part)).await?;
                }
            }
            Piece::Zeros(len) => {
                let mut left = *len;
                while left > 0 {
                    let part = left.min(ZEROS.len() as u64);
                    let zeros = &ZEROS[..usize::try_from(part).expect("it is at most the length of an array")];
                    self.in_time(writer.write_all(zeros)).await?;
                    left -= part;
                }
            }
        }
        Ok(())
    }

    /// A client that takes nothing for so long is dead, and holds bytes that others could use.
    async fn in_time(&self, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        tokio::time::timeout(self.stall, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}
