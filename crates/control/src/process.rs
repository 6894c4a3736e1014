//! The process `gaiola lab`: the servers of one site, and the control socket for its operators. [`machine`] is its counterpart on
//! machines.

pub mod machine;

use crate::api::SiteInfo;
use crate::monitor::{poll, serve};
use crate::provider::Provider;
use crate::provider::lab::{Lab, LabError, front_door, order, servers, system};
use crate::site::Site;
use crate::socket;
use gaiola_agent::state::State;
use gaiola_model::SiteName;
use gaiola_store::view::View;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use tokio::sync::watch;

/// Arguments of the lab process.
#[derive(Clone, Debug)]
pub struct LabArgs {
    /// The site.
    pub site: SiteName,
    /// The front door's address.
    pub front_door: SocketAddr,
    /// The status page's address.
    pub page: SocketAddr,
}

/// What [`run`] prints if another lab of the site is running.
pub const UP_ALREADY: &str = "up already";

/// Runs the lab of one site until it is brought down. First prints `ready`, or why not, on standard output.
///
/// # Errors
/// If it cannot start.
pub fn run(args: LabArgs) -> Result<(), LabError> {
    let started = Sockets::open(&args).and_then(|sockets| Ok((stand(args)?, sockets)));
    match started {
        Ok(((lab, site), sockets)) => {
            gaiola_os::stderr::start();
            say("ready");
            serve_all(lab, site, sockets)
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

fn stand(args: LabArgs) -> Result<(Rc<Lab>, Rc<Site>), LabError> {
    let state = State::of(&args.site);
    let order = order::last(&state)?.map(|own| Rc::new(order::newest(&state, own)));
    let (order, view) = (
        watch::Sender::new(order),
        watch::Sender::new(View::default()),
    );
    let lab = Lab::new(args.site.clone(), order.subscribe(), view.subscribe())?;
    let info = SiteInfo {
        site: args.site,
        entry: args.front_door,
        page: args.page,
    };
    let provider = Provider::Lab(Rc::clone(&lab));
    Ok((lab, Rc::new(Site::new(info, state, provider, order, view))))
}

fn serve_all(lab: Rc<Lab>, site: Rc<Site>, sockets: Sockets) -> Result<(), LabError> {
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
        tokio::task::spawn_local(front_door::run(front_door, lab.targets()));
        tokio::task::spawn_local(Rc::clone(&lab).lead());
        tokio::task::spawn_local(socket::serve(control, Rc::clone(&site)));
        tokio::task::spawn_local(serve::page(page, Rc::clone(&site)));
        tokio::task::spawn_local(follow(Rc::clone(&lab), Rc::clone(&site)));
        tokio::task::spawn_local(poll::run(Rc::clone(&site)));
        servers::run(lab).await;
        let _ = std::fs::remove_file(site.state.control_socket());
        Ok(())
    })
}

/// Follows the store, and stores what this process reads and which boots are over.
async fn follow(lab: Rc<Lab>, site: Rc<Site>) {
    let opens = Rc::clone(&lab);
    let open = move |placement: &_| {
        let store = opens.open_store(placement)?;
        tokio::task::spawn_local(Rc::clone(&opens).report(store.clone()));
        tokio::task::spawn_local(opens.store_over(store.clone()));
        Ok(store)
    };
    site.follow_store(open).await;
}

/// Reports to the process that started this one, if it still listens.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// The sockets that are opened in the host's network namespace, before this process leaves it.
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
    let tried = format!("open {}", state.lock().display());
    let lock = lock_file(state).map_err(system(tried))?;
    lock.ok_or_else(|| LabError::AlreadyUp(site.clone()))
}

/// The lock of the one process that provides the site's servers here; `None`: another one holds it.
fn lock_file(state: &State) -> io::Result<Option<File>> {
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(state.lock())?;
    let locked = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    Ok(locked.is_ok().then_some(lock))
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

/// Only this user may connect: the socket's folder can be entered but not listed, the socket has mode 0600, and each peer is checked.
fn control_socket(state: &State) -> io::Result<UnixListener> {
    let path = state.control_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = File::open(state.folder())?;
    // A long path does not fit into a socket's address; through the open folder it is short.
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
