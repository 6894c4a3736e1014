//! Session tickets: a session's state, encrypted and given to the client, so that any proxy with the same keys can
//! resume it.
//!
//! The layout follows the recommendation of RFC 5077, section 4: key name, nonce, ciphertext, tag; with AES-256-GCM
//! instead of AES-CBC and HMAC.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use gaiola_core::tickets::{self, LIFETIME};
use gaiola_model::proxy::TicketKey;
use rustls::server::ProducesTickets;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Most keys accepted.
const MOST_KEYS: usize = 16;

const NAME_LEN: usize = 16;

/// The process' keys, the newest first.
pub(crate) struct Tickets {
    keys: RwLock<Arc<[Key]>>,
    /// What they were made of.
    secrets: Mutex<Secrets>,
}

/// Ticket keys as they are given, the newest first.
struct Secrets {
    keys: Vec<TicketKey>,
    /// Whether the process generates them; otherwise they were set.
    own: bool,
}

struct Key {
    name: [u8; NAME_LEN],
    key: RandomizedNonceKey,
}

impl Key {
    fn new(secret: &TicketKey) -> Result<Self, String> {
        let derive = |purpose: &str| {
            let digest = Sha256::new_with_prefix(purpose).chain_update(secret.0);
            <[u8; 32]>::from(digest.finalize())
        };
        let key = RandomizedNonceKey::new(&AES_256_GCM, &derive("gaiola ticket key"));
        let [name @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            derive("gaiola ticket name");
        Ok(Self {
            name,
            key: key.map_err(|error| error.to_string())?,
        })
    }
}

impl Tickets {
    /// Starts with a generated key. Without the system's randomness there are no tickets.
    pub(crate) fn new() -> Self {
        let tickets = Self {
            keys: RwLock::new(Arc::new([])),
            secrets: Mutex::new(Secrets {
                keys: Vec::new(),
                own: true,
            }),
        };
        tickets.make();
        tickets
    }

    /// The keys, the newest first, and whether the process generates them.
    pub(crate) fn secrets(&self) -> (Vec<TicketKey>, bool) {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        (secrets.keys.clone(), secrets.own)
    }

    /// Goes on with the keys of another process.
    ///
    /// # Errors
    /// Why they are rejected.
    pub(crate) fn inherit(&self, keys: &[TicketKey], own: bool) -> Result<(), String> {
        if !keys.is_empty() {
            self.take(keys)?;
        }
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.own = own;
        Ok(())
    }

    /// Replaces all keys with these, the newest first, and returns their number.
    ///
    /// # Errors
    /// Why they are rejected.
    pub(crate) fn take(&self, keys: &[TicketKey]) -> Result<usize, String> {
        if keys.is_empty() || keys.len() > MOST_KEYS {
            return Err(format!("from 1 to {MOST_KEYS} ticket keys are taken"));
        }
        self.put(keys)?;
        *self.secrets.lock().unwrap_or_else(PoisonError::into_inner) = Secrets {
            keys: keys.to_vec(),
            own: false,
        };
        Ok(keys.len())
    }

    /// Generates a new key once per ticket lifetime. Never returns.
    pub(crate) async fn renew(&self) {
        loop {
            tokio::time::sleep(LIFETIME).await;
            self.make();
        }
    }

    /// Generates a new key, unless keys were set.
    fn make(&self) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if !secrets.own {
            return;
        }
        let mut secret = TicketKey([0; 32]);
        if let Err(error) = getrandom::fill(&mut secret.0) {
            return tracing::warn!(%error, "no new ticket key");
        }
        secrets.keys = tickets::rotated(&secrets.keys, secret);
        if let Err(error) = self.put(&secrets.keys) {
            tracing::warn!(error, "no new ticket key");
        }
    }

    fn put(&self, keys: &[TicketKey]) -> Result<(), String> {
        let keys: Arc<[Key]> = keys.iter().map(Key::new).collect::<Result<_, _>>()?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The tickets of one frontend: those of another, or with other requirements on the client, are rejected.
pub(super) struct FrontendTickets {
    tickets: Arc<Tickets>,
    context: [u8; 32],
}

impl FrontendTickets {
    pub(super) fn new(tickets: &Arc<Tickets>, context: [u8; 32]) -> Self {
        Self {
            tickets: Arc::clone(tickets),
            context,
        }
    }

    /// The data authenticated with a ticket: the context, and the key's name.
    fn bound_to(&self, key: &Key) -> Aad<[u8; 48]> {
        let mut bound = [0; 48];
        bound[..32].copy_from_slice(&self.context);
        bound[32..].copy_from_slice(&key.name);
        Aad::from(bound)
    }
}

impl std::fmt::Debug for FrontendTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrontendTickets")
    }
}

impl ProducesTickets for FrontendTickets {
    fn enabled(&self) -> bool {
        !self.tickets.keys().is_empty()
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.tickets.keys();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let bound = self.bound_to(key);
        let nonce = key.key.seal_in_place_append_tag(bound, &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.tickets.keys();
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::from(nonce);
        let bound = self.bound_to(key);
        let plain = key.key.open_in_place(nonce, bound, &mut sealed).ok()?;
        let len = plain.len();
        sealed.truncate(len);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(keys: &[u8]) -> Arc<Tickets> {
        let tickets = Tickets::new();
        let keys: Vec<_> = keys.iter().map(|&byte| TicketKey([byte; 32])).collect();
        tickets.take(&keys).unwrap();
        Arc::new(tickets)
    }

    fn of(tickets: &Arc<Tickets>, context: u8) -> FrontendTickets {
        FrontendTickets::new(tickets, [context; 32])
    }

    #[test]
    fn a_holder_of_the_key_opens_a_ticket_until_the_key_is_gone() {
        let (one, other) = (tickets(&[1]), tickets(&[2, 1]));
        let ticket = of(&one, 0).encrypt(b"session").unwrap();
        assert_eq!(of(&other, 0).decrypt(&ticket).unwrap(), b"session");
        let ticket = of(&other, 0).encrypt(b"session").unwrap();
        assert_eq!(of(&one, 0).decrypt(&ticket), None);
        one.take(&[TicketKey([3; 32]), TicketKey([2; 32])]).unwrap();
        assert_eq!(of(&one, 0).decrypt(&ticket).unwrap(), b"session");
    }

    #[test]
    fn a_ticket_is_for_one_context_and_cannot_be_changed() {
        let tickets = tickets(&[1]);
        let ticket = of(&tickets, 0).encrypt(b"session").unwrap();
        assert_eq!(of(&tickets, 1).decrypt(&ticket), None);
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(of(&tickets, 0).decrypt(&changed), None, "{index}");
            assert_eq!(of(&tickets, 0).decrypt(&ticket[..index]), None, "{index}");
        }
    }

    #[test]
    fn our_own_keys_are_renewed_and_the_two_before_still_open() {
        let own = Arc::new(Tickets::new());
        let ticket = of(&own, 0).encrypt(b"session").unwrap();
        for _ in 0..2 {
            own.make();
            assert!(of(&own, 0).decrypt(&ticket).is_some());
        }
        own.make();
        assert_eq!(of(&own, 0).decrypt(&ticket), None);
    }

    #[test]
    fn keys_that_were_given_are_not_replaced_by_our_own() {
        let given = tickets(&[1]);
        let ticket = of(&given, 0).encrypt(b"session").unwrap();
        for _ in 0..3 {
            given.make();
        }
        assert!(of(&given, 0).decrypt(&ticket).is_some());
        assert!(given.take(&[]).is_err());
    }
}
