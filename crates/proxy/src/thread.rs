//! A worker's thread: a runtime of its own, and everything it touches. Nothing here is shared with other threads but
//! counters and the queues of servers with a limit.

use super::accept::{self, Client};
use super::auth::Verifier;
use super::beat::Beater;
use super::counters::{Apart, Count, Counters, Handshakes, Unasked};
use super::event::Event;
use super::listen::Listener;
use super::log::{Entry, Load, Log, Signal};
use super::orders::{FrontendShare, Member, Orders};
use super::serving::{Backend, Place, Serving};
use super::sessions::Sessions;
use super::supervisor::{Look, MemberReport};
use super::{http, io};
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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

/// Between two looks for idle connections that are too old.
const SWEEP: Duration = Duration::from_secs(1);

/// Lines on connections and requests that failed, in a second.
const TOLD: u32 = 10;

/// What a worker is given when it starts.
pub(super) struct Post {
    /// Its number, from 0, and how many there are.
    pub(super) index: usize,
    pub(super) count: usize,
    /// What is wanted of it, and how far it has come.
    pub(super) orders: watch::Receiver<Arc<Orders>>,
    pub(super) applied: watch::Sender<u64>,
    /// Who wants to see its clients' connections.
    pub(super) looks: mpsc::Receiver<Look>,
    /// Where it tells what it sees.
    pub(super) counters: Arc<Counters>,
    pub(super) log: Option<SyncSender<Signal>>,
    pub(super) log_format: LogFormat,
    pub(super) reports: mpsc::Sender<MemberReport>,
    /// The VIP keeper's socket.
    pub(super) keeper: Option<PathBuf>,
    /// Who compares passwords.
    pub(super) verifier: Arc<Verifier>,
}

/// A worker.
pub(super) struct Worker {
    /// Its number, from 0.
    pub(super) index: usize,
    /// The retries that it may make.
    pub(super) budget: RefCell<Budget>,
    /// Chance.
    pub(super) rng: RefCell<fastrand::Rng>,
    /// Told when connections that wait for a request must look whether they are still wanted.
    pub(super) stir: Event,
    /// Who compares passwords.
    pub(super) verifier: Arc<Verifier>,
    /// Its clients' connections.
    pub(super) sessions: Sessions,
    started: Instant,
    orders: RefCell<Arc<Orders>>,
    serving: RefCell<Rc<Serving>>,
    counters: Arc<Counters>,
    locals: RefCell<HashMap<IpAddr, Arc<Apart<Count>>>>,
    log: Log,
    reports: mpsc::Sender<MemberReport>,
    accepting: RefCell<Vec<Accepting>>,
    beat: RefCell<Option<AbortHandle>>,
    date: RefCell<(u64, [u8; 29])>,
    /// A second, and how many connections and requests failed in it.
    told: Cell<(u64, u32)>,
    /// Whether it was said in this second that connections cannot be accepted.
    unaccepted: Cell<bool>,
}

/// A listener that connections are accepted from.
struct Accepting {
    listener: Arc<Listener>,
    /// Told when it is no longer wanted.
    done: Rc<Notify>,
}

/// Works until the supervisor ends.
pub(super) fn run(post: Post) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_io()
        .enable_time()
        .build_local(Default::default());
    match runtime {
        Ok(runtime) => runtime.block_on(work(post)),
        // The supervisor finds that the worker has ended.
        Err(error) => tracing::error!(%error, worker = post.index, "no event loop"),
    }
}

async fn work(mut post: Post) {
    io::send_together(&post.counters.late);
    let worker = Rc::new(Worker::new(&post));
    let sweeper = Rc::clone(&worker);
    tokio::task::spawn_local(async move { sweeper.sweep().await });
    loop {
        let orders = Arc::clone(&post.orders.borrow_and_update());
        worker.apply(&orders, &post);
        post.applied.send_replace(orders.seq);
        if other_orders(&worker, &mut post).await.is_err() {
            io::send_alone();
            worker.tell_cut_off();
            worker.log.flush();
            return;
        }
    }
}

/// Until there are other orders. Meanwhile the connections are shown to who wants to see them.
async fn other_orders(worker: &Worker, post: &mut Post) -> Result<(), RecvError> {
    loop {
        tokio::select! {
            changed = post.orders.changed() => return changed,
            Some(Look { most, shown }) = post.looks.recv() => {
                // Whoever asked may have gone.
                let _ = shown.send(worker.sessions.show(most, &worker.serving()));
            }
        }
    }
}

impl Worker {
    fn new(post: &Post) -> Self {
        let mut seed = [0; 8];
        // Without the system's randomness the workers of one process still differ.
        if getrandom::fill(&mut seed).is_err() {
            seed[0] = u8::try_from(post.index).unwrap_or(u8::MAX);
        }
        Self {
            index: post.index,
            budget: RefCell::new(Budget::new(Time::ZERO)),
            rng: RefCell::new(fastrand::Rng::with_seed(u64::from_ne_bytes(seed))),
            stir: Event::default(),
            verifier: Arc::clone(&post.verifier),
            sessions: Sessions::default(),
            started: Instant::now(),
            orders: RefCell::default(),
            serving: RefCell::default(),
            counters: Arc::clone(&post.counters),
            locals: RefCell::default(),
            log: Log::new(
                post.log.clone(),
                post.log_format,
                Arc::clone(&post.counters),
            ),
            reports: post.reports.clone(),
            accepting: RefCell::default(),
            beat: RefCell::default(),
            date: RefCell::new((0, [b' '; 29])),
            told: Cell::default(),
            unaccepted: Cell::default(),
        }
    }

    /// What is served now. A request keeps what it began with.
    pub(super) fn serving(&self) -> Rc<Serving> {
        Rc::clone(&self.serving.borrow())
    }

    /// What is wanted of connections to this local address now.
    pub(super) fn admission(&self, local: IpAddr) -> Admission {
        self.orders.borrow().admission(local)
    }

    /// What TLS is spoken with clients of this bind.
    pub(super) fn tls(&self, bind: &Address) -> Option<Arc<rustls::ServerConfig>> {
        self.orders.borrow().tls.of(bind)
    }

    /// The count of TLS handshakes with clients.
    pub(super) fn handshakes(&self) -> &Handshakes {
        &self.counters.handshakes
    }

    /// Now, for decisions.
    pub(super) fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    /// How many connections to this local address are open on this worker.
    pub(super) fn local(&self, local: IpAddr) -> Arc<Apart<Count>> {
        let mut locals = self.locals.borrow_mut();
        let count = locals
            .entry(local)
            .or_insert_with(|| self.counters.local(local));
        Arc::clone(count)
    }

    /// Counts a connection that a limit has refused, and says so.
    pub(super) fn refuse(&self, client: &Client) {
        client.share().refuse();
        self.tell_closed(
            client.address,
            &client.bind,
            "its limit of connections is reached",
        );
    }

    /// Counts a connection that is closed before anything was asked on it, and says why.
    pub(super) fn close_unasked(&self, client: &Client, why: Unasked, reason: &str) {
        self.counters.unasked(why).add(1);
        self.tell_closed(client.address, &client.bind, reason);
    }

    /// Says why a connection is closed.
    pub(super) fn tell_closed(&self, peer: IpAddr, bind: &Address, reason: &str) {
        if self.may_tell() {
            tracing::info!(%peer, %bind, reason, "a connection is closed");
        }
    }

    /// Says why a request or a session failed, where the access log does not.
    pub(super) fn tell_failed(
        &self,
        (peer, bind): (IpAddr, &Address),
        status: u16,
        request_id: &str,
        reason: &str,
    ) {
        if !self.log.has_reasons && self.may_tell() {
            tracing::info!(%peer, %bind, status, request_id, reason, "a request failed");
        }
    }

    /// Says why the system has no connection for us, though clients wait.
    pub(super) fn tell_unaccepted(&self, bind: &Address, error: rustix::io::Errno) {
        if !self.unaccepted.replace(true) {
            tracing::warn!(%bind, %error, "connections cannot be accepted");
        }
    }

    /// Says that a frontend has as many connections as it may, once in a while.
    pub(super) fn tell_full(&self, frontend: &FrontendShare, maxconn: u32) {
        if frontend.may_tell(self.started.elapsed().as_secs()) {
            let frontend = &*frontend.name;
            tracing::warn!(
                frontend,
                maxconn,
                "it has its maxconn: further connections wait"
            );
        }
    }

    /// Says which requests and sessions come to no good end, for this worker ends.
    fn tell_cut_off(&self) {
        let busy = self.sessions.busy();
        for (peer, bind) in busy.iter().take(100) {
            tracing::warn!(%peer, %bind, "cut off: the proxy has ended");
        }
        if !busy.is_empty() {
            let count = busy.len();
            tracing::warn!(count, "requests and sessions were cut off");
        }
    }

    /// Whether one line more may be written in this second. These are written by the worker itself: of a flood only some
    /// are, and the others are counted.
    fn may_tell(&self) -> bool {
        self.tell_rest();
        let (second, count) = self.told.get();
        self.told.set((second, count + 1));
        count < TOLD
    }

    /// Says how many lines were left out in a second that is over.
    fn tell_rest(&self) {
        let (now, (second, count)) = (seconds(), self.told.get());
        if now == second {
            return;
        }
        self.told.set((now, 0));
        if let Some(count) = count.checked_sub(TOLD).filter(|count| *count > 0) {
            tracing::info!(count, "as many further connections and requests failed");
        }
    }

    /// An id for a request that has none.
    pub(super) fn make_id(&self) -> [u8; 32] {
        forward::new_request_id(&mut self.rng.borrow_mut())
    }

    /// Now, as the `Date` field has it.
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

    /// How much is going on where a request was answered, if the access log tells of it.
    pub(super) fn load(&self, serving: &Serving, frontend: usize, place: Place) -> Load {
        match self.log.wants_load {
            true => serving.load(frontend, place),
            false => Load::default(),
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

    /// Tells the checks what an attempt has shown. When they cannot follow, they know enough.
    pub(super) fn report(&self, member: &Arc<Member>, input: Input) {
        let member = Arc::clone(member);
        let _ = self.reports.try_send(MemberReport { member, input });
    }

    fn apply(self: &Rc<Self>, orders: &Arc<Orders>, post: &Post) {
        let before = self.orders.replace(Arc::clone(orders));
        if same(&before.config, &orders.config) {
            self.serving().take_health(orders);
        } else {
            let old = self.serving();
            let rng = &mut self.rng.borrow_mut();
            let new = Rc::new(Serving::new(orders, &old, &self.counters, self.index, rng));
            self.serving.replace(Rc::clone(&new));
            old.supersede(&new);
        }
        self.listen(&orders.listeners);
        self.beat(post, orders);
        // Health concerns those that wait for a request no more than it did before.
        let same_config = same(&before.config, &orders.config);
        let same_admissions = Arc::ptr_eq(&before.admissions, &orders.admissions);
        if !same_config || !same_admissions || before.ending != orders.ending {
            self.stir.notify_all();
        }
    }

    /// Listeners that are new are accepted from, those that are gone are let go.
    fn listen(self: &Rc<Self>, wanted: &[Arc<Listener>]) {
        let mut accepting = self.accepting.borrow_mut();
        accepting.retain(|held| {
            let stays = wanted
                .iter()
                .any(|listener| Arc::ptr_eq(listener, &held.listener));
            if !stays {
                held.done.notify_one();
            }
            stays
        });
        for listener in wanted {
            if accepting
                .iter()
                .any(|held| Arc::ptr_eq(&held.listener, listener))
            {
                continue;
            }
            let Some(socket) = listener.take(self.index) else {
                continue;
            };
            let done = Rc::new(Notify::new());
            let bind = Rc::new(listener.address.clone());
            let task = accept::run(Rc::clone(self), socket, bind, Rc::clone(&done));
            tokio::task::spawn_local(task);
            accepting.push(Accepting {
                listener: Arc::clone(listener),
                done,
            });
        }
    }

    /// Gives signs of life as long as clients can be served.
    fn beat(&self, post: &Post, orders: &Orders) {
        let wanted = self.serving().serves_http() && !orders.ending;
        let mut beat = self.beat.borrow_mut();
        match (wanted, beat.take(), &post.keeper) {
            (true, None, Some(keeper)) => {
                let (keeper, index, count) = (keeper.clone(), post.index, post.count);
                let task = async move {
                    let keeper = &keeper;
                    Beater {
                        keeper,
                        index,
                        count,
                    }
                    .beat()
                    .await;
                };
                *beat = Some(tokio::task::spawn_local(task).abort_handle());
            }
            (true, running, _) => *beat = running,
            (false, running, _) => running.iter().for_each(AbortHandle::abort),
        }
    }

    async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.serving().backends().for_each(Backend::sweep);
            self.tell_rest();
            self.unaccepted.set(false);
            io::trim();
            http::trim();
        }
    }
}

/// Now, in seconds since 1970.
pub(super) fn seconds() -> u64 {
    since_epoch().as_secs()
}

/// Now, as the time since 1970.
pub(super) fn since_epoch() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

fn same<T>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
