//! What a machine has that volumes need. Nobody but who is on it can see that, so its daemon tells it.

use std::env;
use std::fs::OpenOptions;

use api::StorageMachine;

/// File systems, with the programs that make, check and grow them.
const FILE_SYSTEMS: [(&str, [&str; 2]); 2] = [("ext4", ["mkfs.ext4", "e2fsck"]), ("xfs", ["mkfs.xfs", "xfs_growfs"])];

/// Looks at this machine.
pub(crate) fn look() -> StorageMachine {
    let opens = |device: &str| OpenOptions::new().read(true).write(true).open(device).is_ok();
    let has = |programs: &[&str; 2]| programs.iter().all(|program| is_on_path(program));
    StorageMachine {
        fuse: opens("/dev/fuse"),
        loop_devices: opens("/dev/loop-control"),
        file_systems: FILE_SYSTEMS.iter().filter(|(_, of)| has(of)).map(|(name, _)| (*name).to_owned()).collect(),
    }
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
