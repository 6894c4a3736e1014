//! How the site is: its processes are polled, its state is put in words, and a page shows both.

pub mod page;
pub mod poll;
pub mod serve;
pub mod status;
