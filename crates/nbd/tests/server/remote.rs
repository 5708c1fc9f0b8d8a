//! A client as a device: what a device must do, it must do through the server, too.

use super::client::{Chunk, Client};
use super::memory::Served;
use block::testing::{Duty, Forgetful, Later, Memory, check, check_durability, seed};
use block::{Buffer, Description, Device, Done, Failure, FailureKind, Features, ZeroMode};
use nbd::Limits;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

const SIZE: usize = 1 << 20;
const FUA: u16 = 1;
const NO_HOLE: u16 = 1 << 1;
const DF: u16 = 1 << 2;

/// Asks one thing at a time, and waits for it; so it is not to be called from a task.
struct Remote(Handle, Mutex<Client>);

impl Remote {
    fn ask(&self, (command, flags): (u16, u16), range: &Range<u64>, bytes: &[u8]) -> Result<Chunk, Failure> {
        let mut client = self.1.lock().unwrap();
        self.0.block_on(async {
            client.request(command, flags, 1, range.start, (range.end - range.start) as u32).await;
            client.stream.write_all(bytes).await.unwrap();
            let chunk = client.chunk().await;
            let is_error = chunk.kind & 1 << 15 != 0;
            if is_error { Err(Failure::new(FailureKind::Io, format!("{chunk:?}"))) } else { Ok(chunk) }
        })
    }
}

fn fua(durable: bool) -> u16 {
    if durable { FUA } else { 0 }
}

impl Device for Remote {
    fn describe(&self) -> Result<Description, Failure> {
        let features = Features::ALL;
        Ok(Description { size: SIZE as u64, blocks: block::BlockSizes::ASSUMED, features })
    }

    fn read(&self, offset: u64, mut buffer: Buffer, done: Done<Buffer>) {
        let range = offset..offset + buffer.len() as u64;
        done.finish(self.ask((0, DF), &range, &[]).map(|chunk| {
            buffer.copy_from_slice(&chunk.data[8..]);
            buffer
        }));
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        let range = offset..offset + bytes.len() as u64;
        done.finish(self.ask((1, fua(durable)), &range, &bytes).map(|_| ()));
    }

    fn flush(&self, done: Done<()>) {
        done.finish(self.ask((3, 0), &(0..0), &[]).map(|_| ()));
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        done.finish(self.ask((4, fua(durable)), &range, &[]).map(|_| ()));
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        let flags = fua(mode.durable) | if mode.keep_allocated { NO_HOLE } else { 0 };
        done.finish(self.ask((6, flags), &range, &[]).map(|_| ()));
    }
}

/// Does something with a device through a server of it.
async fn through<T: Send + 'static>(
    device: Arc<dyn Device>,
    work: impl FnOnce(&dyn Device) -> T + Send + 'static,
) -> T {
    let served = Served::start(vec![("disk", device)], Limits::default());
    let remote = Remote(Handle::current(), Mutex::new(Client::connect(&served.socket, "disk").await));
    let done = tokio::task::spawn_blocking(move || work(&remote)).await.unwrap();
    served.end().await;
    done
}

#[tokio::test]
async fn a_device_is_through_the_server_what_it_is_without() {
    let seed = seed();
    through(Arc::new(Memory::writable(&vec![7; SIZE])), move |remote| check(remote, seed)).await;
}

#[tokio::test]
async fn what_was_made_durable_through_the_server_is_there_after_a_loss_of_power() {
    let seed = seed();
    let outcome = async |front: &dyn Fn(Arc<Memory>) -> Arc<dyn Device>| {
        let memory = Arc::new(Memory::volatile(&vec![0; SIZE]));
        let device = front(memory.clone());
        through(device, move |remote| check_durability(remote, || memory.crash(), seed)).await
    };
    outcome(&|memory| memory).await.unwrap();
    outcome(&|memory| Arc::new(Later::new(memory, 3))).await.unwrap();
    for duty in [Duty::Flush, Duty::DurableRequests] {
        let broken = outcome(&|memory| Arc::new(Forgetful(memory, duty))).await;
        assert!(broken.as_ref().is_err_and(|why| why.contains("was durable")), "{duty:?}: {broken:?}");
    }
}
