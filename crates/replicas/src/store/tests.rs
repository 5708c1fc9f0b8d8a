//! The store against a slow, obvious model, and killed at any time.

use super::{Answered, HeldSnapshot, PoolStore, Store, StoreError, digest};
use crate::testing::{Place, places, seed};
use block::Buffer;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use replication::look::{Look, Unseen};
use replication::message::Changed;
use replication::replica::store::{Operation, Outcome, Promise};
use replication::units::{AttachmentId, Blocks, Epoch, Incarnation, ReplicaId, SnapshotId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use volume::{BLOCK, Pool};

const VOLUME: VolumeId = VolumeId(77);
const REPLICA: ReplicaId = ReplicaId(3);
const SIZE: u64 = 300;

/// A block: the number of the write that it has, 0 for zeros, and its birth.
type Block = (u64, Epoch);

/// What a block may have. The last is what it has as long as nothing ends.
#[derive(Debug, Clone)]
struct History {
    /// From the last that is durable on.
    versions: Vec<Block>,
    /// Which of them was answered last.
    answered: usize,
}

impl History {
    fn last(&self) -> Block {
        *self.versions.last().unwrap()
    }

    /// The process ends: what was not answered may be done or not. With the power goes what was not flushed, too.
    fn end(&mut self, with_power: bool) {
        self.versions.drain(..if with_power { 0 } else { self.answered });
        self.answered = 0;
    }

    fn keep(&mut self, fits: impl Fn(Block) -> bool) {
        self.versions.retain(|version| fits(*version));
        self.answered = self.versions.len().saturating_sub(1);
    }
}

/// What must be there. While something is not answered, the promise may be one of several.
#[derive(Debug, Clone)]
struct Model {
    blocks: Vec<History>,
    promises: Vec<Promise>,
}

impl Model {
    fn new() -> Self {
        let empty = History { versions: vec![(0, Epoch(0))], answered: 0 };
        Self { blocks: vec![empty; usize::try_from(SIZE).unwrap()], promises: vec![Promise::default()] }
    }

    fn promise(&self) -> Promise {
        *self.promises.last().unwrap()
    }

    fn last(&self, block: u64) -> Block {
        self.blocks[usize::try_from(block).unwrap()].last()
    }

    fn put(&mut self, blocks: Blocks, first: u64, birth: Epoch) {
        for (i, block) in (blocks.start..blocks.end()).enumerate() {
            let value = if first == 0 { 0 } else { first + i as u64 };
            if value == 0 && self.last(block).0 == 0 {
                // What is zeros already does not become younger.
                continue;
            }
            self.blocks[usize::try_from(block).unwrap()].versions.push((value, birth));
        }
    }

    /// All that was asked is answered.
    fn answered(&mut self) {
        self.blocks.iter_mut().for_each(|history| history.answered = history.versions.len() - 1);
        self.promises.drain(..self.promises.len() - 1);
    }

    /// All that was answered is durable.
    fn flushed(&mut self) {
        self.answered();
        self.blocks.iter_mut().for_each(|history| history.end(false));
    }

    fn bytes(&self, blocks: Blocks) -> Vec<u8> {
        (blocks.start..blocks.end()).flat_map(|block| bytes_of(self.last(block).0)).collect()
    }

    fn changed(&self, since: Epoch, from: u64) -> Vec<u64> {
        (from..SIZE).filter(|block| self.last(*block).1 >= since.max(Epoch(1))).collect()
    }
}

fn bytes_of(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK / 8)
}

fn perform(store: &PoolStore, operation: Operation) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let answered: Answered = Box::new(move |outcome| sender.send(outcome).unwrap());
    store.perform(operation, answered);
    receiver.recv().unwrap()
}

fn read_all(pool: &Pool<Buffer>, state: volume::State, blocks: u64) -> Vec<u8> {
    let (sender, receiver) = mpsc::channel();
    let into = Buffer::zeroed(usize::try_from(blocks).unwrap() * BLOCK);
    pool.read(state, 0, into, move |result| sender.send(result).unwrap());
    receiver.recv().unwrap().unwrap().to_vec()
}

struct Run {
    random: StdRng,
    model: Model,
    place: Place,
    pool: Arc<Pool<Buffer>>,
    store: PoolStore,
    next_value: u64,
    kills: u64,
    taken: BTreeMap<HeldSnapshot, Model>,
}

impl Run {
    fn new(mut place: Place, seed: u64) -> Self {
        let pool = place.open();
        let store = PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap();
        let random = StdRng::seed_from_u64(seed);
        Self { random, model: Model::new(), place, pool, store, next_value: 1, kills: 0, taken: BTreeMap::new() }
    }

    fn any_blocks(&mut self) -> Blocks {
        let start = self.random.random_range(0..SIZE);
        Blocks { start, count: self.random.random_range(1..=(SIZE - start).min(40)) }
    }

    /// A change, and what the model has then.
    fn any_change(&mut self) -> Operation {
        let blocks = self.any_blocks();
        self.change(blocks)
    }

    fn change(&mut self, blocks: Blocks) -> Operation {
        let birth = self.model.promise().epoch;
        if self.random.random_range(0..4) == 0 {
            self.model.put(blocks, 0, birth);
            return Operation::Discard { blocks, birth };
        }
        let first = self.next_value;
        self.next_value += blocks.count;
        self.model.put(blocks, first, birth);
        let data: Vec<u8> = (first..first + blocks.count).flat_map(bytes_of).collect();
        Operation::Write { blocks, data: data.into(), birth }
    }

    fn any_promise(&mut self) -> Operation {
        let promise = self.model.promise();
        let next = if self.random.random_range(0..3) == 0 && promise.attachment.is_some() {
            Promise { whole: Some(Incarnation(self.random.random())), ..promise }
        } else {
            let epoch = Epoch(promise.epoch.0 + self.random.random_range(1..4));
            Promise { epoch, attachment: Some(AttachmentId(self.random.random())), ..promise }
        };
        self.model.promises.push(next);
        Operation::Promise(next)
    }

    fn step(&mut self) {
        match self.random.random_range(0..40) {
            0 | 1 => {
                let promise = self.any_promise();
                assert_eq!(perform(&self.store, promise), Outcome::Done);
                self.model.flushed();
            }
            2 => self.kill(),
            3 => {
                assert_eq!(perform(&self.store, Operation::Flush), Outcome::Done);
                self.model.flushed();
            }
            4 => {
                // Births that no promise knows of.
                let id = SnapshotId(self.random.random());
                let snapshot = Operation::Snapshot { id, epoch: self.model.promise().epoch };
                assert_eq!(perform(&self.store, snapshot), Outcome::Done);
                self.model.flushed();
                self.taken.insert((id, self.model.promise().epoch), self.model.clone());
            }
            // One that is there already is not taken again; so it is what it was, whatever has been killed since.
            5 => {
                for ((id, epoch), model) in &self.taken {
                    assert_eq!(perform(&self.store, Operation::Snapshot { id: *id, epoch: *epoch }), Outcome::Done);
                    let snapshot = PoolStore::snapshot(&self.pool, VOLUME, REPLICA, (*id, *epoch)).unwrap();
                    let found = read_all(&self.pool, volume::State::Snapshot(snapshot), SIZE);
                    assert!(found == model.bytes(Blocks { start: 0, count: SIZE }), "{id} of {epoch}");
                }
                while self.taken.len() > 3 {
                    let (held, _) = self.taken.pop_first().unwrap();
                    PoolStore::remove_snapshot(&self.pool, VOLUME, REPLICA, held).unwrap();
                }
            }
            6..10 => self.compare_changed(),
            10..15 => {
                let blocks = self.any_blocks();
                let expected = Outcome::Digest(digest(&self.model.bytes(blocks)));
                assert_eq!(perform(&self.store, Operation::Digest { blocks }), expected);
            }
            15..22 => {
                let blocks = self.any_blocks();
                let expected = Outcome::Data(Bytes::from(self.model.bytes(blocks)));
                assert!(perform(&self.store, Operation::Read { blocks }) == expected, "{blocks}");
            }
            _ => {
                let change = self.any_change();
                assert_eq!(perform(&self.store, change), Outcome::Done);
            }
        }
        self.model.answered();
    }

    fn compare_changed(&mut self) {
        let since = Epoch(self.random.random_range(0..=self.model.promise().epoch.0 + 2));
        let from = self.random.random_range(0..=SIZE);
        let most = self.random.random_range(1..20);
        let told = self.all_changed(since, from, most);
        assert_eq!(told, self.model.changed(since, from), "since {since} from {from}");
    }

    /// Page by page.
    fn all_changed(&self, since: Epoch, mut from: u64, most: u32) -> Vec<u64> {
        let mut told = Vec::new();
        loop {
            let outcome = perform(&self.store, Operation::Changed { since, from, most });
            let Outcome::Changed(Changed { ranges, next }) = outcome else { panic!("{outcome:?}") };
            assert!(ranges.len() <= most as usize && ranges.iter().all(|range| range.start >= from));
            told.extend(ranges.iter().flat_map(|range| range.start..range.end()));
            match next {
                Some(next) if next > from => from = next,
                Some(next) => panic!("{next} does not follow {from}"),
                None => return told,
            }
        }
    }

    /// The process ends with operations under way; the next one finds each of them done or not.
    fn kill(&mut self) {
        self.kills += 1;
        // Of those that overlap a replica has one at a time: what is under way together may be done in any order.
        let mut apart: Vec<Blocks> = Vec::new();
        for _ in 0..self.random.random_range(0..6) {
            let blocks = self.any_blocks();
            if !apart.iter().any(|other| other.overlap(blocks)) {
                apart.push(blocks);
            }
        }
        let changes: Vec<Operation> = apart.into_iter().map(|blocks| self.change(blocks)).collect();
        let (sender, receiver) = mpsc::channel();
        for change in changes {
            let sender = sender.clone();
            // Nobody may listen any more.
            self.store.perform(change, Box::new(move |outcome| drop(sender.send(outcome))));
        }
        drop(sender);
        if self.random.random_range(0..3) == 0 {
            // A replica lets nothing else be under way meanwhile; so a promise is alone.
            assert!(receiver.iter().all(|outcome| outcome == Outcome::Done));
            self.model.answered();
            let promise = self.any_promise();
            self.store.perform(promise, Box::new(|_| {}));
        }
        let loses_power = self.random.random() && self.place.lose_power(&mut self.random);
        self.pool = self.place.open();
        self.store = PoolStore::open(&self.pool, VOLUME, REPLICA).unwrap();
        // What the next process finds is not durable for that; from here on it is.
        assert_eq!(perform(&self.store, Operation::Flush), Outcome::Done);
        assert!(self.model.promises.contains(&self.store.promise()), "{:?}", self.store.promise());
        self.model.promises = vec![self.store.promise()];
        for block in 0..SIZE {
            let blocks = Blocks { start: block, count: 1 };
            let Outcome::Data(data) = perform(&self.store, Operation::Read { blocks }) else { panic!("{blocks}") };
            let value = u64::from_le_bytes(data[..8].try_into().unwrap());
            assert_eq!(data, bytes_of(value), "{blocks} are torn");
            let history = &mut self.model.blocks[usize::try_from(block).unwrap()];
            history.end(loses_power);
            let possible = history.clone();
            history.keep(|version| version.0 == value);
            assert!(!history.versions.is_empty(), "{blocks} have {value}, and may have {possible:?}");
        }
        self.learn_births();
    }

    /// Of values that were written twice, zeros that is, the birth tells which of them is there.
    fn learn_births(&mut self) {
        for epoch in (1..=self.model.promise().epoch.0).map(Epoch) {
            let told: BTreeSet<u64> = self.all_changed(epoch, 0, 1000).into_iter().collect();
            for (block, history) in self.model.blocks.iter_mut().enumerate() {
                let is_told = told.contains(&(block as u64));
                history.keep(|version| (version.1 >= epoch) == is_told);
                assert!(!history.versions.is_empty(), "block {block} has another birth: since {epoch}, {is_told}");
            }
        }
        // (Of the same birth and value it does not matter which.) What is there now was read from the disk.
        self.model.blocks.iter_mut().for_each(|history| drop(history.versions.drain(..history.versions.len() - 1)));
        self.model.blocks.iter_mut().for_each(|history| history.answered = 0);
    }
}

#[test]
fn a_store_does_what_a_replica_relies_on_and_is_killed_at_any_time() {
    let seed = seed();
    let places = places(16_384).into_iter().chain([Place::volatile(16_384)]);
    for (i, place) in places.enumerate() {
        let mut run = Run::new(place, seed.wrapping_add(i as u64));
        let first = run.any_promise();
        assert_eq!(perform(&run.store, first), Outcome::Done);
        run.model.flushed();
        (0..600).for_each(|_| run.step());
        assert!(run.kills > 5, "{} kills", run.kills);
    }
}

#[test]
fn a_replica_is_made_once_and_removed_for_good() {
    let mut place = places(16_384).remove(0);
    let pool = place.open();
    assert!(matches!(PoolStore::open(&pool, VOLUME, REPLICA), Err(StoreError::NotThere { .. })));
    let store = PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap();
    assert_eq!((store.blocks(), store.promise()), (SIZE, Promise::default()));
    let promise = Promise { epoch: Epoch(4), attachment: Some(AttachmentId(1)), whole: None };
    assert_eq!(perform(&store, Operation::Promise(promise)), Outcome::Done);
    assert_eq!(PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap().promise(), promise, "it is there already");
    let other = PoolStore::create(&pool, VOLUME, ReplicaId(4), 10).unwrap();
    // A removal that a crash has broken off.
    pool.delete(volume::State::Volume(store.volume())).unwrap();
    assert!(matches!(PoolStore::open(&pool, VOLUME, REPLICA), Err(StoreError::NotThere { .. })));
    let again = PoolStore::create(&pool, VOLUME, REPLICA, SIZE);
    assert!(matches!(again, Err(StoreError::Removed { replica: REPLICA })), "{again:?}");
    PoolStore::remove(&pool, VOLUME, REPLICA).unwrap();
    PoolStore::remove(&pool, VOLUME, REPLICA).unwrap();
    assert_eq!(other.promise(), Promise::default(), "the other one stays");
    assert_eq!(pool.volumes().len(), 2);
}

#[test]
fn changes_that_no_promise_covers_and_requests_that_do_not_fit_are_refused() {
    let mut place = places(16_384).remove(0);
    let pool = place.open();
    let store = PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap();
    let blocks = Blocks { start: 0, count: 1 };
    let failed = |operation| matches!(perform(&store, operation), Outcome::Failed { .. });
    assert!(failed(Operation::Write { blocks, data: vec![1; BLOCK].into(), birth: Epoch(1) }));
    assert!(failed(Operation::Discard { blocks, birth: Epoch(1) }));
    assert!(failed(Operation::Discard { blocks, birth: Epoch(0) }), "nobody was promised anything");
    assert!(failed(Operation::Read { blocks: Blocks { start: SIZE, count: 1 } }));
    assert!(failed(Operation::Digest { blocks: Blocks { start: 0, count: u64::MAX } }), "it takes no memory");
    assert!(failed(Operation::Read { blocks: Blocks { start: 0, count: 1 << 40 } }));
}

/// Changes a byte of a slot of the record.
fn change(pool: &Pool<Buffer>, slot: u64, at: usize) {
    let record = pool.volumes().into_iter().find(|volume| volume.name.ends_with(".promise")).unwrap().id;
    let (sender, receiver) = mpsc::channel();
    pool.read(volume::State::Volume(record), slot * 4, Buffer::zeroed(BLOCK), move |result| {
        sender.send(result).unwrap()
    });
    let mut bytes = receiver.recv().unwrap().unwrap();
    bytes[at] ^= 3;
    let (sender, receiver) = mpsc::channel();
    pool.write(record, slot * 4, bytes, true, move |result| sender.send(result).unwrap());
    receiver.recv().unwrap().unwrap();
}

#[test]
fn one_slot_of_a_record_is_enough_unless_the_other_is_of_a_later_version() {
    let mut place = places(16_384).remove(0);
    let pool = place.open();
    let store = PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap();
    let promise = Promise { epoch: Epoch(4), attachment: Some(AttachmentId(1)), whole: None };
    assert_eq!(perform(&store, Operation::Promise(promise)), Outcome::Done);
    for slot in 0..2 {
        change(&pool, slot, 50);
        assert_eq!(PoolStore::open(&pool, VOLUME, REPLICA).unwrap().promise(), promise);
        change(&pool, 1 - slot, 50);
        let promised = PoolStore::open(&pool, VOLUME, REPLICA).unwrap().promise();
        assert_eq!(promised, promise, "the first one was mended, and can stand in for the other");
        change(&pool, slot, 8);
        let newer = PoolStore::open(&pool, VOLUME, REPLICA);
        assert!(matches!(newer, Err(StoreError::Newer(2))), "{newer:?}");
        change(&pool, slot, 8);
    }
    (0..2).for_each(|slot| change(&pool, slot, 50));
    assert!(matches!(PoolStore::open(&pool, VOLUME, REPLICA), Err(StoreError::Damaged(_))));
}

#[test]
fn snapshots_go_with_their_replica_and_clones_stay() {
    let mut place = places(16_384).remove(0);
    let pool = place.open();
    let store = PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap();
    let promise = Promise { epoch: Epoch(4), attachment: Some(AttachmentId(1)), whole: None };
    assert_eq!(perform(&store, Operation::Promise(promise)), Outcome::Done);
    let write = |value: u8| Operation::Write {
        blocks: Blocks { start: 7, count: 1 },
        data: vec![value; BLOCK].into(),
        birth: Epoch(4),
    };
    assert_eq!(perform(&store, write(1)), Outcome::Done);
    let held = (SnapshotId(u128::MAX), Epoch(4));
    assert_eq!(perform(&store, Operation::Snapshot { id: held.0, epoch: held.1 }), Outcome::Done);
    assert_eq!(perform(&store, write(2)), Outcome::Done);
    assert_eq!(PoolStore::snapshots(&pool, VOLUME, REPLICA), [held]);
    let snapshot = PoolStore::snapshot(&pool, VOLUME, REPLICA, held).unwrap();
    let clone = PoolStore::create_from(&pool, VolumeId(78), ReplicaId(9), snapshot).unwrap();
    assert_eq!((clone.blocks(), clone.promise()), (SIZE, Promise::default()));
    PoolStore::remove(&pool, VOLUME, REPLICA).unwrap();
    assert!(pool.snapshots().is_empty(), "nobody would find them without their volume");
    let read = Operation::Read { blocks: Blocks { start: 7, count: 1 } };
    assert_eq!(perform(&clone, read), Outcome::Data(vec![1; BLOCK].into()));
    // One that is built from it is told all that it has.
    let told = Operation::Changed { since: Epoch(0), from: 0, most: 10 };
    let expected = Changed { ranges: vec![Blocks { start: 7, count: 1 }], next: None };
    assert_eq!(perform(&clone, told), Outcome::Changed(expected));
}

#[test]
fn a_store_grows_durably_and_never_shrinks() {
    let mut place = places(16_384).remove(0);
    let pool = place.open();
    let store = PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap();
    for blocks in [2 * SIZE, SIZE] {
        assert_eq!(perform(&store, Operation::Grow { blocks }), Outcome::Done);
        assert_eq!(store.blocks(), 2 * SIZE);
    }
    assert!(matches!(perform(&store, Operation::Grow { blocks: u64::MAX }), Outcome::Refused { .. }));
    drop((store, pool));
    let pool = place.open();
    assert_eq!(PoolStore::open(&pool, VOLUME, REPLICA).unwrap().blocks(), 2 * SIZE);
}

/// What a snapshot has, page by page, each of so many ranges.
fn look_at(store: &PoolStore, mut look: Look) -> Result<Vec<(u64, u64)>, Unseen> {
    let (end, mut told) = (look.blocks.end(), Vec::new());
    loop {
        let (sender, receiver) = mpsc::channel();
        store.look(&look, Box::new(move |seen| sender.send(seen).unwrap()));
        let Changed { ranges, next } = receiver.recv().unwrap()?;
        assert!(ranges.len() <= look.most as usize);
        told.extend(ranges.iter().map(|range| (range.start, range.count)));
        let Some(next) = next else { return Ok(told) };
        assert!(next > look.blocks.start && next < end, "{next} in {}", look.blocks);
        look.blocks = Blocks { start: next, count: end - next };
    }
}

#[test]
fn what_snapshots_have_and_what_has_changed_between_them_is_told() {
    let mut place = places(16_384).remove(0);
    let pool = place.open();
    let store = PoolStore::create(&pool, VOLUME, REPLICA, SIZE).unwrap();
    let promise = |epoch| {
        let promise = Promise { epoch: Epoch(epoch), attachment: Some(AttachmentId(1)), whole: None };
        assert_eq!(perform(&store, Operation::Promise(promise)), Outcome::Done);
    };
    let write = |block: u64, epoch| {
        let blocks = Blocks { start: block, count: 1 };
        let write = Operation::Write { blocks, data: vec![7; BLOCK].into(), birth: Epoch(epoch) };
        assert_eq!(perform(&store, write), Outcome::Done);
    };
    let take = |id, epoch| {
        let held = (SnapshotId(id), Epoch(epoch));
        assert_eq!(perform(&store, Operation::Snapshot { id: held.0, epoch: held.1 }), Outcome::Done);
        held
    };
    promise(3);
    [1, 2, 3, 90, 299].iter().for_each(|block| write(*block, 3));
    let first = take(1, 3);
    // The same bytes again are a change: that costs whoever reads them, and is not wrong.
    [2, 4].iter().for_each(|block| write(*block, 3));
    let gone = Operation::Discard { blocks: Blocks { start: 89, count: 3 }, birth: Epoch(3) };
    assert_eq!(perform(&store, gone), Outcome::Done);
    promise(5);
    assert_eq!(perform(&store, Operation::Grow { blocks: 2 * SIZE }), Outcome::Done);
    write(2 * SIZE - 1, 5);
    // One that was broken off, and then the one that counts.
    take(2, 5);
    promise(6);
    let second = take(2, 6);
    write(6, 6);
    let whole = |size| Blocks { start: 0, count: size };
    for most in [1, 2, 9] {
        let data = |of, blocks| look_at(&store, Look { of, since: None, blocks, most });
        let ranges = |told: &[(u64, u64)]| Ok::<_, Unseen>(told.to_vec());
        assert_eq!(data(first, whole(SIZE)).map(joined), ranges(&[(1, 3), (90, 1), (299, 1)]));
        assert_eq!(data(second, whole(2 * SIZE)).map(joined), ranges(&[(1, 4), (299, 1), (2 * SIZE - 1, 1)]));
        assert_eq!(data(second, Blocks { start: 2, count: 2 }), ranges(&[(2, 2)]));
        assert!(matches!(data(first, whole(SIZE + 1)), Err(Unseen::Absent(_))), "it was not so large");
        for of in [(SnapshotId(3), Epoch(3)), (SnapshotId(1), Epoch(4))] {
            assert!(matches!(data(of, whole(SIZE)), Err(Unseen::Absent(_))), "{of:?}");
        }
        let changed = |of, since, blocks| look_at(&store, Look { of, since: Some(since), blocks, most });
        let told = changed(second, first, whole(2 * SIZE)).map(joined);
        assert_eq!(told, ranges(&[(2, 1), (4, 1), (90, 1), (2 * SIZE - 1, 1)]));
        assert_eq!(changed(second, first, Blocks { start: 4, count: 80 }), ranges(&[(4, 1)]));
        assert_eq!(changed(first, first, whole(SIZE)), ranges(&[]));
        assert!(matches!(changed(first, second, whole(SIZE)), Err(Unseen::Unrelated(_))), "it is the younger one");
        let absent = changed(second, (SnapshotId(1), Epoch(4)), whole(SIZE));
        assert!(matches!(absent, Err(Unseen::Absent(_))), "{absent:?}");
    }
}

/// Ranges that a page's end has divided.
fn joined(told: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (start, count) in told {
        match all.last_mut() {
            Some(last) if last.0 + last.1 == start => last.1 += count,
            _ => all.push((start, count)),
        }
    }
    all
}
