//! A process that holds connections to the kernel while the one that serves them is replaced.
//!
//! When the last descriptor of a connection of FUSE is closed, the kernel gives up its file system, and every request on the block device
//! fails from then on. So a second descriptor lies with a process that does nothing else, and lives on when the server is stopped, killed
//! or replaced by a newer one. The next server takes the connection from there, and has the kernel repeat what was not answered.
//!
//! # The protocol, version 1
//!
//! The keeper listens on a socket of a path, of the kind that keeps messages apart (`SOCK_SEQPACKET`), open to its own user and to root. A
//! client sends one message and gets one answer, again and again. All numbers are little-endian. A message is at most 4096 bytes long.
//!
//! | at | bytes | of a request | of an answer |
//! |---|---|---|---|
//! | 0 | 4 | `orlK` | `orlK` |
//! | 4 | 2 | version: 1 | version: 1 |
//! | 6 | 2 | operation | outcome |
//! | 8 | 2 | length *n* of the name | length *n* of the name |
//! | 10 | 2 | length *m* of the state | length *m* of the state, or of a text that says why |
//! | 12 | 4 | 0 | with *held*: the process that holds it |
//! | 16 | *n* | the name, UTF-8, 1 to 128 bytes | the name, of *next* |
//! | | *m* | the state: of *keep* | the state: of *take* |
//!
//! | operation | what it does | outcomes |
//! |---|---|---|
//! | 1 *keep* | Keeps the descriptor that comes with the message, and its state, which the keeper does not look into, under the name. What was kept there before is closed. The client holds the name. | done, held, refused |
//! | 2 *take* | Gives the state and a descriptor. The client holds the name. | done, absent, held |
//! | 3 *drop* | Closes what is kept. | done, absent, held |
//! | 4 *next* | Tells the first name that comes after the given one, which may be empty here. | done, absent |
//!
//! Outcomes: 0 done, 1 absent, 2 held, 3 refused. A message that is too long, that comes with several descriptors, or with one that the keeper
//! has no room for, is refused like one that is none. A client that there is no place for is refused before he has asked anything.
//!
//! **A name is held by one client at a time**, from when it keeps or takes it until its connection to the keeper is closed, which the kernel
//! does when the process has ended with all its threads. A process that closes it earlier does so when nothing of it can answer a request any
//! more: each session has the connection, and whatever serves the session has that. So nobody gets a connection on which another process may still be writing: a
//! write of the dead server cannot overtake one of the living.
//!
//! A keeper outlives its clients while it keeps something, and ends by itself when there is neither. Newer clients must get on with an older keeper. A keeper that is asked in another version refuses, in its
//! own; a later version must be one that the client can do without, until the node was restarted.

mod client;
mod message;
mod server;
mod socket;

pub use client::{Keeper, KeeperError};
pub use server::{BindError, KeeperServer};

pub(crate) use client::Taken;
#[cfg(feature = "fuzzing")]
pub(crate) use message::{Answer, Request};

/// The longest message.
pub(crate) const MOST_LEN: usize = 4096;
/// The longest name.
pub(crate) const MOST_NAME_LEN: usize = 128;
/// The longest state: a server has a handful of numbers.
pub(crate) const MOST_STATE_LEN: usize = 1024;
