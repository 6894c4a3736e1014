//! The process: its threads, its sockets and its signals.

mod signals;
mod sockets;
mod successor;

pub(super) use successor::parents_socket;

use super::auth::Verifier;
use super::counters::Counters;
use super::log::LogWriter;
use super::orders::Orders;
use super::reload::{EndLimits, Reload};
use super::reports::MemberReport;
use super::supervisor::{ConfigError, Endpoints, Stage, Supervisor, WorkerHandle};
use super::take_over::{self, Finishing, Offer, TakeOver, TakeOverError};
use super::worker::WorkerSetup;
use super::{admin, control, peers, thread};
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::SocketUse;
use gaiola_model::proxy_file::{AccessLog, LogTarget};
use gaiola_os::realtime;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use signals::Signals;
use sockets::Sockets;
use std::cell::Cell;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use successor::Heir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Worker reports queued for the supervisor; further ones are dropped.
const REPORTS_LEN: usize = 1024;

/// How long idle connections have to close once that is over.
const LAST_LIMIT: Duration = Duration::from_millis(500);

/// How long what is open has when the processes that came after this one have ended: whoever started this one can only
/// start it again once it has ended too.
const ALONE_LIMIT: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted on the control socket.
const CONTROL_BACKLOG: i32 = 1024;

/// How long the access log has to flush at the end.
const LOG_LIMIT: Duration = Duration::from_secs(2);

/// How a proxy is started.
#[derive(Clone, Debug)]
pub struct ProxyArgs {
    /// Unix socket for the agent's requests, where there is one. A stale one is replaced.
    pub control: Option<PathBuf>,
    /// Address that serves `/metrics`, `/livez` and `/readyz`.
    pub admin: Option<SocketAddr>,
    /// Unix socket of the VIP keeper, where there is one.
    pub keeper: Option<PathBuf>,
    /// Configuration until the control socket gives another.
    pub config: Option<ProxyConfig>,
    /// Access log; `None`: requests are not logged.
    pub access_log: Option<AccessLog>,
    /// Worker threads; `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// Where SIGHUP reloads the configuration from.
    pub reload: Option<Reload>,
    /// How long requests in flight have after the signal to stop.
    pub hard_stop_after: Duration,
    /// How long requests and sessions have after another process has taken over.
    pub take_over_limit: Duration,
    /// From whom it takes over.
    pub take_over: TakeOver,
}

/// Why a proxy could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The configuration was rejected.
    #[error("the configuration was refused: {0}")]
    Refused(ConfigError),
    /// The control socket cannot be bound.
    #[error("cannot listen on the control socket {path}")]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The admin port cannot be bound.
    #[error("cannot listen on {address} for metrics and health")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot open the access log {to}")]
    AccessLog {
        /// Where it should have been written.
        to: LogTarget,
        /// Why.
        source: std::io::Error,
    },
    /// The process that serves does not hand over.
    #[error("cannot take over from the process that serves, which goes on")]
    TakeOver(#[from] TakeOverError),
    /// The process that took over from this one failed.
    #[error("the process that took over {0}")]
    Successor(String),
    /// Several of these at once.
    #[error("{}", in_a_row(.0))]
    Several(Vec<Self>),
    /// A thread, an event loop or a signal handler could not be created.
    #[error("the system refused what a proxy needs")]
    System(#[from] std::io::Error),
}

fn in_a_row(errors: &[ProxyError]) -> String {
    let errors = errors.iter().map(|error| gaiola_os::chain(error));
    errors.collect::<Vec<_>>().join("; ")
}

/// Serves until SIGTERM or SIGINT, then stops gracefully within [`ProxyArgs::hard_stop_after`]; a second SIGINT stops
/// it at once. SIGUSR1 reopens the access log, SIGHUP reloads the configuration file, SIGUSR2 starts a new process that takes
/// over. If one has taken over, it finishes what is open within [`ProxyArgs::take_over_limit`].
///
/// # Errors
/// Why it could not start, or how the process failed that took over.
pub fn run(args: ProxyArgs) -> Result<(), ProxyError> {
    lift_descriptor_limit();
    if args.keeper.is_some()
        && let Err(error) = realtime::stay_in_memory()
    {
        tracing::debug!(%error, "memory may be paged out here");
    }
    let mut offer = take_over::meet(&args.take_over, args.control.as_deref())?;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_io()
        .enable_time()
        .build_local(Default::default())?;
    let sockets = runtime.block_on(Sockets::open(&args, offer.as_mut()))?;
    let log = sockets.log;
    let mut threads = Vec::new();
    let control_file = Cell::new(sockets.control_is_new);
    let process = Process {
        args: &args,
        log: log.as_ref(),
        limits: Cell::new(EndLimits {
            stop: args.hard_stop_after,
            take_over: args.take_over_limit,
        }),
        control_file: &control_file,
    };
    let running = process.supervise((sockets.control, sockets.admin), offer, &mut threads);
    let result = runtime.block_on(running);
    if let (Some(path), true) = (&args.control, control_file.get()) {
        let _ = std::fs::remove_file(path);
    }
    // Dropping the supervisor closes the channel of orders, which ends the workers.
    drop(runtime);
    join(&threads, Duration::from_millis(500));
    if let Some(log) = log {
        join(&[log.end()], LOG_LIMIT);
    }
    match result? {
        Some((heir, signals)) => heir.outlive(signals)?.map_err(ProxyError::Successor),
        None => Ok(()),
    }
}

/// A proxied connection takes two descriptors. Most systems start a process with 1024 and let it ask for many more.
fn lift_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let lifted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, lifted) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of descriptors");
    }
}

/// Waits for threads to pass on or write their last lines, but not for one that hangs.
fn join(threads: &[JoinHandle<()>], patience: Duration) {
    const STEP: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while waited < patience && !threads.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(STEP);
        waited += STEP;
    }
}

/// What the process has while it runs.
struct Process<'a> {
    args: &'a ProxyArgs,
    log: Option<&'a LogWriter>,
    /// As the file that was read last has them.
    limits: Cell<EndLimits>,
    /// Whether the control socket's file is removed at the end.
    control_file: &'a Cell<bool>,
}

/// Why the process stops serving.
enum Stop {
    /// It was asked to.
    Asked,
    /// Another process has taken over; if this one has started it, it is the heir.
    TakenOver(Option<Heir>),
}

impl Process<'_> {
    /// Serves to the end. Returns what is left to wait for.
    async fn supervise(
        &self,
        (control, admin): (Option<UnixListener>, Option<TcpListener>),
        mut offer: Option<Offer>,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<Option<(Heir, Signals)>, ProxyError> {
        let lifeline = offer.as_mut();
        let lifeline = lifeline.and_then(|offer| offer.take(&SocketUse::Lifeline));
        let mut signals = Signals::new(lifeline.as_ref())?;
        let handed = offer.as_ref().map(|offer| &offer.hand_over);
        let secret = handed.map(|handed| handed.limit_secret.0);
        let started = Threads::start(self.args, self.log, secret, threads)?;
        let supervisor = Rc::clone(&started.supervisor);
        *supervisor.endpoints.borrow_mut() = Endpoints {
            lifeline,
            ..self.endpoints(control.as_ref(), admin.as_ref())?
        };
        let mut tasks = start_tasks(&supervisor, started.reports);
        if let Some(offer) = offer {
            self.take_over(offer, &supervisor).await?;
        } else if let Some(config) = self.args.config.clone() {
            configure(&supervisor, config).await?;
        }
        if let Some(control) = &control {
            // Whoever connects learns the pid of the process that listened last.
            rustix::net::listen(control, CONTROL_BACKLOG).map_err(std::io::Error::from)?;
        }
        let admin = admin.map(|admin| admin::serve(admin, Rc::clone(&supervisor)));
        let control = control.map(|control| control::serve(control, Rc::clone(&supervisor)));
        tasks.extend(admin.map(tokio::task::spawn_local));
        tasks.extend(control.map(tokio::task::spawn_local));
        if self.args.config.is_some() && matches!(self.args.take_over, TakeOver::Nobody) {
            // systemd listens to the process that it started; one that takes over is not that one.
            gaiola_os::notify::ready();
        }
        let stop = signals.until_stop(self, &supervisor).await;
        let heir = match stop {
            Stop::Asked => {
                self.end(&supervisor, &mut signals).await;
                None
            }
            Stop::TakenOver(heir) => {
                self.control_file.set(supervisor.keeps_control());
                self.finish(&supervisor, &mut signals, heir.as_ref()).await;
                heir
            }
        };
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(heir.map(|heir| (heir, signals)))
    }

    /// Copies of the sockets, for a process that takes over later.
    fn endpoints(
        &self,
        control: Option<&UnixListener>,
        admin: Option<&TcpListener>,
    ) -> Result<Endpoints, ProxyError> {
        let control = control.map(|control| control.as_fd().try_clone_to_owned());
        let admin = admin.map(|admin| admin.as_fd().try_clone_to_owned());
        Ok(Endpoints {
            control: self.args.control.clone().zip(control.transpose()?),
            admin: self.args.admin.zip(admin.transpose()?),
            ..Endpoints::default()
        })
    }

    /// Takes over from another process.
    async fn take_over(&self, offer: Offer, supervisor: &Rc<Supervisor>) -> Result<(), ProxyError> {
        let (inherited, handed, stream, process) = offer.split();
        let config = self.args.config.clone().or(handed.config.clone());
        supervisor.inherit(inherited, &handed)?;
        if let Some(config) = config {
            configure(supervisor, config).await?;
        }
        supervisor.until_beating(self.args.keeper.is_some()).await;
        let taken = supervisor.taken(self.args.control.clone());
        match Finishing::begin(stream, taken).await {
            Ok((old, late)) => {
                supervisor.begin_accepting(&late);
                let old = Rc::new(old);
                supervisor.set_old(Rc::clone(&old));
                tokio::task::spawn_local(async move { old.follow().await });
                tracing::info!("took over from the process that served");
            }
            Err(error) if process.is_gone() => {
                let error = gaiola_os::chain(&error);
                tracing::warn!(
                    error,
                    "the process that served has ended: serving in its place"
                );
                supervisor.begin_accepting(&[]);
            }
            Err(error) => return Err(error.into()),
        }
        self.control_file.set(true);
        Ok(())
    }

    /// Stops gracefully.
    async fn end(&self, supervisor: &Supervisor, signals: &mut Signals) {
        let limit = self.limits.get().stop;
        tracing::info!(?limit, "shutting down: requests in flight may still end");
        tokio::select! {
            () = supervisor.end(self.args.keeper.is_some(), limit) => {}
            () = signals.until_interrupted() => {}
        }
    }

    /// Finishes what is open, after another process has taken over.
    async fn finish(&self, supervisor: &Supervisor, signals: &mut Signals, heir: Option<&Heir>) {
        let limits = self.limits.get();
        let limit = limits.take_over;
        tracing::info!(
            ?limit,
            "requests, WebSockets and TCP sessions may still end"
        );
        let mut deadline = Instant::now() + limit;
        let mut stage = supervisor.stage();
        stage.mark_changed();
        loop {
            tokio::select! {
                () = supervisor.until_finished() => return,
                () = tokio::time::sleep_until(deadline) => break,
                sent = signals.next() => {
                    if heir.is_some() {
                        Heir::pass_on(sent);
                    }
                    match sent {
                        Signal::TERM | Signal::INT => return self.end(supervisor, signals).await,
                        Signal::USR1 => self.log.iter().for_each(|log| log.reopen()),
                        _ => {}
                    }
                }
                _ = stage.changed() => match *stage.borrow_and_update() {
                    Stage::Serving | Stage::Left => {}
                    Stage::TooOld => break,
                    Stage::Alone => {
                        let limit = heir.map_or(limits.stop, |_| ALONE_LIMIT);
                        deadline = deadline.min(Instant::now() + limit);
                    }
                }
            }
        }
        supervisor.end(false, LAST_LIMIT).await;
    }
}

/// The tasks of a supervisor that never end.
fn start_tasks(
    supervisor: &Rc<Supervisor>,
    reports: mpsc::Receiver<MemberReport>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let [health, taker, tickets, latency, hand_overs] = [(); 5].map(|()| Rc::clone(supervisor));
    vec![
        tokio::task::spawn_local(async move { health.publish_health().await }),
        tokio::task::spawn_local(async move { taker.take_reports(reports).await }),
        tokio::task::spawn_local(async move { tickets.renew_ticket_keys().await }),
        tokio::task::spawn_local(async move { latency.watch_latency().await }),
        tokio::task::spawn_local(async move { hand_overs.end_lapsed_hand_overs().await }),
        tokio::task::spawn_local(peers::share(Rc::clone(supervisor))),
    ]
}

/// Puts the first configuration in force.
async fn configure(supervisor: &Supervisor, config: ProxyConfig) -> Result<(), ProxyError> {
    let serving = frontends(&config);
    let configured = supervisor.configure(config).await;
    configured.map_err(ProxyError::Refused)?;
    tracing::info!(frontends = serving, "serving");
    Ok(())
}

/// Lists each frontend with its listening addresses.
fn frontends(config: &ProxyConfig) -> String {
    let frontends = config.frontends.iter().map(|frontend| {
        let binds = frontend.binds.iter().map(|bind| bind.address.to_string());
        format!(
            "{} on {}",
            frontend.name,
            binds.collect::<Vec<_>>().join(" and ")
        )
    });
    frontends.collect::<Vec<_>>().join(", ")
}

/// The supervisor of the workers, and their reports.
struct Threads {
    supervisor: Rc<Supervisor>,
    reports: mpsc::Receiver<MemberReport>,
}

impl Threads {
    /// Starts a thread for each worker. They end when the supervisor is dropped.
    fn start(
        args: &ProxyArgs,
        log: Option<&LogWriter>,
        limit_secret: Option<[u8; 32]>,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<Self, ProxyError> {
        let count = match args.workers {
            Some(count) => count.get(),
            None => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        };
        let (orders, _) = watch::channel(Arc::new(Orders::default()));
        let (sender, reports) = mpsc::channel(REPORTS_LEN);
        let verifier = Arc::new(Verifier::new(secret()?));
        let mut workers = Vec::new();
        for index in 0..count {
            let (applied, seen) = watch::channel(0);
            let (query_sender, queries) = mpsc::channel(1);
            let counters = Arc::new(Counters::default());
            let setup = WorkerSetup {
                index,
                count,
                orders: orders.subscribe(),
                applied,
                queries,
                counters: Arc::clone(&counters),
                log: log.map(LogWriter::queue),
                log_format: log.map(LogWriter::format).unwrap_or_default(),
                reports: sender.clone(),
                keeper: args.keeper.clone(),
                verifier: Arc::clone(&verifier),
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || thread::run(setup))?);
            workers.push(WorkerHandle {
                applied: seen,
                queries: query_sender,
                counters,
            });
        }
        let lost = log.map(LogWriter::lost).unwrap_or_default();
        Ok(Self {
            supervisor: Supervisor::new(
                orders,
                workers,
                lost,
                limit_secret.map_or_else(secret, Ok)?,
            ),
            reports,
        })
    }
}

/// Unpredictable bytes.
fn secret() -> std::io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(secret)
}
