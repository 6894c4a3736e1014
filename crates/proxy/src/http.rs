//! HTTP/1.1 with a client: its requests, one after another.

mod attempt;
mod body;
mod exchange;
mod large;
mod private;
mod record;
mod reply;
mod request;
mod rules;
mod scratch;

pub(super) use scratch::trim;

use super::check::in_words;
use super::client::Client;
use super::counters::Unasked;
use super::io::{self, Buffer, Fault, Timer};
use super::rules::LIMITS;
use super::worker::Worker;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::RequestHead;
use gaiola_model::proxy::{Admission, ClientTimeouts};
use gaiola_wire::http1::{self, Limits, Progress};
use large::Text;
use private::Private;
use record::Record;
use scratch::Heads;
use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A client's connection.
struct Connection {
    worker: Rc<Worker>,
    client: Box<Client>,
    /// Timers for what the client does, and for what the server does.
    client_timer: Timer,
    server_timer: Timer,
    /// Number of requests so far.
    served: u64,
    /// Idle connections to servers that are reserved for this client.
    private: Private,
}

/// A request whose head has been read.
struct Pending {
    /// Begins with the head, unless that is elsewhere; then bytes of the body or of the next request.
    buffer: Buffer,
    /// Where the head is.
    text: Text,
    heads: Heads,
    begun: Instant,
    /// Time until the head was complete.
    took: Duration,
}

impl Pending {
    /// A request whose head the buffer begins with.
    fn new(buffer: Buffer, heads: Heads, begun: Instant, took: Duration) -> Self {
        let (buffer, text) = match buffer.behind(heads.request.len) {
            Some(behind) => (behind, Text::Large(Rc::new(buffer))),
            None => (buffer, Text::Front),
        };
        Self {
            buffer,
            text,
            heads,
            begun,
            took,
        }
    }

    /// The head, and the text it refers to.
    fn head(&self) -> (&RequestHead, &[u8]) {
        let head = &self.heads.request;
        (head, self.text.of(&self.buffer, head.len))
    }

    /// Offset in the buffer of what follows the head.
    fn base(&self) -> usize {
        match self.text {
            Text::Front => self.heads.request.len,
            Text::Large(_) | Text::Digest(..) => 0,
        }
    }

    /// The head is needed for the log only.
    fn give_up_head(&mut self) {
        let text = RefCell::new(std::mem::replace(&mut self.text, Text::Front));
        large::give_up(&text, &self.heads.request);
        self.settle(text.into_inner());
    }

    /// Sets where the text of the head is; a digest replaces the head, too.
    fn settle(&mut self, mut text: Text) {
        if let Text::Digest(head, _) = &mut text
            && let Some(head) = head.take()
        {
            self.heads.request = *head;
        }
        self.text = text;
    }
}

/// What follows a request on its connection.
enum After {
    /// Another request, whose first bytes are in this buffer.
    Request(Buffer),
    /// Closes once the client has received what was written.
    Close,
    /// As `Close`, but the client has announced that it sends nothing more.
    Finished,
    /// Closes at once, so that the client notices that something is missing.
    Abort,
    /// The client left before a response began: closes at once, with nothing missing.
    Left,
}

/// Whether to parse the head. Of the largest heads not every piece is parsed, or a client that drips one would cost us
/// much.
fn may_have_ended(filled: &[u8], looked_at: usize, limit: usize) -> bool {
    const END: &[u8] = b"\r\n\r\n";
    let is_usual = filled.len() < LIMITS.head || filled.len() >= limit;
    let new = &filled[looked_at.saturating_sub(END.len())..];
    !filled.is_empty() && (is_usual || new.windows(END.len()).any(|four| four == END))
}

/// Serves a connection until it ends.
pub(super) async fn serve(worker: &Rc<Worker>, mut client: Box<Client>) {
    let mut held = client.early.take();
    let mut connection = Connection {
        worker: Rc::clone(worker),
        client,
        client_timer: Timer::default(),
        server_timer: Timer::default(),
        served: 0,
        private: Private::default(),
    };
    loop {
        let after = match connection.next_request(held.take()).await {
            // The future is large; a connection should hold memory for it only during a request.
            Ok(pending) => Box::pin(request::answer(&mut connection, pending)).await,
            Err(after) => after,
        };
        connection.served += 1;
        match after {
            After::Request(buffer) => held = Some(buffer).filter(|buffer| !buffer.is_empty()),
            After::Finished if io::is_quiet(&connection.client.stream, true) => {
                return connection.client.stream.end();
            }
            After::Close | After::Finished => {
                return Box::pin(io::close_gently(connection.client.stream)).await;
            }
            After::Abort => return,
            After::Left => return connection.client.stream.end(),
        }
    }
}

impl Connection {
    /// Waits for a request and reads its head. `held` are its first bytes.
    async fn next_request(&mut self, held: Option<Buffer>) -> Result<Pending, After> {
        let terms = self.terms();
        let is_served = terms.is_some();
        let (timeouts, head) = terms.unwrap_or((ClientTimeouts::default(), LIMITS.head));
        let limits = Limits { head, ..LIMITS };
        let mut buffer = match held {
            Some(held) => held,
            None => {
                self.idle(&timeouts, is_served).await?;
                Buffer::take()
            }
        };
        let mut heads = Heads::take();
        let begun = Instant::now();
        let mut took = Duration::ZERO;
        let mut looked_at = 0;
        loop {
            let is_worth_it = may_have_ended(buffer.filled(), looked_at, head);
            looked_at = buffer.filled().len();
            if is_worth_it {
                match http1::parse_request(buffer.filled(), &mut heads.request, &limits) {
                    Ok(Progress::Done) => {
                        return Ok(Pending::new(buffer, heads, begun, took));
                    }
                    Ok(Progress::Partial) => {}
                    Err(bad) => {
                        let cause = Cause::Rejected {
                            phase: Phase::Request,
                            status: bad.status(),
                        };
                        return Err(self.refuse(begun, cause, bad.to_string().into()).await);
                    }
                }
            }
            if buffer.filled().len() >= LIMITS.head && !buffer.make_room() {
                let cause = Cause::OutOfMemory;
                return Err(self.refuse(begun, cause, cause.words().into()).await);
            }
            let goes_on = !buffer.is_empty();
            let left = match goes_on {
                true => timeouts.request_head.saturating_sub(begun.elapsed()),
                false => timeouts.request_head,
            };
            let read = io::read(&mut self.client.stream, &mut buffer);
            match self.client_timer.within(left, read).await {
                Ok(_) if goes_on => took = begun.elapsed(),
                Ok(_) => {}
                Err(Fault::Deadline) if !buffer.is_empty() => {
                    let cause = Cause::ClientTimedOut(Phase::Request);
                    return Err(self.refuse(begun, cause, cause.words().into()).await);
                }
                // A partial TLS record has arrived.
                Err(Fault::Deadline) => {
                    self.tell_silent(timeouts.request_head);
                    return Err(After::Close);
                }
                Err(fault) => {
                    if !buffer.is_empty() {
                        reply::left(self, Record::new(&self.worker, begun));
                    } else if let Fault::Os(error) = fault {
                        self.tell_broken(error);
                    }
                    return Err(After::Left);
                }
            }
        }
    }

    /// Answers a request whose head could not be read. Boxed, so that connections reserve no memory for it.
    fn refuse(
        &mut self,
        begun: Instant,
        cause: Cause,
        why: Cow<'static, str>,
    ) -> Pin<Box<impl Future<Output = After>>> {
        let mut record = Record::new(&self.worker, begun);
        record.fail_for(cause, why);
        Box::pin(reply::refuse(self, record))
    }

    /// Waits for a request's first byte, without holding a buffer. `is_served`: whether a frontend exists, as far as is
    /// known.
    async fn idle(&mut self, timeouts: &ClientTimeouts, mut is_served: bool) -> Result<(), After> {
        let limit = match self.served {
            0 => timeouts.request_head,
            _ => timeouts.keep_alive,
        };
        let worker = Rc::clone(&self.worker);
        let since = Instant::now();
        let deadline = since + limit;
        let may_close = self.served > 0;
        let share = self.client.share();
        let is_crowded = may_close && share.is_crowded();
        if is_crowded && io::is_quiet(&self.client.stream, false) && share.grants_wish() {
            return Err(After::Close);
        }
        loop {
            let mut stirred = worker.wake.notified();
            let is_wanted = is_served && self.is_wanted();
            if !is_wanted && io::is_quiet(&self.client.stream, false) {
                return Err(After::Close);
            }
            let (stream, timer) = (&self.client.stream, &mut self.client_timer);
            let session = &self.client.session;
            let over = poll_fn(|cx| {
                if let Poll::Ready(ready) = stream.poll_read_ready(cx) {
                    return Poll::Ready(Some(ready.map_err(|_| After::Left)));
                }
                if Pin::new(&mut stirred).poll(cx).is_ready() || session.is_to_close() {
                    return Poll::Ready(None);
                }
                if may_close {
                    session.park(since, cx.waker());
                }
                timer
                    .poll_until(cx, deadline)
                    .map(|()| Some(Err(After::Close)))
            });
            let over = over.await;
            let is_to_close = session.is_to_close();
            session.unpark();
            if is_to_close {
                if io::is_quiet(&self.client.stream, false) {
                    return Err(After::Close);
                }
                self.client.share().wish_again();
            }
            if let Some(over) = over {
                if matches!(over, Err(After::Close)) {
                    self.tell_silent(limit);
                }
                return over;
            }
            is_served = self.timeouts().is_some();
        }
    }

    /// Whether the frontend keeps the connection while idle. A new one always gets its first request served: the client
    /// has just sent it, or is about to.
    fn is_wanted(&self) -> bool {
        self.served == 0 || self.worker.admission(self.client.local) != Admission::Refuse
    }

    /// Counts and logs a connection that never sent a request.
    fn tell_silent(&self, limit: Duration) {
        if self.served == 0 {
            let reason = format!("nothing came within {} ms", limit.as_millis());
            let (worker, client) = (&self.worker, &self.client);
            worker.close_unasked(client, Unasked::Silent, &reason);
        }
    }

    /// Logs why a connection broke between two requests, unless the client simply left.
    fn tell_broken(&self, error: std::io::Error) {
        if !matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        ) {
            let (peer, bind) = (self.client.address, &self.client.bind);
            self.worker.tell_closed(peer, bind, &in_words(error));
        }
    }

    fn timeouts(&self) -> Option<ClientTimeouts> {
        self.terms().map(|(timeouts, _)| timeouts)
    }

    /// Timeouts for the client, and the size limit of a head.
    fn terms(&self) -> Option<(ClientTimeouts, usize)> {
        let serving = self.worker.serving();
        let (frontend, _) = serving.frontend(&self.client.bind)?;
        let (frontend, config) = serving.of(frontend);
        Some((config.timeouts.clone(), frontend.guide.largest_head))
    }
}
