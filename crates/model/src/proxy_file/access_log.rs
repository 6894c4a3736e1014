//! The access log of a proxy.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Target and format of the access log, which has a line for each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The target.
    pub to: LogTarget,
    /// The format.
    pub format: LogFormat,
}

impl From<PathBuf> for AccessLog {
    /// JSON in a file.
    fn from(file: PathBuf) -> Self {
        Self {
            to: LogTarget::File(file),
            format: LogFormat::default(),
        }
    }
}

/// The target of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// A file to append to.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A syslog server on a UDP port.
    Udp(SocketAddr, Facility),
    /// A syslog server on a Unix datagram socket, such as `/dev/log`.
    Socket(PathBuf, Facility),
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("stdout"),
            Self::Udp(address, _) => write!(f, "syslog:{address}"),
            Self::Socket(path, _) => write!(f, "syslog:{}", path.display()),
        }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A JSON object.
    #[default]
    Json,
    /// HAProxy's `httplog`, and `tcplog` for TCP sessions.
    Httplog,
    /// NCSA's combined log format.
    Combined,
}

/// The syslog facility of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Facility(u8);

impl TryFrom<String> for Facility {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::of(&name).ok_or(name)
    }
}

impl From<Facility> for String {
    fn from(facility: Facility) -> Self {
        let name = Facility::NAMES.get(usize::from(facility.0));
        name.copied().unwrap_or_default().into()
    }
}

impl Facility {
    /// Facility names as in HAProxy, by number.
    pub const NAMES: [&str; 24] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2",
        "ftp", "ntp", "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4",
        "local5", "local6", "local7",
    ];

    /// The facility of this name.
    ///
    /// ```
    /// use gaiola_model::proxy_file::Facility;
    ///
    /// assert_eq!(Facility::of("local0"), Some(Facility::default()));
    /// assert_eq!(Facility::default().number(), 16);
    /// ```
    pub fn of(name: &str) -> Option<Self> {
        let number = Self::NAMES.iter().position(|known| *known == name)?;
        u8::try_from(number).ok().map(Self)
    }

    /// Its number (RFC 3164, section 4.1.1).
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl Default for Facility {
    /// `local0`.
    fn default() -> Self {
        Self(16)
    }
}
