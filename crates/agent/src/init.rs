//! `gaiola pid1`: pid 1 of a lab server. Starts agent and keeper, restarts them at once when they die, reaps orphans.

pub mod certificate;
mod disk;

pub use disk::DiskError;

use crate::state::Boot;
use gaiola_model::{ServerName, Tier};
use gaiola_net::pki::{Issued, Subject};
use gaiola_os::namespace;
use gaiola_os::netlink::{Lifetime, Netlink, NetlinkError};
use gaiola_os::process::{self, Identity, Launch};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// A process that lived this long is restarted at once when it dies; otherwise it is restarted after this delay.
const SETTLED: Duration = Duration::from_millis(500);
/// Stop timeout; then every process on the server is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The part of it that remaining processes get after agent and keeper have ended.
const REST_LIMIT: Duration = Duration::from_secs(3);
/// Timeout for the cable to be plugged in.
const CABLE_LIMIT: Duration = Duration::from_secs(10);

/// Why a server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Its directory, a namespace or the runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its network.
    #[error("cannot configure the network of {server}")]
    Network {
        /// The server.
        server: ServerName,
        /// Why.
        source: NetlinkError,
    },
    /// It has no network: the lab did not connect it in time.
    #[error("no cable was plugged into {0}")]
    NoCable(ServerName),
}

/// Runs until SIGTERM has stopped everything on this server. Standard input is the socket of [`certificate`].
///
/// # Errors
/// If the server cannot be set up.
pub fn run(folder: &Path) -> Result<(), InitError> {
    let boot = Boot::load(folder)?;
    get_certificate(&boot)?;
    namespace::set_host_name(&boot.server.to_string())?;
    namespace::mount_server_folders()?;
    disk::attach(&boot)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(boot.run())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        configure_network(&boot).await?;
        Ok(supervise(&boot).await?)
    })
}

fn get_certificate(boot: &Boot) -> io::Result<()> {
    let name = boot.server.to_string();
    let (addresses, user) = ([boot.location.address], boot.database_user);
    let subject = Subject::new(&name, &addresses, &boot.pki(), user);
    match certificate::obtain(&subject) {
        Ok(Issued::New) => tracing::info!("{name} has a new certificate"),
        Ok(Issued::Kept) => {}
        Err(error) => {
            let failed = format!("cannot get a certificate for {name}: {error}");
            return Err(io::Error::new(error.kind(), failed));
        }
    }
    Ok(())
}

async fn configure_network(boot: &Boot) -> Result<(), InitError> {
    let server = boot.server;
    let failed = |source| InitError::Network { server, source };
    let mut netlink = Netlink::open().map_err(failed)?;
    netlink.set_up("lo").map_err(failed)?;
    let deadline = Instant::now() + CABLE_LIMIT;
    while !netlink.link_exists(&boot.interface).map_err(failed)? {
        if Instant::now() >= deadline {
            return Err(InitError::NoCable(server));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    netlink
        .add_address(
            &boot.interface,
            boot.location.address,
            boot.prefix_length,
            Lifetime::Forever,
        )
        .map_err(failed)?;
    for further in &boot.further {
        let (ip, prefix) = (further.addr(), further.prefix_len());
        if let Err(error) = netlink.add_address(&boot.interface, ip, prefix, Lifetime::Forever) {
            let error = gaiola_os::chain(&error);
            tracing::warn!(error, "this server has no such address");
        }
    }
    netlink.set_up(&boot.interface).map_err(failed)?;
    Ok(namespace::allow_low_ports()?)
}

/// A process that pid 1 keeps running.
struct Kept {
    name: &'static str,
    args: &'static [&'static str],
    running: Option<Identity>,
    started: Instant,
    start_at: Instant,
}

fn kept(tier: Tier) -> Vec<Kept> {
    let now = Instant::now();
    let kept = |name, args| Kept {
        name,
        args,
        running: None,
        started: now,
        start_at: now,
    };
    let mut all = Vec::new();
    match tier {
        // The keeper first: the VIPs depend on it.
        Tier::Balancer => all.push(kept("keeper", &["keeper", "vip"])),
        Tier::Database => all.push(kept("keeper", &["keeper", "database"])),
        Tier::Web | Tier::App => {}
    }
    all.push(kept("agent", &["agent"]));
    all
}

async fn supervise(boot: &Boot) -> io::Result<()> {
    let mut child_ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut all = kept(boot.server.tier);
    loop {
        for kept in &mut all {
            start_when_due(boot, kept);
        }
        let next = all
            .iter()
            .filter(|kept| kept.running.is_none())
            .map(|kept| kept.start_at)
            .min();
        tokio::select! {
            _ = child_ended.recv() => reap(&mut all),
            _ = terminate.recv() => return stop(boot.server.tier, &all, &mut child_ended).await,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

fn start_when_due(boot: &Boot, kept: &mut Kept) {
    let now = Instant::now();
    if kept.running.is_some() || now < kept.start_at {
        return;
    }
    kept.started = now;
    kept.start_at = now + SETTLED;
    match process::launch(&launch_of(boot, kept)) {
        Ok(identity) => kept.running = Some(identity),
        Err(error) => tracing::error!(process = kept.name, %error, "cannot start a process"),
    }
}

fn launch_of(boot: &Boot, kept: &Kept) -> Launch {
    let mut args: Vec<OsString> = kept.args.iter().map(OsString::from).collect();
    args.push("--boot".into());
    args.push(boot.folder().into());
    Launch {
        program: boot.program().into(),
        args,
        env: vec![("PATH".into(), boot.path.clone().into())],
        cwd: "/".into(),
        log: boot.logs().join(format!("{}.log", kept.name)),
        user: None,
        privileged: true,
    }
}

fn reap(all: &mut [Kept]) {
    let now = Instant::now();
    for pid in process::reap_all() {
        if let Some(kept) = all
            .iter_mut()
            .find(|kept| kept.running.is_some_and(|identity| identity.pid == pid))
        {
            kept.running = None;
            kept.start_at = if now - kept.started >= SETTLED {
                now
            } else {
                kept.started + SETTLED
            };
        }
    }
}

/// Stops the processes one after another, in an order that loses nothing; the rest dies with pid 1.
async fn stop(
    tier: Tier,
    all: &[Kept],
    child_ended: &mut tokio::signal::unix::Signal,
) -> io::Result<()> {
    let deadline = Instant::now() + STOP_LIMIT;
    let mut order: Vec<&Kept> = all.iter().collect();
    if tier == Tier::Balancer {
        // The agent moves the VIPs to another balancer, and the keeper must hold them until then.
        order.reverse();
    }
    for identity in order.into_iter().filter_map(|kept| kept.running) {
        process::signal(identity.pid, Signal::TERM);
        wait_while(
            || process::identify(identity.pid).is_ok(),
            deadline,
            child_ended,
        )
        .await;
    }
    // Processes that nobody has stopped: a shell of `gaiola exec`, or those of an agent that was dead just then.
    others()
        .into_iter()
        .for_each(|pid| process::signal(pid, Signal::TERM));
    wait_while(
        || !others().is_empty(),
        deadline.min(Instant::now() + REST_LIMIT),
        child_ended,
    )
    .await;
    Ok(())
}

async fn wait_while(
    condition: impl Fn() -> bool,
    deadline: Instant,
    child_ended: &mut tokio::signal::unix::Signal,
) {
    process::reap_all();
    while condition() && Instant::now() < deadline {
        let _ = tokio::time::timeout(Duration::from_millis(50), child_ended.recv()).await;
        process::reap_all();
    }
}

/// Every process of this server except this one.
fn others() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1)
        .collect()
}
