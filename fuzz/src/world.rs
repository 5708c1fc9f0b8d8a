//! A repository in memory, and a folder beside which nothing may change.

use repository::{BlobKind, BlobRef, Passphrase, Repository, RetryPolicy, StoreConfig, Writer};
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How many inputs share a repository: making one takes as long as some hundred inputs, and its memory must end.
const INPUTS: u32 = 400;
const PRECIOUS: &str = "keep me";

/// What one input after the other works on.
pub struct World {
    pub runtime: Runtime,
    pub repository: Repository,
    home: TempDir,
    inputs_left: u32,
    before: (i64, i64, u32),
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Runs one input, and looks at what must not have changed.
pub fn with(run: impl FnOnce(&World)) {
    WORLD.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|world| world.inputs_left == 0) {
            *slot = Some(World::new());
        }
        let world = slot.as_mut().expect("it was made");
        world.inputs_left -= 1;
        run(world);
        world.look();
    });
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let store = StoreConfig::Memory.open(RetryPolicy::default()).expect("memory");
        let repository = runtime.block_on(Repository::create(store, &Passphrase::new("of the fuzzer")));
        let home = tempfile::tempdir().expect("a folder");
        fs::create_dir(home.path().join("outside")).expect("a folder");
        fs::write(home.path().join("outside/precious"), PRECIOUS).expect("a file");
        let mut world = Self {
            runtime,
            repository: repository.expect("a repository"),
            home,
            inputs_left: INPUTS,
            before: (0, 0, 0),
        };
        world.before = world.facts();
        world
    }

    /// Where a restore goes; nothing is there yet.
    pub fn target(&self) -> PathBuf {
        self.home.path().join("target")
    }

    /// What links out of the target may point to.
    pub fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    /// A session that is never published.
    pub fn writer(&self) -> Writer {
        self.runtime.block_on(self.repository.writer(&"fuzzed".parse().expect("a name"))).expect("a session")
    }

    /// Stores a blob as it is.
    pub fn put(&self, writer: &Writer, kind: BlobKind, bytes: Vec<u8>) -> BlobRef {
        self.runtime.block_on(writer.put_blob(kind, bytes.into())).expect("memory")
    }

    fn facts(&self) -> (i64, i64, u32) {
        let about = fs::symlink_metadata(self.outside()).expect("the folder is there");
        (about.mtime(), about.mtime_nsec(), about.mode())
    }

    /// Nothing but the target was touched; then the target goes.
    fn look(&self) {
        let names = |path: PathBuf| -> Vec<_> {
            let entries = fs::read_dir(path).expect("a folder");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        let outside = names(self.home.path().to_owned());
        assert!(outside.iter().all(|name| name.to_string_lossy().starts_with("target") || name == "outside"));
        assert_eq!(names(self.outside()), ["precious"]);
        assert_eq!(fs::read_to_string(self.outside().join("precious")).expect("it is there"), PRECIOUS);
        assert_eq!(self.facts(), self.before, "the folder outside has changed");
        for name in outside.iter().filter(|name| *name != "outside") {
            let path = self.home.path().join(name);
            let is_directory = fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir());
            let gone = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.expect("the target can be removed");
        }
    }
}
