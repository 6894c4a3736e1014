//! Addresses to listen on.

use crate::file::value::Wrong;
use gaiola_model::proxy::Address;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A listening address: `10.0.0.1:80`, `[::1]:80`, or `:80` on every IPv4 address.
pub(in crate::proxy_file) fn bind(text: &str) -> Result<SocketAddr, Wrong> {
    let hint = || match text.split_once(' ') {
        Some((address, _)) if bind(address).is_ok() => {
            format!("write {{ address = {address:?} }} and other keys beside it")
        }
        _ => "write ADDRESS:PORT, such as \"0.0.0.0:80\", \"[::]:80\", or \":80\"".to_owned(),
    };
    let any = |port: &str| {
        let plain = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| plain)?;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
    };
    let written = text.strip_prefix("*:").or_else(|| text.strip_prefix(':'));
    let address = match written {
        Some(port) => any(port),
        None => text.parse().ok(),
    };
    match address {
        Some(address) if address.port() > 0 => Ok(address),
        Some(_) => Err(("has no port to listen on".into(), hint())),
        None => Err(("is not an address".into(), hint())),
    }
}

/// As [`bind`], or a Unix socket.
pub(in crate::proxy_file) fn listen(text: &str) -> Result<Address, Wrong> {
    unix(text).unwrap_or_else(|| bind(text).map(Address::from))
}

/// `unix:` and a path; `None`: another kind of address.
pub(in crate::proxy_file) fn unix(text: &str) -> Option<Result<Address, Wrong>> {
    let address = text.starts_with("unix:").then(|| text.parse::<Address>())?;
    Some(address.map_err(|error| {
        let hint = "write `unix:` and the whole path, such as \"unix:/run/app.sock\"";
        (format!("cannot be used: {error}"), hint.into())
    }))
}

/// Permissions of a Unix socket.
pub(in crate::proxy_file) fn permissions(text: &str) -> Result<u32, Wrong> {
    let is_octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let bits = u32::from_str_radix(text, 8).ok();
    bits.filter(|bits| is_octal && *bits <= 0o777)
        .ok_or_else(|| {
            let hint = "write three octal digits for owner, group and others: \"660\"";
            ("are not permissions".into(), hint.into())
        })
}
