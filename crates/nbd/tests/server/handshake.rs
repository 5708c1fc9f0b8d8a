//! The handshake, option by option.

use super::client::{ACK, Client, ERROR, contexts_data, go_data, text};
use super::memory::{Served, sparse};
use block::testing::Memory;
use block::{BlockSizes, Device};
use nbd::{Export, ExportsError, Limits, ListenError, Listener, Server};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

const UNSUPPORTED: u32 = ERROR + 1;
const INVALID: u32 = ERROR + 3;
const UNKNOWN: u32 = ERROR + 6;
const BLOCK_SIZE_REQUIRED: u32 = ERROR + 8;

fn two() -> Served {
    let small: Arc<dyn Device> = Arc::new(Memory::new(&sparse(10_000)));
    let strict = BlockSizes { minimum: 512, preferred: 4096, maximum: 1 << 20 };
    let mut large = Memory::writable(&sparse(1 << 20));
    large.blocks = strict;
    let large: Arc<dyn Device> = Arc::new(large);
    Served::start(vec![("small", small), ("a/large", large)], Limits::default())
}

#[tokio::test]
async fn exports_are_listed_and_described() {
    let served = two();
    let mut client = Client::greet(&served.socket, 1).await;
    client.send_option(3, &[]).await;
    for name in ["small", "a/large"] {
        let reply = client.option_reply(3).await;
        assert_eq!((reply.kind, reply.data), (2, [text(name), format!("about {name}").into_bytes()].concat()));
    }
    assert_eq!(client.option_reply(3).await.kind, ACK);
    // Told of, and not begun: with all pieces of information, then with none.
    client.send_option(6, &go_data("a/large", &[1, 2, 3, 99])).await;
    let mut infos = Vec::new();
    loop {
        match client.option_reply(6).await {
            reply if reply.kind == ACK => break,
            reply => infos.push(reply.data),
        }
    }
    assert_eq!(infos[0], [&[0, 0][..], &(1_u64 << 20).to_be_bytes(), &0b1_0110_1101_u16.to_be_bytes()].concat());
    assert_eq!(infos[1], b"\0\x01a/large");
    assert_eq!(infos[2], b"\0\x02about a/large");
    assert_eq!(infos[3], [&[0, 3][..], &[0, 0, 2, 0, 0, 0, 16, 0, 0, 16, 0, 0]].concat());
    assert_eq!(client.option(2, &[]).await.kind, ACK);
    client.expect_closed().await;
    served.end().await;
}

#[tokio::test]
async fn what_is_not_there_or_not_offered_is_refused_and_the_handshake_goes_on() {
    let served = two();
    let mut client = Client::greet(&served.socket, 3).await;
    for (code, data, expected) in [
        (5, vec![], UNSUPPORTED),
        (4, vec![], UNSUPPORTED),
        (11, vec![], UNSUPPORTED),
        (77, b"whatever".to_vec(), UNSUPPORTED),
        (3, b"x".to_vec(), INVALID),
        (8, b"x".to_vec(), INVALID),
        (7, b"xx".to_vec(), INVALID),
        (7, go_data("none", &[]), UNKNOWN),
        (6, go_data("none", &[]), UNKNOWN),
        // Two exports, neither without a name: nothing could be meant.
        (7, go_data("", &[]), UNKNOWN),
        (7, text(&"n".repeat(5000)), INVALID),
        (10, contexts_data("small", &["base:allocation"]), INVALID),
        (9, contexts_data("small", &[]), INVALID),
        (8, vec![], ACK),
        (10, contexts_data("none", &["base:allocation"]), UNKNOWN),
        (10, contexts_data("small", &["base:nothing", "x"]), ACK),
        (9, vec![0; 70_000], ERROR + 9),
    ] {
        assert_eq!(client.option(code, &data).await.kind, expected, "option {code} with {data:?}");
    }
    // Who would have to keep to a block size and does not ask for it, is told it, and not served.
    client.send_option(7, &go_data("a/large", &[])).await;
    assert_eq!(client.option_reply(7).await.data[..6], [0, 3, 0, 0, 2, 0]);
    assert_eq!(client.option_reply(7).await.kind, BLOCK_SIZE_REQUIRED);
    client.send_option(9, &contexts_data("small", &["base:"])).await;
    assert_eq!(client.option_reply(9).await.kind, 4);
    assert_eq!(client.option_reply(9).await.kind, ACK);
    served.end().await;
}

#[tokio::test]
async fn the_old_way_begins_an_export_or_ends_the_connection() {
    let served = two();
    for (flags, zeros) in [(1, 124), (3, 0)] {
        let mut client = Client::greet(&served.socket, flags).await;
        client.send_option(1, b"small").await;
        let mut answer = vec![0xee; 10 + zeros];
        client.stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..10], [&10_000_u64.to_be_bytes()[..], &0b1_0000_0011_u16.to_be_bytes()].concat());
        assert_eq!(answer[10..], vec![0; zeros]);
        client.request(0, 0, 7, 0, 1).await;
        let mut reply = [0; 17];
        client.stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
    }
    for name in [&b"none"[..], b"a/large", &[0xff], &[b'n'; 70_000]] {
        let mut client = Client::greet(&served.socket, 3).await;
        client.send_option(1, name).await;
        client.expect_closed().await;
    }
    served.end().await;
}

#[tokio::test]
async fn the_only_export_needs_no_name() {
    let (served, _) = Served::of(Memory::new(&sparse(5000)));
    Client::connect(&served.socket, "").await;
    Client::connect(&served.socket, "disk").await;
    served.end().await;
}

#[tokio::test]
async fn contexts_of_one_export_are_not_those_of_another() {
    let served = two();
    let mut client = Client::greet(&served.socket, 3).await;
    client.option(8, &[]).await;
    client.send_option(10, &contexts_data("a/large", &["base:allocation"])).await;
    client.option_reply(10).await;
    client.option_reply(10).await;
    client.send_option(7, &go_data("small", &[])).await;
    while client.option_reply(7).await.kind != ACK {}
    client.request(7, 0, 5, 0, 4096).await;
    assert_eq!(client.error(5).await.0, 22);
    served.end().await;
}

#[tokio::test]
async fn a_socket_is_private_and_only_one_that_was_left_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nbd.sock");
    let first = Listener::unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Listener::unix(&path), Err(ListenError::InUse(_))));
    drop(first);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // Left by a process that was killed: a socket file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let second = Listener::unix(&path).unwrap();
    // Who comes later and finds another's socket in his place, leaves it.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a file").unwrap();
    drop(second);
    assert!(matches!(Listener::unix(&path), Err(ListenError::Exists(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(Listener::unix(&folder.path().join("no/folder")).is_err());
}

#[test]
fn exports_that_cannot_be_told_apart_are_refused() {
    let export =
        |name: &str| Export { name: name.to_owned(), description: String::new(), device: Arc::new(Memory::new(&[])) };
    let error = |exports: Vec<Export>| Server::new(exports, Limits::default()).map(|_| ()).unwrap_err();
    assert_eq!(error(vec![export("a"), export("b"), export("a")]), ExportsError::Twice("a".into()));
    assert!(matches!(error(vec![export(&"n".repeat(4097))]), ExportsError::Text(_)));
}
