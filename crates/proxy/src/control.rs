//! The control socket: JSON lines from the agent, each answered by one line.

use super::hand_over::{give, serve_successor};
use super::supervisor::Supervisor;
use gaiola_model::proxy::{ControlReply, ControlRequest};
use gaiola_os::connection_limit::{ConnectionLimit, Permit};
use gaiola_wire::document::{decode_message, encode_message};
use rustix::fs::Mode;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Most connections at a time; beyond it, the one that has been idle longest is closed.
const CONNECTIONS: usize = 64;

/// How long a client has to read its reply.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// Longest request: a configuration of some ten thousand servers.
const LINE_LIMIT: u64 = 16 * 1024 * 1024;

/// Binds the socket, which only its owner may use. A stale one of a dead process is replaced.
///
/// # Errors
/// The system's error; `AddrInUse` if a living process answers on it.
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

/// Serves requests. Never returns; while another process has taken over, it accepts and keeps no connection.
pub(super) async fn serve(listener: UnixListener, supervisor: Rc<Supervisor>) {
    loop {
        supervisor.until_leaving(false).await;
        tokio::select! {
            () = accept(&listener, &supervisor) => {}
            () = supervisor.until_leaving(true) => {}
        }
    }
}

/// Accepts connections. Never returns; dropping it closes them.
async fn accept(listener: &UnixListener, supervisor: &Rc<Supervisor>) {
    let limit = ConnectionLimit::new(CONNECTIONS);
    let mut served = JoinSet::new();
    loop {
        while served.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let permit = limit.enter().await;
        let supervisor = Rc::clone(supervisor);
        served.spawn_local(async move {
            if let Err(error) = answer(stream, &supervisor, &permit).await {
                tracing::debug!(%error, "a control connection ended");
            }
        });
    }
}

async fn answer(
    stream: UnixStream,
    supervisor: &Rc<Supervisor>,
    permit: &Permit,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LINE_LIMIT);
        let read = tokio::select! {
            read = limited.read_until(b'\n', &mut line) => read?,
            () = permit.dismissed() => return Ok(()),
        };
        if read == 0 {
            return Ok(());
        }
        permit.work();
        let too_long = line.len() as u64 == LINE_LIMIT;
        let (reply, schema) = match decode_message::<ControlRequest>(&line) {
            Ok((ControlRequest::TakeOver, schema)) => {
                let stream = reader.into_inner().reunite(writer);
                let stream = stream.map_err(io::Error::other)?;
                // It outlives this connection's task.
                tokio::task::spawn_local(hand_over(stream, schema, Rc::clone(supervisor)));
                return Ok(());
            }
            Ok((request, schema)) => (supervisor.handle(request).await, schema),
            Err(_) if too_long => (ControlReply::Refused("the request is too long".into()), 1),
            Err(error) => (
                ControlReply::Refused(format!(
                    "the request cannot be read: {error}; a request is a line of JSON, which `gaiola proxy ctl` writes"
                )),
                1,
            ),
        };
        let mut text = encode_message(&reply, schema)?;
        text.push(b'\n');
        timeout(REPLY_LIMIT, writer.write_all(&text)).await??;
        permit.rest();
        if too_long {
            return Ok(());
        }
        // Frees the memory of a large configuration.
        line.shrink_to(64 * 1024);
    }
}

/// Hands everything over to the process that asked for it, and serves its requests then.
async fn hand_over(stream: UnixStream, schema: u64, supervisor: Rc<Supervisor>) {
    let mut line = BufReader::new(stream);
    match give(&mut line, schema, &supervisor).await {
        Ok(first) => serve_successor(line, first, supervisor).await,
        Err(error) => {
            let error = gaiola_os::chain(&error);
            tracing::error!(error, "a new process did not take over: this one goes on");
        }
    }
}
