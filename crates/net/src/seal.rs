//! Encryption of what the store keeps and must not read: AES-256-GCM, each value bound to the site and the name it was sealed under.

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use aws_lc_rs::hmac;
use gaiola_wire::hex;
use std::fmt;

/// Bytes of the nonce that a sealed value begins with.
const NONCE: usize = 12;
/// What a key is derived for: no other use of the same secret gives the same key.
const LABEL: &[u8] = b"gaiola: the operator's secrets, version 1";

/// A key that seals and opens. Its `Debug` output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey([u8; 32]);

/// Why a value is not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not hexadecimal, or too short.
    #[error("it is malformed")]
    Malformed,
    /// Sealed with another key, for another site or under another name, or changed since.
    #[error("it was sealed with another key, under another name, or changed since")]
    NotAuthentic,
    /// The library refused.
    #[error("the encryption failed")]
    Failed,
}

impl SealingKey {
    /// The key that follows from a secret of the site, which must be random: HMAC-SHA-256 of a label.
    pub fn derived_from(secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut derived = [0; 32];
        derived.copy_from_slice(hmac::sign(&key, LABEL).as_ref());
        Self(derived)
    }

    /// A key as [`to_hex`](Self::to_hex) writes it.
    pub fn from_hex(text: &str) -> Option<Self> {
        Some(Self(hex::decode(text)?.try_into().ok()?))
    }

    /// The key in hexadecimal: for a file of mode 0600, or a connection by mutual TLS.
    pub fn to_hex(&self) -> String {
        hex::encode(&self.0)
    }

    /// Seals a value under this name, in hexadecimal: nonce, ciphertext and tag.
    ///
    /// # Errors
    /// Where the library fails.
    pub fn seal(&self, name: &str, value: &str) -> Result<String, SealError> {
        let mut text = value.as_bytes().to_vec();
        let sealed = self.cipher()?;
        let sealed = sealed.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut text);
        let nonce = sealed.map_err(|_| SealError::Failed)?;
        Ok(hex::encode(&[nonce.as_ref().as_slice(), &text].concat()))
    }

    /// The value that was sealed under this name.
    ///
    /// # Errors
    /// Where this key did not seal it under this name, or it was changed.
    pub fn open(&self, name: &str, sealed: &str) -> Result<String, SealError> {
        let bytes = hex::decode(sealed).ok_or(SealError::Malformed)?;
        let (nonce, text) = bytes.split_at_checked(NONCE).ok_or(SealError::Malformed)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce);
        let nonce = nonce.map_err(|_| SealError::Malformed)?;
        let mut text = text.to_vec();
        let aad = Aad::from(name.as_bytes());
        let opened = self.cipher()?;
        let opened = opened.open_in_place(nonce, aad, &mut text);
        let opened = opened.map_err(|_| SealError::NotAuthentic)?;
        String::from_utf8(opened.to_vec()).map_err(|_| SealError::Malformed)
    }

    fn cipher(&self) -> Result<RandomizedNonceKey, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.0).map_err(|_| SealError::Failed)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_under_its_name_with_its_key_alone() {
        let key = SealingKey::derived_from("one");
        let sealed = key.seal("site/TOKEN", "s3cret").unwrap();
        assert!(!sealed.contains("s3cret"));
        assert_eq!(key.open("site/TOKEN", &sealed).as_deref(), Ok("s3cret"));
        assert_eq!(
            key.open("site/OTHER", &sealed),
            Err(SealError::NotAuthentic)
        );
        let other = SealingKey::derived_from("two");
        assert_eq!(
            other.open("site/TOKEN", &sealed),
            Err(SealError::NotAuthentic)
        );
    }

    #[test]
    fn the_same_value_is_never_sealed_the_same() {
        let key = SealingKey::derived_from("one");
        assert_ne!(key.seal("a", "x").unwrap(), key.seal("a", "x").unwrap());
    }

    #[test]
    fn what_was_changed_is_not_opened() {
        let key = SealingKey::derived_from("one");
        let sealed = key.seal("a", "x").unwrap();
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(key.open("a", &changed), Err(SealError::NotAuthentic));
        }
        for wrong in ["", "00", "zz", &sealed[..20]] {
            assert_eq!(key.open("a", wrong), Err(SealError::Malformed));
        }
    }

    #[test]
    fn a_key_survives_hexadecimal_and_is_never_printed() {
        let key = SealingKey::derived_from("one");
        assert_eq!(SealingKey::from_hex(&key.to_hex()), Some(key.clone()));
        assert_eq!(SealingKey::from_hex("00"), None);
        assert_eq!(format!("{key:?}"), "SealingKey(..)");
    }
}
