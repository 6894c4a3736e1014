//! One worker's part of a backend's member: its pool of idle connections, and its known health.

use crate::broadcast::{Broadcast, Notified};
use crate::clock::Instant;
use crate::counters::Apart;
use crate::io::{self, Stream};
use crate::orders::{Health, InFlight, Member, Tally};
use crate::sessions::Named;
use crate::tls::ServerSettings;
use gaiola_core::health::Symptom;
use gaiola_core::retry;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::Method;
use gaiola_model::proxy::{Admin, OnMarkedDown, ServerTls};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Most idle connections to one server; beyond it, the one idle longest is closed.
const POOL_LEN: usize = 1024;

/// A member as one worker sees it.
pub(crate) struct Server {
    /// The state shared by all threads.
    pub(crate) member: Arc<Member>,
    /// The member's counters; requests update these without touching the member itself.
    tallies: Arc<[Apart<Tally>]>,
    /// Whether each connection carries a single client, announced in a PROXY header.
    pub(crate) announces_client: bool,
    /// Requests in flight to all members of its backend.
    all: Arc<InFlight>,
    worker: usize,
    /// Whether it takes new requests: up, ready, with a weight, configured, and not a spare while others suffice.
    usable: Cell<bool>,
    /// Whether it takes requests whose cookie names it: up, configured, and not under maintenance.
    up: Cell<bool>,
    interrupts: Cell<Interrupts>,
    /// Whether an attempt has failed since the last response.
    in_doubt: Cell<bool>,
    /// Idle connections, reused last in, first out, so that surplus ones can age.
    pool: RefCell<Vec<Idle>>,
    interrupt: Broadcast,
    tls: RefCell<Option<ServerSettings>>,
    /// What these were made from, and how often that has changed.
    tls_of: RefCell<Option<ServerTls>>,
    tls_changes: Cell<u64>,
}

/// How often each interrupt has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Interrupts {
    downs: u64,
    losses: u64,
    ended: u64,
}

/// Why work with a server is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// It was marked down. It may be busy, and still answer its requests.
    Down,
    /// Connections to it can no longer be made: it may be dead.
    Lost,
    /// An operator has ended its sessions.
    Ended,
}

impl Interrupt {
    /// Why what it interrupts in this phase ends.
    pub(crate) const fn cause(self, phase: Phase) -> Cause {
        match self {
            Self::Down => Cause::ServerDown(phase),
            Self::Lost => Cause::ServerDead(phase),
            Self::Ended => Cause::SessionsShutdown(phase),
        }
    }
}

/// Ready with the interrupt that happens after this was created.
pub(crate) struct Interrupted<'a> {
    server: &'a Server,
    before: Interrupts,
    notified: Notified<'a>,
}

impl Future for Interrupted<'_> {
    type Output = Interrupt;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let (now, before) = (self.server.interrupts.get(), self.before);
        let why = match () {
            () if now.ended != before.ended => Interrupt::Ended,
            () if now.losses != before.losses => Interrupt::Lost,
            () => Interrupt::Down,
        };
        Pin::new(&mut self.notified).poll(cx).map(|()| why)
    }
}

/// An idle connection.
pub(crate) struct Idle {
    /// `None` once it is reused.
    stream: Option<Stream>,
    since: Instant,
}

impl Idle {
    /// Idle from now on.
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream: Some(stream),
            since: Instant::now(),
        }
    }

    /// The connection, if it is still open and may carry a request of this method.
    pub(crate) fn reuse(self, method: Method, longest: Duration) -> Option<Stream> {
        let age = self.since.elapsed();
        if age > longest || !retry::may_reuse(method, age) {
            return None;
        }
        self.if_quiet(method)
    }

    /// The connection, if no data or close has arrived on it.
    pub(crate) fn if_quiet(mut self, method: Method) -> Option<Stream> {
        let is_quiet = self.is_quiet(method.is_idempotent());
        self.stream.take_if(|_| is_quiet)
    }

    /// Whether nothing has arrived on it; with `known`, as far as the event loop has noticed.
    pub(crate) fn is_quiet(&self, known: bool) -> bool {
        let stream = self.stream.as_ref();
        stream.is_some_and(|stream| io::is_quiet(stream, known))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.end();
        }
    }
}

impl Named for Server {
    fn names(&self) -> (&str, &str) {
        (&self.member.backend, &self.member.name)
    }
}

impl Server {
    /// A server without connections, which takes no requests yet.
    pub(super) fn new(member: Arc<Member>, all: Arc<InFlight>, worker: usize) -> Self {
        Self {
            tallies: Arc::clone(member.tallies()),
            announces_client: member.send_proxy.is_some(),
            all,
            worker,
            usable: Cell::new(false),
            up: Cell::new(false),
            interrupts: Cell::new(Interrupts {
                ended: member.ended(),
                ..Interrupts::default()
            }),
            in_doubt: Cell::new(false),
            pool: RefCell::default(),
            interrupt: Broadcast::default(),
            tls: RefCell::default(),
            tls_of: RefCell::default(),
            tls_changes: Cell::default(),
            member,
        }
    }

    /// Sets the TLS settings of new connections, which were made from `of`. If they differ, idle connections are closed.
    pub(super) fn set_tls(&self, of: Option<&ServerTls>, settings: Option<ServerSettings>) {
        self.tls.replace(settings);
        if self.tls_of.borrow().as_ref() != of {
            self.tls_of.replace(of.cloned());
            self.tls_changes.set(self.tls_changes.get() + 1);
            self.pool.borrow_mut().clear();
        }
    }

    /// Whether its present TLS settings were made from these: a configuration that was replaced may have others.
    pub(crate) fn is_reached_by(&self, of: Option<&ServerTls>) -> bool {
        self.tls_of.borrow().as_ref() == of
    }

    /// Whether a connection to it speaks TLS exactly if new ones do.
    pub(crate) fn fits(&self, stream: &Stream) -> bool {
        stream.tls().is_some() == self.tls.borrow().is_some()
    }

    /// Opens a connection, announces the client and its destination in a PROXY header where configured, and encrypts it
    /// where configured. Data unacknowledged for `user` ends the connection.
    pub(crate) async fn connect(
        &self,
        carried: Option<(SocketAddr, SocketAddr)>,
        user: Duration,
    ) -> std::io::Result<Stream> {
        // As its configuration has it for whoever holds the permit: the next one may come while this waits.
        let settings = self.tls.borrow().clone();
        let mut stream = io::connect(&self.member.address, user).await?;
        if let Some(version) = self.member.send_proxy {
            let header = io::proxy_header(version, carried);
            let (header, count) = ([&*header].into_iter(), Cell::new(0));
            let written = io::write_pieces(&mut stream, header, &count).await;
            written.map_err(std::io::Error::other)?;
        }
        match settings {
            Some(settings) => settings.encrypt(stream).await,
            None => Ok(stream),
        }
    }

    /// The symptom when no connection stands in time: with TLS, the server may have accepted the TCP connection.
    pub(crate) fn late_to_connect(&self) -> Symptom {
        match &*self.tls.borrow() {
            Some(_) => Symptom::Silent,
            None => Symptom::Lost,
        }
    }

    /// How often its connections were interrupted, or are no longer made as they were.
    pub(crate) const fn closings(&self) -> u64 {
        self.interrupt.times() + self.tls_changes.get()
    }

    /// Whether it takes new requests.
    pub(crate) fn is_usable(&self) -> bool {
        self.usable.get()
    }

    /// Whether it takes requests whose cookie names it.
    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }

    /// Applies its health, the operator's setting, and whether it takes new requests. Returns whether waiters for a
    /// server must check again. When it goes down, its idle connections are closed and requests to it are interrupted.
    pub(super) fn take_health(&self, health: Health, admin: Admin, usable: bool) -> bool {
        let up = health.up && admin != Admin::Maint;
        let changed = (self.usable.replace(usable), self.up.replace(up)) != (usable, up);
        if !usable {
            self.pool.borrow_mut().clear();
        }
        let interrupts = self.interrupts.get();
        self.interrupts.set(Interrupts {
            downs: health.downs,
            losses: health.losses,
            ended: self.member.ended(),
        });
        if self.interrupts.get() != interrupts {
            self.pool.borrow_mut().clear();
            self.interrupt.notify_all();
        }
        changed
    }

    /// It was removed from the configuration.
    pub(super) fn retire(&self) {
        self.usable.set(false);
        self.up.set(false);
        self.pool.borrow_mut().clear();
    }

    /// Completes when it is marked down or its sessions are ended; create it before the work to be interrupted.
    pub(crate) const fn interrupted(&self) -> Interrupted<'_> {
        Interrupted {
            server: self,
            before: self.interrupts.get(),
            notified: self.interrupt.notified(),
        }
    }

    /// Completes when a session with it must be shut: at once if it is not up and sessions are shut down on that.
    pub(crate) async fn shut(&self, on_marked_down: OnMarkedDown) -> Interrupt {
        let shut_down = on_marked_down == OnMarkedDown::ShutdownSessions;
        if shut_down && !self.is_up() {
            return Interrupt::Down;
        }
        loop {
            match self.interrupted().await {
                Interrupt::Down | Interrupt::Lost if !shut_down => {}
                interrupt => return interrupt,
            }
        }
    }

    /// An idle connection that is still open and may carry a request of this method.
    pub(crate) fn take_pooled(&self, method: Method, longest: Duration) -> Option<Stream> {
        let mut pool = self.pool.borrow_mut();
        while let Some(idle) = pool.pop() {
            let age = idle.since.elapsed();
            if age > longest {
                // The others are older.
                pool.clear();
            } else if !retry::may_reuse(method, age) {
                pool.push(idle);
                return None;
            } else if let Some(stream) = idle.if_quiet(method) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection for a later request.
    pub(crate) fn pool(&self, stream: Stream) {
        if !self.usable.get() {
            return;
        }
        let mut pool = self.pool.borrow_mut();
        if pool.len() >= POOL_LEN {
            pool.remove(0);
        }
        pool.push(Idle::new(stream));
    }

    /// Closes connections idle for longer than `longest`, or closed by the server.
    pub(crate) fn sweep(&self, longest: Duration) {
        self.pool
            .borrow_mut()
            .retain(|idle| idle.since.elapsed() <= longest && idle.is_quiet(true));
    }

    /// Records a failed attempt.
    pub(crate) fn doubt(&self) {
        self.in_doubt.set(true);
    }

    /// Records that it answered. `true` if an attempt had failed before.
    pub(crate) fn proved_well(&self) -> bool {
        self.in_doubt.replace(false)
    }

    /// Records a response that began this long after its request was sent.
    pub(crate) fn answered(&self, after: Duration) {
        self.tally().answered(after);
    }

    /// Records a response with a status of 500 or above.
    pub(crate) fn erred(&self) {
        self.tally().erred();
    }

    /// Records a request that had no valid answer.
    pub(crate) fn failed(&self) {
        self.tally().failed();
    }

    fn tally(&self) -> &Tally {
        &self.tallies[self.worker]
    }

    /// A request is sent to it.
    pub(super) fn enter(&self) {
        self.tally().in_flight.add(1);
        self.all.of(self.worker).add(1);
    }

    /// A request to it has ended.
    pub(super) fn leave(&self) {
        self.tally().in_flight.sub(1);
        self.all.of(self.worker).sub(1);
    }
}
