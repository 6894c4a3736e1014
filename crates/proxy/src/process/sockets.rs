//! What the process opens before it serves, or takes from the one that it takes over from.

use super::{ProxyArgs, ProxyError};
use crate::control;
use crate::log::LogWriter;
use crate::take_over::Offer;
use gaiola_model::proxy::SocketUse;
use gaiola_model::proxy_file::AccessLog;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::net::{TcpListener, UnixListener};

/// The proxy's endpoints besides its listeners.
pub(super) struct Sockets {
    pub(super) log: Option<LogWriter>,
    pub(super) control: Option<UnixListener>,
    /// Whether its file was made here.
    pub(super) control_is_new: bool,
    pub(super) admin: Option<TcpListener>,
}

impl Sockets {
    /// Opens all of them, or takes those that another process hands over.
    ///
    /// # Errors
    /// Each one that cannot be opened.
    pub(super) async fn open(
        args: &ProxyArgs,
        mut offer: Option<&mut Offer>,
    ) -> Result<Self, ProxyError> {
        let mut handed = |what| offer.as_mut().and_then(|offer| offer.take(&what));
        let log = args.access_log.as_ref().map(open_log).transpose();
        let of_old = args.control.clone().map(SocketUse::Control);
        let of_old = of_old.and_then(&mut handed);
        let control_is_new = of_old.is_none();
        let control = match (&args.control, of_old) {
            (Some(path), Some(socket)) => inherit_control(path, socket).map(Some),
            (Some(path), None) => bind_control(path).map(Some),
            (None, _) => Ok(None),
        };
        let admin = match args.admin {
            Some(address) => bind_admin(address, handed(SocketUse::Admin(address)))
                .await
                .map(Some),
            None => Ok(None),
        };
        match (log, control, admin) {
            (Ok(log), Ok(control), Ok(admin)) => Ok(Self {
                log,
                control,
                control_is_new,
                admin,
            }),
            (log, control, admin) => {
                if let (Ok(Some(_)), Some(path), true) = (&control, &args.control, control_is_new) {
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

/// Goes on with the control socket of another process.
fn inherit_control(path: &Path, socket: OwnedFd) -> Result<UnixListener, ProxyError> {
    UnixListener::from_std(socket.into()).map_err(|source| ProxyError::Control {
        path: path.to_owned(),
        source,
    })
}

async fn bind_admin(
    address: SocketAddr,
    handed: Option<OwnedFd>,
) -> Result<TcpListener, ProxyError> {
    let bound = match handed {
        Some(socket) => TcpListener::from_std(socket.into()),
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|source| ProxyError::Admin { address, source })
}
