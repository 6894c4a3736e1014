//! Requests to the other machines of the site, over mutual TLS.

use super::super::seal::SealRequest;
use super::identity::Identity;
use crate::api::Digest;
use gaiola_agent::engine::Secrets;
use gaiola_agent::state::Order;
use gaiola_core::machines::Power;
use gaiola_model::ServerName;
use gaiola_model::inventory::Host;
use gaiola_model::placement::ReleaseNumber;
use gaiola_model::schema::SCHEMA;
use gaiola_model::secret::Sealed;
use gaiola_net::client::{ClientError, Request, Response, Stream, Target};
use gaiola_net::pki::PkiError;
use gaiola_wire::document::{self, DocumentError};
use rustls::ServerConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where every machine's process answers the others, at the machine's address.
pub const PORT: u16 = 7071;
/// The common name of a machine's certificate begins with it; servers have names of another form.
const NAME: &str = "machine ";

/// The longest until a small request is answered.
const LIMIT: Duration = Duration::from_secs(3);
/// The longest until a certificate is signed.
const SIGN_LIMIT: Duration = Duration::from_secs(10);
/// The longest until a machine has fetched a release.
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// The longest until the beginning of a release comes: its digest is computed first.
const HEAD_LIMIT: Duration = Duration::from_secs(120);
/// The longest until servers are stopped.
const STOP_LIMIT: Duration = Duration::from_secs(150);

/// The name that a machine's certificate is issued to.
pub fn name_of(host: &Host) -> String {
    format!("{NAME}{host}")
}

/// The machine that a certificate names; `None`: it is a server's.
pub fn host_of(common_name: &str) -> Option<Host> {
    let host = common_name.strip_prefix(NAME)?;
    Some(Host(host.into()))
}

/// The authority and the secrets: on machines with a member of the store only.
#[derive(Serialize, Deserialize)]
pub struct AuthorityFiles {
    /// PEM of its certificate.
    pub certificate: String,
    /// PEM of its key.
    pub key: String,
    /// The database's passwords.
    pub secrets: Secrets,
    /// The secret of the VIP keepers, in hexadecimal.
    pub keeper_key: String,
}

/// The secrets that the servers of one machine need.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SecretFiles {
    /// The database's passwords; `None`: it has no application or database server.
    pub secrets: Option<Secrets>,
    /// The secret of the VIP keepers; `None`: it has no balancer.
    pub keeper_key: Option<String>,
    /// The key that opens the operator's secrets, in hexadecimal; `None`: it has no application server.
    #[serde(default)]
    pub sealing_key: Option<String>,
}

/// What a machine is to fetch from the one that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// The release's digest; `None`: no release.
    pub release: Option<Digest>,
    /// The certificates' digest; `None`: none.
    pub certificates: Option<Digest>,
}

/// Servers that are stopped, or may start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerRequest {
    /// These.
    Servers(Vec<ServerName>),
    /// The whole site.
    All(Power),
}

/// Why another machine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It was not reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It refused.
    #[error("{path}: {answer}")]
    Refused {
        /// What was asked.
        path: String,
        /// In its words.
        answer: String,
    },
    /// It answered in another form.
    #[error("{path} was answered in another form")]
    Malformed {
        /// What was asked.
        path: String,
        /// How it differs.
        source: DocumentError,
    },
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Request(#[from] serde_json::Error),
}

/// The other machines, as this one speaks with them.
pub struct Peers {
    identity: Identity,
    /// The schema of the site's documents, in which requests are written.
    schema: Cell<u64>,
}

impl Peers {
    /// With the certificate in this directory.
    pub(super) fn new(dir: &Path) -> Result<Self, PkiError> {
        Ok(Self {
            identity: Identity::load(dir)?,
            schema: Cell::new(SCHEMA),
        })
    }

    /// Writes requests in this schema from now on.
    pub fn set_schema(&self, schema: u64) {
        self.schema.set(schema);
    }

    /// TLS of the server that answers them.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.identity.server()
    }

    /// The newest order that a machine knows; `None`: it knows none.
    pub async fn order(&self, at: IpAddr) -> Result<Option<Order>, PeerError> {
        let request = Request::get("/order");
        let response = self.send(at, &request, LIMIT).await?;
        match response.status {
            404 => Ok(None),
            _ => decoded(&request, &response).map(Some),
        }
    }

    /// The certificate (PEM) for a server's request.
    pub async fn sign(
        &self,
        at: IpAddr,
        server: ServerName,
        pem: &str,
    ) -> Result<String, PeerError> {
        let request = self.post(format!("/sign/{server}"), &pem)?;
        self.ask(at, &request, SIGN_LIMIT).await
    }

    /// The authority and the secrets.
    pub async fn authority(&self, at: IpAddr) -> Result<AuthorityFiles, PeerError> {
        self.ask(at, &Request::get("/authority"), LIMIT).await
    }

    /// The secrets for this machine's servers.
    pub async fn secrets(&self, at: IpAddr) -> Result<SecretFiles, PeerError> {
        self.ask(at, &Request::get("/secrets"), LIMIT).await
    }

    /// Has a machine fetch a release from this one; returns when it is on its disk.
    pub async fn fetch(
        &self,
        at: IpAddr,
        number: ReleaseNumber,
        what: &FetchRequest,
    ) -> Result<(), PeerError> {
        let request = self.post(format!("/fetch/{number}"), what)?;
        let _: bool = self.ask(at, &request, FETCH_LIMIT).await?;
        Ok(())
    }

    /// Has a machine that keeps the site's passwords encrypt a secret.
    pub async fn seal(&self, at: IpAddr, asked: &SealRequest) -> Result<Sealed, PeerError> {
        let request = self.post("/seal".into(), asked)?;
        self.ask(at, &request, LIMIT).await
    }

    /// What the last `up` or `down` said that a machine knows of.
    pub async fn power(&self, at: IpAddr) -> Result<Power, PeerError> {
        self.ask(at, &Request::get("/power"), LIMIT).await
    }

    /// Has a machine stop servers; returns when they are off.
    pub async fn stop(&self, at: IpAddr, what: &PowerRequest) -> Result<(), PeerError> {
        let request = self.post("/stop".into(), what)?;
        let _: bool = self.ask(at, &request, STOP_LIMIT).await?;
        Ok(())
    }

    /// Lets a machine start servers again.
    pub async fn start(&self, at: IpAddr, what: &PowerRequest) -> Result<(), PeerError> {
        let request = self.post("/start".into(), what)?;
        let _: bool = self.ask(at, &request, LIMIT).await?;
        Ok(())
    }

    /// What a path holds, as a stream.
    pub async fn stream(&self, at: IpAddr, path: String) -> Result<Stream, PeerError> {
        let (client, request) = (self.identity.client(), Request::get(path));
        let mut stream = client.stream(&target(at), &request, HEAD_LIMIT).await?;
        if stream.status == 200 {
            return Ok(stream);
        }
        let answer = stream.next_piece(LIMIT).await?.unwrap_or_default();
        Err(refused(&request, &answer))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        at: IpAddr,
        request: &Request,
        limit: Duration,
    ) -> Result<T, PeerError> {
        let response = self.send(at, request, limit).await?;
        decoded(request, &response)
    }

    async fn send(
        &self,
        at: IpAddr,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, PeerError> {
        let client = self.identity.client();
        Ok(client.request(&target(at), request, limit).await?)
    }

    fn post(&self, path: String, body: &impl Serialize) -> Result<Request, serde_json::Error> {
        let body = document::encode_message(body, self.schema.get())?;
        Ok(Request::post(path, body))
    }
}

fn target(at: IpAddr) -> Target {
    Target::tls(SocketAddr::new(at, PORT))
}

fn decoded<T: DeserializeOwned>(request: &Request, response: &Response) -> Result<T, PeerError> {
    if response.status != 200 {
        return Err(refused(request, &response.body));
    }
    let body = document::decode_message(&response.body);
    body.map(|(body, _)| body)
        .map_err(|source| PeerError::Malformed {
            path: request.path().into(),
            source,
        })
}

fn refused(request: &Request, answer: &[u8]) -> PeerError {
    PeerError::Refused {
        path: request.path().into(),
        answer: String::from_utf8_lossy(answer).trim().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_a_server_names_no_machine() {
        let host = Host("deploy@web-b".into());
        assert_eq!(host_of(&name_of(&host)), Some(host));
        assert_eq!(host_of("web1"), None);
    }
}
