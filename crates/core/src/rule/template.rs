//! Texts with variables.

use super::RuleError;
use super::foreign::{self, Context};
use crate::route::{self, RouteInput};
use gaiola_model::http::RequestHead;
use std::io::Write as _;
use std::net::IpAddr;

/// Values of the variables.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// The buffer that begins with it.
    pub buffer: &'a [u8],
    /// Client address.
    pub client: IpAddr,
    /// The local address it arrived at: the fallback for `host` if the request has none.
    pub local: IpAddr,
    /// Whether it came by HTTPS: over TLS, or according to a trusted balancer.
    pub https: bool,
    /// Its id.
    pub request_id: &'a [u8],
    /// Our own name.
    pub server: &'a str,
}

/// A compiled text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    Client,
    Host,
    Path,
    Query,
    Method,
    Scheme,
    RequestId,
    Server,
}

pub(super) const VARIABLES: [(&str, Variable); 8] = [
    ("client", Variable::Client),
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("method", Variable::Method),
    ("scheme", Variable::Scheme),
    ("request_id", Variable::RequestId),
    ("server", Variable::Server),
];

/// The variables' names, for messages.
pub(super) fn names() -> String {
    VARIABLES.map(|(name, _)| format!("{{{name}}}")).join(", ")
}

impl Template {
    /// A header field's value.
    pub(super) fn value(text: &str) -> Result<Self, RuleError> {
        if !is_field_value(text) {
            return Err(RuleError::FieldValue(text.into()));
        }
        foreign::refuse(text, Context::Value)?;
        Self::parse(text)
    }

    /// A redirect target: a path or an address, in visible ASCII.
    pub(super) fn target(text: &str) -> Result<Self, RuleError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RuleError::Url(text.into()));
        }
        foreign::refuse(text, Context::Target)?;
        if !text.starts_with(['/', '{']) && !text.contains("://") {
            return Err(RuleError::Target(text.into()));
        }
        Self::parse(text)
    }

    /// A host, optionally with a port.
    pub(super) fn host(text: &str) -> Result<Self, RuleError> {
        foreign::refuse(text, Context::Target)?;
        let template = Self::parse(text)?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let fits = template.0.iter().all(|part| match part {
            Part::Text(text) => text.bytes().all(is_host),
            Part::Variable(variable) => matches!(variable, Variable::Host | Variable::Server),
        });
        if text.is_empty() || !fits {
            return Err(RuleError::Host(text.into()));
        }
        Ok(template)
    }

    fn parse(text: &str) -> Result<Self, RuleError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            plain.push_str(&rest[..brace]);
            let (this, behind) = rest[brace..].split_at(1);
            if let Some(behind) = behind.strip_prefix(this) {
                plain.push_str(this);
                rest = behind;
                continue;
            }
            let name = behind.split_once('}').filter(|_| this == "{");
            let (name, behind) = name.ok_or_else(|| RuleError::UnmatchedBrace(text.into()))?;
            let known = VARIABLES.iter().find(|(known, _)| *known == name);
            let (_, variable) = known.ok_or_else(|| RuleError::UnknownVariable {
                text: text.into(),
                name: name.into(),
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(*variable));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Whether it begins with two slashes, and so with a host.
    pub(super) fn begins_with_host(&self) -> bool {
        matches!(self.0.first(), Some(Part::Text(text)) if text.starts_with("//"))
    }

    /// Appends the text; `path` is the rewritten path, if it differs from the request's.
    pub(super) fn write(&self, known: &Values<'_>, path: &[u8], out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => variable.write(known, path, out),
            }
        }
    }
}

impl Variable {
    fn write(self, known: &Values<'_>, path: &[u8], out: &mut Vec<u8>) {
        let Values { head, buffer, .. } = *known;
        let text = match self {
            Self::Client => return address(known.client, out),
            Self::Host => match host(known) {
                Some(host) => host,
                None => return own_host(known.local, out),
            },
            Self::Path if path.is_empty() => head.path(buffer),
            Self::Path => path,
            Self::Query => head.query.of(buffer),
            Self::Method => head.method_name.of(buffer),
            Self::Scheme if known.https => b"https",
            Self::Scheme => b"http",
            Self::RequestId => known.request_id,
            Self::Server => known.server.as_bytes(),
        };
        out.extend_from_slice(text);
    }
}

fn host<'a>(known: &Values<'a>) -> Option<&'a [u8]> {
    route::host_name(&RouteInput {
        head: known.head,
        buffer: known.buffer,
        client: known.client,
    })
}

fn address(address: IpAddr, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{}", address.to_canonical());
}

/// A local address as a host: IPv6 in brackets.
fn own_host(local: IpAddr, out: &mut Vec<u8>) {
    let is_v6 = local.to_canonical().is_ipv6();
    out.extend_from_slice(if is_v6 { b"[" } else { b"" });
    address(local, out);
    out.extend_from_slice(if is_v6 { b"]" } else { b"" });
}

/// Whether it may be a field's value (RFC 9110, section 5.5): visible ASCII with spaces and tabs between.
pub(super) fn is_field_value(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
    text.bytes().all(fits) && text.trim_matches([' ', '\t']) == text
}
