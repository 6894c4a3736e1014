//! Finding the end of a run of bytes: tables for the short runs, eight bytes at a time for the long ones.

/// Valid bytes of a token, such as a method or a field's name (RFC 9110, section 5.6.2).
static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", true);

/// Valid bytes of a host and port (RFC 3986, section 3.2.2), without the sub-delimiters, which no real name has and
/// which some parsers take for a separator.
static HOST: [bool; 256] = table(b"-._~%[]:", true);

const fn table(marks: &[u8], alphanumeric: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128u8 {
        table[byte as usize] = alphanumeric && byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
}

/// Length of the token at the beginning.
pub(super) fn token(bytes: &[u8]) -> usize {
    run(bytes, |byte| TOKEN[usize::from(byte)])
}

/// Whether all bytes are valid in a host and port.
pub(super) fn is_host(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| HOST[usize::from(byte)])
}

/// Length of the matching prefix.
pub(super) fn run(bytes: &[u8], matches: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|&byte| !matches(byte))
        .unwrap_or(bytes.len())
}

/// Length of the prefix of visible ASCII: no space, no controls, nothing above 0x7e.
pub(super) fn visible(bytes: &[u8]) -> usize {
    run(bytes, |byte| byte.is_ascii_graphic())
}

/// Length of the prefix of valid bytes of a field's value: all but controls; tabs are valid.
pub(super) fn value(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += until_control(&bytes[at..]);
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// Offset of the first byte below 0x20 or of 0x7f.
fn until_control(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = controls(u64::from_le_bytes(*word));
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    words.len() * 8 + run(rest, |byte| !byte.is_ascii_control())
}

/// The high bit of every byte that is a control. Bits above the lowest one may be wrong: a subtraction borrows only
/// from the bytes above it.
const fn controls(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    (below_space | (delete.wrapping_sub(ONES) & !delete)) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_find_what_bytes_find(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let slow = run(&bytes, |byte| !byte.is_ascii_control() || byte == b'\t');
            prop_assert_eq!(value(&bytes), slow);
        }
    }

    #[test]
    fn every_byte_is_judged_at_every_place() {
        for place in 0..17 {
            for byte in 0..=255u8 {
                let mut bytes = [b'a'; 17];
                bytes[place] = byte;
                let bad = byte.is_ascii_control() && byte != b'\t';
                assert_eq!(value(&bytes), if bad { place } else { 17 });
            }
        }
    }

    #[test]
    fn tokens_end_at_separators() {
        assert_eq!(token(b"Content-Length: 5"), 14);
        assert_eq!(token(b"a b"), 1);
        assert_eq!(token(b"(a)"), 0);
        assert_eq!(token("é".as_bytes()), 0);
    }
}
