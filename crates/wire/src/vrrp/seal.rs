//! The trailer that proves that an advertisement comes from a holder of the site's key.

use crate::hex;
use gaiola_model::vrrp::Stamp;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

const STAMP: usize = 8;
const CODE: usize = 32;

/// The secret shared by a site's keepers. It is never displayed.
///
/// ```
/// use gaiola_wire::vrrp::Key;
///
/// let key = Key::from_hex("000102030405060708090a0b0c0d0e0f").unwrap();
/// assert_eq!(format!("{key:?}"), "Key(..)");
/// assert!(Key::from_hex("0001").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

/// An invalid key. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is not hexadecimal of at least 16 bytes")]
pub struct KeyError;

impl Key {
    /// Decodes a key from hexadecimal text: at least 16 bytes.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let bytes = hex::decode(text).filter(|bytes| bytes.len() >= 16);
        bytes.map(Self).ok_or(KeyError)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Appends the trailer to an advertisement whose checksum is still zero.
///
/// `addresses`: what identifies sender and receivers.
pub(super) fn append(payload: &mut Vec<u8>, addresses: &[u8], key: &Key, stamp: Stamp) {
    payload.extend(stamp.0.to_be_bytes());
    let code = code(payload, addresses, key).finalize().into_bytes();
    payload.extend(code);
}

/// The stamp of an advertisement that ends at `end`, if it is followed by exactly one trailer with the right code.
pub(super) fn check(payload: &[u8], end: usize, addresses: &[u8], key: &Key) -> Option<Stamp> {
    let trailer = payload.get(end..)?;
    let (stamp, found) = trailer.split_first_chunk::<STAMP>()?;
    let found: &[u8; CODE] = found.try_into().ok()?;
    let sealed = payload.get(..end + STAMP)?;
    code(sealed, addresses, key).verify(found.into()).ok()?;
    Some(Stamp(u64::from_be_bytes(*stamp)))
}

fn code(sealed: &[u8], addresses: &[u8], key: &Key) -> Hmac<Sha256> {
    let mut code = Hmac::<Sha256>::new_from_slice(&key.0).expect("HMAC takes a key of any length");
    code.update(addresses);
    // The checksum covers the seal, so the seal cannot cover the checksum.
    code.update(&sealed[..6]);
    code.update(&[0, 0]);
    code.update(&sealed[8..]);
    code
}
