//! What the command line and the site's process exchange over the control socket: HTTP with JSON bodies.
//!
//! A change is answered by a stream of JSON lines, one [`Progress`] each, the last of which is `Done`. Nothing in it names a file of
//! the operator's: the contents of the site's directory and its certificates are known by their digests, and what the site does
//! not have is sent before, by `PUT /releases/DIGEST` and `PUT /certificates/DIGEST`.
//!
//! Every request and answer carries the number of the schema ([`schema`]).

mod digest;
pub mod machine;
pub mod schema;
pub mod steps;

pub use digest::{Digest, NoDigest};

use gaiola_core::drill::Target;
use gaiola_model::inventory::Host;
use gaiola_model::status::Status;
use gaiola_model::{Config, Exit, ServerName, SiteName};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// A change that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Make the site what its file says.
    Apply {
        /// What the file says, with the digest of the balancers' certificates.
        config: Box<Config>,
        /// The digest of what the site's directory holds.
        release: Digest,
        /// Whether what cannot be taken back is allowed.
        yes: bool,
    },
    /// Change a tier's size by hand: `web=3`, `app=2x4`.
    Scale {
        /// What to scale, as written.
        to: Vec<String>,
        /// Whether what cannot be taken back is allowed.
        yes: bool,
    },
    /// Take a server out of traffic.
    Drain(ServerName),
    /// Let it take traffic again.
    Undrain(ServerName),
    /// Exchange the instances of `app`, or of one application server, for new ones of the same release.
    Restart(String),
}

impl Change {
    /// Its command's name, for the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "up",
            Self::Scale { .. } => "scale",
            Self::Drain(_) => "drain",
            Self::Undrain(_) => "undrain",
            Self::Restart(_) => "restart",
        }
    }
}

/// A change, and how long its end is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// What is asked for.
    pub change: Change,
    /// How long the answer may wait until what is desired is observed.
    pub timeout_ms: u64,
}

/// One line of the answer to a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Something happened.
    Step(String),
    /// A server's state changed.
    Server {
        /// The server.
        name: ServerName,
        /// Its state in a word or a few.
        state: String,
    },
    /// The end.
    Done(Box<Outcome>),
}

/// How a change ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What the command ends with.
    pub exit: Exit,
    /// In words; may be empty.
    pub message: String,
    /// The site at the end, where it could be asked.
    pub status: Option<Box<Status>>,
}

/// The end of a change that could not be begun.
pub fn refused(exit: Exit, message: impl Into<String>) -> Outcome {
    Outcome {
        exit,
        message: message.into(),
        status: None,
    }
}

/// What a change would do, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// One line for each change; empty: nothing would change.
    pub changes: Vec<String>,
    /// What keeps its size by hand although the file says another.
    pub kept: Vec<String>,
    /// What is refused without `--yes`.
    pub refusals: Vec<String>,
}

/// A harm that `drill` asks the provider of servers to do, or to take back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// Cut it off from the network, then kill everything on it.
    CutPower(ServerName),
    /// Cut it off from the network.
    Unplug(ServerName),
    /// Connect it again.
    Plug(ServerName),
    /// Switch it off gracefully.
    ShutDown(ServerName),
    /// Switch it on.
    PowerOn(ServerName),
    /// Do a fault that leaves servers running. The provider undoes it by itself after `for_ms`.
    Begin {
        /// The fault.
        target: Target,
        /// How long it may last.
        for_ms: u64,
    },
    /// Undo such a fault.
    End(Target),
}

/// Whether the site has what a digest stands for, or it has to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether it has it.
    pub held: bool,
}

/// Which site answers, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteInfo {
    /// The site.
    pub site: SiteName,
    /// Where clients on the operator's machine enter it.
    pub entry: SocketAddr,
    /// Its status page.
    pub page: SocketAddr,
}

/// How `exec` and `drill` run commands on a server, or beside the servers in their network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// How a command gets there; `None`: the server is off.
    pub enter: Option<Enter>,
    /// Whether the server's disk can be filled.
    pub disk: Disk,
    /// The address there of a client that connects to VIPs itself.
    pub client: Option<IpAddr>,
}

/// How a command gets onto a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enter {
    /// On this host: it joins the namespaces of a process.
    Namespaces {
        /// The process.
        pid: u32,
        /// Whether a user namespace is among them.
        user: bool,
    },
    /// On a machine: by SSH.
    Ssh {
        /// The machine, as `ssh` takes it.
        host: Host,
    },
}

/// Whether a server's disk can be filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disk {
    /// It is the server's own.
    Fillable,
    /// Why not.
    NotFillable(String),
    /// Not known.
    #[default]
    Unknown,
}
