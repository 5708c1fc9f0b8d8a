//! Movers of images, on files, and where that is allowed on loop devices.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mover::{FailureKind, Form, Job, Outcome, Restore, Stored};
use repository::PackId;
use repository::volume::VolumeSummary;

use super::{World, kind, noise, restore_of, run_quietly};

const MIB: usize = 1 << 20;

/// A loop device over a file, taken away again at the end.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path, options: &[&str]) -> Option<Self> {
        let out = Command::new("losetup").args(["--find", "--show"]).args(options).arg(file).output().ok()?;
        let device = String::from_utf8(out.stdout).ok()?.trim().into();
        out.status.success().then_some(Self(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.0).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays", self.0.display());
    }
}

macro_rules! device {
    ($file:expr, $($option:expr),*) => {
        match Loop::over($file, &[$($option),*]) {
            Some(device) => device,
            None => skips::skip!("losetup finds no free loop device"),
        }
    };
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// An image of that many mebibytes, with noise at some of them.
    fn image(&self, name: &str, mebibytes: usize, at: &[usize]) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len((mebibytes * MIB) as u64).unwrap();
        for at in at {
            let bytes: Vec<u8> = noise(MIB).into_iter().map(|byte| byte ^ u8::try_from(*at).unwrap()).collect();
            file.write_all_at(&bytes, (at * MIB) as u64).unwrap();
        }
        path
    }

    /// A file of that many mebibytes that was somebody's before.
    fn used(&self, name: &str, mebibytes: usize) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, vec![0xab; mebibytes * MIB]).unwrap();
        path
    }
}

fn image_of(outcome: &Outcome) -> (VolumeSummary, u64) {
    match &outcome.backup.as_ref().unwrap().stored {
        Stored::Image { volume, new_bytes } => (volume.clone(), *new_bytes),
        Stored::Files(_) => panic!("files: {outcome:?}"),
    }
}

fn assert_filled(filled: &Outcome, bytes: usize, image: &Path, target: &Path) {
    let Some(Restore::Image(summary)) = &filled.restore else { panic!("{filled:?}") };
    assert!(filled.ok && summary.bytes == bytes as u64, "{filled:?}");
    let (expected, found) = (fs::read(image).unwrap(), fs::read(target).unwrap());
    assert!(found[..bytes] == expected, "the bytes are others");
    assert!(found[bytes..].iter().all(|byte| *byte == 0), "something is left behind the image");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_moves_into_the_repository_and_out_again() {
    let world = World::new().await;
    let image = world.image("disk", 8, &[0, 3, 7]);
    let stored = world.backup(image.clone(), None).await;
    assert!(stored.ok, "{stored:?}");
    let (volume, new_bytes) = image_of(&stored);
    assert_eq!((volume.bytes, volume.data_bytes), (8 << 20, 3 << 20));
    assert!(new_bytes >= 3 << 20, "{new_bytes}");
    // What is there is overwritten: bytes do not say whether they are anybody's.
    for mebibytes in [8, 11] {
        let target = world.used("target", mebibytes);
        let filled = world.restore(target.clone(), &stored).await;
        assert_filled(&filled, 8 * MIB, &image, &target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_stored_and_another_one_filled_whatever_was_on_it() {
    skips::require_root!();
    let world = World::new().await;
    let image = world.image("disk", 8, &[1, 4]);
    let source = device!(&image, "--read-only");
    let stored = world.backup(source.0.clone(), None).await;
    assert!(stored.ok, "a device that nobody may write to is read: {stored:?}");
    // Larger than the image, and with sectors of another size.
    for (name, mebibytes, sectors) in [("same", 8, "512"), ("larger", 11, "4096")] {
        let file = world.used(name, mebibytes);
        let target = device!(&file, "--sector-size", sectors);
        let filled = world.restore(target.0.clone(), &stored).await;
        assert_filled(&filled, 8 * MIB, &image, &target.0);
    }
    let file = world.used("protected", 8);
    let target = device!(&file, "--read-only");
    let refused = world.restore(target.0.clone(), &stored).await;
    assert_eq!(kind(&refused), Some(FailureKind::Volume), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_too_small_is_left_alone() {
    let world = World::new().await;
    let stored = world.backup(world.image("disk", 8, &[0]), None).await;
    let small = world.used("small", 7);
    let refused = world.restore(small.clone(), &stored).await;
    let failure = refused.failure.unwrap();
    assert_eq!((failure.kind, failure.retryable), (FailureKind::TooSmall, false), "{failure:?}");
    assert!(failure.error.contains("7340032 bytes") && failure.error.contains("8388608"), "{}", failure.error);
    assert!(fs::read(&small).unwrap() == vec![0xab; 7 * MIB], "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_of_an_image_stores_what_changed() {
    let world = World::new().await;
    let image = world.image("disk", 16, &[0, 1, 2, 3, 9]);
    let first = world.backup(image.clone(), None).await;
    File::options().write(true).open(&image).unwrap().write_all_at(b"changed", 2 * MIB as u64 + 5).unwrap();
    let second = world.backup(image.clone(), Some(&first)).await;
    let (volume, new_bytes) = image_of(&second);
    assert!(second.ok && new_bytes < 200_000, "{new_bytes} bytes are new: {volume:?}");
    let target = world.used("target", 16);
    assert_filled(&world.restore(target.clone(), &second).await, 16 * MIB, &image, &target);
}

/// A part of the image that did not change is taken over without being written; it may be gone since.
#[tokio::test(flavor = "multi_thread")]
async fn an_increment_of_an_image_on_what_is_gone_is_stored_whole() {
    let world = World::new().await;
    let at: Vec<usize> = (0..40).collect();
    let image = world.image("disk", 40, &at);
    let first = world.backup(image.clone(), None).await;
    let listed = first.backup.as_ref().unwrap().packs.listed.clone();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let pack = |id: &PackId| world.path(&format!("store/domains/default/packs/{:02x}/{id}", id.writer.0[0]));
    for lost in &listed {
        // The first has content, and the second the rest of it and the map.
        let (path, kept) = (pack(&lost.id), world.path("kept"));
        fs::rename(&path, &kept).unwrap();
        let second = world.backup(image.clone(), Some(&first)).await;
        assert!(second.ok, "{second:?}");
        let target = world.used("target", 40);
        assert_filled(&world.restore(target.clone(), &second).await, 40 * MIB, &image, &target);
        fs::rename(kept, path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_images_are_not_taken_for_each_other() {
    let world = World::new().await;
    let (folder, file) = (world.volume("volume", &[("a", b"1")]), world.image("disk", 1, &[0]));
    let as_image = |volume: PathBuf, direction| Job { form: Form::Image, ..world.job(volume, direction) };
    let (files, image) = (world.backup(folder.clone(), None).await, world.backup(file.clone(), None).await);
    let check = async |job: Job, expected: FailureKind| {
        let outcome = run_quietly(&job).await;
        assert_eq!((outcome.ok, kind(&outcome)), (false, Some(expected)), "{outcome:?}");
    };
    check(as_image(folder.clone(), super::first_backup()), FailureKind::Volume).await;
    check(as_image(folder.clone(), restore_of(&image)), FailureKind::Volume).await;
    check(as_image("/dev/null".into(), super::first_backup()), FailureKind::Volume).await;
    // The table of a tree is no map of an image, and what is found to be wrong with it is found before anything is written.
    let target = world.used("target", 1);
    check(as_image(target.clone(), restore_of(&files)), FailureKind::Damaged).await;
    assert!(fs::read(&target).unwrap() == vec![0xab; MIB], "something was written");
    let nothing = world.image("nothing", 0, &[]);
    check(as_image(nothing, super::first_backup()), FailureKind::Volume).await;
    // The volume was one of files before: that is no parent.
    let published = world.backup(file, Some(&files)).await;
    assert!(published.ok, "{published:?}");
}
