//! Clients that break the protocol: they cost their own connection, and nobody else's.

use super::client::Client;
use super::memory::{Served, sparse};
use block::Device;
use block::testing::{Memory, seed};
use nbd::{Export, Limits, Listener, Server};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

async fn still_serves(served: &Served) {
    let mut client = Client::connect(&served.socket, "disk").await;
    client.request(0, 1 << 2, 1, 0, 512).await;
    assert_eq!(client.chunk().await.data.len(), 8 + 512);
}

#[tokio::test]
async fn who_does_not_begin_as_a_client_is_left() {
    let (served, _) = Served::of(Memory::new(&sparse(5000)));
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 4]] {
        let mut stream = UnixStream::connect(&served.socket).await.unwrap();
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        Client { stream }.expect_closed().await;
    }
    // After a good greeting, an option that is none, and options without an end.
    let mut client = Client::greet(&served.socket, 3).await;
    client.stream.write_all(b"IHAVENOT\0\0\0\x03\0\0\0\0").await.unwrap();
    client.expect_closed().await;
    let mut client = Client::greet(&served.socket, 3).await;
    client.stream.write_all(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff").await.unwrap();
    client.expect_closed().await;
    let mut client = Client::greet(&served.socket, 3).await;
    for _ in 0..128 {
        client.option(77, &[]).await;
    }
    client.expect_closed().await;
    still_serves(&served).await;
    served.end().await;
}

#[tokio::test]
async fn a_request_that_is_none_ends_the_connection() {
    let (served, _) = Served::of(Memory::new(&sparse(5000)));
    let mut client = Client::connect(&served.socket, "disk").await;
    client.stream.write_all(&[7; 28]).await.unwrap();
    client.expect_closed().await;
    // Half of a request, and gone.
    let mut client = Client::connect(&served.socket, "disk").await;
    client.stream.write_all(&[0x25, 0x60, 0x95, 0x13, 0, 0]).await.unwrap();
    client.stream.shutdown().await.unwrap();
    client.expect_closed().await;
    // A write of 4 GiB that is not sent.
    let mut client = Client::connect(&served.socket, "disk").await;
    client.request(1, 0, 1, 0, u32::MAX).await;
    client.stream.write_all(&[1; 1000]).await.unwrap();
    client.stream.shutdown().await.unwrap();
    client.expect_closed().await;
    still_serves(&served).await;
    served.end().await;
}

#[tokio::test]
async fn who_says_nothing_or_takes_nothing_loses_his_place() {
    let memory: Arc<dyn Device> = Arc::new(Memory::new(&vec![1; 64 << 20]));
    let (handshake, stall) = (Duration::from_millis(1500), Duration::from_millis(1500));
    let limits = Limits { connections: 2, handshake, stall, ..Limits::default() };
    let served = Served::start(vec![("disk", memory)], limits);
    let silent = Client::greet(&served.socket, 3).await;
    silent.expect_closed().await;
    // Asks for more than the socket holds, and takes none of it.
    let mut deaf = Client::connect(&served.socket, "disk").await;
    for cookie in 0..4 {
        deaf.request(0, 0, cookie, 0, 32 << 20).await;
    }
    let second = Client::greet(&served.socket, 3).await;
    // Both places are taken: one more is turned away.
    let mut third = UnixStream::connect(&served.socket).await.unwrap();
    let mut nothing = Vec::new();
    assert_eq!(third.read_to_end(&mut nothing).await.unwrap_or(0), 0);
    second.expect_closed().await;
    // One place is free again, and taken for good; when there is another, it was that of the deaf one.
    let _busy = Client::connect(&served.socket, "disk").await;
    let mut hello = [0; 18];
    while UnixStream::connect(&served.socket).await.unwrap().read_exact(&mut hello).await.is_err() {
        tokio::task::yield_now().await;
    }
    let (mut rest, mut taken) = (Vec::new(), 0);
    while let Ok(len @ 1..) = deaf.stream.read_buf(&mut rest).await {
        taken += len;
        rest.clear();
    }
    assert!(taken < 64 << 20, "{taken} bytes were sent to a client that took none");
    still_serves(&served).await;
    served.end().await;
}

#[tokio::test]
async fn a_silent_client_over_tcp_is_asked_whether_he_is_there() {
    let device: Arc<dyn Device> = Arc::new(Memory::new(&sparse(5000)));
    let export = Export { name: "disk".into(), description: String::new(), device };
    let server = Server::new(vec![export], Limits::default()).unwrap();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let ends = stop.clone();
    let serving = tokio::spawn(async move { server.serve(listener, ends).await });
    let mut client = TcpStream::connect(address).await.unwrap();
    // He is greeted, so he has been accepted; he says nothing himself.
    let mut hello = [0; 18];
    client.read_exact(&mut hello).await.unwrap();
    let theirs = format!(":{:04X}", client.local_addr().unwrap().port());
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut fields = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let server_side = fields.find(|fields| fields[2].ends_with(&theirs)).expect("he is connected");
    // Which timer runs, and for how many hundredths of a second: 02 is that of keepalive.
    let (timer, left) = server_side[5].split_once(':').unwrap();
    let left = u64::from_str_radix(left, 16).unwrap();
    assert!(timer == "02" && (1..=6000).contains(&left), "timer {timer} for {left}");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn whatever_comes_there_is_no_panic_and_others_are_served() {
    let mut random = StdRng::seed_from_u64(seed());
    let (served, _) = Served::of(Memory::writable(&sparse(100_000)));
    for _ in 0..150 {
        let client = match random.random_range(0..3) {
            0 => Client::greet(&served.socket, 3).await,
            1 => Client::connect_simply(&served.socket, "disk").await,
            _ => Client::connect(&served.socket, "disk").await,
        };
        let (mut reader, mut writer) = client.stream.into_split();
        let drained = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
        for _ in 0..random.random_range(1..20) {
            let mut message = any_message(&mut random);
            if random.random_range(0..4) == 0 {
                let at = random.random_range(0..message.len());
                message[at] ^= 1 << random.random_range(0..8);
            }
            if writer.write_all(&message).await.is_err() {
                break;
            }
        }
        drop(writer);
        // The server ends the connection when we are gone; that it does is that nothing hangs.
        let ended = tokio::time::timeout(Duration::from_secs(30), drained).await;
        ended.expect("the server closes the connection").unwrap().ok();
    }
    still_serves(&served).await;
    served.end().await;
}

/// An option or a request that is nearly right.
fn any_message(random: &mut StdRng) -> Vec<u8> {
    let mut message = Vec::new();
    let len = random.random_range(0..200_u32);
    if random.random_range(0..3) == 0 {
        message.extend(b"IHAVEOPT");
        message.extend(random.random_range(0..13_u32).to_be_bytes());
    } else {
        message.extend(0x2560_9513_u32.to_be_bytes());
        message.extend(random.random_range(0..16_u16).to_be_bytes());
        message.extend(random.random_range(0..9_u16).to_be_bytes());
        message.extend(random.next_u64().to_be_bytes());
        message.extend(random.random_range(0..110_000_u64).to_be_bytes());
    }
    message.extend(len.to_be_bytes());
    let mut data = vec![0; len as usize];
    random.fill_bytes(&mut data);
    message.extend(data);
    message
}
