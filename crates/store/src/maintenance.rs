//! The members, their status, and changes of membership.

use super::call::{Call, Consistency, Repeat};
use super::gateway::{
    AlarmsReply, MemberValue, MembersReply, PutReply, Reply, StatusReply, digits,
};
use super::{Store, StoreError};
use gaiola_net::client::Target;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A member as etcd lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// etcd's id.
    pub id: u64,
    /// Its name; empty until it was started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it was started.
    pub client_urls: Vec<String>,
    /// A learner follows and does not vote.
    pub learner: bool,
}

impl MemberInfo {
    /// Where clients reach it; `None` until it was started.
    pub fn target(&self) -> Option<Target> {
        let address = self.client_urls.first()?.strip_prefix("https://")?;
        Some(Target::tls(address.parse().ok()?))
    }
}

/// A member's own status report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// etcd's id.
    pub id: u64,
    /// etcd's version, `3.4.23`.
    pub version: String,
    /// The id of its leader; `None`: it has none, and cannot write.
    pub leader: Option<u64>,
    /// Whether it does not vote.
    pub learner: bool,
    /// Bytes of its database file, which counts against the quota.
    pub db_size: u64,
    /// Bytes in use within that file.
    pub db_size_in_use: u64,
    /// Problems that etcd reports.
    pub errors: Vec<String>,
}

/// An alarm that stops writes until it is disarmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The member's quota is used up.
    NoSpace {
        /// The member's id.
        member: u64,
    },
    /// The member's data is damaged.
    Corrupt {
        /// The member's id.
        member: u64,
    },
}

impl Store {
    /// All members, after every change that was acknowledged before.
    ///
    /// A member lists from its own memory, which may lag; a linearizable read makes it catch up first.
    pub async fn member_list(&self) -> Result<Vec<MemberInfo>, StoreError> {
        let call = membership(
            "/v3/cluster/member/list",
            "members",
            json!({}),
            Repeat::Freely,
        );
        let mut failed = None;
        for target in self.endpoints() {
            let listed = match self.catch_up(&target).await {
                Ok(()) => self.ask_member::<MembersReply>(&target, &call).await,
                Err(error) => Err(error),
            };
            match listed {
                Ok(reply) => return Ok(reply.members.into_iter().map(MemberInfo::from).collect()),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("a store has a member"))
    }

    /// Adds a member as a learner; start it only after this. One learner at a time.
    ///
    /// Returns all members. After an error that is `maybe_done`, check [`Self::member_list`] first.
    pub async fn member_add_learner(&self, peer_url: &str) -> Result<Vec<MemberInfo>, StoreError> {
        let body = json!({ "peerURLs": [peer_url], "isLearner": true });
        let call = membership("/v3/cluster/member/add", peer_url, body, Repeat::OnlyUnsent);
        self.members(&call).await
    }

    /// Promotes a learner to a voter. etcd rejects it while the learner is behind: retry later.
    pub async fn member_promote(&self, id: u64) -> Result<Vec<MemberInfo>, StoreError> {
        let body = json!({ "ID": digits(id) });
        let about = format!("{id:016x}");
        let call = membership(
            "/v3/cluster/member/promote",
            &about,
            body,
            Repeat::OnlyUnsent,
        );
        self.members(&call).await
    }

    /// Removes a member. etcd rejects it where that would cost the quorum.
    pub async fn member_remove(&self, id: u64) -> Result<Vec<MemberInfo>, StoreError> {
        let body = json!({ "ID": digits(id) });
        let about = format!("{id:016x}");
        let call = membership(
            "/v3/cluster/member/remove",
            &about,
            body,
            Repeat::OnlyUnsent,
        );
        self.members(&call).await
    }

    /// Transfers leadership to another voter; sent to the current leader, which alone can do it.
    pub async fn move_leader(&self, leader: &Target, to: u64) -> Result<(), StoreError> {
        let about = format!("{to:016x}");
        let call = membership(
            "/v3/maintenance/transfer-leadership",
            &about,
            json!({ "targetID": digits(to) }),
            Repeat::OnlyUnsent,
        );
        self.ask_member::<PutReply>(leader, &call).await.map(drop)
    }

    /// The status of one member; sent to that member only.
    pub async fn status(&self, target: &Target) -> Result<MemberStatus, StoreError> {
        let about = target.to_string();
        let call = Call {
            path: "/v3/maintenance/status",
            about: &about,
            body: json!({}),
            repeat: Repeat::Freely,
            consistency: Consistency::Local,
        };
        let reply: StatusReply = self.ask_member(target, &call).await?;
        Ok(MemberStatus {
            id: reply.header().member_id,
            leader: (reply.leader != 0).then_some(reply.leader),
            version: reply.version,
            learner: reply.is_learner,
            db_size: reply.db_size,
            db_size_in_use: reply.db_size_in_use,
            errors: reply.errors,
        })
    }

    /// The status of every member, all polled at once; in the order of their addresses as text.
    pub async fn statuses(&self) -> Vec<(Target, Result<MemberStatus, StoreError>)> {
        let mut asked = JoinSet::new();
        for target in self.endpoints() {
            let store = self.clone();
            asked.spawn(async move {
                let status = store.status(&target).await;
                (target, status)
            });
        }
        let mut statuses = asked.join_all().await;
        statuses.sort_by_key(|(target, _)| target.to_string());
        statuses
    }

    /// Active alarms.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        let body = json!({ "action": "GET" });
        let call = membership("/v3/maintenance/alarm", "alarms", body, Repeat::Freely);
        let reply = self.call::<AlarmsReply>(&call).await?.reply;
        Ok(reply
            .alarms
            .into_iter()
            .filter_map(|one| {
                let member = one.member_id;
                match one.alarm.as_str() {
                    "NOSPACE" => Some(Alarm::NoSpace { member }),
                    "CORRUPT" => Some(Alarm::Corrupt { member }),
                    _ => None,
                }
            })
            .collect())
    }

    async fn members(&self, call: &Call<'_>) -> Result<Vec<MemberInfo>, StoreError> {
        let reply = self.call::<MembersReply>(call).await?.reply;
        Ok(reply.members.into_iter().map(MemberInfo::from).collect())
    }
}

fn membership<'a>(path: &'static str, about: &'a str, body: Value, repeat: Repeat) -> Call<'a> {
    Call {
        path,
        about,
        body,
        repeat,
        consistency: Consistency::Local,
    }
}

impl From<MemberValue> for MemberInfo {
    fn from(value: MemberValue) -> Self {
        Self {
            id: value.id,
            name: value.name,
            peer_urls: value.peer_urls,
            client_urls: value.client_urls,
            learner: value.is_learner,
        }
    }
}
