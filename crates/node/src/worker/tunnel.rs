//! Bytes, copied both ways.

use super::io::{self, BUFFER_LEN, Buffer, Fault, Reader, Stream, Tcp, Writer};
use super::log::{Ending, GOOD};
use super::serving::Interrupt;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;

/// How a tunnel ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Bytes that the client got.
    pub(super) to_client: u64,
    /// Bytes that the server got.
    pub(super) to_server: u64,
    /// What went wrong, in letters.
    pub(super) ending: Ending,
    /// And in words; empty when both sides have closed in good order.
    pub(super) reason: &'static str,
}

/// Copies until both sides have closed, one of them breaks, neither sends for as long as `silence`, or `stop`. Each side
/// comes with what has been read from it already. A side that only stops sending still gets what the other sends. Where
/// one is reset, so is the other once it is dropped: what it got may not be all.
pub(super) async fn tunnel(
    (client, from_client): (&mut Stream, &[u8]),
    (server, from_server): (&mut Stream, &[u8]),
    silence: Duration,
    stop: impl Future<Output = Interrupt>,
) -> End {
    let active = Cell::new(coarse_now());
    let was_reset = Cell::new(false);
    let (to_server, to_client) = (Cell::new(0), Cell::new(0));
    let (client_reader, client_writer) = client.split();
    let (server_reader, server_writer) = server.split();
    let up = pump(
        client_reader,
        server_writer,
        from_client,
        (&active, &was_reset),
        &to_server,
    );
    let down = pump(
        server_reader,
        client_writer,
        from_server,
        (&active, &was_reset),
        &to_client,
    );
    let up = async { up.await.map_err(|end| end == Broken::Source) };
    let down = async { down.await.map_err(|end| end == Broken::Sink) };
    let (ending, reason) = tokio::select! {
        biased;
        why = stop => ([why.letter(), b'D'], why.reason()),
        both = async { tokio::try_join!(up, down) } => match both {
            Ok(_) => (GOOD, ""),
            Err(true) => (*b"CD", "the client broke the connection"),
            Err(false) => (*b"SD", "the server broke the connection"),
        },
        () = silent(&active, silence) => (*b"cD", "both sides were silent for too long"),
    };
    if was_reset.get() {
        client.reset_when_dropped();
        server.reset_when_dropped();
    }
    End {
        to_client: to_client.get(),
        to_server: to_server.get(),
        ending,
        reason,
    }
}

/// Which of its ends kept one way from going on.
#[derive(Debug, PartialEq, Eq)]
enum Broken {
    Source,
    Sink,
}

/// Remembers an end that is no good one: a reset, or TLS that was cut off.
fn broken(side: Broken, fault: &Fault, was_reset: &Cell<bool>) -> Broken {
    let bad = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
    if matches!(fault, Fault::Os(error) if bad.contains(&error.kind())) {
        was_reset.set(true);
    }
    side
}

/// Copies one way until its source ends, and passes the end on.
async fn pump(
    mut from: Reader<'_>,
    mut to: Writer<'_>,
    first: &[u8],
    (active, was_reset): (&Cell<Duration>, &Cell<bool>),
    count: &Cell<u64>,
) -> Result<(), Broken> {
    let sink = |fault: Fault| broken(Broken::Sink, &fault, was_reset);
    let written = io::write_pieces(&mut to, [first].into_iter(), count).await;
    written.map_err(sink)?;
    loop {
        // No buffer is held while nothing comes.
        let readable = poll_fn(|cx| from.poll_read_ready(cx)).await;
        let readable = readable.map_err(Fault::Os);
        readable.map_err(|fault| broken(Broken::Source, &fault, was_reset))?;
        let mut buffer = Buffer::take();
        match io::read(&mut from, &mut buffer).await {
            Ok(_) => active.set(coarse_now()),
            Err(Fault::Closed) => {
                return io::shutdown(&mut to)
                    .await
                    .map_err(|error| sink(Fault::Os(error)));
            }
            Err(fault) => return Err(broken(Broken::Source, &fault, was_reset)),
        }
        let written = io::write_pieces(&mut to, [buffer.filled()].into_iter(), count).await;
        written.map_err(sink)?;
        active.set(coarse_now());
        let in_bulk = buffer.is_full();
        drop(buffer);
        if in_bulk && let (Some(from), Some(to)) = (from.plain(), to.plain()) {
            splice(from, to, (active, was_reset), count).await?;
        }
    }
}

/// Lets the kernel alone move what comes, as long as it comes in bulk.
async fn splice(
    from: &Tcp,
    to: &Tcp,
    (active, was_reset): (&Cell<Duration>, &Cell<bool>),
    count: &Cell<u64>,
) -> Result<(), Broken> {
    // Where there is no pipe, copying goes on.
    let Ok(mut pipe) = io::Pipe::take() else {
        return Ok(());
    };
    loop {
        let moved = pipe.fill_now(from).map_err(Fault::Os);
        let moved = moved.map_err(|fault| broken(Broken::Source, &fault, was_reset))?;
        while !pipe.is_empty() {
            let drained = pipe.drain(to).await;
            let drained = drained.map_err(|fault| broken(Broken::Sink, &fault, was_reset))?;
            count.set(count.get() + drained);
            active.set(coarse_now());
        }
        if moved < BUFFER_LEN as u64 {
            return Ok(());
        }
    }
}

/// Until nothing has been copied for `limit`.
async fn silent(active: &Cell<Duration>, limit: Duration) {
    loop {
        let left = limit.saturating_sub(coarse_now().saturating_sub(active.get()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// Now, a few milliseconds late at most: told for each message, and cheaper than the exact time.
fn coarse_now() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}
