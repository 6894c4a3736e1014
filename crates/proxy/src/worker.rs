//! A worker's state, shared by its tasks. Other threads share only the counters and the queues of servers with a limit.

use super::auth::Verifier;
use super::broadcast::Broadcast;
use super::client::Origin;
use super::clock::{Instant, seconds};
use super::compress;
use super::counters::{Apart, Count, Counters, Handshakes, Unasked};
use super::files::Tags;
use super::listen::Listener;
use super::log::{Entry, Load, Log, Signal};
use super::orders::{FrontendShare, Member, Orders};
use super::reports::{MemberReport, SessionQuery};
use super::serving::{ServedBy, WorkerConfig};
use super::sessions::{Sessions, Shown};
use gaiola_core::forward;
use gaiola_core::health::Input;
use gaiola_core::retry::Budget;
use gaiola_model::Time;
use gaiola_model::proxy::{Address, Admission};
use gaiola_model::proxy_file::LogFormat;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

/// Log lines per second about failed connections and requests.
const LINES_A_SECOND: u32 = 10;

/// What a worker receives when it starts.
pub(super) struct WorkerSetup {
    /// Its number, from 0, and the number of workers.
    pub(super) index: usize,
    pub(super) count: usize,
    /// Its orders, and the newest that it has applied.
    pub(super) orders: watch::Receiver<Arc<Orders>>,
    pub(super) applied: watch::Sender<u64>,
    /// Requests to list its clients' connections.
    pub(super) queries: mpsc::Receiver<SessionQuery>,
    /// Where it publishes what it observes.
    pub(super) counters: Arc<Counters>,
    pub(super) log: Option<SyncSender<Signal>>,
    pub(super) log_format: LogFormat,
    pub(super) reports: mpsc::Sender<MemberReport>,
    /// The VIP keeper's socket.
    pub(super) keeper: Option<PathBuf>,
    /// Verifies passwords.
    pub(super) verifier: Arc<Verifier>,
}

/// A worker.
pub(super) struct Worker {
    /// Its number, from 0.
    pub(super) index: usize,
    /// Its retry budget.
    pub(super) budget: RefCell<Budget>,
    /// Random numbers.
    pub(super) rng: RefCell<fastrand::Rng>,
    /// Wakes idle connections to re-check whether they should close.
    pub(super) wake: Broadcast,
    /// Verifies passwords.
    pub(super) verifier: Arc<Verifier>,
    /// Its clients' connections.
    pub(super) sessions: Sessions,
    /// The memory of compressors.
    pub(super) compressing: Rc<compress::Memory>,
    /// The entity tags of files.
    pub(super) tags: Rc<Tags>,
    started: Instant,
    pub(super) orders: RefCell<Arc<Orders>>,
    pub(super) serving: RefCell<Rc<WorkerConfig>>,
    pub(super) counters: Arc<Counters>,
    locals: RefCell<HashMap<IpAddr, Arc<Apart<Count>>>>,
    pub(super) log: Log,
    reports: mpsc::Sender<MemberReport>,
    pub(super) accepting: RefCell<Vec<Accepting>>,
    pub(super) beat: RefCell<Option<AbortHandle>>,
    date: RefCell<(u64, [u8; 29])>,
    /// A second, and how many connections and requests failed in it.
    logged: Cell<(u64, u32)>,
    /// Whether this second already has a log line about a failure to accept.
    pub(super) unaccepted: Cell<bool>,
}

/// A listener being accepted from.
pub(super) struct Accepting {
    pub(super) listener: Arc<Listener>,
    /// Each of its sockets; notified when it is no longer wanted.
    pub(super) done: Vec<Rc<Notify>>,
}

impl Worker {
    /// A worker that serves nothing yet.
    pub(super) fn new(setup: &WorkerSetup) -> Self {
        let mut seed = [0; 8];
        // Without the system's randomness, the workers of one process still get different seeds.
        if getrandom::fill(&mut seed).is_err() {
            seed[0] = u8::try_from(setup.index).unwrap_or(u8::MAX);
        }
        Self {
            index: setup.index,
            budget: RefCell::new(Budget::new(Time::ZERO)),
            rng: RefCell::new(fastrand::Rng::with_seed(u64::from_ne_bytes(seed))),
            wake: Broadcast::default(),
            verifier: Arc::clone(&setup.verifier),
            sessions: Sessions::default(),
            compressing: Rc::default(),
            tags: Rc::default(),
            started: Instant::now(),
            orders: RefCell::default(),
            serving: RefCell::default(),
            counters: Arc::clone(&setup.counters),
            locals: RefCell::default(),
            log: Log::new(
                setup.log.clone(),
                setup.log_format,
                Arc::clone(&setup.counters),
            ),
            reports: setup.reports.clone(),
            accepting: RefCell::default(),
            beat: RefCell::default(),
            date: RefCell::new((0, [b' '; 29])),
            logged: Cell::default(),
            unaccepted: Cell::default(),
        }
    }

    /// The current configuration. A request keeps the one it started with.
    pub(super) fn serving(&self) -> Rc<WorkerConfig> {
        Rc::clone(&self.serving.borrow())
    }

    /// The number of connections, and up to `most` of them for a session listing.
    pub(super) fn shown(&self, most: usize) -> (u64, Vec<Shown>) {
        let serving = self.serving();
        let frontend = |bind: &Rc<Address>| {
            let (index, _) = serving.frontend(bind)?;
            Some(serving.of(index).1.name.clone())
        };
        self.sessions.show(most, &frontend)
    }

    /// The current admission of connections to this local address.
    pub(super) fn admission(&self, local: IpAddr) -> Admission {
        self.orders.borrow().admission(local)
    }

    /// TLS settings for clients of this bind.
    pub(super) fn tls(&self, bind: &Address) -> Option<Arc<rustls::ServerConfig>> {
        self.orders.borrow().tls.of(bind)
    }

    /// Counters of TLS handshakes with clients.
    pub(super) fn handshakes(&self) -> &Handshakes {
        &self.counters.handshakes
    }

    /// The current time, for decisions.
    pub(super) fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    /// This worker's count of open connections to this local address.
    pub(super) fn local(&self, local: IpAddr) -> Arc<Apart<Count>> {
        let mut locals = self.locals.borrow_mut();
        let count = locals
            .entry(local)
            .or_insert_with(|| self.counters.local(local));
        Arc::clone(count)
    }

    /// Counts and logs a connection rejected by a limit.
    pub(super) fn refuse(&self, client: &Origin) {
        client.share().refuse();
        self.log_closed(client.address, &client.bind, "connection limit reached");
    }

    /// Counts and logs a connection that closes before its first request.
    pub(super) fn close_unasked(&self, client: &Origin, why: Unasked, reason: &str) {
        self.counters.unasked(why).add(1);
        self.log_closed(client.address, &client.bind, reason);
    }

    /// Logs why a connection closes.
    pub(super) fn log_closed(&self, peer: IpAddr, bind: &Address, reason: &str) {
        if self.may_log() {
            tracing::info!(%peer, %bind, reason, "connection closed");
        }
    }

    /// Logs why a request or a session failed, unless the access log does.
    pub(super) fn log_failed(
        &self,
        (peer, bind): (IpAddr, &Address),
        status: u16,
        request_id: &str,
        reason: &str,
    ) {
        if !self.log.has_reasons && self.may_log() {
            tracing::info!(%peer, %bind, status, request_id, reason, "request failed");
        }
    }

    /// Logs why the system cannot give us a connection although clients wait.
    pub(super) fn log_unaccepted(&self, bind: &Address, error: rustix::io::Errno) {
        if !self.unaccepted.replace(true) {
            tracing::warn!(%bind, %error, "cannot accept connections");
        }
    }

    /// Logs that a frontend has reached its maxconn, at most once in a while.
    pub(super) fn log_full(&self, frontend: &FrontendShare, maxconn: u32) {
        if frontend.may_log(self.started.elapsed().as_secs()) {
            let frontend = &*frontend.name;
            tracing::warn!(frontend, maxconn, "maxconn reached: new connections wait");
        }
    }

    /// Logs which requests and sessions are cut off because this worker ends.
    pub(super) fn log_cut_off(&self) {
        let busy = self.sessions.busy();
        for (peer, bind) in busy.iter().take(100) {
            tracing::warn!(%peer, %bind, "cut off: the proxy has shut down");
        }
        if !busy.is_empty() {
            let count = busy.len();
            tracing::warn!(count, "requests and sessions were cut off");
        }
    }

    /// Whether another line may be logged in this second. The worker writes these lines itself: in a flood it writes
    /// only some and counts the rest.
    fn may_log(&self) -> bool {
        self.log_suppressed();
        let (second, count) = self.logged.get();
        self.logged.set((second, count + 1));
        count < LINES_A_SECOND
    }

    /// Logs how many lines were suppressed in a second that is over.
    pub(super) fn log_suppressed(&self) {
        let (now, (second, count)) = (seconds(), self.logged.get());
        if now == second {
            return;
        }
        self.logged.set((now, 0));
        if let Some(count) = count.checked_sub(LINES_A_SECOND).filter(|count| *count > 0) {
            tracing::info!(count, "suppressed similar messages");
        }
    }

    /// Generates an id for a request without one.
    pub(super) fn make_id(&self) -> [u8; 32] {
        forward::new_request_id(&mut self.rng.borrow_mut())
    }

    /// The current time as a `Date` field value.
    pub(super) fn date(&self) -> [u8; 29] {
        let now = seconds();
        let mut date = self.date.borrow_mut();
        if date.0 != now {
            date.0 = now;
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
            if let Ok(text) = text.as_bytes().try_into() {
                date.1 = text;
            }
        }
        date.1
    }

    /// Concurrent connections and requests where a request was answered, if the access log includes them.
    pub(super) fn load(
        &self,
        serving: &WorkerConfig,
        frontend: usize,
        served_by: ServedBy,
    ) -> Load {
        if self.log.wants_load {
            serving.load(frontend, served_by)
        } else {
            Load::default()
        }
    }

    /// Whether requests are logged.
    pub(super) const fn logs(&self) -> bool {
        self.log.is_on()
    }

    /// Writes a line to the access log.
    pub(super) fn log(self: &Rc<Self>, entry: &Entry<'_>) {
        if self.log.add(entry) {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Log::PATIENCE).await;
                worker.log.flush();
            });
        }
    }

    /// Reports the outcome of an attempt to the health checks. If their queue is full, they have enough reports
    /// already.
    pub(super) fn report(&self, member: &Arc<Member>, input: Input) {
        let member = Arc::clone(member);
        let _ = self.reports.try_send(MemberReport { member, input });
    }
}
