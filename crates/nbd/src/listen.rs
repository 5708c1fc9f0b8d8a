//! Where clients come in: a socket of a path, or a port.

use crate::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};
use crate::stream::Stream;
use rustix::fd::OwnedFd;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// Clients that wait to be accepted, as many as the standard library has them.
const BACKLOG: i32 = 128;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody serves there.
    #[error("a server listens on {path} already; name another socket", path = .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{path} exists, and is no socket that a server has left; name another path", path = .0.display())]
    Exists(PathBuf),
    /// The system said no.
    #[error("{action} {place}")]
    System {
        /// What was asked.
        action: &'static str,
        /// Of what.
        place: String,
        /// What it said.
        source: io::Error,
    },
}

/// Takes connections; a socket of a path is removed when it is dropped.
#[derive(Debug)]
pub enum Listener {
    /// On a path.
    Unix(UnixSocket),
    /// On a port.
    Tcp(TcpListener),
}

/// A listening socket on a path, and which file it is.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl UnixSocket {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Listener {
    /// Listens on a path that only this user may connect to; must be called within a runtime.
    ///
    /// The socket is made under another name, and gets its own when it is private and listened on: so nobody connects before who may not, and
    /// nobody finds it who is refused then. One that a dead server has left is removed.
    pub fn unix(path: &Path) -> Result<Self, ListenError> {
        let system = |action| move |source| ListenError::System { action, place: path.display().to_string(), source };
        let made = path.with_extension(format!("{}.new", std::process::id()));
        let socket = private_socket(&made).map_err(system("make a private socket for"))?;
        let listening = listening(socket).map_err(system("listen on"));
        let named = listening.and_then(|listener| named(&made, path).map(|()| listener));
        let removed = std::fs::remove_file(&made);
        let listener = named?;
        removed.map_err(system("name the socket"))?;
        let metadata = std::fs::symlink_metadata(path).map_err(system("look at"))?;
        let file = (metadata.dev(), metadata.ino());
        Ok(Self::Unix(UnixSocket { listener, path: path.to_owned(), file }))
    }

    /// Listens on a port; 0 is any that is free.
    pub async fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| {
            let place = address.to_string();
            ListenError::System { action: "listen on", place, source }
        })?;
        Ok(Self::Tcp(listener))
    }

    /// The port, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(socket) => Ok(Box::new(socket.listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                if let Err(error) = prepare(&stream) {
                    // He has gone in the meantime, which will be seen.
                    tracing::debug!(%error, "a connection could not be prepared");
                }
                Ok(Box::new(stream))
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // A reply must not wait for what is sent after it.
    stream.set_nodelay(true)?;
    // A client whose machine is gone says so to nobody, and an idle one has a right to his place.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?)
}

/// A socket that only this user may connect to, and that refuses him, too, until it is listened on.
fn private_socket(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let private = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    private.inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(socket)
}

fn listening(socket: OwnedFd) -> io::Result<UnixListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn named(made: &Path, path: &Path) -> Result<(), ListenError> {
    let system = |action| move |source| ListenError::System { action, place: path.display().to_string(), source };
    match std::fs::hard_link(made, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_if_left(path)?;
            std::fs::hard_link(made, path).map_err(system("name the socket"))
        }
        named => named.map_err(system("name the socket")),
    }
}

/// Removes a socket that nobody listens on, and nothing else.
fn remove_if_left(path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Err(ListenError::Exists(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let system = |source| ListenError::System { action: "remove", place: path.display().to_string(), source };
            std::fs::remove_file(path).map_err(system)
        }
        _ => Err(ListenError::InUse(path.to_owned())),
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another server may have taken the path since.
        let ours = std::fs::symlink_metadata(&self.path);
        if ours.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_before_anybody_is_listened_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = private_socket(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let refused = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(private_socket(&path).is_err(), "it is there already");
        drop(socket);
    }
}
