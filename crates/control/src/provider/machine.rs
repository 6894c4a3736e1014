//! A machine: every server that is placed on it as systemd units.
//!
//! One process on each machine follows the placement. It starts and stops the units of its own servers and asks the processes of the
//! other machines for what those have. When it ends, every server goes on.

pub mod boot;
pub mod harm;
mod identity;
mod keys;
mod order;
mod peers;
mod power;
mod prepare;
mod servers;
mod units;

pub use order::known as known_order;
pub use peers::{
    AuthorityFiles, FetchRequest, PORT, PeerError, Peers, PowerRequest, SecretFiles, host_of,
    name_of,
};
pub use prepare::kept_secrets;
pub use servers::run;
pub use units::{files as unit_files, program};

use super::folder::store_over;
use super::seal::SealRequest;
use super::{Delivery, Elsewhere, Parcel};
use crate::api::machine::MachineSetup;
use crate::api::{Access, Disk, Enter, Harm};
use gaiola_agent::state::{Order, State, read_json};
use gaiola_core::machines::{self, Held, Power};
use gaiola_core::topology;
use gaiola_model::inventory::Host;
use gaiola_model::placement::{BootNumber, Placement, ReleaseNumber, Revision};
use gaiola_model::secret::Sealed;
use gaiola_model::{ServerName, SiteName};
use gaiola_net::pki::PkiError;
use gaiola_store::view::View;
use gaiola_store::{Settings, Store, etcd};
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use units::{UnitError, Units};

/// The user that the site's own processes run as.
pub const SITE_USER: &str = "gaiola-site";
/// The user that etcd runs as, except on database servers.
pub const STORE_USER: &str = "gaiola-store";

/// Where clients enter a site of which nothing is known yet.
const HTTP: u16 = 80;

/// Why a machine's process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// It was never prepared, or its part cannot be read.
    #[error("cannot read this machine's part in the site, {}: is it prepared?", path.display())]
    Setup {
        /// Where it is kept.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The order that it knew last cannot be read.
    #[error("cannot read {}, which another version may have written: use that version", path.display())]
    Order {
        /// Where it is kept.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no certificate, or cannot use it.
    #[error("cannot use this machine's certificate")]
    Certificate(#[from] PkiError),
}

/// Why a harm was not done.
#[derive(Debug, thiserror::Error)]
pub enum HarmError {
    /// Nothing knows where it stands.
    #[error("there is no {0}")]
    Unknown(ServerName),
    /// Not built.
    #[error("{0} is possible in the lab only, not on machines yet")]
    NotYet(&'static str),
    /// Its units.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The machine that it stands on.
    #[error("cannot reach the machine {host}")]
    Peer {
        /// The machine.
        host: Host,
        /// Why.
        source: PeerError,
    },
}

/// Power over the servers of this machine. All that use it run on one thread.
pub struct Machine {
    site: SiteName,
    state: State,
    /// This machine's part in the site.
    setup: RefCell<MachineSetup>,
    /// The other machines.
    pub peers: Peers,
    units: Units,
    held: RefCell<Held>,
    /// The revision of a server's last report before it was switched on: its agent is dead, but its lease may still stand.
    stale: RefCell<BTreeMap<ServerName, Revision>>,
    /// The last boot of each server that is over, as it is reported to the store.
    over: watch::Sender<BTreeMap<ServerName, BootNumber>>,
    /// Servers that are to be on and could not be switched on, and why.
    trouble: RefCell<BTreeMap<ServerName, String>>,
    order: watch::Receiver<Option<Rc<Order>>>,
    view: watch::Receiver<View>,
    /// Something is to be done about the servers.
    wake: Notify,
    /// A site is being brought down by this process.
    ending: Cell<bool>,
    /// What the last `up` or `down` said.
    power: Cell<Power>,
    /// Machines that the last `down` did not stop, each with the reason.
    not_stopped: RefCell<Vec<String>>,
}

impl Machine {
    /// The machine with this state directory. Of the order nothing is followed yet.
    ///
    /// # Errors
    /// Where it is not prepared, or has no certificate.
    pub fn new(
        site: SiteName,
        state: State,
        order: watch::Receiver<Option<Rc<Order>>>,
        view: watch::Receiver<View>,
    ) -> Result<Rc<Self>, MachineError> {
        let setup = read_setup(&state)?;
        let path = state.power();
        let power = power::known(&path).map_err(|source| MachineError::Setup { path, source })?;
        let held = Held {
            is_down: !power.is_up,
            ..Held::default()
        };
        Ok(Rc::new(Self {
            site,
            peers: Peers::new(&state.pki())?,
            state,
            setup: RefCell::new(setup),
            units: Units::default(),
            held: RefCell::new(held),
            stale: RefCell::default(),
            over: watch::Sender::default(),
            trouble: RefCell::default(),
            order,
            view,
            wake: Notify::new(),
            ending: Cell::new(false),
            power: Cell::new(power),
            not_stopped: RefCell::default(),
        }))
    }

    /// This machine's name.
    pub fn host(&self) -> Host {
        self.setup.borrow().host.clone()
    }

    /// The address that the other machines use.
    pub fn address(&self) -> IpAddr {
        self.setup.borrow().address
    }

    /// Reads this machine's part again: the machines of the site may be others by now.
    pub fn reload(&self) {
        match read_setup(&self.state) {
            Ok(setup) => _ = self.setup.replace(setup),
            Err(error) => tracing::warn!("{}", gaiola_os::chain(&error)),
        }
    }

    /// Whether this is another machine of the site.
    pub fn knows(&self, host: &Host) -> bool {
        self.others().contains_key(host)
    }

    /// The other machines and their addresses.
    pub fn others(&self) -> BTreeMap<Host, IpAddr> {
        let setup = self.setup.borrow();
        let prepared = setup.machines.iter();
        let prepared = prepared.map(|machine| (machine.host.clone(), machine.address));
        let order = self.order.borrow();
        let placement = order.as_ref().map(|order| &order.placement);
        let mut all = machines::addresses(prepared, placement);
        all.remove(&setup.host);
        all
    }

    /// Encrypts a secret, here or on the first machine that keeps the site's passwords.
    pub async fn seal(&self, asked: &SealRequest) -> Result<Sealed, String> {
        if let Some((secrets, _)) = kept_secrets(&self.state) {
            let sealed = asked.seal(&self.site, &secrets.sealing_key());
            return sealed.map_err(|error| error.to_string());
        }
        let mut last = None;
        for (host, address) in self.others() {
            match self.peers.seal(address, asked).await {
                Ok(sealed) => return Ok(sealed),
                Err(error) => last = Some(format!("{host}: {}", gaiola_os::chain(&error))),
            }
        }
        let last = last.unwrap_or_else(|| "there is no other machine".into());
        Err(format!(
            "no machine that keeps the site's passwords did it; the last one asked said: {last}"
        ))
    }

    /// The addresses of all machines, as this one was prepared last.
    pub fn prepared_addresses(&self) -> BTreeSet<IpAddr> {
        let setup = self.setup.borrow();
        setup
            .machines
            .iter()
            .map(|machine| machine.address)
            .collect()
    }

    /// The orders that the other machines know, and which of them did not answer.
    pub async fn orders_elsewhere(self: &Rc<Self>) -> Elsewhere {
        let mut questions = JoinSet::new();
        let mut silent: BTreeSet<Host> = BTreeSet::new();
        for (host, address) in self.others() {
            silent.insert(host.clone());
            let machine = Rc::clone(self);
            questions.spawn_local(async move { (host, machine.peers.order(address).await) });
        }
        let mut orders = Vec::new();
        while let Some(answer) = questions.join_next().await {
            // A machine that does not answer is no error here: its process may not run yet.
            if let Ok((host, Ok(order))) = answer {
                silent.remove(&host);
                orders.extend(order);
            }
        }
        orders.sort_by_key(|order| Reverse(order.revision));
        let silent = silent.into_iter().collect();
        Elsewhere { orders, silent }
    }

    /// Whether another machine took the place of this one.
    pub fn is_lost(&self) -> bool {
        let order = self.order.borrow();
        let is_lost = |order: &Rc<Order>| machines::is_lost(&order.placement, &self.host());
        order.as_ref().is_some_and(is_lost)
    }

    /// Whether the process of a machine answers; this one's does.
    pub async fn answers(&self, host: &Host) -> bool {
        let address = self.others().remove(host);
        match address {
            Some(address) => self.peers.order(address).await.is_ok(),
            None => *host == self.host(),
        }
    }

    /// The site's store, as this machine reaches it.
    ///
    /// # Errors
    /// Where it has no certificate.
    pub fn open_store(&self, placement: &Placement) -> Result<Store, PkiError> {
        let tls = gaiola_net::pki::client_config(&self.state.pki())?;
        Ok(Store::new(Settings::new(
            etcd::endpoints(placement),
            Some(tls),
        )))
    }

    /// Stores which boots of this machine's servers are over.
    pub async fn store_over(self: Rc<Self>, store: Store) {
        store_over(&self.site, self.over.subscribe(), store).await;
    }

    /// Whether a server is on: one of this machine's by its units, another one by its report.
    pub fn is_on(&self, server: ServerName) -> bool {
        match self.host_of_server(server) {
            Some(host) if host != self.host() => self.view.borrow().observed.contains_key(&server),
            _ => self.held.borrow().on.contains(&server),
        }
    }

    /// Servers of this machine that were switched off, or ended, and stay off.
    pub fn off(&self) -> BTreeSet<ServerName> {
        self.held.borrow().off.clone()
    }

    /// Servers of this machine that could not be switched on, and why.
    pub fn trouble(&self) -> BTreeMap<ServerName, String> {
        self.trouble.borrow().clone()
    }

    /// Up to which revision the reports of a server are of an earlier boot.
    pub fn outdated(&self, server: ServerName) -> Option<Revision> {
        self.stale.borrow().get(&server).copied()
    }

    /// The last words of an etcd of this machine that ended, or what keeps a member of the store from starting here.
    pub fn store_trouble(&self, placement: &Placement) -> Option<String> {
        let here = machines::servers_on(placement, &self.host());
        let last_words = |server: &ServerName| {
            let log = self.state.server(*server).join("log/etcd.log");
            let log = std::fs::read_to_string(log).ok()?;
            Some(format!("etcd on {server}: {}", etcd::last_words(&log)?))
        };
        let members = placement.store.iter();
        (members.filter(|server| here.contains(server))).find_map(last_words)
    }

    /// How a server's processes are reached: by SSH, from wherever the operator is.
    pub fn server(&self, server: ServerName) -> Access {
        let host = self.host_of_server(server);
        let host = host.filter(|_| self.is_on(server));
        Access {
            enter: host.map(|host| Enter::Ssh { host }),
            disk: Disk::Unknown,
            client: None,
            wide_client: None,
        }
    }

    /// How commands are run beside the servers: on this machine.
    pub fn network(&self) -> Access {
        Access {
            enter: Some(Enter::Ssh { host: self.host() }),
            disk: Disk::Unknown,
            client: None,
            wide_client: None,
        }
    }

    /// Where clients enter: an open door, or else this machine.
    pub fn entry(&self) -> SocketAddr {
        let order = self.order.borrow();
        let doors = order
            .as_ref()
            .map(|order| topology::front_door(&order.placement));
        let door = doors.and_then(|doors| doors.first().copied());
        door.unwrap_or_else(|| SocketAddr::new(self.address(), HTTP))
    }

    /// Has the other machines that need a new release fetch it from this one.
    pub(super) fn spread(self: &Rc<Self>, parcel: &Parcel<'_>) -> JoinSet<Delivery> {
        let others = self.others();
        let (number, release) = (parcel.release.number, parcel.release.digest.parse().ok());
        let tls = parcel.config.tls();
        let certificates = tls.and_then(|tls| tls.contents.parse().ok());
        let mut deliveries = JoinSet::new();
        for (to, parts) in machines::recipients(parcel.config, parcel.inventory) {
            let Some(address) = others.get(&to).copied() else {
                continue;
            };
            let fetch = FetchRequest {
                release: release.clone().filter(|_| parts.release),
                certificates: certificates.clone().filter(|_| parts.certificates),
            };
            let machine = Rc::clone(self);
            deliveries.spawn_local(async move {
                let done = machine.deliver(address, number, &fetch).await;
                let failed = done.err().map(|error| gaiola_os::chain(&error));
                Delivery { to, failed }
            });
        }
        deliveries
    }

    async fn deliver(
        &self,
        address: IpAddr,
        number: ReleaseNumber,
        fetch: &FetchRequest,
    ) -> Result<(), PeerError> {
        // A machine that is away is known within seconds; one that fetches may take minutes.
        self.peers.order(address).await?;
        self.peers.fetch(address, number, fetch).await
    }

    /// Does a harm, or takes it back.
    ///
    /// # Errors
    /// Where it could not be done.
    pub async fn harm(self: &Rc<Self>, harm: Harm) -> Result<(), HarmError> {
        match harm {
            Harm::ShutDown(server) => self.switch(server, false).await,
            Harm::PowerOn(server) => self.switch(server, true).await,
            Harm::CutPower(_) => Err(HarmError::NotYet("cutting a server's power")),
            Harm::Unplug(_) | Harm::Plug(_) => Err(HarmError::NotYet("pulling a cable")),
            Harm::Begin { .. } | Harm::End(_) => Err(HarmError::NotYet("such a fault")),
        }
    }

    async fn switch(self: &Rc<Self>, server: ServerName, on: bool) -> Result<(), HarmError> {
        let host = self.host_of_server(server);
        let host = host.ok_or(HarmError::Unknown(server))?;
        if host == self.host() {
            if on {
                self.start(server);
                return Ok(());
            }
            return Ok(servers::switch_off(self, server).await?);
        }
        let address = self.others().remove(&host);
        let address = address.ok_or(HarmError::Unknown(server))?;
        let one = PowerRequest::Servers(vec![server]);
        let done = if on {
            self.peers.start(address, &one).await
        } else {
            self.peers.stop(address, &one).await
        };
        done.map_err(|source| HarmError::Peer { host, source })
    }

    fn host_of_server(&self, server: ServerName) -> Option<Host> {
        let order = self.order.borrow();
        let placed = order.as_ref()?.placement.servers.get(&server)?;
        Some(placed.location.host.clone())
    }
}

fn read_setup(state: &State) -> Result<MachineSetup, MachineError> {
    let path = state.machine();
    read_json(&path).map_err(|source| MachineError::Setup { path, source })
}

fn remove_file(path: PathBuf) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
