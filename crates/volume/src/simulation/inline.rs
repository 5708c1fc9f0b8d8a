//! An engine on a test disk, asked one thing after the other.

use super::Tested;
use super::disk::TestDisk;
use super::model::{Value, fill, recognize};
use crate::engine::{self, Admin, Answer, Engine, Notice, Request, Shape};
use crate::error::{Error, OpenError};
use crate::memory::Buffer;
use crate::offline;
use crate::units::{BLOCK, Blocks, SnapshotId, TreeId, VolumeId};

pub(super) struct Inline {
    pub(super) disk: TestDisk,
    pub(super) engine: Engine<Tested>,
    pub(super) notices: Vec<Notice>,
    /// Answers to what was asked earlier, by their tags.
    pub(super) late: Vec<(u64, Result<Answer<Buffer>, Error>)>,
    tag: u64,
}

impl Inline {
    pub(super) fn new(blocks: u64) -> Self {
        Self::shaped(blocks, Shape { id: [3; 16], log_blocks: None, most_changed_nodes: None })
    }

    pub(super) fn shaped(blocks: u64, shape: Shape) -> Self {
        Self::with_sectors(blocks, shape, 512)
    }

    pub(super) fn with_sectors(blocks: u64, shape: Shape, sector: u32) -> Self {
        let disk = TestDisk::with_sectors(usize::try_from(blocks).unwrap() * BLOCK, 512, sector);
        engine::create::<Tested>(&disk, shape).unwrap();
        let engine = engine::open(&disk, 256).unwrap();
        Self { disk, engine, notices: Vec::new(), late: Vec::new(), tag: 0 }
    }

    /// Asks; none if there is no answer yet.
    pub(super) fn ask(&mut self, request: Request<Buffer>) -> Option<Result<Answer<Buffer>, Error>> {
        self.tag += 1;
        let out = self.engine.submit(request, self.tag);
        let driven = engine::drive(&mut self.engine, &self.disk, out);
        self.notices.extend(driven.notices);
        let (now, late): (Vec<_>, Vec<_>) = driven.answers.into_iter().partition(|(tag, _)| *tag == self.tag);
        self.late.extend(late);
        now.into_iter().next().map(|(_, result)| result)
    }

    pub(super) fn must(&mut self, request: Request<Buffer>) -> Answer<Buffer> {
        self.ask(request).expect("it is answered").expect("it is done")
    }

    pub(super) fn volume(&mut self, name: &str, blocks: u64) -> VolumeId {
        match self.must(Request::Admin(Admin::Create { name: name.into(), blocks })) {
            Answer::Created(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn snapshot(&mut self, volume: VolumeId, name: &str) -> SnapshotId {
        match self.must(Request::Admin(Admin::Snapshot { volumes: vec![(volume, name.into())] })) {
            Answer::Snapshots(ids) => ids[0],
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn write(
        &mut self,
        volume: VolumeId,
        start: u64,
        count: usize,
        value: Value,
    ) -> Option<Result<(), Error>> {
        let mut from = Buffer::zeroed(count * BLOCK);
        from.chunks_exact_mut(BLOCK).for_each(|block| fill(value, block));
        let sums = crate::checksum::of_blocks(&from);
        let answer = self.ask(Request::Write { volume, start, from, sums, durable: false });
        answer.map(|result| result.map(|_| ()))
    }

    /// Writes blocks that are all under way before the disk does anything.
    pub(super) fn write_together(&mut self, volume: VolumeId, blocks: &[u64], value: Value) {
        let mut all = engine::Output::default();
        let first = self.tag + 1;
        for start in blocks {
            self.tag += 1;
            let mut from = Buffer::zeroed(BLOCK);
            fill(value, &mut from);
            let sums = crate::checksum::of_blocks(&from);
            let request = Request::Write { volume, start: *start, from, sums, durable: false };
            let out = self.engine.submit(request, self.tag);
            all.ios.extend(out.ios);
            all.answers.extend(out.answers);
        }
        let driven = engine::drive(&mut self.engine, &self.disk, all);
        let answered = driven.answers.iter().filter(|(tag, result)| *tag >= first && result.is_ok()).count();
        assert_eq!(answered, blocks.len(), "all are answered well");
    }

    pub(super) fn discard(&mut self, volume: VolumeId, start: u64, count: u64) {
        self.must(Request::Discard { volume, blocks: Blocks { start, count }, durable: false });
    }

    pub(super) fn read(&mut self, of: impl Into<TreeId>, start: u64, count: usize) -> Result<Vec<u8>, Error> {
        let into = Buffer::copy_of(&vec![0xEE; count * BLOCK]);
        match self.ask(Request::Read { of: of.into(), start, into }).expect("a read is answered")? {
            Answer::Read(bytes) => Ok(bytes.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    /// Reads blocks that must all hold a value.
    pub(super) fn holds(&mut self, of: impl Into<TreeId>, start: u64, count: usize, value: Value) -> bool {
        let bytes = self.read(of, start, count).unwrap();
        bytes.chunks_exact(BLOCK).all(|block| recognize(block, &[value]).is_some())
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.ask(Request::Flush).expect("a flush is answered").map(|_| ())
    }

    pub(super) fn checkpoint(&mut self) {
        self.must(Request::Admin(Admin::Checkpoint { clean: false }));
    }

    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        self.reopen_with(256)
    }

    /// The same with a cache of so many nodes.
    pub(super) fn reopen_with(&mut self, cache: usize) -> Result<(), OpenError> {
        self.engine = engine::open(&self.disk, cache)?;
        Ok(())
    }

    pub(super) fn problems(&self) -> Vec<offline::Problem> {
        offline::check(&self.disk, true).unwrap().problems
    }
}
