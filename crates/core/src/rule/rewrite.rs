//! Path rewriting.

use super::{RuleError, foreign};
use crate::route;
use gaiola_model::proxy;
use regex::bytes::Regex;

/// A compiled rewrite.
#[derive(Clone)]
pub(super) enum Rewrite {
    /// Neither ends with a slash.
    Prefix {
        from: Vec<u8>,
        to: Vec<u8>,
    },
    Regex {
        regex: Regex,
        to: Vec<u8>,
    },
}

impl Rewrite {
    pub(super) fn new(rewrite: &proxy::Rewrite) -> Result<Self, RuleError> {
        match rewrite {
            proxy::Rewrite::Prefix { from, to } => {
                for path in [from, to] {
                    if !path.starts_with('/') {
                        return Err(RuleError::RelativePath(path.clone()));
                    }
                }
                foreign::refuse_in_path(to)?;
                let bare = |path: &str| path.trim_end_matches('/').as_bytes().to_vec();
                Ok(Self::Prefix {
                    from: bare(from),
                    to: bare(check(to)?),
                })
            }
            proxy::Rewrite::Regex { pattern, to } => {
                let regex = route::regex(pattern)?;
                foreign::refuse_in_replacement(check(to)?, &regex)?;
                let to = to.as_bytes().to_vec();
                Ok(Self::Regex { regex, to })
            }
        }
    }

    /// The new path; `None` if it does not match.
    pub(super) fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut made = Vec::new();
        match self {
            Self::Prefix { from, to } => {
                let rest = path.strip_prefix(&**from)?;
                if !matches!(rest, [] | [b'/', ..]) {
                    return None;
                }
                made.extend_from_slice(to);
                made.extend_from_slice(rest);
            }
            Self::Regex { regex, to } => {
                let found = regex.captures(path)?;
                let whole = found.get(0)?;
                made.extend_from_slice(&path[..whole.start()]);
                found.expand(to, &mut made);
                made.extend_from_slice(&path[whole.end()..]);
            }
        }
        if made.first() != Some(&b'/') {
            made.insert(0, b'/');
        }
        Some(made)
    }
}

/// The text that a rule puts into a path must not end the path.
fn check(text: &str) -> Result<&str, RuleError> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if text.bytes().all(fits) {
        Ok(text)
    } else {
        Err(RuleError::Path(text.into()))
    }
}

/// Percent-encodes bytes that may not appear in a path.
pub(super) fn encode(path: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#') {
            encoded.push(byte);
        } else {
            let digit = |value: u8| DIGITS[usize::from(value & 0xf)];
            encoded.extend([b'%', digit(byte >> 4), digit(byte)]);
        }
    }
    encoded
}
