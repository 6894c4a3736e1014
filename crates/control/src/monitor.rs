//! Monitoring: polls the site's processes, describes its state, and serves both as a page.

pub mod page;
pub mod poll;
pub mod relay;
pub mod serve;
pub mod status;
pub(crate) mod store;
