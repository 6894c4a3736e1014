//! User names and passwords (RFC 7617).
//!
//! Comparing a password with a good hash takes tens of milliseconds by design. A few threads beside the workers do
//! this, and the results are cached by a keyed digest, so that no password is kept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gaiola_model::proxy::BasicAuth;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longest `Authorization` value that is examined.
const FIELD_LIMIT: usize = 1024;

/// Highest cost of bcrypt, and most rounds of SHA-crypt: about a second.
const COST_LIMIT: u32 = 14;
const ROUNDS_LIMIT: u32 = 1_000_000;

/// Requests waiting for a comparison, including those being compared; further ones are asked to retry.
const WAITING_LIMIT: usize = 64;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cached results, right and wrong ones apart; up to twice as many.
const REMEMBERED: usize = 1024;

/// The verdict on a request's name and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    /// They belong to a user.
    Right,
    /// They do not, or are missing.
    Wrong(&'static str),
    /// Too many requests wait for a comparison.
    Busy,
}

/// Verifies passwords, for all workers of a process.
pub(super) struct Verifier {
    secret: [u8; 32],
    right: Mutex<Memory>,
    wrong: Mutex<Memory>,
    /// Permits to wait, and permits to compare.
    waiting: Semaphore,
    comparing: Semaphore,
}

/// Digests, in two generations: when the younger one is full, it replaces the older.
#[derive(Default)]
struct Memory {
    young: HashMap<[u8; 32], ()>,
    old: HashMap<[u8; 32], ()>,
}

impl Memory {
    fn knows(&mut self, digest: &[u8; 32]) -> bool {
        let known = self.young.contains_key(digest);
        if !known && self.old.remove(digest).is_some() {
            self.remember(*digest);
            return true;
        }
        known
    }

    fn remember(&mut self, digest: [u8; 32]) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, ());
    }
}

impl Verifier {
    /// A verifier with an empty cache; `secret` must be known to nobody else.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            secret,
            right: Mutex::default(),
            wrong: Mutex::default(),
            waiting: Semaphore::new(WAITING_LIMIT),
            comparing: Semaphore::new(cpus.div_ceil(2)),
        }
    }

    /// Verifies a request's `Authorization` field.
    pub(super) async fn verify(&self, auth: &BasicAuth, field: Option<&[u8]>) -> Verified {
        let Some(field) = field else {
            return Verified::Wrong("it has no name and password");
        };
        let Some((name, password)) = parse(field) else {
            return Verified::Wrong("its authorization is malformed");
        };
        let known = auth.users.iter().find(|user| user.name.as_bytes() == name);
        // The response time must not reveal whether a name exists.
        let Some(user) = known.or(auth.users.first()) else {
            return Verified::Wrong("there are no users");
        };
        match self.compare(&user.hash, &password).await {
            Some(true) if known.is_some() => Verified::Right,
            Some(_) => Verified::Wrong("its name or password is wrong"),
            None => Verified::Busy,
        }
    }

    /// Whether the password matches the hash; `None` if that cannot be determined in time.
    async fn compare(&self, hash: &str, password: &[u8]) -> Option<bool> {
        if let Some(digest) = hash.strip_prefix(PLAIN) {
            return Some(is_digest(digest, password));
        }
        let digest = self.digest(hash, password);
        if let Some(known) = self.recall(&digest) {
            return Some(known);
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        let turn = tokio::time::timeout(PATIENCE, self.comparing.acquire()).await;
        let _turn = turn.ok()?.ok()?;
        // Another request may have had the same compared meanwhile.
        if let Some(known) = self.recall(&digest) {
            return Some(known);
        }
        let (hash, password) = (hash.to_owned(), password.to_owned());
        let is_right = tokio::task::spawn_blocking(move || is_password(&hash, &password));
        let is_right = is_right.await.ok()?;
        let memory = if is_right { &self.right } else { &self.wrong };
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remember(digest);
        Some(is_right)
    }

    fn digest(&self, hash: &str, password: &[u8]) -> [u8; 32] {
        let digest = Sha256::new_with_prefix(self.secret);
        let digest = digest.chain_update(hash.len().to_le_bytes());
        digest
            .chain_update(hash)
            .chain_update(password)
            .finalize()
            .into()
    }

    fn recall(&self, digest: &[u8; 32]) -> Option<bool> {
        let knows = |memory: &Mutex<Memory>| {
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.knows(digest)
        };
        match (knows(&self.right), knows(&self.wrong)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

/// Decodes name and password of the `Basic` scheme.
fn parse(field: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if field.len() > FIELD_LIMIT {
        return None;
    }
    let (scheme, rest) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut name = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = name.iter().position(|&byte| byte == b':')?;
    let password = name.split_off(colon + 1);
    name.pop();
    Some((name, password))
}

const PLAIN: &str = "{SHA256}";

fn is_digest(base64: &str, password: &[u8]) -> bool {
    let Ok(wanted) = STANDARD.decode(base64) else {
        return false;
    };
    let digest = Sha256::digest(password);
    // All bytes are compared, so that the time reveals nothing.
    let differing = digest
        .iter()
        .zip(&wanted)
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    wanted.len() == digest.len() && differing == 0
}

fn is_password(hash: &str, password: &[u8]) -> bool {
    if hash.starts_with("$2") {
        bcrypt::verify(password, hash).unwrap_or(false)
    } else {
        ShaCrypt::default().verify_password(password, hash).is_ok()
    }
}

/// Why no password can be compared with a hash. The hash itself is not in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HashError {
    #[error("what follows {{SHA256}} is no digest in base64")]
    Digest,
    #[error("bcrypt's cost is {0}, but at most {COST_LIMIT} is allowed")]
    BcryptCost(u32),
    #[error("this is no hash of bcrypt")]
    Bcrypt,
    #[error("SHA-crypt's rounds are 1000 to {ROUNDS_LIMIT}")]
    Rounds,
    #[error("this is no hash of SHA-crypt")]
    ShaCrypt,
    #[error("a password's hash begins with $2b$ (bcrypt), $5$ or $6$ (SHA-crypt) or {{SHA256}}")]
    Unknown,
}

/// Checks that a password could be compared with this hash.
///
/// # Errors
/// What is wrong with it, without the hash itself.
pub(super) fn check_hash(hash: &str) -> Result<(), HashError> {
    if let Some(digest) = hash.strip_prefix(PLAIN) {
        return match STANDARD.decode(digest) {
            Ok(digest) if digest.len() == 32 => Ok(()),
            _ => Err(HashError::Digest),
        };
    }
    if hash.starts_with("$2") {
        return match hash.parse::<bcrypt::HashParts>() {
            Ok(parts) if parts.get_cost() > COST_LIMIT => {
                Err(HashError::BcryptCost(parts.get_cost()))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(HashError::Bcrypt),
        };
    }
    check_sha_crypt(hash)
}

fn check_sha_crypt(hash: &str) -> Result<(), HashError> {
    let (len, rest) = match (hash.strip_prefix("$5$"), hash.strip_prefix("$6$")) {
        (Some(rest), _) => (43, rest),
        (_, Some(rest)) => (86, rest),
        (None, None) => return Err(HashError::Unknown),
    };
    let rest = match rest
        .strip_prefix("rounds=")
        .and_then(|rest| rest.split_once('$'))
    {
        Some((rounds, rest)) => match rounds.parse::<u32>() {
            Ok(1000..=ROUNDS_LIMIT) => rest,
            _ => return Err(HashError::Rounds),
        },
        None => rest,
    };
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    match rest.split_once('$') {
        Some((salt, digest))
            if (1..=16).contains(&salt.len())
                && digest.len() == len
                && salt.bytes().chain(digest.bytes()).all(is_letter) =>
        {
            Ok(())
        }
        _ => Err(HashError::ShaCrypt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::User;

    /// Hashes of `secret`, as made by other programs.
    const HASHES: [&str; 5] = [
        "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
        "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
        "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
        "$6$rounds=1000$saltsalt$LAV5VE5Y7w1d73x1mFNspYWUpazfmwv2SoepNXNKJ/otop/Zok96Hr8Q13LEv0DRY/x8v0/crpIjl8NJSAqXV/",
        "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    ];

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[tokio::test]
    async fn passwords_of_every_hash_are_known() {
        for hash in HASHES {
            check_hash(hash).unwrap();
            let users = vec![User {
                name: "ann".into(),
                hash: hash.into(),
            }];
            let auth = BasicAuth {
                realm: String::new(),
                users,
            };
            let verifier = Verifier::new([1; 32]);
            for _ in 0..2 {
                for (text, is_right) in [
                    ("ann:secret", true),
                    ("ann:secret ", false),
                    ("bob:secret", false),
                    ("ann:", false),
                ] {
                    let verdict = verifier.verify(&auth, Some(basic(text).as_bytes())).await;
                    assert_eq!(verdict == Verified::Right, is_right, "{hash} {text}");
                    assert_ne!(verdict, Verified::Busy);
                }
            }
            for field in ["", "Basic", "Basic !", "Bearer YTpi", "Basic YQ=="] {
                let verdict = verifier.verify(&auth, Some(field.as_bytes())).await;
                assert!(matches!(verdict, Verified::Wrong(_)), "{field}");
            }
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for hash in [
            "",
            "secret",
            "$1$salt$x",
            "{SHA256}abcd",
            "$2b$04$short",
            "$2b$31$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
            "$6$saltsalt$short",
            "$5$rounds=999999999$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
        ] {
            assert!(check_hash(hash).is_err(), "{hash}");
        }
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_used() {
        let mut memory = Memory::default();
        let digest = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            digest
        };
        memory.remember(digest(0));
        for n in 1..10 * REMEMBERED {
            memory.remember(digest(n));
            assert!(memory.young.len() + memory.old.len() <= 2 * REMEMBERED);
            assert!(memory.knows(&digest(0)));
        }
        assert!(!memory.knows(&digest(1)));
    }
}
