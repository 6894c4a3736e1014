//! What the agent wants of a database server's keeper, and what the keeper tells back: two JSON files in the run directory.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The agent's order, `database.json` in the run directory. It is put in place whole, by a rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperDatabase {
    /// Raised by one with each change. While Patroni runs, a higher one makes it read its configuration again; an order
    /// with a lower one than the last is ignored.
    pub generation: u64,
    /// What is wanted.
    pub wanted: Wanted,
    /// The program `patroni`.
    pub patroni: PathBuf,
    /// Its configuration, in the private directory.
    pub config: PathBuf,
    /// The program `psql`.
    pub psql: PathBuf,
    /// Where Patroni's REST API listens.
    pub api: SocketAddr,
    /// Our own `ca.pem`, `cert.pem` and `key.pem`.
    pub pki: PathBuf,
    /// Who Patroni and PostgreSQL run as; `None`: as the keeper does.
    pub owner: Option<Owner>,
    /// PostgreSQL's data directory.
    pub data: PathBuf,
    /// Where `patroni.log` and `postgres.log` are written.
    pub log: PathBuf,
    /// Where Patroni keeps who leads; `None`: the keeper believes Patroni.
    #[serde(default)]
    pub leadership: Option<Leadership>,
    /// How often the data directory was to be set aside, so that Patroni clones the primary. A higher number than the keeper
    /// has done sets it aside once.
    #[serde(default)]
    pub clones: u64,
    /// Whether the data that is set aside may hold writes that are nowhere else: then it is kept until somebody removes it.
    #[serde(default)]
    pub forked: bool,
}

/// Patroni's leader key, and who this server is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The store's members.
    pub store: Vec<SocketAddrV4>,
    /// The key, such as `/patroni/guestbook/leader`.
    pub key: String,
    /// The name that stands there while this server leads.
    pub me: String,
}

impl KeeperDatabase {
    /// The file's name in the run directory.
    pub const FILE: &str = "database.json";
    /// What the names begin with of data directories that are kept until the site is whole.
    pub const ASIDE: &str = "data.aside.";

    /// The order that stands in a run directory; `None` where there is none yet.
    pub fn read(run: &Path) -> io::Result<Option<Self>> {
        read(&run.join(Self::FILE))
    }

    /// What the names begin with of data directories that were set aside: `data.forked.` or `data.aside.`.
    pub fn aside(&self) -> &'static str {
        match self.forked {
            true => "data.forked.",
            false => Self::ASIDE,
        }
    }

    /// The private directory: configuration, keys, passwords and PostgreSQL's socket.
    pub fn directory(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new("/"))
    }
}

impl KeeperReport {
    /// The file's name in the run directory.
    pub const FILE: &str = "database-keeper.json";

    /// What the keeper last told; `None` where it has told nothing yet.
    pub fn read(run: &Path) -> io::Result<Option<Self>> {
        read(&run.join(Self::FILE))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is wanted of Patroni and PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// They run, and are started again when they end.
    Run,
    /// They are shut down in order.
    Stop,
}

/// An unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id; there are no further groups.
    pub gid: u32,
}

/// What the keeper tells, `database-keeper.json` in the run directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperReport {
    /// The generation of the order that is being followed.
    pub generation: u64,
    /// How it goes.
    pub state: KeeperState,
    /// How often Patroni ended by itself since the keeper was started.
    pub restarts: u32,
    /// Why Patroni and PostgreSQL ended last without an order, in words.
    #[serde(default)]
    pub last_end: Option<String>,
    /// [`KeeperDatabase::clones`] that was carried out.
    #[serde(default)]
    pub clones: u64,
}

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeeperState {
    /// Patroni runs. Ask its API how PostgreSQL does.
    Running,
    /// Patroni and PostgreSQL are being shut down.
    Stopping,
    /// Nothing of them runs, as was ordered.
    Stopped,
    /// Nothing of them runs; it is tried again. Why, in words.
    Failed(String),
}
