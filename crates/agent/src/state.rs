//! The state directory: everything that outlives its processes.

mod files;
pub(crate) mod order;

pub use files::{
    read_document, read_json, read_message, write_document, write_document_over, write_json,
    write_message,
};
pub use order::Order;

use gaiola_model::inventory::Location;
use gaiola_model::placement::{BootNumber, ReleaseNumber};
use gaiola_model::{ServerName, SiteName};
use gaiola_os::process::{OWN_PROGRAM, User, is_root};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A site's state directory: `/var/lib/gaiola/SITE` for root, `$XDG_STATE_HOME/gaiola/SITE` for a user;
/// `GAIOLA_STATE` names another parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// The site's state directory. Nothing is made.
    pub fn of(site: &SiteName) -> Self {
        Self {
            folder: parent().join(site.as_str()),
        }
    }

    /// A state directory by its path.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The sites that have a state directory.
    pub fn sites() -> Vec<SiteName> {
        let entries = fs::read_dir(parent()).into_iter().flatten().flatten();
        let mut sites: Vec<SiteName> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        sites.sort();
        sites
    }

    /// Where a command line notes which machine of a site answered last: beside the state directories, since a site on machines has
    /// none on the operator's.
    pub fn last_machine(site: &SiteName) -> PathBuf {
        parent().join(".last-machine").join(site.as_str())
    }

    /// Where secrets wait that were set before their site was up, as [`last_machine`](Self::last_machine); only the operator may read it.
    pub fn pending_secrets(site: &SiteName) -> PathBuf {
        let file = format!("{site}.json");
        parent().join(".secrets").join(file)
    }

    /// The directory itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the directory and those in it. Others may traverse it (the site's processes run as other users), not list it.
    ///
    /// # Errors
    /// If one cannot be made.
    pub fn make(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o711);
        for folder in [self.folder.clone(), self.releases(), self.servers()] {
            builder.create(folder)?;
        }
        Ok(())
    }

    /// The control socket, by which everything is changed; mode 0600.
    pub fn control_socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Where the lab's own output goes.
    pub fn lab_log(&self) -> PathBuf {
        self.folder.join("lab.log")
    }

    /// Lock file of the one running lab.
    pub fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// The last placement that the lab has seen, so that `up` knows the servers while the store is still down.
    pub fn placement(&self) -> PathBuf {
        self.folder.join("placement.json")
    }

    /// The directory of the site's own CA.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca")
    }

    /// A machine's part in the site.
    pub fn machine(&self) -> PathBuf {
        self.folder.join("machine.json")
    }

    /// What the last `up` or `down` of a site on machines said.
    pub fn power(&self) -> PathBuf {
        self.folder.join("power.json")
    }

    /// The certificate and the key of the process that provides servers here.
    pub fn pki(&self) -> PathBuf {
        self.folder.join("pki")
    }

    /// The secret that seals the keepers' advertisements.
    pub fn keeper_key(&self) -> PathBuf {
        self.folder.join("keeper-key.json")
    }

    /// The database's passwords.
    pub fn secrets(&self) -> PathBuf {
        self.folder.join("secrets.json")
    }

    /// All releases.
    pub fn releases(&self) -> PathBuf {
        self.folder.join("releases")
    }

    /// One release's copy of the site's directory.
    pub fn release(&self, number: ReleaseNumber) -> PathBuf {
        self.releases().join(number.to_string())
    }

    /// The copies of the certificates that balancers serve.
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    /// The parent of all server directories.
    pub fn servers(&self) -> PathBuf {
        self.folder.join("servers")
    }

    /// The directory of one server.
    pub fn server(&self, name: ServerName) -> PathBuf {
        self.servers().join(name.to_string())
    }

    /// The link to the program that a server runs.
    pub fn program(&self, server: ServerName) -> PathBuf {
        self.server(server).join("gaiola")
    }

    /// The directories of a server that shares this disk and has a mount namespace of its own.
    pub fn directories(&self, server: ServerName) -> Directories {
        Directories {
            state: self.server(server),
            releases: self.releases(),
            certificates: self.certificates(),
            run: RUN.into(),
        }
    }

    /// The directories of a server on a machine, where several may stand: each has a run directory of its own.
    pub fn directories_on_machine(&self, server: ServerName) -> Directories {
        Directories {
            run: Path::new(RUN).join(server.to_string()),
            ..self.directories(server)
        }
    }

    /// Where a server keeps its last order.
    pub fn order_file(&self, server: ServerName) -> PathBuf {
        order_file(&self.server(server))
    }
}

/// Where the digest of a release is kept, as text: beside the release, whose own contents are the site's. It is written before the release
/// gets its number, so that one with another digest is never taken for it; one without is of an earlier version.
pub fn release_digest(releases: &Path, number: ReleaseNumber) -> PathBuf {
    releases.join(format!(".digest-{number}"))
}

/// The usual run directory of a server that has its machine, or its namespaces, for itself.
const RUN: &str = "/run/gaiola";

fn order_file(server: &Path) -> PathBuf {
    server.join("placement.json")
}

fn parent() -> PathBuf {
    if let Some(parent) = std::env::var_os("GAIOLA_STATE") {
        // Servers have another working directory than the process that brings them up.
        return std::path::absolute(&parent).unwrap_or_else(|_| parent.into());
    }
    if is_root() {
        return "/var/lib/gaiola".into();
    }
    let state_home =
        std::env::var_os("XDG_STATE_HOME").filter(|home| Path::new(home).is_absolute());
    let home = || {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".local/state")
    };
    state_home.map_or_else(home, PathBuf::from).join("gaiola")
}

/// A server's boot information: everything it gets when it is switched on. Stored as `boot.json` in the server's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredBoot")]
pub struct Boot {
    /// The site.
    pub site: SiteName,
    /// The server.
    pub server: ServerName,
    /// The number of this boot.
    pub number: BootNumber,
    /// Its address, the ports at it, and its host.
    #[serde(flatten)]
    pub location: Location,
    /// The interface that has the address: VIPs are added there, and VRRP is spoken on it.
    pub interface: String,
    /// Length of the network's prefix on that interface.
    pub prefix_length: u8,
    /// Further addresses of the interface, each with the prefix of its network: of the other family. One that the kernel rejects is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<IpNet>,
    /// Where its files are.
    pub directories: Directories,
    /// Random, generated with the site: keeps members of another store from joining this one.
    pub store_token: String,
    /// User that etcd, Patroni and PostgreSQL run as; `None`: the current one (rootless).
    pub database_user: Option<User>,
    /// User that the site's processes run as; `None`: the current one (rootless).
    pub site_user: Option<User>,
    /// The secret of the site's VIP keepers in hexadecimal; on balancers only.
    pub keeper_key: Option<String>,
    /// A link to the program that the server runs: a change of it takes effect as each process starts. Where it does not exist the
    /// server runs what it was switched on with.
    pub program: Option<PathBuf>,
    /// PATH of every process that is started.
    pub path: String,
    /// Size of the disk to make where there is no data yet, in bytes; `None`: no disk is made.
    pub disk: Option<u64>,
}

/// The directories of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directories {
    /// Its own: data, logs, keys, its last order.
    pub state: PathBuf,
    /// The releases; release 3 is in `3/` below it.
    pub releases: PathBuf,
    /// The copies of the certificates that balancers serve, each named by its digest.
    pub certificates: PathBuf,
    /// Sockets and state files of its processes, on a file system that is gone when the server is off.
    pub run: PathBuf,
}

/// `boot.json` as it may be stored. Gaiola 0.1 wrote the site's state directory instead of the server's directories, and
/// nothing that was the same on every server of its lab.
#[derive(Deserialize)]
struct StoredBoot {
    site: SiteName,
    server: ServerName,
    #[serde(default)]
    number: BootNumber,
    #[serde(flatten)]
    location: Location,
    #[serde(default = "StoredBoot::interface")]
    interface: String,
    #[serde(default = "StoredBoot::prefix_length")]
    prefix_length: u8,
    #[serde(default)]
    further: Vec<IpNet>,
    directories: Option<Directories>,
    #[serde(default)]
    state: PathBuf,
    store_token: String,
    database_user: Option<User>,
    site_user: Option<User>,
    keeper_key: Option<String>,
    #[serde(default)]
    program: Option<PathBuf>,
    path: String,
    #[serde(default)]
    disk: Option<u64>,
}

impl StoredBoot {
    fn interface() -> String {
        "eth0".into()
    }

    const fn prefix_length() -> u8 {
        16
    }
}

impl From<StoredBoot> for Boot {
    fn from(stored: StoredBoot) -> Self {
        let site = State::at(stored.state);
        Self {
            directories: stored
                .directories
                .unwrap_or_else(|| site.directories(stored.server)),
            site: stored.site,
            server: stored.server,
            number: stored.number,
            location: stored.location,
            interface: stored.interface,
            prefix_length: stored.prefix_length,
            further: stored.further,
            store_token: stored.store_token,
            database_user: stored.database_user,
            site_user: stored.site_user,
            keeper_key: stored.keeper_key,
            program: stored.program,
            path: stored.path,
            disk: stored.disk,
        }
    }
}

impl Boot {
    /// The server's directory.
    pub fn folder(&self) -> &Path {
        &self.directories.state
    }

    /// Directory of its processes' sockets and state files.
    pub fn run(&self) -> &Path {
        &self.directories.run
    }

    /// The program to start now.
    pub fn program(&self) -> &Path {
        // A link that leads nowhere is no way to another program: the start fails and says so.
        let is_there = |link: &&Path| link.symlink_metadata().is_ok();
        let link = self.program.as_deref().filter(is_there);
        link.unwrap_or(Path::new(OWN_PROGRAM))
    }

    /// One release's copy of the site's directory.
    pub fn release(&self, number: ReleaseNumber) -> PathBuf {
        self.directories.releases.join(number.to_string())
    }

    /// Which of the site's files its proxy served last.
    pub fn served_files(&self) -> PathBuf {
        self.folder().join("served-files.json")
    }

    /// Where the server keeps its last order, for a start while the store does not answer.
    pub fn order_file(&self) -> PathBuf {
        order_file(self.folder())
    }

    /// Where its processes' output goes.
    pub fn logs(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// Where its pid 1 logs.
    pub fn init_log(&self) -> PathBuf {
        self.logs().join("init.log")
    }

    /// The parent of PostgreSQL's data directory and of what may be beside it.
    pub fn postgres(&self) -> PathBuf {
        self.folder().join("postgres")
    }

    /// PostgreSQL's data, if there is any.
    pub fn postgres_data(&self) -> PathBuf {
        self.postgres().join("data")
    }

    /// The disk that is mounted at [`postgres`](Self::postgres), where the server has one of its own.
    pub fn disk_image(&self) -> PathBuf {
        self.folder().join("disk.img")
    }

    /// The directory of the store's member.
    pub fn etcd(&self) -> PathBuf {
        self.folder().join("etcd")
    }

    /// The data of the store's member: its log and its snapshots.
    pub fn store_data(&self) -> PathBuf {
        self.etcd().join("member")
    }

    /// The log of the store's member; without it the rest of the data is useless.
    pub fn store_log(&self) -> PathBuf {
        self.store_data().join("wal")
    }

    /// The name under which [`store_data`](Self::store_data) is removed.
    pub fn store_data_gone(&self) -> PathBuf {
        self.etcd().join("member.gone")
    }

    /// Its certificate and key.
    pub fn pki(&self) -> PathBuf {
        self.folder().join("pki")
    }

    /// Reads `boot.json`.
    ///
    /// # Errors
    /// If it cannot be read or is not what we wrote.
    pub fn load(folder: &Path) -> io::Result<Self> {
        read_document(&folder.join("boot.json"))
    }

    /// Writes `boot.json`, in the schema of the site's placement.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, schema: u64) -> io::Result<()> {
        write_document(&self.folder().join("boot.json"), self, schema)
    }
}
