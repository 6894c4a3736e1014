//! Bytes, copied both ways.

use super::io::{self, BUFFER_LEN, Buffer, Fault, Reader, Stream, Tcp, Writer};
use super::log::{Ending, GOOD};
use super::serving::Interrupt;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::task::Poll;
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
    /// The client still sends, and may not have read what it was told: it is to be read from before it is closed.
    pub(super) still_sends: bool,
}

/// Copies until both sides have closed, one of them breaks, neither sends for as long as `silence`, or `stop`. Each side
/// comes with what has been read from it already. A side that only stops sending still gets what the other sends. One that
/// takes no more has still said something: the other gets it, and what it sends meanwhile is read and forgotten. Where one is
/// reset, so is the other once it is dropped: what it got may not be all.
pub(super) async fn tunnel(
    (client, from_client): (&mut Stream, &[u8]),
    (server, from_server): (&mut Stream, &[u8]),
    silence: Duration,
    stop: impl Future<Output = Interrupt>,
) -> End {
    let active = Cell::new(coarse_now());
    let (up, down) = (Way::new(&active), Way::new(&active));
    let (client_reader, client_writer) = client.split();
    let (server_reader, server_writer) = server.split();
    let both = both(
        (&up, up.pump(client_reader, server_writer, from_client)),
        (&down, down.pump(server_reader, client_writer, from_server)),
    );
    let mut still_sends = false;
    let (ending, reason) = tokio::select! {
        biased;
        why = stop => ([why.letter(), b'D'], why.reason()),
        () = both => {
            still_sends = matches!(up.state(), State::Open | State::Refused) && down.is_over();
            match (up.state(), down.state()) {
                (State::Ended, State::Ended) => (GOOD, ""),
                (State::Broken, _) | (_, State::Refused) => (*b"CD", "the client broke the connection"),
                _ => (*b"SD", "the server broke the connection"),
            }
        }
        () = silent(&active, silence) => (*b"cD", "both sides were silent for too long"),
    };
    if up.was_reset.get() || down.was_reset.get() {
        io::sent(client).await;
        client.reset_when_dropped();
        server.reset_when_dropped();
    }
    End {
        to_client: down.count.get(),
        to_server: up.count.get(),
        ending,
        reason,
        still_sends,
    }
}

/// How far copying one way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Its sink takes no more; what its source still sends is forgotten.
    Refused,
    /// Its source has ended in good order, and its sink was told so.
    Ended,
    /// Its source broke.
    Broken,
}

/// One way.
struct Way<'a> {
    active: &'a Cell<Duration>,
    state: Cell<State>,
    /// Whether its source's end was no good one: a reset, or TLS that was cut off.
    was_reset: Cell<bool>,
    count: Cell<u64>,
}

/// Its sink takes no more.
struct Refused;

/// Until nothing more can come either way: both have ended, one has broken, or one has ended that the other's sink said.
async fn both(
    (up, pump_up): (&Way<'_>, impl Future<Output = ()>),
    (down, pump_down): (&Way<'_>, impl Future<Output = ()>),
) {
    let (mut pump_up, mut pump_down) = (pin!(pump_up), pin!(pump_down));
    poll_fn(|cx| {
        for (way, pump) in [
            (up, pump_up.as_mut() as Pin<&mut dyn Future<Output = ()>>),
            (down, pump_down.as_mut()),
        ] {
            if !way.is_over() {
                let _ = pump.poll(cx);
            }
        }
        let is_over = match (up.state(), down.state()) {
            (State::Broken, _) | (_, State::Broken) => true,
            (State::Open, _) | (_, State::Open) | (State::Refused, State::Refused) => false,
            (State::Refused | State::Ended, State::Refused | State::Ended) => true,
        };
        if is_over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

impl<'a> Way<'a> {
    const fn new(active: &'a Cell<Duration>) -> Self {
        Self {
            active,
            state: Cell::new(State::Open),
            was_reset: Cell::new(false),
            count: Cell::new(0),
        }
    }

    const fn state(&self) -> State {
        self.state.get()
    }

    /// Whether nothing more comes from its source.
    fn is_over(&self) -> bool {
        matches!(self.state(), State::Ended | State::Broken)
    }

    /// Copies until the source ends, and passes the end on.
    async fn pump(&self, mut from: Reader<'_>, mut to: Writer<'_>, first: &[u8]) {
        let end = match self.copy(&mut from, &mut to, first).await {
            Ok(end) => end,
            Err(Refused) => {
                self.state.set(State::Refused);
                self.forget(&mut from).await
            }
        };
        let is_good = matches!(end, Fault::Closed);
        let bad = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
        if matches!(&end, Fault::Os(error) if bad.contains(&error.kind())) {
            self.was_reset.set(true);
        }
        match is_good {
            false => self.state.set(State::Broken),
            // Who takes no more need not be told.
            true if self.state() == State::Refused => pending().await,
            true => match io::shutdown(&mut to).await {
                Ok(()) => self.state.set(State::Ended),
                Err(_) => {
                    self.state.set(State::Refused);
                    pending().await
                }
            },
        }
    }

    /// Copies until the source ends, which is returned, or its sink takes no more.
    async fn copy(
        &self,
        from: &mut Reader<'_>,
        to: &mut Writer<'_>,
        first: &[u8],
    ) -> Result<Fault, Refused> {
        self.write(to, first).await?;
        loop {
            // No buffer is held while nothing comes.
            if let Err(error) = poll_fn(|cx| from.poll_read_ready(cx)).await {
                return Ok(error.into());
            }
            let mut buffer = Buffer::take();
            match io::read(from, &mut buffer).await {
                Ok(_) => self.active.set(coarse_now()),
                Err(fault) => return Ok(fault),
            }
            self.write(to, buffer.filled()).await?;
            self.active.set(coarse_now());
            let in_bulk = buffer.is_full();
            drop(buffer);
            if in_bulk
                && let (Some(from), Some(to)) = (from.plain(), to.plain())
                && let Some(end) = self.splice(from, to).await?
            {
                return Ok(end);
            }
        }
    }

    async fn write(&self, to: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Refused> {
        let written = io::write_pieces(to, [bytes].into_iter(), &self.count).await;
        written.map_err(|_| Refused)
    }

    /// Lets the kernel alone move what comes, as long as it comes in bulk. Returns how the source broke, where it did.
    async fn splice(&self, from: &Tcp, to: &Tcp) -> Result<Option<Fault>, Refused> {
        // Where there is no pipe, copying goes on.
        let Ok(mut pipe) = io::Pipe::take() else {
            return Ok(None);
        };
        loop {
            let moved = match pipe.fill_now(from) {
                Ok(moved) => moved,
                Err(error) => return Ok(Some(error.into())),
            };
            while !pipe.is_empty() {
                let drained = pipe.drain(to).await.map_err(|_| Refused)?;
                self.count.set(self.count.get() + drained);
                self.active.set(coarse_now());
            }
            if moved < BUFFER_LEN as u64 {
                return Ok(None);
            }
        }
    }

    /// Reads on until the source ends: one whose bytes nobody reads would wait, and not read what it is told.
    async fn forget(&self, from: &mut Reader<'_>) -> Fault {
        let mut buffer = Buffer::take();
        loop {
            if let Err(fault) = io::read(from, &mut buffer).await {
                return fault;
            }
            buffer.clear();
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
