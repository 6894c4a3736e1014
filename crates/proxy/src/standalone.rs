//! A standalone proxy, configured by a file.

use super::process::{ProxyArgs, ProxyError, parents_socket, run};
use super::reload::{EndLimits, Reload};
use super::take_over::TakeOver;
use gaiola_model::proxy_file::{Process, ProxyFile};
use std::path::Path;
use std::sync::Arc;

/// Serves a file's configuration until SIGTERM or SIGINT; SIGHUP reloads it. A process that another one of this kind has
/// started takes over from it.
///
/// # Errors
/// Why it could not start.
pub fn serve_file(path: &Path, file: ProxyFile) -> Result<(), ProxyError> {
    let Process {
        workers,
        admin,
        control,
        access_log,
        hard_stop_after: _,
        take_over_limit: _,
    } = file.process.clone();
    let limits = EndLimits::of(&file.process);
    let parent = parents_socket()?;
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
        hard_stop_after: limits.stop,
        take_over_limit: limits.take_over,
        take_over: parent.map_or(TakeOver::Nobody, |socket| {
            TakeOver::Parent(Arc::new(socket))
        }),
    })
}
