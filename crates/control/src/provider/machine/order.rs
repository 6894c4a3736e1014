//! The order that a machine's process begins with: the newest that it, or one of its servers, has stored.

use super::MachineError;
use gaiola_agent::state::{Order, State, read_document};
use gaiola_model::ServerName;
use std::io;

/// The newest order on this machine's disk; `None`: it knows none yet.
///
/// # Errors
/// Where its own cannot be read: that is no new site.
pub fn known(state: &State) -> Result<Option<Order>, MachineError> {
    let path = state.placement();
    let own = match read_document::<Order>(&path) {
        Ok(order) => order,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(MachineError::Order { path, source }),
    };
    let servers = std::fs::read_dir(state.servers()).into_iter().flatten();
    let orders = servers.flatten().filter_map(|server| {
        let name = server.file_name().to_str()?.parse::<ServerName>().ok()?;
        read_document::<Order>(&state.order_file(name)).ok()
    });
    let newer = |held: Order, order: Order| if held.yields_to(&order) { order } else { held };
    Ok(Some(orders.fold(own, newer)))
}
