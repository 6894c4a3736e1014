//! Client of Patroni's REST API, over mutual TLS.

mod report;

pub use report::Report;
use report::observe;

use gaiola_model::ServerName;
use gaiola_model::placement::ObservedDatabase;
use gaiola_net::client::{Client, ClientError, Method, Request, Response, Target};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

/// Timeout of calls that Patroni answers at once.
const LIMIT: Duration = Duration::from_secs(2);
/// Timeout of a switchover: Patroni itself gives up after 20 s.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(25);
/// Timeout of a restart of PostgreSQL.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// The most bytes of a response that an error quotes.
const MAX_SAID: usize = 300;

/// Patroni did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It did not answer.
    #[error("cannot query Patroni for {what}")]
    Unanswered {
        /// The request.
        what: &'static str,
        /// Why it failed.
        source: ClientError,
    },
    /// It rejected the request, or tried and failed.
    #[error("Patroni at {at} refused {what}: {said} (HTTP {status})")]
    Refused {
        /// The member's API.
        at: SocketAddr,
        /// The request.
        what: &'static str,
        /// The status code.
        status: u16,
        /// The response's own words.
        said: String,
    },
    /// Its response could not be read.
    #[error("Patroni at {at} answered {what} with something else")]
    Unreadable {
        /// The member's API.
        at: SocketAddr,
        /// The request.
        what: &'static str,
        /// Why it could not be read.
        source: serde_json::Error,
    },
}

/// A member as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PatroniMember {
    /// The server.
    pub name: ServerName,
    /// Its role.
    pub role: MemberRole,
    /// Patroni's word for its state.
    #[serde(default)]
    pub state: String,
    /// Its timeline, if known.
    pub timeline: Option<u64>,
}

/// A member's role, in Patroni's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Holds the leader key.
    Leader,
    /// Eligible for promotion: it holds every acknowledged write.
    SyncStandby,
    /// Follows the primary.
    #[serde(other)]
    Replica,
}

/// Patroni's REST API; each call names the member it goes to.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
}

impl Api {
    /// Uses a client with the TLS of `pki::client_config`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// A member's report of itself.
    pub async fn report(&self, at: SocketAddr) -> Result<Report, ApiError> {
        let what = "its state";
        let answer = self.ask(at, what, &Request::get("/patroni"), LIMIT).await?;
        read(at, what, &answer)
    }

    /// Polls all members at the same time and combines their reports: only the primary knows a standby's lag and whether it
    /// streams. A member that does not answer is [`DatabaseRole::Unknown`].
    ///
    /// [`DatabaseRole::Unknown`]: gaiola_model::placement::DatabaseRole::Unknown
    pub async fn observe(
        &self,
        members: &BTreeMap<ServerName, SocketAddr>,
    ) -> BTreeMap<ServerName, ObservedDatabase> {
        let mut asked = JoinSet::new();
        for (&name, &at) in members {
            let api = self.clone();
            asked.spawn(async move { (name, api.report(at).await) });
        }
        let mut reports = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            // A task that ended otherwise was a bug's; its member counts as one that was not asked.
            reports.extend(answer);
        }
        observe(&reports)
    }

    /// All members that the store lists; one that has been gone for 20 s is not among them.
    pub async fn cluster(&self, at: SocketAddr) -> Result<Vec<PatroniMember>, ApiError> {
        #[derive(Deserialize)]
        struct Cluster {
            members: Vec<PatroniMember>,
        }
        let what = "its cluster";
        let answer = self.ask(at, what, &Request::get("/cluster"), LIMIT).await?;
        read::<Cluster>(at, what, &answer).map(|cluster| cluster.members)
    }

    /// Makes `candidate` the primary in place of `leader` and waits until it is. Rejected without any change unless `candidate`
    /// is a synchronous standby.
    pub async fn switchover(
        &self,
        at: SocketAddr,
        leader: ServerName,
        candidate: ServerName,
    ) -> Result<(), ApiError> {
        let body = json!({ "leader": leader, "candidate": candidate });
        self.post(at, "a switchover", "/switchover", &body, SWITCHOVER_LIMIT)
            .await
    }

    /// Restarts PostgreSQL on this member and waits until it is back.
    pub async fn restart(&self, at: SocketAddr) -> Result<(), ApiError> {
        self.post(at, "a restart", "/restart", &json!({}), RESTART_LIMIT)
            .await
    }

    /// Discards this standby's data and clones the primary again; returns as soon as the clone has begun.
    pub async fn reinitialize(&self, at: SocketAddr) -> Result<(), ApiError> {
        let body = json!({ "force": true });
        self.post(at, "a new clone", "/reinitialize", &body, LIMIT)
            .await
    }

    /// Patches the configuration that all members share with `shared`; keys it does not name stay. Any member will do.
    pub async fn configure(&self, at: SocketAddr, shared: &Value) -> Result<(), ApiError> {
        let request = Request::new(Method::PATCH, "/config").json(shared.to_string());
        self.ask(at, "a changed configuration", &request, LIMIT)
            .await
            .map(drop)
    }

    /// Wakes this member's loop, which otherwise runs every 3 s, and changes nothing: the request removes a key from the shared
    /// configuration that does not exist.
    pub async fn nudge(&self, at: SocketAddr) -> Result<(), ApiError> {
        self.configure(at, &json!({ "gaiola": null })).await
    }

    async fn post(
        &self,
        at: SocketAddr,
        what: &'static str,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<(), ApiError> {
        let request = Request::post(path, body.to_string());
        self.ask(at, what, &request, limit).await.map(drop)
    }

    async fn ask(
        &self,
        at: SocketAddr,
        what: &'static str,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, ApiError> {
        let answer = self
            .client
            .request(&Target::tls(at), request, limit)
            .await
            .map_err(|source| ApiError::Unanswered { what, source })?;
        match answer.status {
            200..300 => Ok(answer),
            status => {
                let said = answer.text().trim().chars().take(MAX_SAID).collect();
                Err(ApiError::Refused {
                    at,
                    what,
                    status,
                    said,
                })
            }
        }
    }
}

fn read<'a, T: Deserialize<'a>>(
    at: SocketAddr,
    what: &'static str,
    answer: &'a Response,
) -> Result<T, ApiError> {
    serde_json::from_slice(&answer.body).map_err(|source| ApiError::Unreadable { at, what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_read_as_patroni_writes_it() {
        let text = r#"[
            {"name": "db1", "role": "leader", "state": "running", "timeline": 4, "api_url": "https://10.77.4.1:8008/patroni"},
            {"name": "db2", "role": "sync_standby", "state": "streaming", "timeline": 4, "lag": 0},
            {"name": "db3", "role": "replica", "state": "creating replica", "lag": "unknown"}
        ]"#;
        let members: Vec<PatroniMember> = serde_json::from_str(text).unwrap();
        let roles: Vec<_> = members.iter().map(|member| member.role).collect();
        assert_eq!(
            roles,
            [
                MemberRole::Leader,
                MemberRole::SyncStandby,
                MemberRole::Replica
            ]
        );
        assert_eq!(members[2].timeline, None);
    }
}
