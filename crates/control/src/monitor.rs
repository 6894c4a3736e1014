//! How the site is: what its processes count, its state in words, and the page that shows both.

pub mod page;
pub mod poll;
pub mod serve;
pub mod status;
pub mod traffic;
