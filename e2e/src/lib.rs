//! End-to-end tests: they bring up whole sites with the built binary, break them, and check the effects.
//!
//! A [`Site`] has its own directory, file, state directory and ports; dropping it leaves nothing running.

mod binaries;
mod http;
mod load;
pub mod machines;
pub mod probe;
mod processes;
pub mod scenarios;
mod site;
mod who;

pub use http::{Answer, get, post};
pub use load::Figures;
pub use processes::{Process, namespaces_of, processes};
pub use site::{Programs, Ran, Site, ended};
pub use who::Who;
