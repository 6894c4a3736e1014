//! Mistakes in a backend's cookie configuration.

use super::name_of;
use gaiola_model::proxy::{Backend, Server};
use std::collections::BTreeSet;

/// The mistake in the backend's cookie configuration, in words.
pub fn fault(backend: &Backend) -> Option<String> {
    let sticky = backend.sticky.as_ref()?;
    if let Some(fault) = sticky.faults().first() {
        return Some(format!("its cookie's `{}` {}", fault.field, fault.what));
    }
    let mut names = BTreeSet::new();
    for server in &backend.servers {
        let name = name_of(server);
        if !Server::is_cookie(&name) {
            return Some(format!(
                "server {}: {name:?} cannot be a cookie's value",
                server.name
            ));
        }
        if !names.insert(name) {
            return Some(format!(
                "server {}: another one has the same cookie",
                server.name
            ));
        }
    }
    None
}
