//! Skipping what a machine cannot run; and the skips for want of what only the sandbox knows.

pub use skips::{NO_SKIP_VARIABLE, Outcome, SKIPS_FILE_VARIABLE, current_test, lacks_root, report};

use crate::assets::Assets;

/// Why one of the programs cannot be run, if so.
pub fn lacks_assets(programs: &[&str]) -> Option<String> {
    Assets::from_environment().first_missing(programs).map(|missing| missing.to_string())
}

/// Skips the test unless the programs are found; without arguments those of a control plane.
#[macro_export]
macro_rules! require_assets {
    () => {
        $crate::require_assets!("etcd", "kube-apiserver", "kube-controller-manager")
    };
    ($($program:expr),+ $(,)?) => {
        if let Some(reason) = $crate::skip::lacks_assets(&[$($program),+]) {
            $crate::skip!("{reason}");
        }
    };
}
