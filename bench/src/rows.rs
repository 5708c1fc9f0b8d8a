//! What is measured: every program in turn does the same, on the same data, in the same store, in every round.

use crate::data::{BLOCK, Data, change, copy_sparse};
use crate::measure::Cost;
use crate::place::{Kind, Place};
use crate::tool::{Peer, Since, Tools};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How many incrementals come before the last restore.
const INCREMENTALS: u64 = 20;

/// One thing that is done and measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    ImageFirst,
    ImageRestore,
    /// 5 % of the blocks at random; the whole image is read.
    ImageRandom,
    /// The same with a list of changes; peers know none and read the whole image.
    ImageRandomRanges,
    ImageRunsRanges,
    /// A restore of the last of many incrementals.
    RestoreAfterMany,
    NoiseFirst,
    TreeFirst,
    TreeChanged,
    TreeRestore,
}

/// What one step cost, once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) cost: Cost,
    /// Bytes that the repository has grown by.
    pub(crate) stored: u64,
}

/// All samples.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    samples: BTreeMap<(Step, &'static str), Vec<Sample>>,
}

impl Measured {
    fn add(&mut self, step: Step, peer: Peer, sample: Sample) {
        self.samples.entry((step, peer.name())).or_default().push(sample);
    }

    /// The samples of a step of a program.
    pub(crate) fn of(&self, step: Step, peer: Peer) -> &[Sample] {
        self.samples.get(&(step, peer.name())).map_or(&[], Vec::as_slice)
    }
}

/// One store, the programs that use it, and what was measured there.
struct Bench<'a> {
    tools: &'a Tools,
    data: &'a Data,
    place: Place,
    folder: &'a Path,
    peers: Vec<Peer>,
    /// How many trees were restored and put aside.
    put_aside: u64,
    measured: Measured,
}

/// Measures everything in one store.
pub(crate) fn measure(tools: &Tools, data: &Data, kind: Kind, folder: &Path, rounds: usize) -> Result<Measured> {
    let mut peers = vec![Peer::Orlop, Peer::Restic];
    if kind == Kind::Folder {
        peers.extend(Tools::others());
    }
    let place = Place::start(kind, folder)?;
    let mut bench = Bench { tools, data, place, folder, peers, put_aside: 0, measured: Measured::default() };
    for round in 1..=rounds {
        eprintln!("bench: {kind:?}, round {round} of {rounds}");
        bench.image(if round == 1 { rounds } else { 0 })?;
        bench.noise()?;
        bench.tree()?;
    }
    std::fs::remove_dir_all(bench.aside())?;
    Ok(bench.measured)
}

impl Bench<'_> {
    /// Lets every program do something. One of the further peers that fails is left out from then on: its command line may have changed.
    fn each(&mut self, mut work: impl FnMut(&mut Self, Peer) -> Result<()>) -> Result<()> {
        for peer in self.peers.clone() {
            match work(self, peer) {
                Err(error) if !matches!(peer, Peer::Orlop | Peer::Restic) => {
                    eprintln!("bench: {} is left out: {error:#}", peer.name());
                    self.peers.retain(|other| *other != peer);
                }
                done => done.with_context(|| format!("measure {}", peer.name()))?,
            }
        }
        Ok(())
    }

    /// Does something that adds to a repository, and keeps what it cost.
    fn add(&mut self, step: Step, peer: Peer, work: impl FnOnce(&Tools, &Place, &str) -> Result<Cost>) -> Result<()> {
        let before = self.place.size(peer.name())?;
        let cost = work(self.tools, &self.place, peer.name())?;
        let stored = self.place.size(peer.name())?.saturating_sub(before);
        self.measured.add(step, peer, Sample { cost, stored });
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.each(|bench, peer| bench.tools.init(peer, &bench.place, peer.name()).map(drop))
    }

    /// Takes all repositories away, also of those that were left out.
    fn end(&mut self) -> Result<()> {
        self.each(|bench, peer| bench.place.remove(peer.name()))
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    fn image(&mut self, restores_after_many: usize) -> Result<()> {
        let data = self.data;
        self.begin()?;
        self.each(|bench, peer| {
            let image = ("first", data.image.as_path());
            bench.add(Step::ImageFirst, peer, |tools, place, name| tools.backup_image(peer, place, name, image, None))
        })?;
        self.each(|bench, peer| bench.restore(Step::ImageRestore, peer, "first", &data.image))?;
        let first = |ranges| Some(Since { parent: "first", ranges });
        self.each(|bench, peer| {
            let image = ("random", data.random.image.as_path());
            let since = first(None);
            bench.add(Step::ImageRandom, peer, |tools, place, name| tools.backup_image(peer, place, name, image, since))
        })?;
        self.add(Step::ImageRandomRanges, Peer::Orlop, |tools, place, name| {
            let (image, since) = (("random-ranges", data.random.image.as_path()), first(Some(&data.random.ranges)));
            tools.backup_image(Peer::Orlop, place, name, image, since)
        })?;
        self.each(|bench, peer| {
            let (image, since) = (("runs", data.runs.image.as_path()), first(Some(&data.runs.ranges)));
            bench.add(Step::ImageRunsRanges, peer, |tools, place, name| {
                tools.backup_image(peer, place, name, image, since)
            })
        })?;
        self.check_restored("random-ranges", &data.random.image)?;
        self.check_restored("runs", &data.runs.image)?;
        if restores_after_many > 0 {
            self.many_incrementals(restores_after_many)?;
        }
        self.end()
    }

    /// Restores an image with ours, and compares it.
    fn check_restored(&mut self, id: &str, image: &Path) -> Result<()> {
        let target = self.target();
        self.tools.restore(Peer::Orlop, &self.place, Peer::Orlop.name(), id, &target)?;
        same(Command::new("cmp").arg("-s").arg(image).arg(&target))?;
        Ok(std::fs::remove_file(&target)?)
    }

    /// Restores, compares, and takes the target away.
    fn restore(&mut self, step: Step, peer: Peer, id: &str, source: &Path) -> Result<()> {
        let target = self.target();
        let cost = self.tools.restore(peer, &self.place, peer.name(), id, &target)?;
        let (is_tree, direct) = (source.is_dir(), peer == Peer::Orlop);
        // The peers restore the full path below the target.
        let restored = if direct { target.clone() } else { target.join(source.strip_prefix("/").unwrap_or(source)) };
        match is_tree {
            true => same(Command::new("diff").args(["-rq", "--no-dereference"]).arg(source).arg(&restored))?,
            false => same(Command::new("cmp").arg("-s").arg(source).arg(&restored))?,
        }
        match is_tree {
            true => self.put_aside(&target)?,
            false if direct => std::fs::remove_file(&target)?,
            false => std::fs::remove_dir_all(&target)?,
        }
        self.measured.add(step, peer, Sample { cost, stored: 0 });
        Ok(())
    }

    /// A restored tree stays until all is measured. ext4 takes no inode that was free for less than minutes and looks at each of them again for every
    /// file that is made, so after the removal of a tree the next restore would take several times its own processor time, in the kernel.
    fn put_aside(&mut self, tree: &Path) -> Result<()> {
        let aside = self.aside();
        std::fs::create_dir_all(&aside)?;
        self.put_aside += 1;
        Ok(std::fs::rename(tree, aside.join(self.put_aside.to_string()))?)
    }

    fn aside(&self) -> PathBuf {
        self.folder.join("restored")
    }

    /// Stores many incrementals of 5 % each, and restores the last one some times.
    fn many_incrementals(&mut self, restores: usize) -> Result<()> {
        let (image, ranges) = (self.folder.join("image-many"), self.folder.join("image-many.ranges"));
        copy_sparse(&self.data.image, &image)?;
        let mut parent = "first".to_owned();
        for number in 1..=INCREMENTALS {
            change(&image, &ranges, BLOCK, number)?;
            let id = format!("many-{number}");
            let since = Some(Since { parent: &parent, ranges: Some(&ranges) });
            let name = Peer::Orlop.name();
            self.tools.backup_image(Peer::Orlop, &self.place, name, (&id, &image), since)?;
            parent = id;
        }
        for _ in 0..restores {
            self.restore(Step::RestoreAfterMany, Peer::Orlop, &parent, &image)?;
        }
        std::fs::remove_file(&image)?;
        Ok(std::fs::remove_file(&ranges)?)
    }

    fn noise(&mut self) -> Result<()> {
        let noise = ("noise", self.data.noise.as_path());
        self.begin()?;
        self.each(|bench, peer| {
            bench.add(Step::NoiseFirst, peer, |tools, place, name| tools.backup_image(peer, place, name, noise, None))
        })?;
        self.end()
    }

    fn tree(&mut self) -> Result<()> {
        let data = self.data;
        self.begin()?;
        self.each(|bench, peer| {
            let tree = ("first", data.tree.as_path());
            bench.add(Step::TreeFirst, peer, |tools, place, name| tools.backup_path(peer, place, name, tree))
        })?;
        data.change_tree(false)?;
        self.each(|bench, peer| {
            let tree = ("second", data.tree.as_path());
            bench.add(Step::TreeChanged, peer, |tools, place, name| tools.backup_path(peer, place, name, tree))
        })?;
        self.each(|bench, peer| bench.restore(Step::TreeRestore, peer, "second", &data.tree))?;
        data.change_tree(true)?;
        self.end()
    }
}

/// Runs a comparison; a difference ends the benchmark.
fn same(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
