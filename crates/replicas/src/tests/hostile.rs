//! Peers that send anything, claim lengths, ask for too much, or say nothing.

use super::cluster::{CLUSTER, PATIENCE, VOLUME, node_name, until};
use crate::testing::seed;
use crate::{Answered, Limits, Replica, Replicas, Security, Seen, Server, Store};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use replication::look::Look;
use replication::message::{Answer, Body, Changed, Reply, Request};
use replication::replica::store::{Operation, Outcome, Promise};
use replication::units::{AttachmentId, Blocks, Digest, Epoch, Incarnation, ReplicaId, Sequence, Session, SnapshotId};
use replication::wire::{BLOCK, Farewell, Frames, Hello, Message, NEWEST, OLDEST};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

const ME: AttachmentId = AttachmentId(5);

/// A store that keeps nothing, and holds changes back until it is let go.
#[derive(Default)]
struct Slow {
    promise: Mutex<Promise>,
    held: Mutex<Vec<Answered>>,
    bytes: AtomicUsize,
    looks: AtomicUsize,
    is_open: std::sync::atomic::AtomicBool,
}

impl Slow {
    fn let_go(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        loop {
            let held = std::mem::take(&mut *self.held.lock().unwrap());
            if held.is_empty() {
                return;
            }
            held.into_iter().for_each(|answered| answered(Outcome::Done));
        }
    }
}

impl Store for Slow {
    fn promise(&self) -> Promise {
        *self.promise.lock().unwrap()
    }

    fn blocks(&self) -> u64 {
        1 << 30
    }

    fn perform(&self, operation: Operation, answered: Answered) {
        match operation {
            Operation::Promise(promise) => *self.promise.lock().unwrap() = promise,
            Operation::Write { data, .. } => {
                self.bytes.fetch_add(data.len(), Ordering::SeqCst);
                if !self.is_open.load(Ordering::SeqCst) {
                    return self.held.lock().unwrap().push(answered);
                }
            }
            Operation::Read { blocks } => {
                let len = usize::try_from(blocks.count).unwrap() * BLOCK;
                return answered(Outcome::Data(vec![0; len].into()));
            }
            Operation::Digest { .. } => return answered(Outcome::Digest(Digest([0; 16]))),
            Operation::Discard { .. }
            | Operation::Flush
            | Operation::Changed { .. }
            | Operation::Snapshot { .. }
            | Operation::Grow { .. } => {}
        }
        answered(Outcome::Done);
    }

    /// As many ranges as were asked for.
    fn look(&self, look: &Look, seen: Seen) {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let range = |i: u32| Blocks { start: look.blocks.start + 2 * u64::from(i), count: 1 };
        seen(Ok(Changed { ranges: (0..look.most).map(range).collect(), next: None }));
    }
}

struct Served {
    address: SocketAddr,
    store: Arc<Slow>,
    _stop: DropGuard,
}

async fn serve(limits: Limits) -> Served {
    let store = Arc::<Slow>::default();
    let replicas = Arc::<Replicas>::default();
    replicas.add(Replica::new(VOLUME, ReplicaId(1), store.clone(), Session(8), Incarnation(9)));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, CLUSTER, replicas, Security::ClearOnLoopback, limits).await.unwrap();
    let address = server.address();
    let stop = CancellationToken::new();
    tokio::spawn(server.serve(stop.clone()));
    Served { address, store, _stop: stop.drop_guard() }
}

/// A peer that speaks the protocol by hand.
struct Peer {
    stream: TcpStream,
    frames: Frames,
}

impl Peer {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), frames: Frames::new() }
    }

    async fn welcomed(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address).await;
        peer.is_welcomed().await;
        peer
    }

    async fn is_welcomed(&mut self) {
        self.say(&hello()).await;
        assert!(matches!(self.hear().await, Some(Message::Welcome(_))));
        self.frames.agreed(NEWEST);
    }

    async fn say(&mut self, message: &Message) {
        let frame = message.encode(NEWEST);
        // The other side may have left.
        drop(self.stream.write_all(&[frame.front(), frame.data()].concat()).await);
    }

    /// What comes next; nothing when the other side has left.
    async fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.frames.next_message().unwrap() {
                return Some(message);
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(self.frames.room()));
            read.await.expect("it answers or leaves").ok().filter(|read| *read > 0)?;
        }
    }

    /// The other side has ended the connection, with or without a farewell.
    async fn is_left(&mut self) {
        while let Some(message) = self.hear().await {
            assert!(matches!(message, Message::Farewell(_) | Message::Welcome(_)), "{message:?}");
        }
    }

    async fn answer(&mut self, request: Request) -> Answer {
        self.say(&Message::Request(request)).await;
        match self.hear().await {
            Some(Message::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }
}

fn hello() -> Message {
    Message::Hello(Hello {
        oldest: OLDEST,
        newest: NEWEST,
        cluster: CLUSTER,
        volume: VOLUME,
        replica: ReplicaId(1),
        attachment: ME,
        node: node_name(0),
    })
}

fn request(sequence: u64, body: Body) -> Request {
    let session = if body == Body::Seal { None } else { Some(Session(8)) };
    let (sequence, done_below) = (Sequence(sequence), Sequence(0));
    Request { attachment: ME, epoch: Epoch(1), session, sequence, done_below, body }
}

async fn is_served(served: &Served) {
    let mut peer = Peer::welcomed(served.address).await;
    assert_eq!(peer.answer(request(0, Body::Seal)).await.body, Ok(Reply::Sealed { is_whole: false }));
    assert_eq!(peer.answer(request(1, Body::Renew)).await.body, Ok(Reply::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_send_anything_lose_their_connection_and_hurt_nobody() {
    let served = serve(Limits::default()).await;
    let mut random = StdRng::seed_from_u64(seed());
    for round in 0..200 {
        let mut peer =
            if round % 2 == 0 { Peer::connect(served.address).await } else { Peer::welcomed(served.address).await };
        let mut bytes = vec![0; random.random_range(24..5000)];
        random.fill_bytes(&mut bytes);
        if round % 4 > 1 {
            // Something that begins well.
            let frame = Message::Request(request(1, Body::Flush)).encode(NEWEST);
            let part = random.random_range(4..frame.front().len());
            bytes[..part.min(24)].copy_from_slice(&frame.front()[..part.min(24)]);
        }
        drop(peer.stream.write_all(&bytes).await);
        drop(peer.stream.shutdown().await);
        peer.is_left().await;
    }
    // Lengths that are claimed, with a checksum that fits.
    for (head, data) in [(80, u32::MAX), (u32::MAX, 0), (80, (4 << 20) + 1)] {
        let mut peer = Peer::welcomed(served.address).await;
        let mut header = [b"OrRp", &NEWEST.to_le_bytes()[..], b"\x04\x00"].concat();
        header.extend(u32::to_le_bytes(head));
        header.extend(u32::to_le_bytes(data));
        header.extend([0; 4]);
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        peer.stream.write_all(&header).await.unwrap();
        assert!(matches!(peer.hear().await, Some(Message::Farewell(Farewell::Unclear(_)))));
        peer.is_left().await;
    }
    // Messages at the wrong place, and requests of somebody else.
    let mut peer = Peer::connect(served.address).await;
    peer.say(&Message::Request(request(1, Body::Seal))).await;
    peer.is_left().await;
    let mut peer = Peer::welcomed(served.address).await;
    peer.say(&hello()).await;
    peer.is_left().await;
    let mut peer = Peer::welcomed(served.address).await;
    peer.say(&Message::Request(Request { attachment: AttachmentId(6), ..request(1, Body::Seal) })).await;
    peer.is_left().await;
    is_served(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_say_nothing_lose_their_place_and_more_than_there_are_places_for_are_told_so() {
    let limits = Limits { handshake: Duration::from_millis(300), connections: 2, ..Limits::default() };
    let served = serve(limits).await;
    let mut silent = Peer::connect(served.address).await;
    silent.is_left().await;
    let mut half = Peer::connect(served.address).await;
    half.stream.write_all(b"OrRp").await.unwrap();
    half.is_left().await;
    let first = Peer::welcomed(served.address).await;
    let _second = Peer::welcomed(served.address).await;
    let mut third = Peer::connect(served.address).await;
    third.say(&hello()).await;
    // (It is refused behind its welcome.)
    let mut last = None;
    while let Some(message) = third.hear().await {
        last = Some(message);
    }
    assert!(matches!(last, Some(Message::Farewell(Farewell::Busy(_)))), "{last:?}");
    drop(first);
    let mut is_served = false;
    while !is_served {
        let mut next = Peer::welcomed(served.address).await;
        next.say(&Message::Request(request(0, Body::Seal))).await;
        is_served = matches!(next.hear().await, Some(Message::Answer(_)));
    }
}

/// Peers that connect and say nothing, as many as they like: they cost those who come after them, and nobody who is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_have_not_said_hello_are_bounded() {
    let limits = Limits { handshakes: 3, handshake: Duration::from_secs(3600), ..Limits::default() };
    let served = serve(limits).await;
    let mut known = Peer::welcomed(served.address).await;
    known.answer(request(0, Body::Seal)).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Peer::connect(served.address).await);
    }
    // They are accepted in their order, so these are the ones that there are too many of.
    for _ in 0..50 {
        let mut more = Peer::connect(served.address).await;
        more.say(&hello()).await;
        assert!(more.hear().await.is_none(), "it is not welcomed");
    }
    assert_eq!(known.answer(request(1, Body::Renew)).await.body, Ok(Reply::Done), "who is known is served");
    // Those who came first may still say it, and make room when they have.
    let mut first = silent.swap_remove(0);
    first.is_welcomed().await;
    assert_eq!(first.answer(request(2, Body::Renew)).await.body, Ok(Reply::Done));
    Peer::welcomed(served.address).await;
}

/// A store that is stuck: what one connection may have under way is bounded, in what is written and in what would be read, and leases go on over another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_are_bounded_and_leases_go_on_beside_them() {
    let limits = Limits { bytes: 4 << 20, ..Limits::default() };
    let served = serve(limits).await;
    let mut control = Peer::welcomed(served.address).await;
    control.answer(request(0, Body::Seal)).await;
    let mut data = Peer::welcomed(served.address).await;
    let sends = tokio::spawn(async move {
        for i in 0..100 {
            let bytes = vec![1; 256 << 10].into();
            let blocks = Blocks { start: i * 64, count: 64 };
            data.say(&Message::Request(request(100 + i, Body::Write { blocks, data: bytes }))).await;
        }
        data
    });
    until("the room is taken", || served.store.bytes.load(Ordering::SeqCst) == 4 << 20).await;
    for i in 0..50 {
        assert_eq!(control.answer(request(1 + i, Body::Renew)).await.body, Ok(Reply::Done));
    }
    assert_eq!(served.store.bytes.load(Ordering::SeqCst), 4 << 20, "nothing more is taken");
    served.store.let_go();
    let mut data = sends.await.unwrap();
    for _ in 0..100 {
        let Some(Message::Answer(answer)) = data.hear().await else { panic!("it has left") };
        assert_eq!(answer.body, Ok(Reply::Done));
    }
    assert_eq!(served.store.bytes.load(Ordering::SeqCst), 25 << 20);
}

/// Whoever takes no answers is asked for nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_no_answers_holds_no_more_than_its_room() {
    let limits = Limits { bytes: 4 << 20, ..Limits::default() };
    let served = serve(limits).await;
    let mut peer = Peer::welcomed(served.address).await;
    peer.answer(request(0, Body::Seal)).await;
    let read = |i: u64| Message::Request(request(i, Body::Read { blocks: Blocks { start: 0, count: 1024 } }));
    for i in 1..=500 {
        peer.say(&read(i)).await;
    }
    // 2 GB were asked for; what has come must be taken before the rest is read at all.
    let mut taken = 0;
    while taken < 500 {
        let Some(Message::Answer(answer)) = peer.hear().await else { panic!("it has left") };
        let Ok(Reply::Data(data)) = answer.body else { panic!("{:?}", answer.body) };
        assert_eq!(data.len(), 4 << 20);
        taken += 1;
    }
    is_served(&served).await;
}

fn look(most: u32) -> Message {
    let blocks = Blocks { start: 0, count: 1 << 29 };
    Message::Look(Look { of: (SnapshotId(1), Epoch(1)), since: None, blocks, most })
}

/// What is looked at holds no more than the connection's room either, and needs no attachment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_looks_and_takes_no_answers_holds_no_more_than_its_room() {
    const LOOKS: usize = 200;
    let served = serve(Limits { bytes: 4 << 20, ..Limits::default() }).await;
    let mut peer = Peer::welcomed(served.address).await;
    for _ in 0..LOOKS {
        peer.say(&look(1 << 16)).await;
    }
    let mut taken = 0;
    while taken < LOOKS {
        let Some(Message::Seen(Ok(seen))) = peer.hear().await else { panic!("it has left") };
        assert_eq!(seen.ranges.len(), 1 << 16);
        taken += 1;
        // Four are in its room. What the system has taken over from that is on its way, which has an end, too.
        let ahead = served.store.looks.load(Ordering::SeqCst) - taken;
        assert!(ahead < LOOKS / 2, "{ahead} MiB wait for a peer that has taken {taken}");
    }
    is_served(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_is_not_understood_in_a_version_that_does_not_have_it() {
    let served = serve(Limits::default()).await;
    let mut peer = Peer::connect(served.address).await;
    let Message::Hello(hello) = hello() else { unreachable!() };
    peer.say(&Message::Hello(Hello { newest: 1, ..hello })).await;
    let welcome = peer.hear().await;
    assert!(matches!(&welcome, Some(Message::Welcome(welcome)) if welcome.version == 1), "{welcome:?}");
    let frame = look(1).encode(1);
    peer.stream.write_all(frame.front()).await.unwrap();
    let refused = peer.hear().await;
    assert!(matches!(refused, Some(Message::Farewell(Farewell::Unclear(_)))), "{refused:?}");
    peer.is_left().await;
    assert_eq!(served.store.looks.load(Ordering::SeqCst), 0);
    is_served(&served).await;
}
