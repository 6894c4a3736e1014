//! A proxy by itself: what it serves stands in a file.

use super::process::{END_LIMIT, ProxyArgs, ProxyError, run};
use super::reload::Reload;
use gaiola_model::proxy_file::{Process, ProxyFile};
use std::path::Path;

/// Serves what a file says until SIGTERM or SIGINT; SIGHUP has it read again.
///
/// # Errors
/// What kept it from starting.
pub fn serve_file(path: &Path, file: ProxyFile) -> Result<(), ProxyError> {
    let Process {
        workers,
        admin,
        control,
        access_log,
        hard_stop_after,
    } = file.process.clone();
    run(ProxyArgs {
        control,
        admin,
        keeper: None,
        config: Some(file.config),
        access_log,
        workers,
        reload: Some(Reload {
            path: path.to_owned(),
            process: file.process,
        }),
        hard_stop_after: hard_stop_after.unwrap_or(END_LIMIT),
    })
}
