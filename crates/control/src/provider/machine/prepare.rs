//! What a server needs before its units start: directory, users, secrets, certificate, its boot and the order.

use super::Machine;
use super::boot::{self, BootError};
use super::peers::{PeerError, SecretFiles};
use crate::provider::folder::{PATH, make_folder};
use gaiola_agent::engine::Secrets;
use gaiola_agent::state::{Boot, Order, read_document, read_json, write_document};
use gaiola_core::topology;
use gaiola_model::inventory::{Host, Location};
use gaiola_model::placement::BootNumber;
use gaiola_model::{ServerName, Tier};
use gaiola_net::pki::{Authority, CA, PkiError, Subject};
use gaiola_os::process::{User, find_user};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The user that PostgreSQL's package makes.
const DATABASE_USER: &str = "postgres";

/// Why a server cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error("{0} is not in the placement")]
    NotPlaced(ServerName),
    #[error("cannot {tried} {}", path.display())]
    Io {
        tried: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error("there is no user {0} on this machine")]
    NoUser(&'static str),
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// No machine has signed or sent what was asked for.
    #[error("{what}: no machine with the site's authority could be asked{}", last.as_ref().map(|(host, error)| format!("; the last one, {host}: {}", gaiola_os::chain(error))).unwrap_or_default())]
    NoAuthority {
        what: &'static str,
        last: Option<(Host, PeerError)>,
    },
}

/// Prepares a server's directory. What another machine has is asked for only where it is missing.
pub(super) async fn prepare(
    machine: &Machine,
    order: &Order,
    server: ServerName,
) -> Result<Boot, PrepareError> {
    let folder = machine.state.server(server);
    let location = topology::location(&order.placement, server);
    let location = location.ok_or(PrepareError::NotPlaced(server))?.clone();
    let held = Boot::load(&folder).ok();
    let user = user_of(server)?;
    for (path, mode, owner) in [
        (folder.clone(), 0o711, None),
        (folder.join("log"), 0o755, None),
        (folder.join("etcd"), 0o700, Some(user)),
    ] {
        make_folder(&path, mode, owner).map_err(failed("make the directory", &path))?;
    }
    let secrets = secrets(machine, order, server, held.as_ref()).await?;
    if let Some(passwords) = &secrets.secrets {
        let path = folder.join("secrets.json");
        write_document(&path, passwords, order.placement.schema).map_err(failed("write", &path))?;
    }
    let named = interface_of(order, &location);
    let (interface, prefix_length) = boot::interface(location.address, named.as_deref())?;
    let boot = Boot {
        site: machine.site.clone(),
        server,
        number: held.map_or(BootNumber(0), |held| held.number),
        location,
        interface,
        prefix_length,
        further: Vec::new(),
        directories: machine.state.directories_on_machine(server),
        store_token: order.placement.incarnation.clone(),
        database_user: Some(user),
        site_user: Some(find(super::SITE_USER)?),
        keeper_key: secrets.keeper_key,
        program: Some(super::program().into()),
        path: PATH.into(),
        disk: None,
    };
    let boot = boot::save(&folder, boot, order.placement.schema)?;
    // A server that has a newer order keeps it.
    let held = read_document::<Order>(&boot.order_file());
    if held.map_or(true, |held| held.is_replaced_by(order)) {
        let path = boot.order_file();
        let text = machine.view.borrow().placement_text(order.revision);
        order
            .save(&path, text.as_deref())
            .map_err(failed("write", &path))?;
    }
    certify(machine, &boot).await?;
    Ok(boot)
}

/// etcd runs as a user of its own, apart from a database server's: that one's certificate is PostgreSQL's too.
fn user_of(server: ServerName) -> Result<User, PrepareError> {
    match server.tier {
        Tier::Database => find(DATABASE_USER),
        Tier::Balancer | Tier::Web | Tier::App => find(super::STORE_USER),
    }
}

fn find(name: &'static str) -> Result<User, PrepareError> {
    find_user(name).ok_or(PrepareError::NoUser(name))
}

/// The interface that the file names for the machine of a server.
fn interface_of(order: &Order, location: &Location) -> Option<String> {
    let machines = order.placement.config.machines.as_ref()?;
    let all = machines.all();
    let own = all.iter().find(|machine| machine.host() == location.host);
    own?.interface.clone()
}

/// The secrets of a server: those that it has already, this machine's own, or those of a machine with the authority.
async fn secrets(
    machine: &Machine,
    order: &Order,
    server: ServerName,
    held: Option<&Boot>,
) -> Result<SecretFiles, PrepareError> {
    let has_passwords = order.placement.config.database.is_some()
        && matches!(server.tier, Tier::App | Tier::Database);
    let has_key = server.tier == Tier::Balancer;
    let path = machine.state.server(server).join("secrets.json");
    let own = |path: &Path| read_document::<Secrets>(path).ok();
    let mut known = SecretFiles {
        secrets: own(&path).or_else(|| own(&machine.state.secrets())),
        keeper_key: held.and_then(|held| held.keeper_key.clone()),
        ..SecretFiles::default()
    };
    if known.keeper_key.is_none() {
        known.keeper_key = read_json(&machine.state.keeper_key()).ok();
    }
    let is_missing = |known: &SecretFiles| {
        has_passwords && known.secrets.is_none() || has_key && known.keeper_key.is_none()
    };
    if is_missing(&known) {
        let mut last = None;
        for (host, address) in machine.others() {
            match machine.peers.secrets(address).await {
                Ok(given) => {
                    known.secrets = known.secrets.or(given.secrets);
                    known.keeper_key = known.keeper_key.or(given.keeper_key);
                    last = None;
                    break;
                }
                Err(error) => last = Some((host, error)),
            }
        }
        if is_missing(&known) {
            let what = "its secrets are missing";
            return Err(PrepareError::NoAuthority { what, last });
        }
    }
    Ok(SecretFiles {
        secrets: known.secrets.filter(|_| has_passwords),
        keeper_key: known.keeper_key.filter(|_| has_key),
        ..SecretFiles::default()
    })
}

/// Gets a server's certificate, if it needs one. Its key is made here and stays here.
async fn certify(machine: &Machine, boot: &Boot) -> Result<(), PrepareError> {
    let (name, addresses) = (boot.server.to_string(), [boot.location.address]);
    let subject = Subject::new(&name, &addresses, &boot.pki(), boot.database_user);
    let path = machine.state.pki().join(CA);
    let authority = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
    if !subject.is_certified(&authority) {
        let request = subject.request()?;
        let certificate = sign(machine, boot.server, &addresses, &request).await?;
        subject.accept(&authority, &certificate)?;
        tracing::info!(server = %boot.server, "has a new certificate");
    }
    Ok(subject.own()?)
}

async fn sign(
    machine: &Machine,
    server: ServerName,
    addresses: &[IpAddr],
    request: &str,
) -> Result<String, PrepareError> {
    if let Some(authority) = Authority::load_from(&machine.state.authority())? {
        return Ok(authority.sign(&server.to_string(), addresses, request)?);
    }
    let mut last = None;
    for (host, address) in machine.others() {
        match machine.peers.sign(address, server, request).await {
            Ok(certificate) => return Ok(certificate),
            Err(error) => last = Some((host, error)),
        }
    }
    let what = "its certificate is not signed";
    Err(PrepareError::NoAuthority { what, last })
}

/// What this machine's servers, or another's, may have of the secrets that are kept here; `None`: they are not kept here.
pub fn kept_secrets(state: &gaiola_agent::state::State) -> Option<(Secrets, String)> {
    let has = state.secrets().exists() && state.keeper_key().exists();
    let both = || {
        Some((
            read_document(&state.secrets()).ok()?,
            read_json(&state.keeper_key()).ok()?,
        ))
    };
    has.then(both).flatten()
}

fn failed(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrepareError {
    let path = path.to_path_buf();
    move |source| PrepareError::Io {
        tried,
        path,
        source,
    }
}
