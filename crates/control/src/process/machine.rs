//! The process `gaiola machine run`: the servers of one site on this machine, the control socket for its operators, and the answers to
//! the site's other machines.

mod fetch;
mod firewall;
mod orders;
mod replace;
mod serve;
pub mod setup;

use super::{control_socket, lock_file};
use crate::api::SiteInfo;
use crate::monitor::{self, poll};
use crate::provider::Provider;
use crate::provider::machine::{self, Machine, MachineError};
use crate::site::Site;
use crate::socket;
use gaiola_agent::state::State;
use gaiola_model::SiteName;
use gaiola_os::notify;
use gaiola_store::view::View;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_local;

/// Where the status page is, on every machine.
const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// Why a machine's process ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Another one runs.
    #[error("the process of {0} on this machine runs already")]
    Running(SiteName),
    /// Its part in the site.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The system refused.
    #[error("cannot {tried}")]
    System {
        /// What was tried.
        tried: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn system(tried: &'static str) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::System { tried, source }
}

/// Runs until SIGTERM. Servers go on then.
///
/// # Errors
/// Where it cannot begin.
pub fn run(name: &SiteName) -> Result<(), ProcessError> {
    let state = State::of(name);
    state.make().map_err(system("make the state directory"))?;
    let lock = lock_file(&state).map_err(system("open the lock"))?;
    let _lock = lock.ok_or_else(|| ProcessError::Running(name.clone()))?;
    let control = control_socket(&state).map_err(system("open the control socket"))?;
    let (machine, site) = stand(name, state)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("make a runtime"))?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate()).map_err(system("read signals"))?;
        start(&machine, &site, control)?;
        notify::ready();
        terminate.recv().await;
        let _ = std::fs::remove_file(site.state.control_socket());
        Ok(())
    })
}

fn stand(name: &SiteName, state: State) -> Result<(Rc<Machine>, Rc<Site>), ProcessError> {
    let order = machine::known_order(&state)?.map(Rc::new);
    let (order, view) = (
        watch::Sender::new(order),
        watch::Sender::new(View::default()),
    );
    let machine = Machine::new(
        name.clone(),
        state.clone(),
        order.subscribe(),
        view.subscribe(),
    )?;
    let info = SiteInfo {
        site: name.clone(),
        entry: machine.entry(),
        page: PAGE,
    };
    let provider = Provider::Machine(Rc::clone(&machine));
    let site = Rc::new(Site::new(info, state, provider, order, view));
    Ok((machine, site))
}

fn start(
    machine: &Rc<Machine>,
    site: &Rc<Site>,
    control: UnixListener,
) -> Result<(), ProcessError> {
    let control = tokio::net::UnixListener::from_std(control);
    let control = control.map_err(system("open the control socket"))?;
    spawn_local(socket::serve(control, Rc::clone(site)));
    spawn_local(follow_store(Rc::clone(machine), Rc::clone(site)));
    spawn_local(poll::run(Rc::clone(site)));
    spawn_local(serve_page(Rc::clone(site)));
    spawn_local(serve::run(Rc::clone(machine), Rc::clone(site)));
    spawn_local(orders::run(Rc::clone(machine), Rc::clone(site)));
    spawn_local(fetch::run(Rc::clone(machine), Rc::clone(site)));
    spawn_local(firewall::run(Rc::clone(machine), Rc::clone(site)));
    spawn_local(replace::run(Rc::clone(machine), Rc::clone(site)));
    spawn_local(machine::run(Rc::clone(machine)));
    spawn_local(notify::watchdog());
    Ok(())
}

/// Follows the store, and stores which boots are over.
async fn follow_store(machine: Rc<Machine>, site: Rc<Site>) {
    let open = move |placement: &_| {
        let store = machine.open_store(placement)?;
        spawn_local(machine.store_over(store.clone()));
        Ok(store)
    };
    site.follow_store(open).await;
}

/// Serves the status page. Servers do not depend on it: where the port is taken, this process goes on without.
async fn serve_page(site: Rc<Site>) {
    let listener = TcpListener::bind(PAGE).and_then(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    });
    match listener {
        Ok(listener) => monitor::serve::page(listener, site).await,
        Err(error) => tracing::error!(address = %PAGE, %error, "there is no status page"),
    }
}

#[cfg(test)]
mod tests;
