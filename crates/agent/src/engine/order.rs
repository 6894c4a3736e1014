//! The agent's order to a database server's keeper, and the keeper's report: two JSON files in the run directory.

use gaiola_model::inventory::Ports;
use gaiola_model::schema;
use gaiola_wire::document;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The agent's order, `database.json` in the run directory. A rename replaces it as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperDatabase {
    /// The schema that the agent and the keeper write their files in.
    #[serde(default = "schema::unnumbered")]
    pub schema: u64,
    /// Incremented with each change. While Patroni runs, a higher one makes it reload its configuration; an order with a lower
    /// one than the last is ignored.
    pub generation: u64,
    /// Whether Patroni and PostgreSQL should run.
    pub wanted: TargetState,
    /// The program `patroni`.
    pub patroni: PathBuf,
    /// Its configuration, in the private directory.
    pub config: PathBuf,
    /// The program `psql`.
    pub psql: PathBuf,
    /// Where Patroni's REST API listens.
    pub api: SocketAddr,
    /// The directory of this server's `ca.pem`, `cert.pem` and `key.pem`.
    pub pki: PathBuf,
    /// User that Patroni and PostgreSQL run as; `None`: the keeper's.
    pub owner: Option<Owner>,
    /// PostgreSQL's data directory.
    pub data: PathBuf,
    /// PostgreSQL's port, which its Unix socket is named after. Default 5432.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Where `patroni.log` and `postgres.log` are written.
    pub log: PathBuf,
    /// Where Patroni stores the leader; `None`: the keeper trusts Patroni.
    #[serde(default)]
    pub leadership: Option<Leadership>,
    /// How often the data directory was ordered to be set aside, so that Patroni clones the primary. A number above the one
    /// that the keeper has carried out sets it aside once.
    #[serde(default)]
    pub clones: u64,
    /// Whether the set-aside data may hold writes that are nowhere else: then it is kept until an operator removes it.
    #[serde(default)]
    pub forked: bool,
}

fn default_port() -> u16 {
    Ports::default().postgres
}

/// Patroni's leader key, and this server's name in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The store's members.
    pub store: Vec<SocketAddr>,
    /// The key, such as `/patroni/guestbook/leader`.
    pub key: String,
    /// The key's value while this server leads.
    pub me: String,
}

impl KeeperDatabase {
    /// The file's name in the run directory.
    pub const FILE: &str = "database.json";
    /// Name prefix of data directories that are kept until the site is whole.
    pub const ASIDE: &str = "data.aside.";

    /// The order in a run directory; `None` where there is none yet.
    pub fn read(run: &Path) -> io::Result<Option<Self>> {
        read(&run.join(Self::FILE))
    }

    /// Name prefix for data directories that this order sets aside: `data.forked.` or `data.aside.`.
    pub fn aside(&self) -> &'static str {
        match self.forked {
            true => "data.forked.",
            false => Self::ASIDE,
        }
    }

    /// PostgreSQL's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory().join(format!(".s.PGSQL.{}", self.port))
    }

    /// The private directory: configuration, keys, passwords and PostgreSQL's socket.
    pub fn directory(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new("/"))
    }

    /// Where Patroni's extension is: beside the private directory, whose owner must not change what the keeper writes.
    pub fn extension(&self) -> PathBuf {
        self.directory().with_file_name("patroni-extension")
    }
}

impl KeeperReport {
    /// The file's name in the run directory.
    pub const FILE: &str = "database-keeper.json";

    /// The keeper's last report; `None` before the first.
    pub fn read(run: &Path) -> io::Result<Option<Self>> {
        read(&run.join(Self::FILE))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => document::decode(&text).map(Some).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The state that Patroni and PostgreSQL should be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// They run, and are restarted when they exit.
    Run,
    /// They are shut down cleanly.
    Stop,
}

/// An unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id; there are no supplementary groups.
    pub gid: u32,
}

/// The keeper's report, `database-keeper.json` in the run directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperReport {
    /// The schema that it is written in: the order's.
    #[serde(default = "schema::unnumbered")]
    pub schema: u64,
    /// The newest schema that the keeper reads.
    #[serde(default = "schema::unnumbered")]
    pub reads: u64,
    /// Generation of the order being followed.
    pub generation: u64,
    /// State of Patroni and PostgreSQL.
    pub state: EngineState,
    /// How often Patroni has exited unordered since the keeper was started.
    pub restarts: u32,
    /// Why Patroni and PostgreSQL last ended without an order, in words.
    #[serde(default)]
    pub last_end: Option<String>,
    /// The last [`KeeperDatabase::clones`] that was carried out.
    #[serde(default)]
    pub clones: u64,
}

/// The state that Patroni and PostgreSQL are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// Patroni runs; its API reports PostgreSQL's state.
    Running,
    /// Patroni and PostgreSQL are being shut down.
    Stopping,
    /// Neither runs, as ordered.
    Stopped,
    /// Neither runs, for this reason in words; the keeper will retry.
    Failed(String),
}
