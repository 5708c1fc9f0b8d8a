//! File trees with real files: what goes in comes out, and what cannot is said.

mod content;
mod hostile;
mod incremental;
mod kinds;
mod random;
mod shapes;
mod support;
mod trouble;
