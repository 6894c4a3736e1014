//! The JSON of etcd's gateway: bytes in base64, 64-bit numbers as text, zero and empty fields left out.

use super::error::is_learners;
use super::{Item, LeaseId, Revision};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize};

/// gRPC codes that callers distinguish.
pub(super) mod code {
    pub(in super::super) const UNKNOWN: u32 = 2;
    pub(in super::super) const DEADLINE_EXCEEDED: u32 = 4;
    pub(in super::super) const NOT_FOUND: u32 = 5;
    pub(in super::super) const OUT_OF_RANGE: u32 = 11;
    pub(in super::super) const CANCELED: u32 = 1;
    pub(in super::super) const INTERNAL: u32 = 13;
    pub(in super::super) const UNAVAILABLE: u32 = 14;
}

/// The header of every answer, apart from alarms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub(super) member_id: u64,
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
}

/// An answer that begins with a header.
pub(super) trait Reply: for<'de> Deserialize<'de> {
    fn header(&self) -> &Header;
}

/// Declares answers: each has a header, and every field is optional.
macro_rules! replies {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            header: Header,
            $($(#[$attribute])* pub(super) $field: $type,)*
        }

        impl Reply for $name {
            fn header(&self) -> &Header {
                &self.header
            }
        }
    )*};
}

replies! {
    RangeReply { kvs: Vec<KeyValue>, more: bool, }
    PutReply {}
    TxnReply { succeeded: bool, responses: Vec<TxnResponse>, }
    LeaseReply {
        #[serde(rename = "ID", deserialize_with = "number")]
        id: LeaseId,
        #[serde(rename = "TTL", deserialize_with = "number")]
        ttl: i64,
    }
    MembersReply { members: Vec<MemberValue>, }
    StatusReply {
        version: String,
        #[serde(rename = "dbSize", deserialize_with = "number")]
        db_size: u64,
        #[serde(rename = "dbSizeInUse", deserialize_with = "number")]
        db_size_in_use: u64,
        #[serde(deserialize_with = "number")]
        leader: u64,
        #[serde(rename = "isLearner")]
        is_learner: bool,
        errors: Vec<String>,
    }
    AlarmsReply { alarms: Vec<AlarmValue>, }
    WatchReply {
        created: bool,
        canceled: bool,
        #[serde(deserialize_with = "number")]
        compact_revision: u64,
        cancel_reason: String,
        events: Vec<EventValue>,
    }
}

/// The result of one operation in a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TxnResponse {
    pub(super) response_range: Option<RangeReply>,
}

/// A key and its value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    create_revision: u64,
    #[serde(deserialize_with = "number")]
    pub(super) mod_revision: u64,
    #[serde(deserialize_with = "number")]
    lease: LeaseId,
}

impl From<KeyValue> for Item {
    fn from(kv: KeyValue) -> Self {
        Self {
            key: text(kv.key),
            value: kv.value,
            created: Revision(kv.create_revision),
            modified: Revision(kv.mod_revision),
            lease: (kv.lease != LeaseId(0)).then_some(kv.lease),
        }
    }
}

/// One event of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EventValue {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) kv: KeyValue,
}

/// One member as etcd lists it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MemberValue {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(rename = "peerURLs")]
    pub(super) peer_urls: Vec<String>,
    #[serde(rename = "clientURLs")]
    pub(super) client_urls: Vec<String>,
    #[serde(rename = "isLearner")]
    pub(super) is_learner: bool,
}

/// One alarm.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AlarmValue {
    #[serde(rename = "memberID", deserialize_with = "number")]
    pub(super) member_id: u64,
    pub(super) alarm: String,
}

/// One line of a stream, or the answer to a call that is a stream internally.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line<T> {
    Result(T),
    Error(Refusal),
}

/// etcd's refusal. Its shape differs between calls and streams, and between versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    #[serde(alias = "grpc_code")]
    pub(super) code: u32,
    pub(super) message: String,
    error: Option<serde_json::Value>,
}

impl Refusal {
    /// Reads the body of a refusal.
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let refusal: Self = serde_json::from_slice(body)?;
        match refusal.error {
            Some(nested @ serde_json::Value::Object(_)) => serde_json::from_value(nested),
            _ => Ok(refusal),
        }
    }

    /// Whether another member, or the same one later, may succeed.
    pub(super) fn is_passing(&self) -> bool {
        use code::{CANCELED, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, UNKNOWN};
        // "too many requests" has the code of a full database, and a learner of etcd 3.6 answers with that of a failed
        // precondition.
        matches!(
            self.code,
            CANCELED | UNKNOWN | DEADLINE_EXCEEDED | INTERNAL | UNAVAILABLE
        ) || self.message.contains("too many requests")
            || is_learners(&self.message)
    }
}

/// Encodes bytes for the gateway.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The end of the range of all keys that begin with `prefix`, as etcd counts it.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let Some(last) = prefix.iter().rposition(|&byte| byte < 0xff) else {
        // All keys.
        return vec![0];
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

/// Our keys are UTF-8; another one was written by somebody else, and is converted as well as possible.
pub(super) fn text(key: Vec<u8>) -> String {
    String::from_utf8(key).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into())
}

/// Serializes a number as the gateway does.
pub(super) fn digits(number: impl std::fmt::Display) -> String {
    number.to_string()
}

fn number<'de, D: Deserializer<'de>, T: std::str::FromStr>(deserializer: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let digits = match &value {
        serde_json::Value::String(digits) => digits.clone(),
        other => other.to_string(),
    };
    digits
        .parse()
        .map_err(|_| D::Error::invalid_value(Unexpected::Str(&digits), &"a number"))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
}

impl Serialize for LeaseId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_with_what_is_left_out() {
        let body = br#"{"header":{"cluster_id":"13807887513569586722","member_id":"18","revision":"2","raft_term":"2"},
            "kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"3","version":"1","value":"YmFy"}],"count":"1"}"#;
        let reply: RangeReply = serde_json::from_slice(body).unwrap();
        assert_eq!(reply.header().cluster_id, 13_807_887_513_569_586_722);
        let item: Item = reply.kvs.into_iter().next().unwrap().into();
        assert_eq!((item.key.as_str(), &item.value[..]), ("foo", &b"bar"[..]));
        assert_eq!((item.created, item.modified), (Revision(2), Revision(3)));
        assert_eq!(item.lease, None);
    }

    #[test]
    fn refusals_are_read_in_every_shape() {
        let wanted = "etcdserver: no leader";
        for body in [
            r#"{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}"#,
            r#"{"code":14,"message":"etcdserver: no leader","details":[]}"#,
            r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#,
        ] {
            let refusal = Refusal::read(body.as_bytes()).unwrap();
            assert_eq!((refusal.code, refusal.message.as_str()), (14, wanted));
            assert!(refusal.is_passing());
        }
        assert!(Refusal::read(b"<html>").is_err());
    }

    #[test]
    fn the_end_of_a_prefix_is_its_next_neighbour() {
        assert_eq!(prefix_end(b"/a/"), b"/a0");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }

    #[test]
    fn numbers_and_bytes_that_are_none_are_refused() {
        for body in [
            r#"{"header":{"revision":"x"}}"#,
            r#"{"header":{"revision":{}}}"#,
            r#"{"header":{"revision":"-1"}}"#,
            r#"{"kvs":[{"key":"*"}]}"#,
        ] {
            assert!(serde_json::from_str::<RangeReply>(body).is_err(), "{body}");
        }
    }
}
