//! A standalone proxy, configured by a file.

use super::process::{END_LIMIT, ProxyArgs, ProxyError, run};
use super::reload::Reload;
use gaiola_model::proxy_file::{Process, ProxyFile};
use std::path::Path;

/// Serves a file's configuration until SIGTERM or SIGINT; SIGHUP reloads it.
///
/// # Errors
/// Why it could not start.
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
