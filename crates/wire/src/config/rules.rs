//! The rules of single values, for a program that writes a `gaiola.toml`.

use super::{machines, tiers, value};
use std::net::IpAddr;

/// What is wrong with a value, and what to do: `("is empty", "write a command, such as ...")`.
pub type Wrong = (String, String);

/// A site's name, which is also that of its database.
///
/// ```
/// use gaiola_wire::config::rules;
/// assert!(rules::site("shop").is_ok() && rules::site("postgres").is_err());
/// ```
pub fn site(text: &str) -> Result<(), Wrong> {
    tiers::site_name(text).map(drop)
}

/// A machine's name, as `ssh` takes it.
pub fn machine(text: &str) -> Result<(), Wrong> {
    machines::ssh_name(text).map(drop)
}

/// A VIP on machines, with or without the prefix of its network.
pub fn vip(text: &str) -> Result<IpAddr, Wrong> {
    value::vip(text, None).map(|(address, _)| address)
}

/// A command.
pub fn command(text: &str) -> Result<(), Wrong> {
    value::command(text).map(drop)
}
