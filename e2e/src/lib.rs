//! End-to-end tests bring whole sites up with the built binary, break them, and look.
//!
//! A [`Site`] is a directory with a file, a state directory and ports of its own; dropping it leaves nothing running.

mod binaries;
mod http;
mod load;
pub mod machines;
pub mod probe;
mod processes;
mod site;
mod who;

pub use http::{Answer, get, post};
pub use load::Figures;
pub use processes::{Process, namespaces_of, processes};
pub use site::{Ran, Site, ended};
pub use who::Who;
