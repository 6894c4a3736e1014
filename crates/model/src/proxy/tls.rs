//! TLS to clients and to servers.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// TLS to the clients of a bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// PEM files with a certificate, its chain and its key (which may be in `FILE.key` instead), or folders of such
    /// files. A certificate is chosen by SNI; the first one is the default. An OCSP response in `FILE.ocsp` is stapled,
    /// if the file exists.
    pub certificates: Vec<PathBuf>,
    /// PEM file with the key of all `certificates`; `None`: each has its own, as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The oldest accepted version.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Client certificates to request.
    #[serde(default)]
    pub client: Option<ClientCertificates>,
    /// Protocols offered by ALPN, in order of preference; no ALPN if empty.
    #[serde(default)]
    pub alpn: Vec<String>,
    /// HTTP mode: whether clients may speak plain text too. The first byte tells which: no request begins with that of a TLS record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// TCP mode: whether a server is connected before the client's handshake is answered. A client for which none can be is reset
    /// instead, which for it is a connection that was not made. Its sessions are not in the access log: the requests in them are in that
    /// of whoever sends them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server_first: bool,
}

impl Tls {
    /// TLS with these certificates, 1.2 or later.
    pub fn new(certificates: Vec<PathBuf>) -> Self {
        Self {
            certificates,
            key: None,
            min_version: TlsVersion::default(),
            client: None,
            alpn: Vec::new(),
            optional: false,
            server_first: false,
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Requested client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificates {
    /// PEM file of the CAs that must have issued them.
    pub ca: PathBuf,
    /// Its contents, where they come with the configuration: then the file is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
    /// Whether clients without one are rejected.
    pub required: bool,
}

/// TLS to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTls {
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// PEM file of the CAs that must have issued it; `None`: the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The server name to send (SNI); `None`: `host`, or none without that.
    #[serde(default)]
    pub sni: Option<String>,
    /// The name or IP address that its certificate must have; `None`: `sni`, or without that the IP address connected
    /// to.
    #[serde(default)]
    pub host: Option<String>,
    /// PEM file with our own certificate, its chain and its key, for a server that requests one.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM file with the key of `certificate`; `None`: it is in the same file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// How TLS is asked for before it begins; `None`: the connection begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starttls: Option<StartTls>,
    /// Whether the server's bind has [`Tls::server_first`]: one that resets the connection in the handshake has taken no request, as
    /// if the connection had been refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server_first: bool,
}

/// A protocol that asks for TLS in plain text first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartTls {
    /// PostgreSQL's SSLRequest. A client in TCP mode that asks for encryption itself is told that there is none: what it sends next
    /// is encrypted to the server.
    Postgres,
}

impl Default for ServerTls {
    /// Verified with the system's CAs.
    fn default() -> Self {
        Self {
            verify: true,
            ca: None,
            sni: None,
            host: None,
            certificate: None,
            key: None,
            starttls: None,
            server_first: false,
        }
    }
}

/// A secret that encrypts session tickets. As text it is 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TicketKey(pub [u8; 32]);

/// The session ticket keys shared by all balancers of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTickets {
    /// The newest first, which encrypts; all of them are accepted.
    pub keys: Vec<TicketKey>,
    /// When the newest was made, in seconds since 1970.
    pub made: u64,
}

/// Text that is not a [`TicketKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ticket key has 64 hexadecimal digits")]
pub struct BadTicketKey;

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

impl FromStr for TicketKey {
    type Err = BadTicketKey;

    fn from_str(text: &str) -> Result<Self, BadTicketKey> {
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(BadTicketKey);
        };
        let bytes = pairs
            .iter()
            .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        let bytes: Option<Vec<u8>> = bytes.collect();
        let secret = bytes.and_then(|bytes| bytes.try_into().ok());
        secret.map(Self).ok_or(BadTicketKey)
    }
}

impl TryFrom<String> for TicketKey {
    type Error = BadTicketKey;

    fn try_from(text: String) -> Result<Self, BadTicketKey> {
        text.parse()
    }
}

impl From<TicketKey> for String {
    fn from(key: TicketKey) -> Self {
        key.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_key_is_hexadecimal_and_is_not_shown() {
        let key = TicketKey([0xa7; 32]);
        let text = String::from(key.clone());
        assert_eq!(text, "a7".repeat(32));
        assert_eq!(text.parse(), Ok(key.clone()));
        assert!(!format!("{key:?}").contains("a7"));
        for bad in ["", "a7", &text[1..], &format!("{text}a7"), &"é".repeat(32)] {
            assert_eq!(bad.parse::<TicketKey>(), Err(BadTicketKey), "{bad:?}");
        }
    }
}
