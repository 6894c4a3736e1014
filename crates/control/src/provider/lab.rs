//! The lab: every server of a site as namespaces of one machine.
//!
//! One process holds a network namespace with a bridge in it, switches servers on and off as the placement says, and leads in by
//! the front door. When it dies, all of it is gone but the data.

pub mod disk;
pub mod faults;
pub mod front_door;
pub mod hardware;
pub mod network;
pub mod order;
pub mod servers;

use super::folder::{self, boot_number, store_over};
use super::seal::SealRequest;
use crate::api::{Access, Disk, Enter, Harm};
use faults::FaultError;
use front_door::Targets;
use gaiola_agent::state::{Order, State};
use gaiola_core::topology;
use gaiola_model::placement::{BootNumber, ObservedProvider, Placement, Revision};
use gaiola_model::schema::SCHEMA;
use gaiola_model::secret::Sealed;
use gaiola_model::{ServerName, SiteName};
use gaiola_net::pki::{Authority, PkiError};
use gaiola_os::namespace;
use gaiola_os::netlink::NetlinkError;
use gaiola_os::process::{self, User, is_root};
use gaiola_store::view::{Keys, View};
use gaiola_store::{Settings, Store, etcd};
use hardware::Hardware;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Why the lab cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Another lab of the same site runs.
    #[error("the site {0} is up already")]
    AlreadyUp(SiteName),
    /// A port of the host is taken.
    #[error(
        "cannot listen on {address} for {what}: {source}; is another program or site there? choose another with {option}"
    )]
    Listen {
        /// What would have been there.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// How to choose another.
        option: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Namespaces are refused.
    #[error("cannot make the lab's namespaces: {0}; run it as root, or allow user namespaces")]
    Namespaces(String),
    /// A user that processes are to run as is missing.
    #[error(
        "there is no user {0} on this machine, which PostgreSQL and the site's processes are to run as; install PostgreSQL by its package"
    )]
    NoUser(&'static str),
    /// The site's certificate authority cannot be made or read.
    #[error("cannot make the site's certificate authority: {}", gaiola_os::chain(.0))]
    Authority(PkiError),
    /// The kernel rejected the lab's network.
    #[error("cannot set up the lab's network: {}", gaiola_os::chain(.0))]
    Network(NetlinkError),
    /// Anything else of the system.
    #[error("cannot {tried}: {source}")]
    System {
        /// What was tried.
        tried: String,
        /// Why it failed.
        source: io::Error,
    },
}

pub(crate) fn system(tried: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let tried = tried.into();
    move |source| LabError::System { tried, source }
}

/// Why a harm was not done.
#[derive(Debug, thiserror::Error)]
pub enum HarmError {
    /// Nothing is left to switch off.
    #[error("{0} is off already")]
    OffAlready(ServerName),
    /// A cable.
    #[error(transparent)]
    Cable(#[from] NetlinkError),
    /// A fault that is held.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

/// The users that the servers' processes run as.
#[derive(Clone, Copy, Debug, Default)]
pub struct Users {
    /// etcd, Patroni and PostgreSQL.
    pub database: Option<User>,
    /// The site's own processes.
    pub site: Option<User>,
}

/// Power over the servers. All that use it run on one thread.
pub struct Lab {
    site: SiteName,
    state: State,
    /// The site's certificate authority.
    authority: Authority,
    /// The users that processes run as.
    users: Users,
    /// Whether this process is in its own user namespace.
    rootless: bool,
    /// The servers and their cables.
    hardware: RefCell<Hardware>,
    /// Servers that died, or were switched off by the operator: they stay off until they are switched on again.
    off: RefCell<BTreeSet<ServerName>>,
    /// The revision of a server's last report before it was switched on: its agent is dead, but its lease may still stand.
    stale: RefCell<BTreeMap<ServerName, Revision>>,
    /// The last boot of each server that is over, as it is reported to the store.
    over: watch::Sender<BTreeMap<ServerName, BootNumber>>,
    /// The last boot of any server.
    last_boot: Cell<BootNumber>,
    /// Servers that could not be switched on, and why.
    trouble: RefCell<BTreeMap<ServerName, String>>,
    /// What is followed.
    order: watch::Receiver<Option<Rc<Order>>>,
    /// What the store holds.
    view: watch::Receiver<View>,
    /// Notified when servers may need to be switched on or off.
    wake: Notify,
    /// Set once everything is to end.
    ending: Cell<bool>,
    /// Faults in force, the oldest first.
    faults: RefCell<Vec<faults::ActiveFault>>,
    /// The number of the next fault.
    next_fault: Cell<u64>,
    /// What faults take of the disks.
    room: disk::Room,
    targets: watch::Sender<Targets>,
}

impl Lab {
    /// Encrypts a secret with the key that follows from the site's passwords.
    pub fn seal(&self, asked: &SealRequest) -> Result<Sealed, String> {
        let order = self.order.borrow().clone();
        let schema = order.map_or(SCHEMA, |order| order.placement.schema);
        let secrets = folder::secrets(&self.state, schema);
        let secrets = secrets.map_err(|error| gaiola_os::chain(&error))?;
        let sealed = asked.seal(&self.site, &secrets.sealing_key());
        sealed.map_err(|error| error.to_string())
    }

    /// Enters namespaces of the lab's own and puts up its network. Of the order nothing is followed yet.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn new(
        site: SiteName,
        order: watch::Receiver<Option<Rc<Order>>>,
        view: watch::Receiver<View>,
    ) -> Result<Rc<Self>, LabError> {
        let rootless = !is_root();
        let users = users(rootless)?;
        if rootless {
            namespace::user_namespaces_allowed()
                .map_err(|error| LabError::Namespaces(error.to_string()))?;
            namespace::enter_user_namespace()
                .map_err(|error| LabError::Namespaces(error.to_string()))?;
        }
        namespace::enter_network_namespace()
            .map_err(|error| LabError::Namespaces(error.to_string()))?;
        let state = State::of(&site);
        let authority =
            Authority::create_or_load(&state.authority()).map_err(LabError::Authority)?;
        // No server outlives its lab: whatever was on before this one is off.
        let now = boot_number(BootNumber(0));
        let servers_of = |order: &Rc<Order>| {
            let run = order.placement.release_run.as_ref().map(|run| run.server);
            let servers = order.placement.servers.keys().copied();
            servers.chain(run).collect::<Vec<_>>()
        };
        let servers = order
            .borrow()
            .iter()
            .flat_map(servers_of)
            .collect::<Vec<_>>();
        let over = servers.into_iter().map(|server| (server, now)).collect();
        // The pidfds of the servers are polled by a runtime, which is entered later.
        let hardware = Hardware::new().map_err(LabError::Network)?;
        Ok(Rc::new(Self {
            site,
            state,
            authority,
            users,
            rootless,
            hardware: RefCell::new(hardware),
            off: RefCell::default(),
            stale: RefCell::default(),
            over: watch::Sender::new(over),
            last_boot: Cell::new(now),
            trouble: RefCell::default(),
            order,
            view,
            wake: Notify::new(),
            ending: Cell::new(false),
            faults: RefCell::default(),
            next_fault: Cell::default(),
            room: disk::Room::default(),
            targets: watch::Sender::new(Targets::default()),
        }))
    }

    /// Where the front door leads to.
    pub fn targets(&self) -> watch::Receiver<Targets> {
        self.targets.subscribe()
    }

    /// Points the front door at the order's open doors, until the order's sender is dropped.
    pub async fn lead(self: Rc<Self>) {
        let mut orders = self.order.clone();
        loop {
            if let Some(order) = &*orders.borrow_and_update() {
                self.lead_to(&order.placement);
            }
            if orders.changed().await.is_err() {
                return;
            }
        }
    }

    /// The number of a server's next boot.
    fn next_boot(&self) -> BootNumber {
        let next = boot_number(self.last_boot.get());
        self.last_boot.set(next);
        next
    }

    /// Stores which boots are over: nothing of them runs any more.
    pub async fn store_over(self: Rc<Self>, store: Store) {
        store_over(&self.site, self.over.subscribe(), store).await;
    }

    /// Reports what this process reads, until it is stored.
    pub async fn report(self: Rc<Self>, store: Store) {
        let key = Keys::of(&self.site).provider();
        let report = ObservedProvider { reads: SCHEMA };
        while let Err(error) = store.put_json(&key, &report, None).await {
            let error = gaiola_os::chain(&error);
            tracing::warn!(error, "cannot store what the provider reads");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn lead_to(&self, placement: &Placement) {
        let doors = topology::front_door(placement).into_iter();
        let addresses = doors.map(|door| (door, topology::speaks_proxy_protocol(placement, door)));
        let targets = Targets {
            addresses: addresses.collect(),
        };
        self.targets.send_if_modified(|held| {
            let changed = *held != targets;
            *held = targets;
            changed
        });
    }

    /// The site's store, as the lab reaches it.
    ///
    /// # Errors
    /// If the lab cannot have a certificate.
    pub fn open_store(&self, placement: &Placement) -> Result<Store, PkiError> {
        let folder = self.state.folder().join("pki");
        self.authority
            .issue("lab", &[network::BRIDGE.into()], &folder)?;
        let tls = gaiola_net::pki::client_config(&folder)?;
        Ok(Store::new(Settings::new(
            gaiola_store::etcd::endpoints(placement),
            Some(tls),
        )))
    }

    /// Whether a server has power.
    pub fn is_on(&self, server: ServerName) -> bool {
        self.hardware.borrow().identity(server).is_some()
    }

    /// Servers that died or were switched off, and stay off.
    pub fn off(&self) -> BTreeSet<ServerName> {
        self.off.borrow().clone()
    }

    /// Lets servers that are off be switched on again.
    pub fn retry(&self) {
        self.off.borrow_mut().clear();
        self.wake.notify_one();
    }

    /// Servers that could not be switched on, and why.
    pub fn trouble(&self) -> BTreeMap<ServerName, String> {
        self.trouble.borrow().clone()
    }

    /// Up to which revision the reports of a server are of an earlier boot.
    pub fn outdated(&self, server: ServerName) -> Option<Revision> {
        self.stale.borrow().get(&server).copied()
    }

    /// The last words of an etcd that ended. While there is no store, no agent can report them.
    pub fn store_trouble(&self, placement: &Placement) -> Option<String> {
        let last_words = |server: &ServerName| {
            let log = self.state.server(*server).join("log/etcd.log");
            let log = std::fs::read_to_string(log).ok()?;
            Some(format!("etcd on {server}: {}", etcd::last_words(&log)?))
        };
        placement.store.iter().find_map(last_words)
    }

    /// A server's processes, and its disk.
    pub fn server(&self, server: ServerName) -> Access {
        let identity = self.hardware.borrow().identity(server);
        Access {
            enter: identity.map(|identity| self.enter(identity.pid)),
            disk: disk::of(self, server),
            client: None,
            wide_client: None,
        }
    }

    /// How commands are run in the network of the servers: that of the lab's own process.
    pub fn network(&self) -> Access {
        Access {
            enter: Some(self.enter(std::process::id())),
            disk: Disk::Unknown,
            client: Some(network::CLIENT.into()),
            wide_client: Some(network::WIDE_CLIENT.into()),
        }
    }

    const fn enter(&self, pid: u32) -> Enter {
        Enter::Namespaces {
            pid,
            user: self.rootless,
        }
    }

    /// Whether everything is to end.
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Brings everything down.
    pub fn end(&self) {
        self.ending.set(true);
        self.wake.notify_one();
    }

    /// Does a harm, or takes it back.
    ///
    /// # Errors
    /// If it could not be done.
    pub async fn harm(self: &Rc<Self>, harm: Harm) -> Result<(), HarmError> {
        match harm {
            Harm::CutPower(server) => {
                let process = self.hardware.borrow().process(server);
                let process = process.ok_or(HarmError::OffAlready(server))?;
                self.hardware.borrow_mut().cut_power(server);
                hardware::died(&process).await;
                Ok(())
            }
            Harm::Unplug(server) => Ok(self.hardware.borrow_mut().set_cable(server, false)?),
            Harm::Plug(server) => Ok(self.hardware.borrow_mut().set_cable(server, true)?),
            Harm::ShutDown(server) => {
                servers::stop(self, server).await;
                Ok(())
            }
            Harm::PowerOn(server) => {
                self.off.borrow_mut().remove(&server);
                self.wake.notify_one();
                Ok(())
            }
            Harm::Begin { target, for_ms } => {
                Ok(faults::begin(self, target, Duration::from_millis(for_ms)).await?)
            }
            Harm::End(target) => Ok(faults::end(self, &target)?),
        }
    }
}

fn users(rootless: bool) -> Result<Users, LabError> {
    if rootless {
        return Ok(Users::default());
    }
    let find = |name| process::find_user(name).ok_or(LabError::NoUser(name));
    Ok(Users {
        database: Some(find("postgres")?),
        site: Some(find("nobody")?),
    })
}
