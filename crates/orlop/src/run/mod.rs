//! A backup, a restore or a clone while it runs: what it looks like, how it is followed to its end, how it is shown.

mod display;
mod follow;
mod plan;
mod view;

pub(crate) use follow::{WaitArgs, see_through, watch_until};
pub(crate) use view::Run;
