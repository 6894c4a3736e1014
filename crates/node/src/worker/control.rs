//! The control socket: JSON lines from the agent, each answered by one line.

use super::supervisor::Supervisor;
use gaiola_model::proxy::{ControlReply, ControlRequest};
use rustix::fs::Mode;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::rc::Rc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Most connections at a time; further ones wait.
const CONNECTIONS: usize = 16;

/// Longest request: a configuration of some ten thousand servers.
const LINE_LIMIT: u64 = 16 * 1024 * 1024;

/// Binds the socket, which only its owner may use. One that a dead process left is replaced.
///
/// # Errors
/// What the system said; `AddrInUse` when a living process answers on it.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound
}

/// Answers for ever.
pub(super) async fn serve(listener: UnixListener, supervisor: Rc<Supervisor>) {
    let room = Rc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Rc::clone(&room);
        let Ok(accepted) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let supervisor = Rc::clone(&supervisor);
        tokio::task::spawn_local(async move {
            let Ok(_place) = place.acquire().await else {
                return;
            };
            if let Err(error) = answer(accepted.0, &supervisor).await {
                tracing::debug!(%error, "a control connection ended");
            }
        });
    }
}

async fn answer(stream: UnixStream, supervisor: &Rc<Supervisor>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LINE_LIMIT);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let too_long = line.len() as u64 == LINE_LIMIT;
        let reply = match serde_json::from_slice::<ControlRequest>(&line) {
            Ok(request) => supervisor.handle(request).await,
            Err(_) if too_long => ControlReply::Refused("the request is too long".into()),
            Err(error) => ControlReply::Refused(format!(
                "the request cannot be read: {error}; a request is a line of JSON, which `gaiola proxy ctl` writes"
            )),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        if too_long {
            return Ok(());
        }
        // A configuration may have been large.
        line.shrink_to(64 * 1024);
    }
}
