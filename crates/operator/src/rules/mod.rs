//! Rules: commands in the containers of an application, around the instant that its data is taken.
//!
//! What a rule does is in the status of the run, a line for each command and pod, so an operator that is new goes on with it. `plan` decides, `script` is what
//! runs in the containers, `containers` is the way there, `act` reads and does.
//!
//! Invariant: whatever a rule holds in an application is let go: when the data is taken, when the run fails or is deleted, and, by a guard in the container,
//! when there is no operator any more.

mod act;
mod containers;
mod plan;
mod script;

pub use containers::{Containers, OfCluster, Ran, Target};

pub(crate) use act::{Acting, Named, RuleFacts, are_fit, forget, gather, list, look, take};
pub(crate) use plan::{
    Done, Next, Seen, Step, Wanted, advance, failed, has_begun, hold, is_open, let_go, newly_failed,
};
