//! The volumes of a restore: each is filled in a temporary claim that nobody else has, and handed over when it is whole.

pub(crate) mod act;
pub(crate) mod observe;
pub(crate) mod step;
pub(crate) mod view;

#[cfg(test)]
mod model_tests;
