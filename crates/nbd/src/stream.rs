//! What connects a client and the server, whatever it is made of.

use tokio::io::{AsyncRead, AsyncWrite, BufReader};

/// A connection, in clear or encrypted.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type Stream = Box<dyn Io>;

/// The same while options are read, in small pieces.
pub(crate) type Wire = BufReader<Stream>;
