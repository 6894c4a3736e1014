//! Rate and concurrency limits, shared by all workers of a process.
//!
//! A limit's counts are split by key into shards with one lock each: it is held for some tens of nanoseconds, so two
//! workers seldom contend.

use super::clock::since_epoch;
use gaiola_core::limit::Table;
use gaiola_core::route::{RouteInput, normal};
use gaiola_model::proxy::{Count, Limit, LimitKey, Most};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A power of two.
const SHARDS: u32 = 16;

/// One limit.
pub(super) struct Limiter {
    /// Its configuration.
    pub(super) limit: Limit,
    secret: Vec<u8>,
    /// Hash state that starts with the secret.
    hash: Sha256,
    /// Distinguishes it from limits that count something else.
    pub(super) identity: u64,
    shards: Vec<Mutex<Table>>,
}

/// Why counts cannot be cleared.
#[derive(Debug, thiserror::Error)]
pub(super) enum LimitError {
    #[error("the limit {0} counts requests in flight, which clear themselves")]
    InFlight(String),
    #[error("the limit {limit} counts by address, and {key:?} is no IP address")]
    NotAddress { limit: String, key: String },
}

/// A request that counts as in flight until this is dropped.
pub(super) struct InFlightGuard {
    limiter: Arc<Limiter>,
    key: u64,
}

impl Limiter {
    /// A limit without counts.
    pub(super) fn new(limit: &Limit, secret: &[u8]) -> Self {
        let window = match limit.most {
            Most::Rate { window, .. } => window,
            Most::Concurrent(_) => Duration::MAX,
        };
        // Keys are distributed over the shards at random: each gets room for somewhat more than its share.
        let share = limit.keys.div_ceil(SHARDS);
        let room = share + share / 16 + 16;
        let hash = Sha256::new_with_prefix(secret);
        let counted = (&limit.name, &limit.key, limit.most, limit.ipv6_prefix);
        let identity = format!("limit {counted:?}");
        Self {
            limit: limit.clone(),
            secret: secret.to_vec(),
            identity: number(hash.clone().chain_update(identity)),
            hash,
            shards: (0..SHARDS)
                .map(|_| Mutex::new(Table::new(room, window)))
                .collect(),
        }
    }

    /// Whether it counts what this limit requires.
    pub(super) fn is_for(&self, limit: &Limit, secret: &[u8]) -> bool {
        self.limit == *limit && self.secret == secret
    }

    /// The key of a client address, if the limit is by that.
    pub(super) fn key_of(&self, client: IpAddr) -> Option<u64> {
        let mut hash = self.hash.clone();
        match &self.limit.key {
            LimitKey::Source | LimitKey::Network => self.add_client(client, &mut hash),
            LimitKey::Path | LimitKey::Header(_) => return None,
        }
        Some(number(hash))
    }

    /// The key of this request.
    pub(super) fn key(&self, asked: &RouteInput<'_>, scratch: &mut Vec<u8>) -> u64 {
        let mut hash = self.hash.clone();
        match &self.limit.key {
            LimitKey::Source | LimitKey::Network => self.add_client(asked.client, &mut hash),
            LimitKey::Path => hash.update(normal(asked.head.path(asked.buffer), scratch)),
            LimitKey::Header(name) => {
                let mut fields = asked.head.fields.iter();
                let is_it = |field: &[u8]| field.eq_ignore_ascii_case(name.as_bytes());
                let field = fields.find(|field| is_it(field.name.of(asked.buffer)));
                hash.update(field.map_or(&b""[..], |field| field.value.of(asked.buffer)));
            }
        }
        number(hash)
    }

    /// Adds the part that distinguishes client addresses.
    fn add_client(&self, client: IpAddr, hash: &mut Sha256) {
        match client.to_canonical() {
            IpAddr::V4(address) if self.limit.key == LimitKey::Source => {
                hash.update(address.octets());
            }
            IpAddr::V4(address) => hash.update(&address.octets()[..3]),
            IpAddr::V6(address) => {
                let beyond = 128u32.saturating_sub(self.limit.ipv6_prefix.into());
                let mask = u128::MAX.checked_shl(beyond).unwrap_or_default();
                hash.update((address.to_bits() & mask).to_be_bytes());
            }
        }
    }

    /// The key of a client, path or value named by an operator.
    ///
    /// # Errors
    /// Why it is not one.
    fn named(&self, text: &str) -> Result<u64, LimitError> {
        let mut hash = self.hash.clone();
        match &self.limit.key {
            LimitKey::Source | LimitKey::Network => {
                let client = text.parse();
                let client = client.map_err(|_| LimitError::NotAddress {
                    limit: self.limit.name.clone(),
                    key: text.to_owned(),
                })?;
                return Ok(self.key_of(client).expect("it is by address"));
            }
            LimitKey::Path => hash.update(normal(text.as_bytes(), &mut Vec::new())),
            LimitKey::Header(_) => hash.update(text),
        }
        Ok(number(hash))
    }

    /// Clears the counts, of one key or of all.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(super) fn clear(&self, key: Option<&str>) -> Result<(), LimitError> {
        if let Most::Concurrent(_) = self.limit.most {
            return Err(LimitError::InFlight(self.limit.name.clone()));
        }
        match key.map(|key| self.named(key)).transpose()? {
            Some(key) => self.shard(key).clear_key(key),
            None => (0..SHARDS.into()).for_each(|shard| self.shard(shard).clear()),
        }
        Ok(())
    }

    /// How many keys it holds.
    pub(super) fn known(&self) -> usize {
        (0..SHARDS.into())
            .map(|shard| self.shard(shard).len())
            .sum()
    }

    /// Admits a request, which is in flight while the result is kept.
    ///
    /// # Errors
    /// The limit is reached; the time until another request is allowed.
    pub(super) fn take(self: &Arc<Self>, key: u64) -> Result<Option<InFlightGuard>, Duration> {
        match self.limit.most {
            Most::Rate { requests, .. } => self
                .shard(key)
                .hit(key, since_epoch(), requests)
                .map(|()| None),
            Most::Concurrent(requests) => {
                if self.shard(key).hold(key, requests) {
                    Ok(Some(InFlightGuard {
                        limiter: Arc::clone(self),
                        key,
                    }))
                } else {
                    Err(Duration::from_secs(1))
                }
            }
        }
    }

    /// Why a request was rejected, as text.
    pub(super) fn reason(&self) -> String {
        let name = &self.limit.name;
        match self.limit.most {
            Most::Rate { requests, window } => {
                let seconds = window.as_secs_f64();
                format!("limit {name}: {requests} requests in {seconds} s are reached")
            }
            Most::Concurrent(requests) => {
                format!("limit {name}: {requests} requests at a time are reached")
            }
        }
    }

    /// What was counted here since the last export.
    pub(super) fn export(&self, out: &mut Vec<Count>) {
        (0..SHARDS.into()).for_each(|shard| self.shard(shard).export(out));
    }

    /// All of its counts, by whomever they were counted.
    pub(super) fn counts(&self, now: Duration) -> Vec<Count> {
        let mut counts = Vec::new();
        (0..SHARDS.into()).for_each(|shard| self.shard(shard).counts(now, &mut counts));
        counts
    }

    /// Adds what another proxy has counted.
    pub(super) fn import(&self, counts: &[Count], now: Duration) {
        for count in counts {
            self.shard(count.key)
                .import(std::slice::from_ref(count), now);
        }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Table> {
        let index = usize::try_from(key % u64::from(SHARDS)).unwrap_or_default();
        let shard = &self.shards[index];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.limiter.shard(self.key).release(self.key);
    }
}

fn number(hash: Sha256) -> u64 {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::http::RequestHead;

    fn limiter(key: LimitKey, most: Most) -> Arc<Limiter> {
        let limit = Limit {
            key,
            ..Limit::new("some", most)
        };
        Arc::new(Limiter::new(&limit, b"secret"))
    }

    fn key(limiter: &Limiter, client: &str) -> u64 {
        let asked = RouteInput {
            head: &RequestHead::default(),
            buffer: b"",
            client: client.parse().unwrap(),
        };
        limiter.key(&asked, &mut Vec::new())
    }

    #[test]
    fn all_keys_fit_and_memory_is_bounded() {
        let most = Most::Rate {
            requests: 1,
            window: Duration::from_secs(86_400),
        };
        let limiter = limiter(LimitKey::Source, most);
        let address = |n: u32| IpAddr::from(n.to_be_bytes()).to_string();
        let keys: Vec<u64> = (0..100_000).map(|n| key(&limiter, &address(n))).collect();
        for key in &keys {
            assert!(limiter.take(*key).is_ok());
        }
        for key in keys {
            assert!(limiter.take(key).is_err(), "it was forgotten");
        }
        let tables = limiter.shards.iter();
        let memory: usize = tables.map(|table| table.lock().unwrap().memory()).sum();
        assert!(memory < 16 * 1024 * 1024, "{memory}");
    }

    #[test]
    fn a_request_counts_until_it_has_ended() {
        let limiter = limiter(LimitKey::Source, Most::Concurrent(1));
        let first = limiter.take(1).unwrap();
        assert!(limiter.take(1).is_err());
        assert!(limiter.take(2).is_ok());
        drop(first);
        assert!(limiter.take(1).is_ok());
    }

    #[test]
    fn a_key_is_cleared_by_what_an_operator_calls_it() {
        let most = Most::Rate {
            requests: 1,
            window: Duration::from_secs(86_400),
        };
        let limiter = limiter(LimitKey::Source, most);
        let (one, other) = (key(&limiter, "192.0.2.1"), key(&limiter, "192.0.2.2"));
        for key in [one, other] {
            limiter.take(key).unwrap();
        }
        assert_eq!(limiter.known(), 2);
        limiter.clear(Some("192.0.2.1")).unwrap();
        assert_eq!(limiter.known(), 1);
        assert!(limiter.take(one).is_ok());
        assert!(limiter.take(other).is_err());
        limiter.clear(None).unwrap();
        assert!(limiter.take(other).is_ok());
        assert!(limiter.clear(Some("somebody")).is_err());
    }

    #[test]
    fn networks_share_a_key() {
        let one = limiter(LimitKey::Network, Most::Concurrent(1));
        assert_eq!(key(&one, "192.0.2.1"), key(&one, "::ffff:192.0.2.9"));
        assert_ne!(key(&one, "192.0.2.1"), key(&one, "192.0.3.1"));
        assert_eq!(key(&one, "2001:db8::1"), key(&one, "2001:db8::2:0:0:1"));
        assert_ne!(key(&one, "2001:db8::1"), key(&one, "2001:db8:0:1::1"));
        let one = limiter(LimitKey::Source, Most::Concurrent(1));
        assert_ne!(key(&one, "192.0.2.1"), key(&one, "192.0.2.9"));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |ipv6_prefix| {
            let limit = Limit {
                ipv6_prefix,
                ..Limit::new("some", Most::Concurrent(1))
            };
            Limiter::new(&limit, b"secret")
        };
        let one = limiter(LimitKey::Source, Most::Concurrent(1));
        assert_eq!(key(&one, "2001:db8::1"), key(&one, "2001:db8::2:0:0:1"));
        assert_ne!(key(&one, "2001:db8::1"), key(&one, "2001:db8:0:1::1"));
        let wide = of(56);
        assert_eq!(key(&wide, "2001:db8::1"), key(&wide, "2001:db8:0:ff::1"));
        assert_ne!(key(&wide, "2001:db8::1"), key(&wide, "2001:db8:0:100::1"));
        let narrow = of(128);
        assert_ne!(key(&narrow, "2001:db8::1"), key(&narrow, "2001:db8::2"));
        assert_ne!(
            narrow.identity, wide.identity,
            "peers would add up other clients"
        );
    }
}
