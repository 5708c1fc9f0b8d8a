//! What a server asks its keeper.

use super::message::{Answer, Operation, Outcome, Request};
use super::socket::{Flaw, Received};
use super::{MOST_NAME_LEN, MOST_STATE_LEN, socket};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Why a keeper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It cannot be reached.
    #[error("{action} the keeper at {path}; start it, or see whether it still runs", path = .path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// Where it listens.
        path: PathBuf,
        /// What the system said.
        source: Errno,
    },
    /// Another process serves the device.
    #[error("process {process} serves {name}; end it first, or wait until it has ended")]
    Held {
        /// Of which device.
        name: String,
        /// Which.
        process: u32,
    },
    /// It does not understand, or will not.
    #[error("the keeper refused: {0}")]
    Refused(String),
    /// Something else listens there.
    #[error("what listens at {path} is no keeper of this version: {said}", path = .path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// There is no room for it in a message.
    #[error("a name has 1 to {MOST_NAME_LEN} bytes, and {0:?} has another number")]
    Name(String),
}

/// A connection to a keeper. What was kept or taken through it is held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Keeper {
    /// One question at a time.
    socket: Mutex<OwnedFd>,
    path: PathBuf,
}

/// What was kept.
pub(crate) struct Taken {
    pub(crate) descriptor: OwnedFd,
    pub(crate) state: Vec<u8>,
}

impl Keeper {
    /// Connects to the keeper that listens on a path, and hears it once: one that was about to end had nobody, and ends although somebody has come.
    pub fn connect(path: &Path) -> Result<Self, KeeperError> {
        let system = |source| KeeperError::System { action: "connect to", path: path.to_owned(), source };
        let flags = SocketFlags::CLOEXEC;
        let made = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket = made.map_err(system)?;
        let address = SocketAddrUnix::new(path).map_err(system)?;
        rustix::net::connect(&socket, &address).map_err(system)?;
        let keeper = Self { socket: Mutex::new(socket), path: path.to_owned() };
        keeper.ask(Operation::Next, "", &[], None)?;
        Ok(keeper)
    }

    /// The names of all that is kept, in order.
    pub fn names(&self) -> Result<Vec<String>, KeeperError> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let after = names.last().cloned().unwrap_or_default();
            let (answer, _) = self.ask(Operation::Next, &after, &[], None)?;
            match answer.outcome {
                Outcome::Absent => return Ok(names),
                // An order that goes back would never end.
                _ if answer.name <= after => return Err(self.foreign("it lists names out of order")),
                _ => names.push(answer.name),
            }
        }
    }

    pub(crate) fn keep(&self, name: &str, state: &[u8], descriptor: BorrowedFd<'_>) -> Result<(), KeeperError> {
        self.ask(Operation::Keep, name, state, Some(descriptor)).map(|_| ())
    }

    /// Takes what is kept under a name, if anything is.
    pub(crate) fn take(&self, name: &str) -> Result<Option<Taken>, KeeperError> {
        let (answer, descriptor) = self.ask(Operation::Take, name, &[], None)?;
        match (answer.outcome, descriptor) {
            (Outcome::Absent, _) => Ok(None),
            (_, Some(descriptor)) => Ok(Some(Taken { descriptor, state: answer.state })),
            (_, None) => Err(self.foreign("it gives a state without a descriptor")),
        }
    }

    /// Has what is kept under a name closed; it may be gone already.
    pub(crate) fn forget(&self, name: &str) -> Result<(), KeeperError> {
        self.ask(Operation::Drop, name, &[], None).map(|_| ())
    }

    fn foreign(&self, said: &str) -> KeeperError {
        KeeperError::Foreign { path: self.path.clone(), said: said.to_owned() }
    }

    fn ask(
        &self,
        operation: Operation,
        name: &str,
        state: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(Answer, Option<OwnedFd>), KeeperError> {
        let may_be_empty = operation == Operation::Next;
        if name.len() > MOST_NAME_LEN || (name.is_empty() && !may_be_empty) {
            return Err(KeeperError::Name(name.to_owned()));
        }
        debug_assert!(state.len() <= MOST_STATE_LEN);
        let system = |action| move |source| KeeperError::System { action, path: self.path.clone(), source };
        let request = Request { operation, name: name.to_owned(), state: state.to_vec() };
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = socket::send(socket.as_fd(), &request.encode(), descriptor, SendFlags::empty());
        let received = match sent {
            Ok(()) => hear(&socket).map_err(system("hear from")),
            // One who turns a client away has said why, and gone.
            Err(gone @ (Errno::PIPE | Errno::CONNRESET)) => hear(&socket).map_err(|_| system("write to")(gone)),
            Err(error) => Err(system("write to")(error)),
        };
        drop(socket);
        let Received { bytes, descriptor, flaw } = received?;
        match flaw {
            None => {}
            Some(Flaw::NoRoom) => return Err(system("take a descriptor from")(Errno::MFILE)),
            Some(Flaw::Long | Flaw::Several) => return Err(self.foreign("it sends what no answer is")),
        }
        let answer = Answer::decode(&bytes).map_err(|fault| self.foreign(&fault.to_string()))?;
        match answer.outcome {
            Outcome::Held(process) => Err(KeeperError::Held { name: name.to_owned(), process }),
            Outcome::Refused => Err(KeeperError::Refused(String::from_utf8_lossy(&answer.state).into_owned())),
            Outcome::Done | Outcome::Absent => Ok((answer, descriptor)),
        }
    }
}

/// The next message. That the other side has gone is told first, and what it said before comes after that.
fn hear(socket: &OwnedFd) -> Result<Received, Errno> {
    let mut gone = false;
    loop {
        match socket::receive(socket, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) if !gone => gone = true,
            Ok(None) => return Err(Errno::CONNRESET),
            Ok(Some(received)) => return Ok(received),
            Err(error) => return Err(error),
        }
    }
}
