//! What a command waits with.

use tokio::runtime::{Builder, Runtime};

/// A runtime on the calling thread, with network and timers.
///
/// # Errors
/// If the system gives it no descriptors.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
