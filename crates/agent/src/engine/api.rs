//! Speaks with Patroni's REST API over mutual TLS.

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

/// Longest wait for an answer that Patroni has at hand.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for a switchover: Patroni itself gives up after 20 s.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(25);
/// Longest wait for a restart of PostgreSQL.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of an answer that go into an error.
const MAX_SAID: usize = 300;

/// Patroni did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It gave no answer.
    #[error("cannot ask Patroni for {what}")]
    Unanswered {
        /// What was asked.
        what: &'static str,
        /// Why it failed.
        source: ClientError,
    },
    /// It refused, or tried and failed.
    #[error("Patroni at {at} refused {what}: {said} (HTTP {status})")]
    Refused {
        /// Who was asked.
        at: SocketAddr,
        /// What was asked.
        what: &'static str,
        /// The status code.
        status: u16,
        /// The answer in its own words.
        said: String,
    },
    /// Its answer could not be read.
    #[error("Patroni at {at} answered {what} with something else")]
    Unreadable {
        /// Who was asked.
        at: SocketAddr,
        /// What was asked.
        what: &'static str,
        /// Why it could not be read.
        source: serde_json::Error,
    },
}

/// One member as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// The server.
    pub name: ServerName,
    /// What it is.
    pub role: MemberRole,
    /// Patroni's word for its state.
    #[serde(default)]
    pub state: String,
    /// Its timeline, where it is known.
    pub timeline: Option<u64>,
}

/// What a member is, in Patroni's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Holds the leader key.
    Leader,
    /// May be promoted: it holds every acknowledged write.
    SyncStandby,
    /// Follows.
    #[serde(other)]
    Replica,
}

/// Patroni's REST API, on whichever member it is asked. Each call says where.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
}

impl Api {
    /// By a client with the TLS of `pki::client_config`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// How one member does, as it tells itself.
    pub async fn report(&self, at: SocketAddr) -> Result<Report, ApiError> {
        let what = "its state";
        let answer = self.ask(at, what, &Request::get("/patroni"), LIMIT).await?;
        read(at, what, &answer)
    }

    /// Asks all members at the same time and puts together how each does: a standby's lag and whether it streams is known
    /// by the primary only. A member that gives no answer is [`DatabaseRole::Unknown`].
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
            let Ok((name, report)) = answer else { continue };
            match report {
                Ok(report) => drop(reports.insert(name, Ok(report))),
                Err(error) => drop(reports.insert(name, Err(error.to_string()))),
            }
        }
        observe(&reports)
    }

    /// All members that the store knows; one that has been gone for 20 s is not among them.
    pub async fn cluster(&self, at: SocketAddr) -> Result<Vec<Member>, ApiError> {
        #[derive(Deserialize)]
        struct Cluster {
            members: Vec<Member>,
        }
        let what = "its cluster";
        let answer = self.ask(at, what, &Request::get("/cluster"), LIMIT).await?;
        read::<Cluster>(at, what, &answer).map(|cluster| cluster.members)
    }

    /// Makes `candidate` the primary in place of `leader` and waits until it is. Refused unless `candidate` is a
    /// synchronous standby; then nothing has changed.
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

    /// Throws this standby's data away and clones the primary anew; answered as soon as it has begun.
    pub async fn reinitialize(&self, at: SocketAddr) -> Result<(), ApiError> {
        let body = json!({ "force": true });
        self.post(at, "a new clone", "/reinitialize", &body, LIMIT)
            .await
    }

    /// Makes what all members share like `shared`; what it does not name stays. Any member may be asked.
    pub async fn configure(&self, at: SocketAddr, shared: &Value) -> Result<(), ApiError> {
        let request = Request::new(Method::PATCH, "/config").json(shared.to_string());
        self.ask(at, "a changed configuration", &request, LIMIT)
            .await
            .map(drop)
    }

    /// Wakes this member's loop, which otherwise looks around every 3 s, and changes nothing: it is asked to remove a
    /// key from the shared configuration that is not there.
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
        let members: Vec<Member> = serde_json::from_str(text).unwrap();
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
