//! The process: its threads, its sockets and its signals.

use super::auth::Verifier;
use super::counters::Counters;
use super::log::LogWriter;
use super::orders::Orders;
use super::reload::Reload;
use super::reports::MemberReport;
use super::supervisor::{ConfigError, Supervisor, WorkerHandle};
use super::worker::WorkerSetup;
use super::{admin, control, peers, thread};
use gaiola_model::ProxyConfig;
use gaiola_model::proxy_file::{AccessLog, LogTarget};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Worker reports queued for the supervisor; further ones are dropped.
const REPORTS_LEN: usize = 1024;

/// How long requests in flight have after the signal to stop, by default.
pub const END_LIMIT: Duration = Duration::from_secs(10);

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
/// it at once. SIGUSR1 reopens the access log, SIGHUP reloads the configuration file.
///
/// # Errors
/// Why it could not start.
pub fn run(args: ProxyArgs) -> Result<(), ProxyError> {
    lift_descriptor_limit();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_io()
        .enable_time()
        .build_local(Default::default())?;
    let Sockets {
        log,
        control,
        admin,
    } = runtime.block_on(Sockets::open(&args))?;
    let mut threads = Vec::new();
    let running = supervise(&args, (control, admin), log.as_ref(), &mut threads);
    let result = runtime.block_on(running);
    if let Some(path) = &args.control {
        let _ = std::fs::remove_file(path);
    }
    // Dropping the supervisor closes the channel of orders, which ends the workers.
    drop(runtime);
    join(&threads, Duration::from_millis(500));
    if let Some(log) = log {
        join(&[log.end()], LOG_LIMIT);
    }
    result
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

/// The proxy's endpoints besides its listeners.
struct Sockets {
    log: Option<LogWriter>,
    control: Option<UnixListener>,
    admin: Option<TcpListener>,
}

impl Sockets {
    /// Opens all of them.
    ///
    /// # Errors
    /// Each one that cannot be opened.
    async fn open(args: &ProxyArgs) -> Result<Self, ProxyError> {
        let log = args.access_log.as_ref().map(open_log).transpose();
        let control = args.control.as_deref().map(bind_control).transpose();
        let admin = match args.admin {
            Some(address) => bind_admin(address).await.map(Some),
            None => Ok(None),
        };
        match (log, control, admin) {
            (Ok(log), Ok(control), Ok(admin)) => Ok(Self {
                log,
                control,
                admin,
            }),
            (log, control, admin) => {
                if let (Ok(Some(_)), Some(path)) = (&control, &args.control) {
                    let _ = std::fs::remove_file(path);
                }
                let errors = [log.err(), control.err(), admin.err()];
                let mut errors: Vec<_> = errors.into_iter().flatten().collect();
                Err(match errors.len() {
                    1 => errors.remove(0),
                    _ => ProxyError::Several(errors),
                })
            }
        }
    }
}

async fn supervise(
    args: &ProxyArgs,
    (control, admin): (Option<UnixListener>, Option<TcpListener>),
    log: Option<&LogWriter>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<(), ProxyError> {
    let mut signals = Signals::new()?;
    let started = Threads::start(args, log, threads)?;
    let supervisor = Rc::clone(&started.supervisor);
    let (health, reports) = (Rc::clone(&supervisor), Rc::clone(&supervisor));
    let tickets = Rc::clone(&supervisor);
    let (latency, hand_overs) = (Rc::clone(&supervisor), Rc::clone(&supervisor));
    let mut tasks = vec![
        tokio::task::spawn_local(async move { health.publish_health().await }),
        tokio::task::spawn_local(async move { reports.take_reports(started.reports).await }),
        tokio::task::spawn_local(async move { tickets.renew_ticket_keys().await }),
        tokio::task::spawn_local(async move { latency.watch_latency().await }),
        tokio::task::spawn_local(async move { hand_overs.end_lapsed_hand_overs().await }),
        tokio::task::spawn_local(peers::share(Rc::clone(&supervisor))),
    ];
    if let Some(admin) = admin {
        let served = admin::serve(admin, Rc::clone(&supervisor));
        tasks.push(tokio::task::spawn_local(served));
    }
    if let Some(config) = args.config.clone() {
        let serving = frontends(&config);
        let configured = supervisor.configure(config).await;
        configured.map_err(ProxyError::Refused)?;
        tracing::info!(frontends = serving, "serving");
    }
    let control = control
        .map(|control| tokio::task::spawn_local(control::serve(control, Rc::clone(&supervisor))));
    signals
        .until_asked_to_end(&supervisor, log, args.reload.as_ref())
        .await;
    let limit = args.hard_stop_after;
    tracing::info!(?limit, "shutting down: requests in flight may still end");
    tokio::select! {
        () = supervisor.end(args.keeper.is_some(), limit) => {}
        () = signals.until_interrupted() => {}
    }
    tasks.extend(control);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
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

fn open_log(log: &AccessLog) -> Result<LogWriter, ProxyError> {
    LogWriter::start(&log.to, log.format).map_err(|source| {
        let to = log.to.clone();
        ProxyError::AccessLog { to, source }
    })
}

fn bind_control(path: &Path) -> Result<UnixListener, ProxyError> {
    control::bind(path).map_err(|source| ProxyError::Control {
        path: path.to_owned(),
        source,
    })
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener, ProxyError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ProxyError::Admin { address, source })
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
            supervisor: Supervisor::new(orders, workers, lost, secret()?),
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

/// The signals that a proxy handles.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reopen: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
    /// SIGUSR2: HAProxy's master process reloads on it.
    others: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
            others: signal(SignalKind::user_defined2())?,
        })
    }

    async fn until_asked_to_end(
        &mut self,
        supervisor: &Supervisor,
        log: Option<&LogWriter>,
        reload: Option<&Reload>,
    ) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reopen.recv() => if let Some(log) = log {
                    log.reopen();
                },
                _ = self.reload.recv() => match reload {
                    Some(reload) => tokio::select! {
                        () = reload.again(supervisor) => {}
                        _ = self.terminate.recv() => return,
                        _ = self.interrupt.recv() => return,
                    },
                    None => tracing::info!("SIGHUP ignored: there is no file to reload"),
                },
                _ = self.others.recv() => {
                    tracing::warn!("SIGUSR2 ignored: SIGHUP reloads the file");
                }
            }
        }
    }

    async fn until_interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}
