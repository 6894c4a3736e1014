//! The order that a lab begins with: the newest that it, or one of its servers, has stored.

use super::{LabError, network, system};
use gaiola_agent::state::{Order, State, read_document};
use gaiola_model::ServerName;
use gaiola_model::inventory::Network;
use std::io;

/// The order that the lab knew last; `None` on a new site. One that cannot be read is no new site: its data lies there.
pub fn last(state: &State) -> Result<Option<Order>, LabError> {
    let path = state.placement();
    match read_document(&path) {
        Ok(order) => Ok(Some(complete(order))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(system(format!(
            "read {}, which another version may have written (use that version, or remove {} to start over with a new site)",
            path.display(),
            state.folder().display()
        ))(source)),
    }
}

/// A placement of Gaiola 0.1 does not say in which network the lab's servers stand.
fn complete(mut order: Order) -> Order {
    if order.placement.network == Network::default() {
        order.placement.network = network::inventory(&order.placement.config).network;
    }
    order
}

/// The newest of the lab's own order and of those that its servers hold. An older one of the lab's own might leave a server
/// off whose vote the store needs before a newer one can be read.
pub fn newest(state: &State, own: Order) -> Order {
    let servers = std::fs::read_dir(state.servers()).into_iter().flatten();
    let orders = servers.flatten().filter_map(|server| {
        let name = server.file_name().to_str()?.parse::<ServerName>().ok()?;
        read_document::<Order>(&state.order_file(name)).ok()
    });
    orders.fold(own, |held, order| {
        if held.yields_to(&order) {
            complete(order)
        } else {
            held
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::{App, Config};
    use gaiola_model::placement::{Desired, Release, ReleaseNumber, Revision};

    fn order(incarnation: &str, revision: u64) -> Order {
        let config = Config::new("site".parse().unwrap(), App::new("run"));
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = network::inventory(&config);
        let desired = Desired::first(config, release, inventory);
        Order {
            revision: Revision(revision),
            placement: gaiola_core::rollout::first(&desired, incarnation.into()),
        }
    }

    #[test]
    fn a_site_whose_order_cannot_be_read_is_not_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().into());
        assert_eq!(last(&state).unwrap(), None);
        std::fs::write(state.placement(), "{}").unwrap();
        let why = last(&state).unwrap_err().to_string();
        assert!(
            why.contains("placement.json") && why.contains("start over with a new site"),
            "{why}"
        );
        let order = order("a", 7);
        order.save(&state.placement(), None).unwrap();
        assert_eq!(last(&state).unwrap(), Some(order));
    }

    #[test]
    fn a_server_that_has_a_newer_order_than_the_lab_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().into());
        for (server, order) in [
            ("app1", order("a", 6)),
            ("app2", order("a", 8)),
            ("web1", order("b", 9)),
        ] {
            let server = server.parse().unwrap();
            std::fs::create_dir_all(state.server(server)).unwrap();
            order.save(&state.order_file(server), None).unwrap();
        }
        assert_eq!(newest(&state, order("a", 7)), order("a", 8));
        assert_eq!(newest(&state, order("a", 9)), order("a", 9));
    }
}
