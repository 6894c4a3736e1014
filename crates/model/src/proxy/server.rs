//! One member of a backend.

use super::{Address, ServerTls};
use serde::{Deserialize, Serialize};

/// One member of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Unique within the backend, used in logs and metrics: `web1`, `app2.3`.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Its share of the requests, 0 to 256; 0 takes only those whose cookie names it. Default 1.
    pub weight: u16,
    /// Most requests at a time; more wait in the queue. `None`: no limit.
    pub maxconn: Option<u32>,
    /// Its state as the operator or a roll-out wants it.
    pub admin: Admin,
    /// The path for its check, if not the backend's.
    #[serde(default)]
    pub check_path: Option<String>,
    /// The port for its check, if not the backend's.
    #[serde(default)]
    pub check_port: Option<u16>,
    /// Whether it takes traffic only while no other server of its backend does, or for the last attempt of a request
    /// that others have failed.
    #[serde(default)]
    pub spare: bool,
    /// Its name in the backend's cookie. `None`: a number derived from its name.
    #[serde(default)]
    pub cookie: Option<String>,
    /// TLS to this server, if it uses it. Checks use it too, unless they have a port of their own.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Each connection begins with a PROXY protocol header of this version, which carries the client address. Such a
    /// connection carries one client's requests only. Checks send a header too, unless they have a port of their own.
    #[serde(default)]
    pub send_proxy: Option<ProxyVersion>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Server {
    /// The highest weight.
    pub const MOST_WEIGHT: u16 = 256;

    /// A server with the default share and no limit.
    pub fn new(name: impl Into<String>, address: impl Into<Address>) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            weight: 1,
            maxconn: None,
            admin: Admin::Ready,
            check_path: None,
            check_port: None,
            spare: false,
            cookie: None,
            tls: None,
            send_proxy: None,
        }
    }

    /// Whether it should take new traffic while it is up: it is ready, and has a weight.
    pub const fn is_wanted(&self) -> bool {
        matches!(self.admin, Admin::Ready) && self.weight > 0
    }
}

/// Desired state of a member, whatever its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// Takes traffic while it is up.
    #[default]
    Ready,
    /// Takes only new requests whose cookie names it; those in flight end.
    Drain,
    /// Takes nothing and is not checked.
    Maint,
}
