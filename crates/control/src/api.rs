//! What the command line and the site's process exchange over the control socket: HTTP with JSON bodies.
//!
//! The response to a change is a stream of JSON lines, one [`Progress`] each, the last of which is `Done`. Requests name no file of
//! the operator's: the contents of the site's directory and its certificates are identified by their digests, and uploaded before
//! if the site does not have them, by `PUT /releases/DIGEST` and `PUT /certificates/DIGEST`.
//!
//! Every request and response carries the number of the schema ([`schema`]).

mod digest;
pub mod machine;
pub mod schema;
pub mod steps;

pub use digest::{Digest, NoDigest};

use gaiola_agent::engine::Secret;
use gaiola_core::drill::Target;
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Aside, DeployEnd, ReleaseNumber};
use gaiola_model::proxy::InlinePage;
use gaiola_model::secret::SecretName;
use gaiola_model::status::Status;
use gaiola_model::{Config, Exit, ServerName, SiteName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A change that an operator requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Bring the site to the state in its file.
    Apply {
        /// The file's configuration, with the digest of the balancers' certificates.
        config: Box<Config>,
        /// The digest of the contents of the site's directory.
        release: Digest,
        /// Whether irreversible changes are allowed.
        yes: bool,
        /// Machines that were replaced and have been emptied since: the file may name them again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        emptied: Vec<String>,
        /// Secrets that were set before the site was up.
        #[serde(default, skip_serializing_if = "NewSecrets::is_empty")]
        secrets: NewSecrets,
    },
    /// Set secrets; what uses them is replaced.
    SetSecrets(NewSecrets),
    /// Remove a secret that nothing uses.
    UnsetSecret(SecretName),
    /// A machine gives its place to a spare one for good.
    Replace {
        /// The machine, or a server on it.
        what: String,
        /// The spare machine; `None`: the first.
        onto: Option<String>,
        /// Whether one that is alive is drained and leaves.
        yes: bool,
    },
    /// Change a tier's size by hand: `web=3`, `app=2x4`.
    Scale {
        /// What to scale, as written.
        to: Vec<String>,
        /// Whether irreversible changes are allowed.
        yes: bool,
    },
    /// Take a server out of traffic.
    Drain(ServerName),
    /// Return it to traffic.
    Undrain(ServerName),
    /// Replace the instances of `app`, or of one application server, with new ones of the same release.
    Restart(String),
    /// Drain these servers of one machine, which is the only one that is set aside, and move the store's leader away from it.
    SetAside(Aside),
    /// Return the servers of the machine that is set aside to traffic.
    TakeBack,
    /// Go back to this release, or to the one before that is known to have served.
    Rollback {
        /// The release.
        to: Option<ReleaseNumber>,
        /// Whether irreversible changes are allowed.
        yes: bool,
    },
    /// Have balancers refuse clients, or end that with `None`. Other changes may be in progress.
    Maintenance(Option<NewMaintenance>),
}

impl Change {
    /// Its command's name, for the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "up",
            Self::SetSecrets(_) => "secret set",
            Self::UnsetSecret(_) => "secret unset",
            Self::Replace { .. } => "replace",
            Self::Scale { .. } => "scale",
            Self::Drain(_) => "drain",
            Self::Undrain(_) => "undrain",
            Self::Restart(_) => "restart",
            Self::SetAside(_) => "set aside",
            Self::TakeBack => "take back",
            Self::Rollback { .. } => "rollback",
            Self::Maintenance(_) => "maintenance",
        }
    }
}

/// A secret's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecret {
    /// The value. Its `Debug` output hides it.
    pub value: Secret,
    /// Since when it waits to be set, as events have it: one that was set meanwhile stays. `None`: it is set now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Secrets with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecrets {
    /// The values.
    pub values: BTreeMap<SecretName, NewSecret>,
    /// Who sets them: `root@laptop`.
    pub by: String,
}

impl NewSecrets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// How balancers refuse clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMaintenance {
    /// Who asks for it: `root@laptop`.
    pub by: String,
    /// What clients get; `None`: the site's page for 503, or else a line of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<InlinePage>,
    /// Clients in these networks are served as ever.
    #[serde(default)]
    pub allow: Vec<IpNet>,
    /// `Retry-After`, in seconds.
    pub retry_after: u32,
}

/// What is known of the site's secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSecrets {
    /// Whether there is a site that may have any: its first `up` has reached its servers.
    pub founded: bool,
    /// Them; `None`: the store has not answered yet.
    pub secrets: Option<Vec<SecretInfo>>,
}

/// A secret of the site, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// Its name.
    pub name: SecretName,
    /// When it was set, as events have it.
    pub set: String,
    /// Who set it.
    pub by: String,
    /// The variables that refer to it.
    pub used_by: Vec<String>,
}

/// A change, and its timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// What is asked for.
    pub change: Change,
    /// How long the response may take until the desired state is observed.
    pub timeout_ms: u64,
    /// Who asks for it: `root@laptop`.
    #[serde(default)]
    pub by: String,
}

/// One of the last releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRelease {
    /// Its number.
    pub release: ReleaseNumber,
    /// SHA-256 of its contents.
    pub digest: String,
    /// When it was put out, in RFC 3339; empty: that is not known.
    pub at: String,
    /// Who did it; empty: that is not known.
    pub by: String,
    /// The release that it left, if it went back to an earlier one.
    pub back_from: Option<ReleaseNumber>,
    /// Whether it is what the site should have.
    pub is_desired: bool,
    /// Whether instances run it as it came up.
    pub serves: bool,
    /// How it ended, in figures.
    pub end: Option<DeployEnd>,
    /// How it stands, in words.
    pub state: String,
}

/// One line of the response to a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Something happened.
    Step(String),
    /// A server's state changed.
    Server {
        /// The server.
        name: ServerName,
        /// Its state as text.
        state: String,
    },
    /// The end.
    Done(Box<Outcome>),
}

/// How a change ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The command's exit code.
    pub exit: Exit,
    /// A message; may be empty.
    pub message: String,
    /// The site's status at the end, if it is known.
    pub status: Option<Box<Status>>,
}

/// The outcome of a change that could not begin.
pub fn refused(exit: Exit, message: impl Into<String>) -> Outcome {
    Outcome {
        exit,
        message: message.into(),
        status: None,
    }
}

/// A description of what a change would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// One line for each change; empty: nothing would change.
    pub changes: Vec<String>,
    /// Sizes that stay as scaled by hand although the file has others.
    pub kept: Vec<String>,
    /// What is refused without `--yes`.
    pub refusals: Vec<String>,
}

/// A harm that `drill` requests from the provider of servers, or its end.
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
    /// Begin a fault that leaves servers running. The provider ends it after `for_ms` at the latest.
    Begin {
        /// The fault.
        target: Target,
        /// How long it may last.
        for_ms: u64,
    },
    /// End such a fault.
    End(Target),
}

/// Whether the site has the contents of a digest, or they must be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether it has them.
    pub held: bool,
}

/// The site that answers, and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteInfo {
    /// The site.
    pub site: SiteName,
    /// The address for clients on the operator's machine.
    pub entry: SocketAddr,
    /// Its status page.
    pub page: SocketAddr,
}

/// How `exec` and `drill` run commands on a server, or beside the servers in their network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// How a command enters it; `None`: the server is off.
    pub enter: Option<Enter>,
    /// Whether the server's disk can be filled.
    pub disk: Disk,
    /// The address of a client in the servers' network that connects to VIPs itself.
    pub client: Option<IpAddr>,
    /// The same of IPv6.
    #[serde(default)]
    pub wide_client: Option<IpAddr>,
}

/// How a command gets onto a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enter {
    /// On this host, it joins the namespaces of a process.
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
