//! The lab: every server of a site as namespaces of one machine.
//!
//! One process holds a network namespace with a bridge in it, switches servers on and off as the placement says, leads
//! in by the front door, and answers the control socket. When it dies, all of it is gone but the data.

pub mod change;
pub mod control;
pub mod disk;
pub mod faults;
pub mod front_door;
pub mod hardware;
pub mod processes;
pub mod provider;
pub mod traffic;

use crate::api::Place;
use front_door::Targets;
use gaiola_agent::state::{Order, State, read_json, write_json};
use gaiola_core::rollout::Facts;
use gaiola_core::topology;
use gaiola_model::event::Event;
use gaiola_model::placement::{BootNumber, Placement};
use gaiola_model::{ServerName, SiteName};
use gaiola_net::pki::Authority;
use gaiola_os::namespace;
use gaiola_os::process::{self, User, is_root};
use gaiola_store::events::Events;
use gaiola_store::view::{self, Keys, View};
use gaiola_store::{Revision, Settings, Store};
use hardware::Hardware;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Events that are kept at hand.
const EVENTS: usize = 40;

/// What the lab process is started with.
#[derive(Clone, Debug)]
pub struct LabArgs {
    /// The site.
    pub site: SiteName,
    /// Where the site is reached.
    pub front_door: SocketAddr,
    /// Where the status page is reached.
    pub page: SocketAddr,
}

/// Why the lab cannot stand.
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
        "there is no user {0} on this machine, whom PostgreSQL and the site's processes are to run as; install PostgreSQL by its package"
    )]
    NoUser(&'static str),
    /// Anything else of the system.
    #[error("cannot {tried}: {source}")]
    System {
        /// What was tried.
        tried: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn system(tried: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let tried = tried.into();
    move |source| LabError::System { tried, source }
}

/// Whom the servers' processes run as.
#[derive(Clone, Copy, Debug, Default)]
pub struct Users {
    /// etcd, Patroni and PostgreSQL.
    pub database: Option<User>,
    /// The site's own processes.
    pub site: Option<User>,
}

/// Everything that the lab's tasks share. All of them run on one thread.
pub struct Lab {
    /// The site.
    pub site: SiteName,
    /// Where it is reached.
    pub place: Place,
    /// Its state directory.
    pub state: State,
    /// Its certificate authority.
    pub authority: Authority,
    /// Whom processes run as.
    pub users: Users,
    /// Whether we stand in a user namespace of our own.
    pub rootless: bool,
    /// The servers and their cables.
    pub hardware: RefCell<Hardware>,
    /// Servers that died, or were switched off by hand: they stay off until they are switched on again.
    pub off: RefCell<BTreeSet<ServerName>>,
    /// The last that was told of a server before it was switched on: its agent is dead, but its lease may still stand.
    pub stale: RefCell<BTreeMap<ServerName, Revision>>,
    /// The last boot of each server that is over; the store is told.
    pub over: watch::Sender<BTreeMap<ServerName, BootNumber>>,
    /// The last boot of any server.
    pub last_boot: Cell<BootNumber>,
    /// Servers that are to be on and could not be switched on, and why.
    pub trouble: RefCell<BTreeMap<ServerName, String>>,
    /// What the hardware follows.
    pub order: watch::Sender<Option<Rc<Order>>>,
    /// What the store holds.
    pub view: watch::Sender<View>,
    /// The store, as soon as it is known where it is.
    pub store: RefCell<Option<Store>>,
    /// Held while a change is under way.
    pub change: tokio::sync::Mutex<()>,
    /// Held while old releases are removed, beside everything else.
    pub pruning: tokio::sync::Mutex<()>,
    /// Something is to be done about the hardware.
    pub poke: Notify,
    /// What was seen so far, and since when.
    pub facts: RefCell<Facts>,
    /// The last events, the newest last.
    pub events: RefCell<VecDeque<Event>>,
    /// When the lab was started.
    pub started: Instant,
    /// Set once everything is to end.
    pub ending: Cell<bool>,
    /// Faults in force, the oldest first.
    pub faults: RefCell<Vec<faults::Held>>,
    /// The number of the next fault.
    pub next_fault: Cell<u64>,
    /// What faults take of the disks.
    pub room: disk::Room,
    /// What proxies and agents count.
    pub traffic: traffic::Traffic,
    targets: watch::Sender<Targets>,
}

/// Runs the lab of one site until it is brought down. Says `ready` or why not on standard output first.
///
/// # Errors
/// Where it cannot stand.
pub fn run(args: LabArgs) -> Result<(), LabError> {
    let started = Sockets::open(&args).and_then(|sockets| Ok((Lab::new(args)?, sockets)));
    match started {
        Ok((lab, sockets)) => {
            gaiola_os::stderr::start();
            say("ready");
            lab.run(sockets)
        }
        Err(error @ LabError::AlreadyUp(_)) => {
            say(UP_ALREADY);
            Err(error)
        }
        Err(error) => {
            say(&error.to_string());
            Err(error)
        }
    }
}

/// Tells whoever started us, if they still listen.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// What [`run`] says where another lab of the site runs.
pub const UP_ALREADY: &str = "up already";

/// What is opened in the host's network namespace, before we leave it.
struct Sockets {
    _lock: File,
    front_door: TcpListener,
    page: TcpListener,
    control: UnixListener,
}

impl Sockets {
    fn open(args: &LabArgs) -> Result<Self, LabError> {
        let state = State::of(&args.site);
        state
            .make()
            .map_err(system(format!("make {}", state.folder().display())))?;
        let lock = lock(&state, &args.site)?;
        let front_door = listen("the front door", args.front_door, "--front-door")?;
        let page = listen("the status page", args.page, "--page")?;
        let control = control_socket(&state).map_err(system("open the control socket"))?;
        Ok(Self {
            _lock: lock,
            front_door,
            page,
            control,
        })
    }
}

fn lock(state: &State, site: &SiteName) -> Result<File, LabError> {
    let path = state.lock();
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(system(format!("open {}", path.display())))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| LabError::AlreadyUp(site.clone()))?;
    Ok(lock)
}

fn listen(
    what: &'static str,
    address: SocketAddr,
    option: &'static str,
) -> Result<TcpListener, LabError> {
    let failed = |source| LabError::Listen {
        what,
        address,
        option,
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Only we may connect: the socket's folder is entered by name alone, the socket itself is mode 0600, and each peer is checked.
fn control_socket(state: &State) -> io::Result<UnixListener> {
    let path = state.control_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = File::open(state.folder())?;
    // A long path does not fit into a socket's address; by way of the open folder it is short.
    let short = format!(
        "/proc/self/fd/{}/control.sock",
        std::os::fd::AsRawFd::as_raw_fd(&folder)
    );
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(short);
    rustix::process::umask(before);
    let listener = listener?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Lab {
    fn new(args: LabArgs) -> Result<Rc<Self>, LabError> {
        let LabArgs {
            site,
            front_door,
            page,
        } = args;
        let rootless = !is_root();
        let users = users(rootless)?;
        if rootless {
            namespace::user_namespaces_allowed().map_err(LabError::Namespaces)?;
            namespace::enter_user_namespace()
                .map_err(|error| LabError::Namespaces(error.to_string()))?;
        }
        namespace::enter_network_namespace()
            .map_err(|error| LabError::Namespaces(error.to_string()))?;
        let state = State::of(&site);
        let authority =
            Authority::create_or_load(&state.authority()).map_err(|error| LabError::System {
                tried: "make the site's certificate authority".into(),
                source: io::Error::other(error),
            })?;
        let order = last_order(&state)?.map(|own| Rc::new(newest_order(&state, own)));
        // No server outlives its lab: whatever was on before this one is off.
        let now = boot_number(BootNumber(0));
        let servers_of = |order: &Rc<Order>| {
            let run = order.placement.release_run.as_ref().map(|run| run.server);
            let servers = order.placement.servers.keys().copied();
            servers.chain(run).collect::<Vec<_>>()
        };
        let servers = order.iter().flat_map(servers_of);
        let over = servers.map(|server| (server, now)).collect();
        // The pidfds of the servers are polled by a runtime, which is entered in `run`.
        let hardware = Hardware::new().map_err(system("put up the lab's network"))?;
        Ok(Rc::new(Self {
            place: Place {
                site: site.clone(),
                front_door,
                page,
            },
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
            order: watch::Sender::new(order),
            view: watch::Sender::new(View::default()),
            store: RefCell::default(),
            change: tokio::sync::Mutex::new(()),
            pruning: tokio::sync::Mutex::new(()),
            poke: Notify::new(),
            facts: RefCell::default(),
            events: RefCell::default(),
            started: Instant::now(),
            ending: Cell::new(false),
            faults: RefCell::default(),
            next_fault: Cell::default(),
            room: disk::Room::default(),
            traffic: traffic::Traffic::default(),
            targets: watch::Sender::new(Targets::default()),
        }))
    }

    fn run(self: Rc<Self>, sockets: Sockets) -> Result<(), LabError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("start"))?;
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime, async {
            let front_door = tokio::net::TcpListener::from_std(sockets.front_door)
                .map_err(system("open the front door"))?;
            let page = tokio::net::TcpListener::from_std(sockets.page)
                .map_err(system("open the status page"))?;
            let control = tokio::net::UnixListener::from_std(sockets.control)
                .map_err(system("open the control socket"))?;
            tokio::task::spawn_local(front_door::run(front_door, self.targets.subscribe()));
            tokio::task::spawn_local(control::serve(control, Rc::clone(&self)));
            tokio::task::spawn_local(control::serve_page(page, Rc::clone(&self)));
            tokio::task::spawn_local(Rc::clone(&self).follow_store());
            tokio::task::spawn_local(traffic::run(Rc::clone(&self)));
            provider::run(Rc::clone(&self)).await;
            let _ = std::fs::remove_file(self.state.control_socket());
            Ok(())
        })
    }

    /// Hands over a new order: the hardware, the front door and the copy on disk follow it.
    pub fn take_order(&self, order: Order) {
        if self
            .order
            .borrow()
            .as_ref()
            .is_some_and(|held| !held.yields_to(&order))
        {
            return;
        }
        self.put_order(order);
    }

    /// As [`take_order`](Self::take_order), whatever was held before.
    pub fn put_order(&self, order: Order) {
        if let Err(error) = write_json(&self.state.placement(), &order) {
            tracing::error!(
                "cannot keep the placement in {}: {error}",
                self.state.placement().display()
            );
        }
        self.order.send_replace(Some(Rc::new(order)));
    }

    /// Finds the store by the order that is known, and follows it from then on.
    async fn follow_store(self: Rc<Self>) {
        let mut orders = self.order.subscribe();
        let Ok(Some(order)) = orders
            .wait_for(Option::is_some)
            .await
            .map(|order| order.clone())
        else {
            return;
        };
        let store = match self.open_store(&order.placement) {
            Ok(store) => store,
            Err(error) => {
                tracing::error!("cannot reach the store: {error}");
                return;
            }
        };
        *self.store.borrow_mut() = Some(store.clone());
        tokio::task::spawn_local(
            Rc::clone(&self).follow_events(Events::new(store.clone(), &self.site)),
        );
        tokio::task::spawn_local(Rc::clone(&self).tell_over(store.clone()));
        tokio::task::spawn_local(view::follow(
            store.clone(),
            Keys::of(&self.site),
            self.view.clone(),
        ));
        let mut views = self.view.subscribe();
        loop {
            let seen = views.borrow_and_update().placement.clone();
            if let Some((revision, placement)) = seen {
                self.take_order(Order {
                    revision,
                    placement: (*placement).clone(),
                });
            }
            if let Some(order) = &*self.order.borrow() {
                self.lead_to(&order.placement);
                store.set_endpoints(gaiola_store::etcd::endpoints(&order.placement.store));
            }
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    /// The number of a server's next boot.
    pub fn next_boot(&self) -> BootNumber {
        let next = boot_number(self.last_boot.get());
        self.last_boot.set(next);
        next
    }

    /// Tells the store which boots are over: nothing of them runs any more. What it does not take is told again.
    async fn tell_over(self: Rc<Self>, store: Store) {
        let (keys, mut told) = (Keys::of(&self.site), BTreeMap::new());
        let mut over = self.over.subscribe();
        loop {
            let wanted = over.borrow_and_update().clone();
            for (server, boot) in wanted {
                if told.get(&server) == Some(&boot) {
                    continue;
                }
                match store.put_json(&keys.over(server), &boot, None).await {
                    Ok(_) => _ = told.insert(server, boot),
                    Err(error) => tracing::warn!("the store: {}", gaiola_os::chain(&error)),
                }
            }
            let all = over.borrow().clone() == told;
            tokio::select! {
                changed = over.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(Duration::from_secs(1)), if !all => {}
            }
        }
    }

    /// Keeps the last events at hand, so that to show them asks nobody.
    async fn follow_events(self: Rc<Self>, events: Events) {
        loop {
            let Ok(last) = events.last(EVENTS).await else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let after = last.last().map_or(Revision(0), |logged| logged.revision);
            self.events
                .replace(last.into_iter().map(|logged| logged.event).collect());
            let mut following = events.follow(after);
            while let Ok(logged) = following.next().await {
                let mut held = self.events.borrow_mut();
                held.push_back(logged.event);
                let surplus = held.len().saturating_sub(EVENTS);
                held.drain(..surplus);
            }
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

    fn open_store(&self, placement: &Placement) -> io::Result<Store> {
        let folder = self.state.folder().join("pki");
        let address = hardware::LAB_ADDRESS.into();
        self.authority
            .issue("lab", &[address], &folder)
            .map_err(io::Error::other)?;
        let tls = gaiola_net::pki::client_config(&folder).map_err(io::Error::other)?;
        Ok(Store::new(Settings::new(
            gaiola_store::etcd::endpoints(&placement.store),
            Some(tls),
        )))
    }
}

/// A number above `last`, and above those that an earlier lab gave: the time, in milliseconds.
fn boot_number(last: BootNumber) -> BootNumber {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |span| {
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    });
    BootNumber(now.max(last.0 + 1))
}

/// The order that the lab knew last; `None` on a new site. One that cannot be read is no new site: its data lies there.
fn last_order(state: &State) -> Result<Option<Order>, LabError> {
    let path = state.placement();
    match read_json(&path) {
        Ok(order) => Ok(Some(order)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(system(format!(
            "read {}, which another version may have written (use that version, or remove {} to begin the site anew)",
            path.display(),
            state.folder().display()
        ))(source)),
    }
}

/// The newest of the lab's own order and of those that its servers hold. By an older one of ours a server might stay off
/// whose vote the store needs before it can tell a newer one.
fn newest_order(state: &State, own: Order) -> Order {
    let servers = std::fs::read_dir(state.servers()).into_iter().flatten();
    let orders = servers.flatten().filter_map(|server| {
        let name = server.file_name().to_str()?.parse::<ServerName>().ok()?;
        read_json::<Order>(&state.order_file(name)).ok()
    });
    orders.fold(own, |held, order| match held.yields_to(&order) {
        true => order,
        false => held,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::{App, Config};
    use gaiola_model::placement::{Desired, Release, ReleaseNumber};

    fn order(incarnation: &str, revision: u64) -> Order {
        let config = Config::new("site".parse().unwrap(), App::new("run"));
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let desired = Desired::first(config, release);
        Order {
            revision: Revision(revision),
            placement: gaiola_core::rollout::first(&desired, incarnation.into()),
        }
    }

    #[test]
    fn a_site_whose_order_cannot_be_read_is_not_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().into());
        assert_eq!(last_order(&state).unwrap(), None);
        std::fs::write(state.placement(), "{}").unwrap();
        let why = last_order(&state).unwrap_err().to_string();
        assert!(
            why.contains("placement.json") && why.contains("begin the site anew"),
            "{why}"
        );
        let order = order("a", 7);
        write_json(&state.placement(), &order).unwrap();
        assert_eq!(last_order(&state).unwrap(), Some(order));
    }

    #[test]
    fn a_server_that_was_told_more_than_the_lab_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().into());
        for (server, order) in [
            ("app1", order("a", 6)),
            ("app2", order("a", 8)),
            ("web1", order("b", 9)),
        ] {
            let server = server.parse().unwrap();
            std::fs::create_dir_all(state.server(server)).unwrap();
            write_json(&state.order_file(server), &order).unwrap();
        }
        assert_eq!(newest_order(&state, order("a", 7)), order("a", 8));
        assert_eq!(newest_order(&state, order("a", 9)), order("a", 9));
    }
}
