//! Addresses of listeners and servers.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a Unix socket: the size of the system's `sockaddr_un`, less a terminating zero and room for `.new`,
/// the suffix under which a socket is created.
const LONGEST_PATH: usize = 103;

/// The address of a listener: a TCP port or a Unix socket. As text, and so in JSON, it is `10.0.0.1:80`, `[::1]:80` or
/// `unix:/run/app.sock`.
///
/// ```
/// use gaiola_model::proxy::Address;
///
/// let address: Address = "unix:/run/app.sock".parse().unwrap();
/// assert_eq!(address, Address::Unix("/run/app.sock".into()));
/// assert_eq!(address.to_string(), "unix:/run/app.sock");
/// assert_eq!("[::1]:80".parse(), Ok(Address::from(([0, 0, 0, 0, 0, 0, 0, 1], 80))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The absolute path of a socket.
    Unix(PathBuf),
}

/// Text that is not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAddress {
    /// Neither of the forms.
    #[error("an address is an IP address with a port, or `unix:` with an absolute path")]
    Form,
    /// A path that is not absolute.
    #[error("the path of a Unix socket must be absolute")]
    Relative,
    /// A path too long for the system.
    #[error("the path of a Unix socket has at most {LONGEST_PATH} bytes")]
    Long,
}

impl Address {
    /// The address of the TCP port.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The IP address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.tcp().map(|address| address.ip())
    }
}

impl<T: Into<SocketAddr>> From<T> for Address {
    fn from(address: T) -> Self {
        Self::Tcp(address.into())
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| BadAddress::Form);
        };
        match path {
            _ if path.len() > LONGEST_PATH => Err(BadAddress::Long),
            _ if path.starts_with('/') && !path.contains('\0') => Ok(Self::Unix(path.into())),
            _ => Err(BadAddress::Relative),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_tcp_address_is_its_text() {
        let address = Address::from(([10, 0, 0, 1], 80));
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, "\"10.0.0.1:80\"");
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        let socket: SocketAddr = serde_json::from_str(&json).unwrap();
        assert_eq!(address.tcp(), Some(socket));
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused() {
        for (text, error) in [
            ("", BadAddress::Form),
            ("10.0.0.1", BadAddress::Form),
            ("::1:80", BadAddress::Form),
            ("example.org:80", BadAddress::Form),
            ("unix:", BadAddress::Relative),
            ("unix:run/app.sock", BadAddress::Relative),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
        let long = format!("unix:/{}", "a".repeat(LONGEST_PATH));
        assert_eq!(long.parse::<Address>(), Err(BadAddress::Long));
        assert!(long[..long.len() - 1].parse::<Address>().is_ok());
    }
}
