//! String values that only this file has. Each error is `(what, hint)`.

mod address;
mod pattern;

pub(super) use address::{bind, listen, permissions, unix};
pub(super) use pattern::{path_prefix, route_path, text_pattern};

use super::WORDS;
pub(super) use crate::file::value::network;
use crate::file::value::{Wrong, duration_up_to, measure, size};
use gaiola_model::proxy::{
    Algorithm, Allowance, HashKey, LimitKey, Most, OnMarkedDown, ProxyVersion, Refusal, SameSite,
    Server, StartTls, TlsVersion,
};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A name of a frontend, backend or server.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    const LONGEST: usize = 64;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if text.is_empty() || text.len() > LONGEST || !text.chars().all(fits) {
        let hint = format!("use 1 to {LONGEST} of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`");
        return Err(("is not a name".into(), hint));
    }
    Ok(text.to_owned())
}

/// The oldest accepted version of TLS.
pub(super) fn tls_version(text: &str) -> Result<TlsVersion, Wrong> {
    one_of(
        text,
        &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)],
    )
}

/// The protocol that asks for TLS in plain text.
pub(super) fn starttls(text: &str) -> Result<StartTls, Wrong> {
    one_of(text, &[("postgres", StartTls::Postgres)])
}

/// Whether clients must present a certificate.
pub(super) fn is_required(text: &str) -> Result<bool, Wrong> {
    one_of(text, &[("required", true), ("optional", false)])
}

/// An ALPN protocol that the proxy speaks itself.
pub(super) fn http_protocol(text: &str) -> Result<String, Wrong> {
    one_of(text, &[("http/1.1", text.to_owned())])
}

/// An ALPN protocol (RFC 7301, section 3.1).
pub(super) fn protocol(text: &str) -> Result<String, Wrong> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err((
            "is not a protocol".into(),
            "write 1 to 255 bytes, such as \"http/1.1\" or \"postgresql\"".into(),
        )),
    }
}

/// A host name.
pub(super) fn host_name(text: &str) -> Result<String, Wrong> {
    const LONGEST: usize = 253;
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let ends = label.starts_with('-') || label.ends_with('-');
        (1..64).contains(&label.len()) && label.bytes().all(fits) && !ends
    };
    // A name whose last label is a number is an IP address, or would be taken for one (the URL standard, "ends in a
    // number").
    let last = text.rsplit('.').next().unwrap_or_default();
    let last = last.to_ascii_lowercase();
    let is_ip = match last.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    if text.len() > LONGEST || !text.split('.').all(is_label) || is_ip {
        let hint = "write it as \"www.example.org\"";
        return Err(("is not a host name".into(), hint.into()));
    }
    Ok(text.to_ascii_lowercase())
}

/// A host name or an IP address.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => host_name(text),
    }
}

/// TLS server names: one, or with a leading `*.` all below it.
pub(super) fn server_name(text: &str) -> Result<String, Wrong> {
    let name = host_name(text.strip_prefix("*.").unwrap_or(text)).map_err(|(what, _)| {
        let hint = "write it as \"www.example.org\", or \"*.example.org\" for all below";
        (what, hint.into())
    })?;
    Ok(if text.starts_with("*.") {
        format!("*.{name}")
    } else {
        name
    })
}

/// The name of a header field or a cookie (RFC 9110, section 5.6.2).
pub(super) fn token(text: &str) -> Result<String, Wrong> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err((
            "is not a name".into(),
            "write it as it is sent, such as \"X-User\"".into(),
        ))
    }
}

/// A server's name in the backend's cookie.
pub(super) fn cookie(text: &str) -> Result<String, Wrong> {
    if Server::is_cookie(text) {
        Ok(text.to_owned())
    } else {
        Err((
            "cannot be a cookie's value".into(),
            "use letters, digits, `-` and `_`".into(),
        ))
    }
}

/// The requests from other sites to which a browser adds a cookie.
pub(super) fn same_site(text: &str) -> Result<SameSite, Wrong> {
    one_of(
        text,
        &[
            ("strict", SameSite::Strict),
            ("lax", SameSite::Lax),
            ("none", SameSite::None),
        ],
    )
}

/// Lifetime of a cookie, in whole seconds.
pub(super) fn cookie_age(text: &str) -> Result<Duration, Wrong> {
    const LONGEST: Duration = Duration::from_secs(400 * 86_400);
    let hint = || "write a number and s, m or h, at most 9600h: \"30m\", \"8h\"".to_owned();
    match duration_up_to(LONGEST, text).map_err(|(what, _)| (what, hint()))? {
        whole if whole.as_secs() > 0 && whole.subsec_nanos() == 0 => Ok(whole),
        _ => Err(("is not whole seconds".into(), hint())),
    }
}

/// The name of a PostgreSQL user.
pub(super) fn postgres_user(text: &str) -> Result<String, Wrong> {
    const LONGEST: usize = 63;
    if text.is_empty() || text.len() > LONGEST || text.contains('\0') {
        let hint = format!("write 1 to {LONGEST} bytes, none of them zero");
        return Err(("is not a user name".into(), hint));
    }
    Ok(text.to_owned())
}

/// A version of the PROXY protocol.
pub(super) fn proxy_version(text: &str) -> Result<ProxyVersion, Wrong> {
    one_of(text, &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)])
}

/// A path in the file system.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    match text {
        "" => Err(("is empty".into(), "write a path".into())),
        _ if text.contains('\0') => Err(("contains a zero byte".into(), "take it out".into())),
        _ => Ok(text.into()),
    }
}

/// A text that is used unchanged.
pub(super) fn plain(text: &str) -> Result<String, Wrong> {
    Ok(text.to_owned())
}

/// The size of a head.
pub(super) fn head_size(text: &str) -> Result<u32, Wrong> {
    let size = size(text)?;
    let size = u32::try_from(size).ok();
    size.filter(|size| *size <= Allowance::MOST_HEAD)
        .ok_or_else(|| {
            (
                "is more than the proxy reads".into(),
                "write at most 64KiB".into(),
            )
        })
}

/// A method. Lower case is almost certainly a mistake: it would match none that clients send.
pub(super) fn method(text: &str) -> Result<String, Wrong> {
    if text == "*" {
        let hint = "leave `method` out: then every method matches";
        return Err(("is not a method".into(), hint.into()));
    }
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let hint = format!("write it as {:?}", text.to_ascii_uppercase());
        Err(("has lower-case letters, which no method has".into(), hint))
    } else {
        plain(text)
    }
}

/// A span of up to two years.
pub(super) fn days(text: &str) -> Result<Duration, Wrong> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let seconds = measure(text, &units).filter(|seconds| *seconds <= 2 * 366 * 86_400);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let hint = "write a number and s, m, h or d, at most 732d: \"365d\"";
        ("is not a number of days".into(), hint.into())
    })
}

/// A number of requests per window: `100/10s`, `5/m`.
pub(super) fn rate(text: &str) -> Result<Most, Wrong> {
    let parts = text.split_once('/').and_then(|(requests, window)| {
        let requests: u32 = requests.trim().parse().ok()?;
        let window = match window.trim() {
            unit if unit.starts_with(|c: char| c.is_ascii_digit()) => days(unit),
            unit => days(&format!("1{unit}")),
        };
        Some((requests, window.ok()?))
    });
    match parts {
        Some((1.., window)) if !(1..=86_400).contains(&window.as_secs()) => Err((
            "has a window out of range".into(),
            "it is from 1s to 1d".into(),
        )),
        Some((requests @ 1.., window)) => Ok(Most::Rate { requests, window }),
        Some((0, _)) => Err((
            "allows no request at all".into(),
            "write { deny = true } for that".into(),
        )),
        None => Err((
            "is not a rate".into(),
            "write REQUESTS/WINDOW, such as \"100/10s\" or \"5/m\"".into(),
        )),
    }
}

/// The key that requests share.
pub(super) fn limit_key(text: &str) -> Result<LimitKey, Wrong> {
    let header = text.strip_prefix("header:");
    let is_mark = |c| "!#$%&'*+-.^_`|~".contains(c);
    let fits = |c: char| c.is_ascii_alphanumeric() || is_mark(c);
    match (text, header) {
        ("source", _) => Ok(LimitKey::Source),
        ("network", _) => Ok(LimitKey::Network),
        ("path", _) => Ok(LimitKey::Path),
        (_, Some(name)) if !name.is_empty() && name.chars().all(fits) => {
            Ok(LimitKey::Header(name.into()))
        }
        _ => Err((
            "is not known".into(),
            "it is one of \"source\", \"network\", \"path\", \"header:NAME\"".into(),
        )),
    }
}

/// A secret that cannot be guessed.
pub(super) fn secret(text: &str) -> Result<String, Wrong> {
    const SHORTEST: usize = 16;
    match text.chars().count() {
        0..SHORTEST => Err((
            "can be guessed".into(),
            format!("use at least {SHORTEST} characters, chosen at random"),
        )),
        _ => Ok(text.to_owned()),
    }
}

/// A balancing algorithm, by HAProxy's words.
pub(super) fn balance(text: &str) -> Result<Algorithm, Wrong> {
    let hash = Algorithm::Hash {
        key: HashKey::Source,
        bound: Some(Algorithm::USUAL_BOUND),
    };
    one_of(
        text,
        &[
            ("roundrobin", Algorithm::RoundRobin),
            ("leastconn", Algorithm::LeastConn),
            ("random", Algorithm::Random),
            ("first", Algorithm::First),
            ("hash", hash),
        ],
    )
    .map_err(|(what, hint)| {
        let meant = WORDS
            .foreign(text)
            .filter(|meant| meant.contains("balance = "));
        (what, meant.unwrap_or(hint))
    })
}

/// What happens to the sessions of a server that is marked down.
pub(super) fn on_marked_down(text: &str) -> Result<OnMarkedDown, Wrong> {
    one_of(
        text,
        &[
            ("close-pooled", OnMarkedDown::ClosePooled),
            ("shutdown-sessions", OnMarkedDown::ShutdownSessions),
        ],
    )
}

/// What a TCP client receives when no server is available.
pub(super) fn refusal(text: &str) -> Result<Refusal, Wrong> {
    one_of(
        text,
        &[("close", Refusal::Close), ("postgres", Refusal::Postgres)],
    )
}

/// A frontend's protocol: `true` for HTTP.
pub(super) fn mode(text: &str) -> Result<bool, Wrong> {
    one_of(text, &[("http", true), ("tcp", false)])
}

/// The value of a known word.
pub(super) fn one_of<T: Clone>(text: &str, known: &[(&str, T)]) -> Result<T, Wrong> {
    let found = known.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let words: Vec<_> = known
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        (
            "is not known".into(),
            format!("it is one of {}", words.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_left_out_and_a_port_may_not() {
        for (text, address) in [
            (":80", "0.0.0.0:80"),
            ("*:80", "0.0.0.0:80"),
            ("10.0.0.1:8080", "10.0.0.1:8080"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(bind(text).unwrap(), address.parse().unwrap(), "{text}");
        }
        for text in [
            "",
            "80",
            ":",
            ":0",
            ":+80",
            ":65536",
            "localhost:80",
            "::1:80",
            "10.0.0.1",
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_address_is_a_network_too() {
        assert_eq!(network("192.0.2.7"), Ok("192.0.2.7/32".parse().unwrap()));
        assert_eq!(
            network("2001:db8::/32"),
            Ok("2001:db8::/32".parse().unwrap())
        );
        assert!(network("10.0.0.0/33").is_err() && network("example.com").is_err());
    }

    #[test]
    fn what_ends_in_a_number_is_no_hosts_name() {
        for text in ["a", "a.b", "1.example", "a.0xyz", "A.b"] {
            assert!(host_name(text).is_ok(), "{text}");
        }
        for text in ["", "a.1", "1.2.3.4", "a.0x1f", "a.0X", "a..b", "-a", "::1"] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_can_stand_in_logs_and_metrics() {
        assert_eq!(name("app1.2"), Ok("app1.2".into()));
        for text in ["", "a b", "a\"", "é", &"a".repeat(65)] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
