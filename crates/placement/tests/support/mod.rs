//! Small clusters, and what rules mean in the plainest words.

pub(crate) mod naive;
pub(crate) mod worlds;
