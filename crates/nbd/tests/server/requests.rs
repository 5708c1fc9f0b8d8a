//! Requests and what comes of them.

use super::client::Client;
use super::memory::{BLOCK, Served, later, sparse};
use block::Device;
use block::testing::Memory;
use nbd::Limits;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A device of which a byte cannot be read.
fn bad(mut memory: Memory, byte: u64) -> Memory {
    memory.bad = Some(byte);
    memory
}

const SIZE: usize = 50 * BLOCK + 100;

/// A read as a client with structured replies does it.
async fn read(client: &mut Client, flags: u16, offset: u64, len: u32) -> (Vec<u8>, usize) {
    client.request(0, flags, 9, offset, len).await;
    let (mut bytes, mut chunks) = (vec![0xee; len as usize], 0);
    loop {
        let chunk = client.chunk().await;
        assert_eq!(chunk.cookie, 9);
        let at = (u64::from_be_bytes(chunk.data[..8].try_into().unwrap()) - offset) as usize;
        match chunk.kind {
            1 => bytes[at..at + chunk.data.len() - 8].copy_from_slice(&chunk.data[8..]),
            2 => bytes[at..at + u32::from_be_bytes(chunk.data[8..].try_into().unwrap()) as usize].fill(0),
            other => panic!("chunk of kind {other}"),
        }
        chunks += 1;
        if chunk.flags == 1 {
            return (bytes, chunks);
        }
    }
}

#[tokio::test]
async fn reads_give_the_bytes_in_chunks_in_one_or_simply() {
    let (served, memory) = Served::of(Memory::new(&sparse(SIZE)));
    let expected = memory.bytes();
    let mut client = Client::connect(&served.socket, "disk").await;
    for (offset, len) in [(0, SIZE), (1, 3), (4000, 20_000), (SIZE - 1, 1), (3 * BLOCK, 4 * BLOCK)] {
        let (bytes, _) = read(&mut client, 0, offset as u64, len as u32).await;
        assert!(bytes == expected[offset..offset + len], "{len} at {offset}");
        let (bytes, chunks) = read(&mut client, 1 << 2, offset as u64, len as u32).await;
        assert!(bytes == expected[offset..offset + len] && chunks == 1, "{len} at {offset} in one");
    }
    assert!(read(&mut client, 0, 0, SIZE as u32).await.1 > 10, "holes are not sent");
    let mut simple = Client::connect_simply(&served.socket, "disk").await;
    simple.request(0, 0, 4, 5, 30_000).await;
    let mut reply = vec![0; 16 + 30_000];
    simple.stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..16], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
    assert!(reply[16..] == expected[5..30_005]);
    served.end().await;
}

#[tokio::test]
async fn what_a_device_cannot_do_is_an_error_and_the_connection_goes_on() {
    let (served, memory) = Served::of(bad(Memory::new(&sparse(SIZE)), 9000));
    let expected = memory.bytes();
    let mut client = Client::connect(&served.socket, "disk").await;
    client.request(0, 0, 1, 8192, 4096).await;
    assert_eq!(client.error(1).await, (5, "the byte is bad".to_owned()));
    // A write to what is read-only comes with its bytes, which must not be taken for requests.
    client.request(1, 0, 2, 0, 100_000).await;
    client.stream.write_all(&vec![0x25; 100_000]).await.unwrap();
    assert_eq!(client.error(2).await.0, 1);
    for (command, offset, len, errno) in [(4, 0, 512, 1), (6, 0, 512, 1), (3, 0, 0, 1), (5, 0, 512, 22), (99, 0, 0, 22)]
    {
        client.request(command, 0, 3, offset, len).await;
        assert_eq!(client.error(3).await.0, errno, "command {command}");
    }
    client.request(0, 0, 4, SIZE as u64 - 1, 2).await;
    assert_eq!(client.error(4).await.0, 22);
    assert!(read(&mut client, 0, 100, 50).await.0 == expected[100..150]);
    // Without structured replies there is the number alone.
    let mut simple = Client::connect_simply(&served.socket, "disk").await;
    simple.request(0, 0, 6, 8192, 4096).await;
    let mut reply = [0; 16];
    simple.stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6]);
    client.request(2, 0, 0, 0, 0).await;
    client.expect_closed().await;
    served.end().await;
}

#[tokio::test]
async fn a_device_that_takes_writes_takes_them() {
    let (served, memory) = Served::of(Memory::writable(&vec![0; SIZE]));
    let mut client = Client::connect(&served.socket, "disk").await;
    let done = |chunk: super::client::Chunk| assert_eq!((chunk.flags, chunk.kind, chunk.data.len()), (1, 0, 0));
    client.request(1, 1, 1, 5000, 7).await;
    client.stream.write_all(b"written").await.unwrap();
    done(client.chunk().await);
    assert_eq!(&memory.bytes()[4999..5008], b"\0written\0");
    client.request(6, 2, 2, 5001, 5).await;
    done(client.chunk().await);
    assert_eq!(&memory.bytes()[4999..5008], b"\0w\0\0\0\0\0n\0");
    client.request(4, 0, 3, 0, SIZE as u32).await;
    done(client.chunk().await);
    client.request(3, 0, 4, 0, 0).await;
    done(client.chunk().await);
    assert_eq!(memory.flushes.load(Ordering::SeqCst), 1);
    assert!(memory.bytes().iter().all(|byte| *byte == 0));
    // Beyond the end there is no space, and what was sent for it is passed over.
    client.request(1, 0, 5, SIZE as u64 - 3, 7).await;
    client.stream.write_all(b"written").await.unwrap();
    assert_eq!(client.error(5).await.0, 28);
    assert!(read(&mut client, 0, 0, 4096).await.0 == [0; 4096]);
    served.end().await;
}

#[tokio::test]
async fn holes_are_told_from_data_and_one_stretch_when_one_is_wanted() {
    let (served, _) = Served::of(Memory::new(&sparse(20 * BLOCK)));
    let mut client = Client::connect(&served.socket, "disk").await;
    let block = |count: u32, hole: u32| [(count * BLOCK as u32).to_be_bytes(), (hole * 3).to_be_bytes()].concat();
    client.request(7, 0, 3, 0, 20 * BLOCK as u32).await;
    let chunk = client.chunk().await;
    assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (1, 5, 3));
    let all = [block(3, 0), block(4, 1), block(3, 0), block(4, 1), block(3, 0), block(3, 1)].concat();
    assert_eq!(chunk.data, [&1_u32.to_be_bytes()[..], &all].concat());
    client.request(7, 1 << 3, 4, BLOCK as u64, 10 * BLOCK as u32).await;
    assert_eq!(client.chunk().await.data, [&1_u32.to_be_bytes()[..], &block(2, 0)].concat());
    served.end().await;
}

#[tokio::test]
async fn requests_are_worked_on_together_and_not_more_than_the_limit() {
    let device = later(Memory::new(&sparse(1 << 20)));
    let gate = device.gate();
    gate.close();
    let device: Arc<dyn Device> = device;
    let limits = Limits { requests: 4, ..Limits::default() };
    let served = Served::start(vec![("disk", device)], limits);
    let mut client = Client::connect(&served.socket, "disk").await;
    for cookie in 0..50 {
        client.request(0, 1 << 2, cookie, cookie * 4096, 4096).await;
    }
    while gate.at_once() < 4 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let mut cookies = std::collections::HashSet::new();
    for _ in 0..50 {
        assert!(cookies.insert(client.chunk().await.cookie));
    }
    assert_eq!(gate.most_at_once(), 4);
    served.end().await;
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_too() {
    let device = later(Memory::new(&vec![0; 64 << 20]));
    let gate = device.gate();
    gate.close();
    let device: Arc<dyn Device> = device;
    // The longest request has 32 MiB, and is the budget.
    let limits = Limits { requests: 16, bytes: 1, ..Limits::default() };
    let served = Served::start(vec![("disk", device)], limits);
    let mut client = Client::connect(&served.socket, "disk").await;
    for cookie in 0..6 {
        client.request(0, 0, cookie, 0, 16 << 20).await;
    }
    while gate.at_once() < 2 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for _ in 0..6 {
        assert_eq!(client.chunk().await.kind, 2);
    }
    assert_eq!(gate.most_at_once(), 2);
    served.end().await;
}

#[tokio::test]
async fn states_in_flight_are_bounded_like_bytes() {
    let mut memory = Memory::new(&vec![0; 4 << 20]);
    memory.blocks.maximum = 1 << 20;
    let device = later(memory);
    let gate = device.gate();
    gate.close();
    let device: Arc<dyn Device> = device;
    // The longest request has 1 MiB, and is the budget; 8192 states have 192 KiB.
    let served = Served::start(vec![("disk", device)], Limits { bytes: 1, ..Limits::default() });
    let mut client = Client::connect(&served.socket, "disk").await;
    for cookie in 0..40 {
        client.request(7, 0, cookie, 0, 4 << 20).await;
    }
    while gate.at_once() < 5 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for _ in 0..40 {
        assert_eq!(client.chunk().await.kind, 5);
    }
    assert_eq!(gate.most_at_once(), 5);
    // Of one stretch each, as many go on as requests may.
    gate.close();
    for cookie in 0..40 {
        client.request(7, 1 << 3, cookie, 0, 4 << 20).await;
    }
    while gate.at_once() < 40 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for _ in 0..40 {
        assert_eq!(client.chunk().await.kind, 5);
    }
    served.end().await;
}

#[tokio::test]
async fn what_was_taken_is_answered_when_the_server_is_stopped() {
    let device = later(Memory::new(&sparse(SIZE)));
    let gate = device.gate();
    gate.close();
    let device: Arc<dyn Device> = device;
    let served = Served::start(vec![("disk", device)], Limits::default());
    let mut client = Client::connect(&served.socket, "disk").await;
    client.request(0, 1 << 2, 5, 0, 4096).await;
    while gate.at_once() < 1 {
        tokio::task::yield_now().await;
    }
    let opens = tokio::spawn(async move {
        tokio::task::yield_now().await;
        gate.open();
    });
    served.end().await;
    opens.await.unwrap();
    let chunk = client.chunk().await;
    assert_eq!((chunk.cookie, chunk.data.len()), (5, 8 + 4096));
    client.expect_closed().await;
}
