//! The controllers.
mod restore;
