//! Copies bytes in both directions.

use super::io::{self, BUFFER_LEN, Buffer, Fault, Patience, Reader, Stream, Tcp, Writer};
use super::serving::Interrupt;
use gaiola_core::termination::{Cause, Phase};
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// How a tunnel ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Bytes delivered to the client.
    pub(super) to_client: u64,
    /// Bytes delivered to the server.
    pub(super) to_server: u64,
    /// Why it ended,
    pub(super) cause: Cause,
    /// and that in words; empty when both sides closed properly.
    pub(super) reason: &'static str,
    /// How to close the client's connection.
    farewell: Farewell,
}

/// How to close the client's connection once the server's is closed.
#[derive(Debug, PartialEq, Eq)]
struct Farewell {
    /// How long to keep reading first: the client still sends, and a reset would destroy what it has not read yet.
    reads_on: Option<Patience>,
    /// Whether to reset it, since one of the two connections was reset.
    is_reset: bool,
}

/// A response within this time after the client's last bytes counts as sent while the client was still sending.
const MOMENT: Duration = Duration::from_millis(200);

/// For a client that may have more to send; if it has not, it is only reset a little later.
const BRIEF: Patience = Patience {
    silence: MOMENT,
    longest: Duration::from_secs(1),
};

impl Ended {
    /// Closes the client's connection once it has received what was written. That may take long: give up the server and
    /// its slot first.
    pub(super) async fn leave(&self, client: &mut Stream) {
        match self.farewell.reads_on {
            Some(patience) => io::read_on(client, patience).await,
            None if self.farewell.is_reset => io::sent(client).await,
            None => {}
        }
        if self.farewell.is_reset {
            client.reset_when_dropped();
        }
    }
}

/// Copies until both sides have closed, one of them breaks, neither sends for `silence`, or `stop`. Each side comes
/// with the bytes already read from it. A side that only stops sending still receives what the other sends. One that
/// accepts no more may have sent something: the other receives that, and what the other still sends is read and
/// discarded. If the client was reset, so is the server once dropped, since what it received may be incomplete.
/// [`Ended::leave`] closes the client's connection.
pub(super) async fn tunnel(
    (client, from_client): (&mut Stream, &[u8]),
    (server, from_server): (&mut Stream, &[u8]),
    silence: Duration,
    stop: impl Future<Output = Interrupt>,
) -> Ended {
    let (up, down) = (Direction::new(), Direction::new());
    let (client_reader, client_writer) = client.split();
    let (server_reader, server_writer) = server.split();
    let both = both(
        (&up, up.pump(client_reader, server_writer, from_client)),
        (&down, down.pump(server_reader, client_writer, from_server)),
    );
    let mut reads_on = None;
    let (cause, reason) = tokio::select! {
        biased;
        why = stop => {
            let cause = why.cause(Phase::Data);
            (cause, cause.words())
        }
        () = both => {
            if down.is_over() {
                reads_on = patience(client, &up, &down);
            }
            match (up.state(), down.state()) {
                (State::Ended, State::Ended) => (Cause::Completed, ""),
                (State::Broken, _) | (_, State::Refused) => {
                    (Cause::ClientLeft(Phase::Data), "the client broke the connection")
                }
                _ => (Cause::ServerFailed(Phase::Data), "the server broke the connection"),
            }
        }
        () = silent(&up, &down, silence) => {
            (Cause::ClientTimedOut(Phase::Data), "both sides were silent for too long")
        }
    };
    let is_reset = up.was_reset.get() || down.was_reset.get();
    if is_reset {
        server.reset_when_dropped();
    }
    Ended {
        to_client: down.count.get(),
        to_server: up.count.get(),
        cause,
        reason,
        farewell: Farewell { reads_on, is_reset },
    }
}

/// How long to keep reading from the client after the server has stopped sending.
fn patience(client: &Stream, up: &Direction, down: &Direction) -> Option<Patience> {
    if down.count.get() == 0 {
        // Nothing was sent to it.
        return None;
    }
    match up.state() {
        State::Refused => Some(io::PATIENCE),
        State::Open if !io::is_quiet(client, false) => Some(io::PATIENCE),
        State::Open => {
            was_answered_early(coarse_now(), up.active.get(), down.active.get()).then_some(BRIEF)
        }
        State::Ended | State::Broken => None,
    }
}

/// Whether the server sent while the client was still sending: each given by the time of its last bytes.
fn was_answered_early(now: Duration, sent: Duration, answered: Duration) -> bool {
    answered >= sent && now.saturating_sub(sent) < MOMENT
}

/// State of copying in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Its sink accepts no more; what its source still sends is discarded.
    Refused,
    /// Its source ended properly, and its sink was shut down.
    Ended,
    /// Its source broke.
    Broken,
}

/// One direction.
struct Direction {
    /// When bytes were last copied; 0 if never.
    active: Cell<Duration>,
    state: Cell<State>,
    /// Whether its source ended badly: by a reset, or by truncated TLS.
    was_reset: Cell<bool>,
    count: Cell<u64>,
}

/// Its sink accepts no more.
struct Refused;

/// Runs until nothing more can come in either direction: one has broken, or each has ended or has a sink that accepts
/// no more.
async fn both(
    (up, pump_up): (&Direction, impl Future<Output = ()>),
    (down, pump_down): (&Direction, impl Future<Output = ()>),
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
            (State::Open, _) | (_, State::Open) => false,
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

impl Direction {
    const fn new() -> Self {
        Self {
            active: Cell::new(Duration::ZERO),
            state: Cell::new(State::Open),
            was_reset: Cell::new(false),
            count: Cell::new(0),
        }
    }

    const fn state(&self) -> State {
        self.state.get()
    }

    /// Whether its source sends nothing more.
    fn is_over(&self) -> bool {
        matches!(self.state(), State::Ended | State::Broken)
    }

    /// Copies until the source ends, and then shuts down the sink.
    async fn pump(&self, mut from: Reader<'_>, mut to: Writer<'_>, first: &[u8]) {
        let end = match self.copy(&mut from, &mut to, first).await {
            Ok(end) => end,
            Err(Refused) => {
                self.state.set(State::Refused);
                self.discard(&mut from).await
            }
        };
        let is_good = matches!(end, Fault::Closed);
        let bad = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
        if matches!(&end, Fault::Os(error) if bad.contains(&error.kind())) {
            self.was_reset.set(true);
        }
        match is_good {
            false => self.state.set(State::Broken),
            // A sink that accepts no more need not be shut down.
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

    /// Copies until the source ends, returning how, or until its sink accepts no more.
    async fn copy(
        &self,
        from: &mut Reader<'_>,
        to: &mut Writer<'_>,
        first: &[u8],
    ) -> Result<Fault, Refused> {
        if !first.is_empty() {
            self.active.set(coarse_now());
            self.write(to, first).await?;
        }
        loop {
            // No buffer is held while nothing arrives.
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

    /// Lets the kernel move the data alone, as long as it comes in bulk. Returns how the source broke, if it did.
    async fn splice(&self, from: &Tcp, to: &Tcp) -> Result<Option<Fault>, Refused> {
        // Without a pipe, copying continues.
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

    /// Reads and discards until the source ends: if nobody read its bytes, it would block, and not read what it is
    /// sent.
    async fn discard(&self, from: &mut Reader<'_>) -> Fault {
        let mut buffer = Buffer::take();
        loop {
            if let Err(fault) = io::read(from, &mut buffer).await {
                return fault;
            }
            buffer.clear();
        }
    }
}

/// Completes when nothing has been copied for `limit`.
async fn silent(up: &Direction, down: &Direction, limit: Duration) {
    let begun = coarse_now();
    loop {
        let active = begun.max(up.active.get()).max(down.active.get());
        let left = limit.saturating_sub(coarse_now().saturating_sub(active));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// The time, at most a few milliseconds late: read for each message, and cheaper than the exact time.
fn coarse_now() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::testing::{self, run};
    use rustix::net::SendFlags;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream as Peer};
    use tokio::net::TcpStream;

    /// Longer than any test that works.
    const LONG: Duration = Duration::from_secs(20);

    /// A connection with small socket buffers, and its other end, which waits [`LONG`] at most.
    fn pair() -> (Stream, Peer) {
        let (near, peer) = testing::pair();
        peer.set_read_timeout(Some(LONG)).unwrap();
        (Stream::Tcp(near), peer)
    }

    /// Writes until there is no room for another byte, and none appears.
    fn fill(stream: &TcpStream) {
        let mut full = 0;
        while full < 5 {
            match rustix::net::send(stream, &[7], SendFlags::DONTWAIT) {
                Ok(_) => full = 0,
                Err(_) => {
                    full += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    fn reset(peer: Peer) {
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
    }

    /// A tunnel without bytes, which only its sides end.
    async fn joined(client: &mut Stream, server: &mut Stream) -> Ended {
        tunnel(
            (client, &[]),
            (server, &[]),
            1000 * LONG,
            std::future::pending(),
        )
        .await
    }

    #[test]
    fn a_slow_client_holds_no_slot_of_a_server_that_was_reset() {
        run(async {
            let ((mut client, mut to_client), (mut server, mut from_server)) = (pair(), pair());
            fill(client.plain().unwrap().stream());
            from_server.write_all(&[8; 100]).unwrap();
            reset(from_server);
            let ended = tokio::time::timeout(LONG, joined(&mut client, &mut server)).await;
            drop(server);
            let ended = ended.expect("it waits for the client");
            assert_eq!(
                (ended.cause, ended.to_client),
                (Cause::ServerFailed(Phase::Data), 100)
            );
            let reading = tokio::task::spawn_blocking(move || {
                let mut all = Vec::new();
                (to_client.read_to_end(&mut all).unwrap_err().kind(), all)
            });
            ended.leave(&mut client).await;
            drop(client);
            let (end, all) = reading.await.unwrap();
            assert_eq!(end, ErrorKind::ConnectionReset);
            assert!(all.ends_with(&[8; 100]), "what was said last is lost");
        });
    }

    #[test]
    fn it_ends_once_neither_side_takes_more() {
        run(async {
            let ((mut client, mut one), (mut server, mut other)) = (pair(), pair());
            // More than the other side's buffers hold, so that its end is not seen before that of the sink.
            for peer in [&mut one, &mut other] {
                peer.write_all(&[7; 60_000]).unwrap();
                peer.shutdown(Shutdown::Write).unwrap();
            }
            let leaves = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                // With much unread data, which resets it.
                drop((one, other));
            };
            let ended = async { tokio::join!(joined(&mut client, &mut server), leaves).0 };
            let ended = tokio::time::timeout(LONG, ended).await;
            let cause = ended.expect("it never ends").cause;
            assert!(matches!(
                cause,
                Cause::ClientLeft(Phase::Data) | Cause::ServerFailed(Phase::Data)
            ));
        });
    }

    #[test]
    fn a_client_that_was_sending_may_have_an_answer_to_read() {
        let at = Duration::from_millis;
        assert!(was_answered_early(at(1100), at(1000), at(1001)));
        assert!(was_answered_early(at(1100), at(1000), at(1000)));
        // It has sent again since, or has waited for the response.
        assert!(!was_answered_early(at(1100), at(1010), at(1000)));
        assert!(!was_answered_early(at(1900), at(1000), at(1890)));
    }
}
