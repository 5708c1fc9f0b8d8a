//! A client that says what a test wants, also what it should not.

use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

/// A reply to an option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OptionReply {
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

/// A part of a reply to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) data: Vec<u8>,
}

pub(crate) const ACK: u32 = 1;
pub(crate) const ERROR: u32 = 1 << 31;

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

pub(crate) fn go_data(name: &str, wanted: &[u16]) -> Vec<u8> {
    let wanted_bytes = wanted.iter().flat_map(|kind| kind.to_be_bytes());
    text(name).into_iter().chain((wanted.len() as u16).to_be_bytes()).chain(wanted_bytes).collect()
}

pub(crate) fn contexts_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let count = (queries.len() as u32).to_be_bytes();
    text(name).into_iter().chain(count).chain(queries.iter().flat_map(|query| text(query))).collect()
}

impl Client {
    /// Connects, and answers the greeting with these flags.
    pub(crate) async fn greet(socket: &Path, flags: u32) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        stream.write_all(&flags.to_be_bytes()).await.unwrap();
        Self { stream }
    }

    /// Connects to an export with structured replies and `base:allocation`, which gets the number 1.
    pub(crate) async fn connect(socket: &Path, name: &str) -> Self {
        let mut client = Self::greet(socket, 3).await;
        assert_eq!(client.option(8, &[]).await.kind, ACK);
        client.send_option(10, &contexts_data(name, &["base:allocation"])).await;
        let context = client.option_reply(10).await;
        assert_eq!((context.kind, &context.data[..]), (4, &b"\0\0\0\x01base:allocation"[..]));
        assert_eq!(client.option_reply(10).await.kind, ACK);
        client.go(name).await;
        client
    }

    /// The same without either.
    pub(crate) async fn connect_simply(socket: &Path, name: &str) -> Self {
        let mut client = Self::greet(socket, 3).await;
        client.go(name).await;
        client
    }

    async fn go(&mut self, name: &str) {
        self.send_option(7, &go_data(name, &[3])).await;
        loop {
            match self.option_reply(7).await.kind {
                ACK => return,
                kind => assert_eq!(kind, 3),
            }
        }
    }

    pub(crate) async fn send_option(&mut self, code: u32, data: &[u8]) {
        let header = [&b"IHAVEOPT"[..], &code.to_be_bytes(), &(data.len() as u32).to_be_bytes(), data].concat();
        self.stream.write_all(&header).await.unwrap();
    }

    pub(crate) async fn option_reply(&mut self, code: u32) -> OptionReply {
        assert_eq!(self.stream.read_u64().await.unwrap(), 0x0003_e889_0455_65a9);
        assert_eq!(self.stream.read_u32().await.unwrap(), code);
        let kind = self.stream.read_u32().await.unwrap();
        let mut data = vec![0; self.stream.read_u32().await.unwrap() as usize];
        self.stream.read_exact(&mut data).await.unwrap();
        OptionReply { kind, data }
    }

    pub(crate) async fn option(&mut self, code: u32, data: &[u8]) -> OptionReply {
        self.send_option(code, data).await;
        self.option_reply(code).await
    }

    pub(crate) async fn request(&mut self, command: u16, flags: u16, cookie: u64, offset: u64, len: u32) {
        let mut header = 0x2560_9513_u32.to_be_bytes().to_vec();
        header.extend(flags.to_be_bytes());
        header.extend(command.to_be_bytes());
        header.extend(cookie.to_be_bytes());
        header.extend(offset.to_be_bytes());
        header.extend(len.to_be_bytes());
        self.stream.write_all(&header).await.unwrap();
    }

    pub(crate) async fn chunk(&mut self) -> Chunk {
        assert_eq!(self.stream.read_u32().await.unwrap(), 0x668e_33ef);
        let (flags, kind) = (self.stream.read_u16().await.unwrap(), self.stream.read_u16().await.unwrap());
        let cookie = self.stream.read_u64().await.unwrap();
        let mut data = vec![0; self.stream.read_u32().await.unwrap() as usize];
        self.stream.read_exact(&mut data).await.unwrap();
        Chunk { flags, kind, cookie, data }
    }

    /// The error of a structured reply that is nothing else, and its message.
    pub(crate) async fn error(&mut self, cookie: u64) -> (u32, String) {
        let chunk = self.chunk().await;
        assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (1, 0x8001, cookie));
        let number = u32::from_be_bytes(chunk.data[..4].try_into().unwrap());
        (number, String::from_utf8(chunk.data[6..].to_vec()).unwrap())
    }

    /// Wants the server to have closed the connection, at once.
    pub(crate) async fn expect_closed(mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_to_end(&mut rest)).await;
        // A reset says the same.
        let len = read.expect("the server closes the connection").unwrap_or(0);
        assert_eq!(len, 0, "the server said {rest:?}");
    }
}
