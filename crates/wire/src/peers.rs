//! The counts that balancers exchange for their limits: datagrams sealed with a shared secret.
//!
//! Big-endian: a magic number of 7 bytes, the version, the stamp, the limit, then up to [`MOST`] counts of 20 bytes each (key, window,
//! increase), and the first 16 bytes of HMAC-SHA256 over all that. Stamps only grow, so no datagram counts twice.

use gaiola_model::proxy::Count;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Most counts in one datagram, so that it fits in one packet on every network.
pub const MOST: usize = 58;

const MAGIC: [u8; 7] = *b"gaiola\x00";
/// Version of the format, the byte after [`MAGIC`].
const VERSION: u8 = 1;
const HEAD: usize = 24;
const COUNT: usize = 20;
const SEAL: usize = 16;

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountUpdate {
    /// Greater than in every earlier datagram: nanoseconds since the Unix epoch.
    pub stamp: u64,
    /// The limit that was counted.
    pub limit: u64,
    /// The counts.
    pub counts: Vec<Count>,
}

/// Why a datagram is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// It is not of this format.
    #[error("it is not a datagram of a balancer")]
    Form,
    /// Its format has this version, which this proxy does not know yet.
    #[error(
        "this proxy is too old: the sender's format is version {0}, and it reads up to version {VERSION}"
    )]
    Newer(u8),
    /// Its sender does not have the secret.
    #[error("it is sealed with another secret")]
    Seal,
}

/// A sealed datagram with the first [`MOST`] counts.
pub fn encode(secret: &[u8], update: &CountUpdate) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + COUNT * update.counts.len().min(MOST) + SEAL);
    out.extend(MAGIC);
    out.push(VERSION);
    out.extend(update.stamp.to_be_bytes());
    out.extend(update.limit.to_be_bytes());
    for count in update.counts.iter().take(MOST) {
        out.extend(count.key.to_be_bytes());
        out.extend(count.window.to_be_bytes());
        out.extend(count.more.to_be_bytes());
    }
    let seal = mac(secret, &out).finalize().into_bytes();
    out.extend(&seal[..SEAL]);
    out
}

/// Decodes a datagram sealed with this secret.
///
/// # Errors
/// Why it is rejected.
pub fn decode(secret: &[u8], bytes: &[u8]) -> Result<CountUpdate, Rejected> {
    // First: a newer format may have any length and any seal.
    match bytes.strip_prefix(&MAGIC).and_then(<[u8]>::first) {
        Some(&VERSION) => {}
        Some(&version) if version > VERSION => return Err(Rejected::Newer(version)),
        _ => return Err(Rejected::Form),
    }
    let (text, seal) = bytes.split_last_chunk::<SEAL>().ok_or(Rejected::Form)?;
    let (_, rest) = text
        .split_first_chunk::<{ MAGIC.len() + 1 }>()
        .ok_or(Rejected::Form)?;
    let (stamp, rest) = rest.split_first_chunk::<8>().ok_or(Rejected::Form)?;
    let (limit, rest) = rest.split_first_chunk::<8>().ok_or(Rejected::Form)?;
    let (counts, []) = rest.as_chunks::<COUNT>() else {
        return Err(Rejected::Form);
    };
    if counts.len() > MOST {
        return Err(Rejected::Form);
    }
    mac(secret, text)
        .verify_truncated_left(seal)
        .map_err(|_| Rejected::Seal)?;
    Ok(CountUpdate {
        stamp: u64::from_be_bytes(*stamp),
        limit: u64::from_be_bytes(*limit),
        counts: counts.iter().map(count).collect(),
    })
}

fn count(bytes: &[u8; COUNT]) -> Count {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = *bytes;
    Count {
        key: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        window: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        more: u32::from_be_bytes([q, r, s, t]),
    }
}

fn mac(secret: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a secret may have any length");
    mac.update(text);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn update() -> impl Strategy<Value = CountUpdate> {
        let count = (any::<u64>(), any::<u64>(), any::<u32>());
        let count = count.prop_map(|(key, window, more)| Count { key, window, more });
        let counts = prop::collection::vec(count, 0..=MOST);
        (any::<u64>(), any::<u64>(), counts).prop_map(|(stamp, limit, counts)| CountUpdate {
            stamp,
            limit,
            counts,
        })
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(update in update()) {
            let bytes = encode(b"secret", &update);
            prop_assert!(bytes.len() <= 1200);
            prop_assert_eq!(decode(b"secret", &bytes), Ok(update));
            prop_assert_eq!(decode(b"other", &bytes), Err(Rejected::Seal));
        }

        #[test]
        fn a_changed_datagram_is_passed_over(update in update(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = encode(b"secret", &update);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(b"secret", &bytes).is_err());
        }

        #[test]
        fn a_newer_format_is_named(update in update(), version in VERSION + 1.., rest in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = encode(b"secret", &update);
            bytes[MAGIC.len()] = version;
            prop_assert_eq!(decode(b"secret", &bytes), Err(Rejected::Newer(version)));
            let unknown = [&MAGIC[..], &[version], &rest].concat();
            prop_assert_eq!(decode(b"secret", &unknown), Err(Rejected::Newer(version)));
            let none = [&MAGIC[..], &[0], &rest].concat();
            prop_assert_eq!(decode(b"secret", &none), Err(Rejected::Form));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(decode(b"secret", &bytes).is_err());
        }
    }
}
