//! Patroni and PostgreSQL while they run.

use super::ghost::Ghost;
use super::logs::Logs;
use super::reload::Reload;
use super::settle::Settle;
use super::watch::Watch;
use crate::engine::{Api, KeeperDatabase};
use gaiola_net::client::Client;
use gaiola_net::pki;
use gaiola_os::pidns::{Exit, Namespace, Pid1Event, StartStep};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The namespace, and the checks made while it runs.
pub(super) struct Running {
    namespace: Namespace,
    end: AsyncFd<OwnedFd>,
    events: AsyncFd<OwnedFd>,
    since: Instant,
    failed: Option<String>,
    logs: Logs,
    /// Patroni's API; without a certificate it is not called, and only the checks that need it are off.
    api: Option<Api>,
    at: SocketAddr,
    settle: Settle,
    ghost: Ghost,
    watch: Watch,
    reload: Reload,
}

/// The namespace has ended unordered.
pub(super) struct End {
    /// Why, in words.
    pub(super) reason: String,
    /// How long it ran.
    pub(super) lived: Duration,
}

impl Running {
    pub(super) fn new(
        namespace: Namespace,
        logs: Logs,
        order: &KeeperDatabase,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let api = api(order);
        Ok(Self {
            end: namespace.watch_end()?,
            events: namespace.watch_events()?,
            watch: Watch::new(now, namespace.pid(), order, api.clone()),
            namespace,
            since: now,
            failed: None,
            logs,
            api,
            at: order.api,
            reload: Reload::default(),
            settle: Settle::new(now),
            ghost: Ghost::new(now, &order.psql, order.directory()),
        })
    }

    /// Waits for an event, at most for `tick`, and handles it; `Some` when the namespace has ended.
    pub(super) async fn attend(&mut self, tick: Duration) -> Option<End> {
        let something = async {
            tokio::select! {
                _ = self.end.readable() => {}
                ready = self.events.readable() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
            }
        };
        // A timeout is the usual case.
        let _ = timeout(tick, something).await;
        self.see();
        self.poll_due(Instant::now());
        self.over()
    }

    /// Waits until the namespace has ended; `None` when it has not within `limit`.
    pub(super) async fn ended(&mut self, limit: Duration) -> Option<End> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.over() {
                return Some(end);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let _ = timeout(left, self.end.readable()).await;
        }
    }

    /// Signals Patroni to shut PostgreSQL down and exit.
    pub(super) fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Makes Patroni reload its configuration, as soon as it can.
    pub(super) fn reload(&mut self, order: &KeeperDatabase) {
        let now = Instant::now();
        self.watch.reload(now, order);
        self.reload.order(now);
    }

    fn signal(&self, signal: i32) {
        if let Err(error) = self.namespace.signal(signal) {
            tracing::warn!(%error, signal, "cannot signal Patroni");
        }
    }

    fn see(&mut self) {
        for event in self.namespace.events() {
            match event {
                // The postmaster is an orphan, not Patroni's child: this event reports its end.
                Pid1Event::OrphanEnded => self.settle.wake(Instant::now(), true),
                Pid1Event::Signalled => self.settle.wake(Instant::now(), false),
                Pid1Event::Failed { step, errno } => self.failed = Some(failure(step, errno)),
            }
        }
    }

    fn poll_due(&mut self, now: Instant) {
        self.logs.bound(now);
        if let Some(reason) = self.watch.step(now) {
            self.end_for(reason.to_string());
        }
        if self.reload.is_due(now, self.watch.answers()) {
            self.signal(libc::SIGHUP);
        }
        let Some(api) = &self.api else { return };
        self.settle.step(now, api, self.at);
        if let Some(name) = self.ghost.step(now, api, self.at) {
            self.end_for(format!(
                "commits waited for {name}, which is gone, and Patroni did not see it"
            ));
        }
    }

    /// Kills everything at once, so that it is restarted.
    fn end_for(&mut self, reason: String) {
        tracing::warn!(reason, "ending Patroni and PostgreSQL");
        self.failed = Some(reason);
        if let Err(error) = self.namespace.kill() {
            tracing::error!(%error, "cannot end the namespace");
        }
    }

    fn over(&mut self) -> Option<End> {
        let exit = match self.namespace.try_wait() {
            Ok(exit) => exit?,
            Err(error) => {
                tracing::error!(%error, "cannot wait for the namespace");
                return None;
            }
        };
        self.see();
        let reason = self.failed.take().unwrap_or_else(|| match exit {
            Exit::Code(code @ ..128) => {
                format!("Patroni ended with code {code}; see patroni.log and postgres.log")
            }
            Exit::Code(code) => format!("Patroni was killed by signal {}", code - 128),
            Exit::Killed(signal) => format!("Patroni's namespace was killed by signal {signal}"),
        });
        Some(End {
            reason,
            lived: self.since.elapsed(),
        })
    }
}

fn api(order: &KeeperDatabase) -> Option<Api> {
    match pki::client_config(&order.pki) {
        Ok(tls) => Some(Api::new(Client::new(Some(tls)))),
        Err(error) => {
            tracing::warn!(%error, "not polling Patroni's API: no certificate");
            None
        }
    }
}

fn failure(step: StartStep, errno: i32) -> String {
    let doing = match step {
        StartStep::Mount => "mount /proc and /dev/shm in a new namespace",
        StartStep::Privileges => "become the user of PostgreSQL",
        StartStep::Directory => "enter the directory of Patroni's configuration",
        StartStep::Execute => "run patroni",
        StartStep::Other => "prepare the namespace",
    };
    format!("cannot {doing}: {}", io::Error::from_raw_os_error(errno))
}
