//! A server's boot on a machine. It lasts as long as the server's run directory, which is gone once the machine has started again: the
//! agent's unit begins a new boot before it starts, whether or not the machine's process runs.

use super::super::folder::boot_number;
use gaiola_agent::state::{Boot, State, read_json};
use gaiola_model::ServerName;
use gaiola_net::pki::{CA, CERT, KEY};
use gaiola_os::netlink::{Netlink, NetlinkError};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// In a server's run directory: it is there as long as a boot lasts.
const MARK: &str = "boot";

/// Why a server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file of its.
    #[error("cannot {tried} {}", path.display())]
    Io {
        /// What was tried.
        tried: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not say.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The machine does not have it.
    #[error(
        "no interface of this machine has the address {0}, by which the other servers reach it"
    )]
    NoAddress(IpAddr),
}

/// Begins a boot of a server, unless one lasts: what its unit runs before agent and keeper. It blocks.
///
/// # Errors
/// Where a file of the server cannot be read or written.
pub fn begin(state: &State, server: ServerName) -> Result<(), BootError> {
    let folder = state.server(server);
    // Agent and keeper start at the same time.
    let _held = lock(&folder)?;
    let path = folder.join("boot.json");
    let boot = Boot::load(&folder).map_err(failed("read", &path))?;
    let mark = boot.run().join(MARK);
    if mark.exists() {
        return Ok(());
    }
    let boot = Boot {
        number: boot_number(boot.number),
        ..boot
    };
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o755).create(boot.run());
    made.map_err(failed("make the directory", boot.run()))?;
    let schema = schema(&path).map_err(failed("read", &path))?;
    boot.save(schema).map_err(failed("write", &path))?;
    fs::write(&mark, "").map_err(failed("write", &mark))
}

/// Whether everything is there that a server's units start from; the certificate comes last.
pub(super) fn is_prepared(folder: &Path) -> bool {
    let Ok(boot) = Boot::load(folder) else {
        return false;
    };
    let certified = [CA, KEY, CERT]
        .iter()
        .all(|file| boot.pki().join(file).exists());
    boot.order_file().exists() && certified
}

/// Saves what a server's units start from, with the number of the newest boot: a unit may have begun one meanwhile. It blocks.
pub(super) fn save(folder: &Path, boot: Boot, schema: u64) -> Result<Boot, BootError> {
    let _held = lock(folder)?;
    let newest = Boot::load(folder).map_or(boot.number, |held| held.number);
    let boot = Boot {
        number: newest,
        ..boot
    };
    let path = folder.join("boot.json");
    boot.save(schema).map_err(failed("write", &path))?;
    Ok(boot)
}

/// Holds `boot.json` against every other process that writes it, until the file is dropped.
fn lock(folder: &Path) -> Result<fs::File, BootError> {
    let lock = folder.join("boot.lock");
    let held = fs::File::options().create(true).append(true).open(&lock);
    let held = held.map_err(failed("open", &lock))?;
    held.lock().map_err(failed("lock", &lock))?;
    Ok(held)
}

/// Ends a server's boot: everything of it has stopped.
pub(super) fn end(run: &Path) -> io::Result<()> {
    match fs::remove_dir_all(run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The schema that a document is written in.
fn schema(path: &Path) -> io::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        #[serde(default = "gaiola_model::schema::unnumbered")]
        schema: u64,
    }
    read_json(path).map(|numbered: Numbered| numbered.schema)
}

/// The interface that has an address, and the length of its prefix there. `named`: the file's own choice. It blocks for a while where
/// the address is not there yet.
pub(super) fn interface(address: IpAddr, named: Option<&str>) -> Result<(String, u8), BootError> {
    let mut netlink = Netlink::open()?;
    let Some((found, prefix)) = netlink.link_with(address)? else {
        return Err(BootError::NoAddress(address));
    };
    let Some(named) = named.filter(|named| *named != found) else {
        return Ok((found, prefix));
    };
    // VIPs are in the network of an interface that the file names: the prefix is that of its first address of the family.
    let addresses = netlink.addresses(named)?;
    let same = addresses
        .iter()
        .find(|own| own.ip.is_ipv4() == address.is_ipv4());
    Ok((named.into(), same.map_or(prefix, |own| own.prefix)))
}

fn failed(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BootError {
    let path = path.to_path_buf();
    move |source| BootError::Io {
        tried,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_agent::state::Directories;
    use gaiola_model::inventory::Location;
    use gaiola_model::placement::BootNumber;

    fn boot(state: &State, server: ServerName, run: &Path) -> Boot {
        Boot {
            site: "site".parse().unwrap(),
            server,
            number: BootNumber(7),
            location: Location::at([127, 0, 0, 1].into()),
            interface: "lo".into(),
            prefix_length: 8,
            further: Vec::new(),
            directories: Directories {
                run: run.into(),
                ..state.directories(server)
            },
            store_token: String::new(),
            database_user: None,
            site_user: None,
            keeper_key: None,
            program: None,
            path: String::new(),
            disk: None,
        }
    }

    #[test]
    fn a_server_is_prepared_once_the_last_of_its_files_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().join("site"));
        let boot = boot(&state, "web1".parse().unwrap(), &folder.path().join("run"));
        let of = boot.folder().to_path_buf();
        assert!(!is_prepared(&of));
        fs::create_dir_all(boot.pki()).unwrap();
        boot.save(2).unwrap();
        assert!(!is_prepared(&of));
        fs::write(boot.order_file(), "{}").unwrap();
        fs::write(boot.pki().join(KEY), "").unwrap();
        fs::write(boot.pki().join(CA), "").unwrap();
        assert!(!is_prepared(&of), "its certificate is being asked for");
        fs::write(boot.pki().join(CERT), "").unwrap();
        assert!(is_prepared(&of));
    }

    #[test]
    fn a_boot_lasts_as_long_as_the_run_directory() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().join("site"));
        let server: ServerName = "web1".parse().unwrap();
        let run = folder.path().join("run/web1");
        let boot = boot(&state, server, &run);
        fs::create_dir_all(boot.folder()).unwrap();
        boot.save(2).unwrap();
        let number = || Boot::load(&state.server(server)).unwrap().number;
        begin(&state, server).unwrap();
        let first = number();
        assert!(first > BootNumber(7) && run.is_dir());
        begin(&state, server).unwrap();
        assert_eq!(number(), first);
        end(&run).unwrap();
        begin(&state, server).unwrap();
        assert!(number() > first);
        assert_eq!(schema(&state.server(server).join("boot.json")).unwrap(), 2);
    }

    #[test]
    fn the_interface_is_the_one_with_the_address() {
        let none = "192.0.2.1".parse().unwrap();
        assert!(matches!(
            interface(none, None),
            Err(BootError::NoAddress(_))
        ));
        for own in Netlink::open().unwrap().addresses("lo").unwrap() {
            let found = interface(own.ip, None).unwrap();
            assert_eq!(found, ("lo".to_string(), own.prefix));
        }
    }
}
