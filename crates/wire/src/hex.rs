//! Bytes as hexadecimal text.

use std::fmt::Write as _;

/// Two lower-case digits for each byte.
///
/// ```
/// assert_eq!(gaiola_wire::hex::encode(&[0, 0x1f, 0xff]), "001fff");
/// ```
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of hexadecimal text in either case. `None` for an odd number of digits or any other character.
///
/// ```
/// assert_eq!(gaiola_wire::hex::decode("001fFF"), Some(vec![0, 0x1f, 0xff]));
/// assert_eq!(gaiola_wire::hex::decode("001"), None);
/// ```
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(byte).collect()
}

fn byte(pair: &[u8; 2]) -> Option<u8> {
    let digit = |at: u8| char::from(at).to_digit(16);
    u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let text = encode(&bytes);
        assert_eq!(text.len(), 512);
        assert_eq!(decode(&text), Some(bytes.clone()));
        assert_eq!(decode(&text.to_uppercase()), Some(bytes));
        assert_eq!(decode(""), Some(vec![]));
    }

    #[test]
    fn text_that_is_not_hexadecimal_is_rejected() {
        for text in ["0", "000", "0g", "+1", " 1", "0x10", "é", "12 4"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
