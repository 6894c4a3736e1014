//! The members' reports, and each member's role derived from all of them.

use super::ApiError;
use gaiola_model::ServerName;
use gaiola_model::placement::{DatabaseRole, ObservedDatabase};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A member's answer to `GET /patroni`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// `running`, `starting`, `stopped`, `creating replica` and others.
    #[serde(default)]
    pub state: String,
    /// `master` or `primary`; `replica`; `uninitialized`.
    #[serde(default)]
    pub role: String,
    /// The timeline it is on.
    #[serde(default)]
    pub timeline: Option<u64>,
    /// Whether the store names it as a synchronous standby.
    #[serde(default)]
    pub sync_standby: bool,
    /// Its positions in the write-ahead log.
    #[serde(default)]
    pub xlog: Xlog,
    /// On the primary: the receivers of its log.
    #[serde(default)]
    pub replication: Vec<Sender>,
    /// When Patroni last reached the store, in seconds since 1970; 0: not since it was started.
    #[serde(default)]
    pub dcs_last_seen: u64,
}

/// Positions in PostgreSQL's write-ahead log, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Xlog {
    /// Written, on the primary.
    #[serde(default)]
    pub location: Option<u64>,
    /// Received, on a standby.
    #[serde(default)]
    pub received_location: Option<u64>,
    /// Replayed, on a standby.
    #[serde(default)]
    pub replayed_location: Option<u64>,
}

/// A receiver of the primary's log, from `pg_stat_replication`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Sender {
    /// The member's name; a backup program has another.
    #[serde(default)]
    pub application_name: String,
    /// `streaming` once it has caught up.
    #[serde(default)]
    pub state: String,
    /// `sync` or `quorum` where commits wait for it; `async`, `potential`.
    #[serde(default)]
    pub sync_state: String,
}

impl Sender {
    /// Whether commits wait for it.
    fn is_waited_for(&self) -> bool {
        matches!(self.sync_state.as_str(), "sync" | "quorum")
    }
}

impl Report {
    /// Whether it takes writes.
    pub fn is_primary(&self) -> bool {
        self.state == "running" && matches!(self.role.as_str(), "master" | "primary")
    }

    /// Whether the next run of Patroni's loop will change nothing: a standby that runs, or a primary whose commits wait for a
    /// standby.
    pub fn is_settled(&self) -> bool {
        self.state == "running"
            && (!self.is_primary() || self.replication.iter().any(Sender::is_waited_for))
    }

    fn sender(&self, name: ServerName) -> Option<&Sender> {
        let name = name.to_string();
        let mut senders = self.replication.iter();
        senders.find(|sender| sender.application_name == name)
    }

    fn role(&self) -> DatabaseRole {
        match (self.state.as_str(), self.role.as_str()) {
            ("running", "master" | "primary") => DatabaseRole::Primary,
            ("running", _) if self.sync_standby => DatabaseRole::SyncStandby,
            ("running", _) => DatabaseRole::Standby,
            _ => DatabaseRole::Unknown,
        }
    }
}

/// Each member's role, from all reports; a member without a report has the reason in words.
///
/// Where two report themselves primary, the one on the newer timeline decides which standbys stream.
pub(super) fn observe(
    reports: &BTreeMap<ServerName, Result<Report, ApiError>>,
) -> BTreeMap<ServerName, ObservedDatabase> {
    let primary = reports
        .values()
        .flatten()
        .filter(|report| report.is_primary())
        .max_by_key(|report| report.timeline);
    reports
        .iter()
        .map(|(name, report)| (*name, member(*name, report, primary)))
        .collect()
}

fn member(
    name: ServerName,
    report: &Result<Report, ApiError>,
    primary: Option<&Report>,
) -> ObservedDatabase {
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            return ObservedDatabase {
                state: error.to_string(),
                ..ObservedDatabase::default()
            };
        }
    };
    let sender = primary.and_then(|primary| primary.sender(name));
    let role = match report.role() {
        // The store may still list one for a primary that has just been restarted and waits for no standby yet.
        DatabaseRole::SyncStandby
            if primary.is_some() && !sender.is_some_and(Sender::is_waited_for) =>
        {
            DatabaseRole::Standby
        }
        role => role,
    };
    let streaming = sender.is_some_and(|sender| sender.state == "streaming");
    let standby = matches!(role, DatabaseRole::SyncStandby | DatabaseRole::Standby);
    ObservedDatabase {
        role,
        state: if standby && streaming {
            "streaming".into()
        } else {
            report.state.clone()
        },
        timeline: report.timeline.unwrap_or(0),
        lag_bytes: match role {
            DatabaseRole::Primary => Some(0),
            DatabaseRole::SyncStandby | DatabaseRole::Standby => {
                let written = primary.and_then(|primary| primary.xlog.location);
                written
                    .zip(report.xlog.replayed_location)
                    .map(|(w, r)| w.saturating_sub(r))
            }
            DatabaseRole::Unknown => None,
        },
        replayed: report.xlog.replayed_location,
        // Patroni reports neither; whoever has the files adds them.
        history: None,
        requires_tls: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = r#"{"state": "running", "postmaster_start_time": "2026-01-01 00:00:00+00:00", "role": "master",
        "server_version": 150018, "xlog": {"location": 50332000}, "timeline": 3, "replication": [
        {"usename": "replicator", "application_name": "db2", "client_addr": "10.77.4.2", "state": "streaming",
         "sync_state": "sync", "sync_priority": 1},
        {"usename": "replicator", "application_name": "db3", "client_addr": "10.77.4.3", "state": "catchup",
         "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1, "patroni": {"version": "3.0.2"}}"#;
    const STANDBY: &str = r#"{"state": "running", "role": "replica", "server_version": 150018, "xlog": {
        "received_location": 50332000, "replayed_location": 50331000, "replayed_timestamp": null, "paused": false},
        "sync_standby": true, "timeline": 3, "dcs_last_seen": 1}"#;

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn report(text: &str) -> Result<Report, ApiError> {
        Ok(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn members_are_distinguished() {
        let error = ApiError::Refused {
            at: ([10, 77, 4, 5], 8008).into(),
            what: "its state",
            status: 503,
            said: "no".into(),
        };
        let refused = error.to_string();
        let reports = BTreeMap::from([
            (name("db1"), report(PRIMARY)),
            (name("db2"), report(STANDBY)),
            (
                name("db3"),
                report(
                    r#"{"state": "running", "role": "replica", "xlog": {"replayed_location": 1}}"#,
                ),
            ),
            (
                name("db4"),
                report(r#"{"state": "creating replica", "role": "replica"}"#),
            ),
            (name("db5"), Err(error)),
        ]);
        let seen = observe(&reports);
        let roles: Vec<_> = seen.values().map(|member| member.role).collect();
        assert_eq!(
            roles,
            [
                DatabaseRole::Primary,
                DatabaseRole::SyncStandby,
                DatabaseRole::Standby,
                DatabaseRole::Unknown,
                DatabaseRole::Unknown,
            ]
        );
        let states: Vec<_> = seen.values().map(|member| member.state.as_str()).collect();
        assert_eq!(
            states,
            [
                "running",
                "streaming",
                "running",
                "creating replica",
                &*refused
            ]
        );
        assert_eq!(seen[&name("db1")].lag_bytes, Some(0));
        assert_eq!(seen[&name("db2")].lag_bytes, Some(1000));
        assert_eq!(seen[&name("db4")].lag_bytes, None);
    }

    #[test]
    fn without_a_primary_nothing_streams_and_no_lag_is_known() {
        let seen = observe(&BTreeMap::from([(name("db2"), report(STANDBY))]));
        assert_eq!(seen[&name("db2")].state, "running");
        assert_eq!(seen[&name("db2")].lag_bytes, None);
    }

    #[test]
    fn a_standby_that_the_primary_does_not_wait_for_is_not_synchronous() {
        let mut primary = report(PRIMARY).unwrap();
        primary.replication[0].sync_state = "async".into();
        let reports = BTreeMap::from([(name("db1"), Ok(primary)), (name("db2"), report(STANDBY))]);
        assert_eq!(observe(&reports)[&name("db2")].role, DatabaseRole::Standby);
    }

    #[test]
    fn a_primary_settles_once_a_standby_is_waited_for() {
        let mut primary = report(PRIMARY).unwrap();
        assert!(primary.is_settled());
        primary.replication[0].sync_state = "async".into();
        assert!(!primary.is_settled());
        assert!(report(STANDBY).unwrap().is_settled());
        assert!(!Report::default().is_settled());
    }
}
