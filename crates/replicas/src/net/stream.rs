//! What connects two nodes, in clear or encrypted, and messages on it.

use super::Closed;
use super::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, Limits};
use replication::wire::{Frame, Frames, Message};
use rustix::net::sockopt;
use std::io::{self, IoSlice};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

/// A connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(super) type Stream = Box<dyn Io>;

/// Slices that one system call takes: a message with data has two.
const MOST_SLICES: usize = 128;

/// Sets what every connection has.
pub(super) fn prepare(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    // An answer must not wait for what is sent after it.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    let stall = u32::try_from(limits.stall.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, stall)?)
}

/// Messages that come.
pub(super) struct Incoming {
    half: ReadHalf<Stream>,
    pub(super) frames: Frames,
}

/// Messages that go.
pub(super) struct Outgoing(WriteHalf<Stream>);

pub(super) fn split(stream: Stream) -> (Incoming, Outgoing) {
    let (read, write) = tokio::io::split(stream);
    (Incoming { half: read, frames: Frames::new() }, Outgoing(write))
}

impl Incoming {
    /// Waits for more bytes. (What was not taken stays when this is broken off.)
    pub(super) async fn more(&mut self) -> Result<(), Closed> {
        let read = self.half.read_buf(self.frames.room()).await?;
        if read == 0 { Err(Closed::Left) } else { Ok(()) }
    }

    /// Waits for a message.
    pub(super) async fn message(&mut self) -> Result<Message, Closed> {
        loop {
            if let Some(message) = self.frames.next_message()? {
                return Ok(message);
            }
            self.more().await?;
        }
    }
}

impl Outgoing {
    /// Sends frames with as few system calls as possible, and without copying their data.
    pub(super) async fn send(&mut self, frames: &[Frame]) -> io::Result<()> {
        let (mut first, mut sent) = (0, 0);
        while first < frames.len() {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let parts = frames[first..].iter().flat_map(|frame| [frame.front(), &frame.data()[..]]);
            let mut skip = sent;
            let rest = parts.filter_map(|part| {
                let gone = skip.min(part.len());
                skip -= gone;
                (gone < part.len()).then(|| &part[gone..])
            });
            let count = slices.iter_mut().zip(rest).map(|(to, from)| *to = IoSlice::new(from)).count();
            let written = self.0.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            sent += written;
            while first < frames.len() && sent >= frames[first].size() {
                sent -= frames[first].size();
                first += 1;
            }
        }
        self.0.flush().await
    }

    /// Sends a message by itself.
    pub(super) async fn send_one(&mut self, message: &Message, version: u16) -> io::Result<()> {
        self.send(&[message.encode(version)]).await
    }

    /// Says that nothing more comes.
    pub(super) async fn end(&mut self) {
        // The peer may have gone already.
        drop(self.0.shutdown().await);
    }
}
