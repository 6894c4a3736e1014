//! What a machine asks the others for by itself: the newest order, and whether the site is up, while it has no other way to know; and the
//! authority where a member of the store stands on it.

use crate::provider::machine::{AuthorityFiles, Machine};
use crate::site::Site;
use gaiola_agent::state::{Order, State, write_document, write_json};
use gaiola_core::machines;
use gaiola_model::schema::SCHEMA;
use gaiola_net::pki::Authority;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// Between two questions whether the site is up, where nothing else asks.
const ASK_POWER: Duration = Duration::from_secs(10);

/// Asks, without end.
pub(super) async fn run(machine: Rc<Machine>, site: Rc<Site>) {
    let mut asked: Option<Instant> = None;
    loop {
        machine.reload();
        let is_cut_off = is_cut_off(&site);
        // A machine may have missed an `up` or a `down` while its store answered: the store may stand on it alone.
        if is_cut_off || asked.is_none_or(|asked| asked.elapsed() >= ASK_POWER) {
            asked = Some(Instant::now());
            machine.follow_power().await;
        }
        if is_cut_off {
            for order in machine.orders_elsewhere().await.orders {
                site.take_order(order);
            }
        }
        if lacks_authority(&machine, &site) {
            ask_for_authority(&machine, &site.state).await;
        }
        sleep(EVERY).await;
    }
}

/// Whether a newer order would not be seen in the store.
fn is_cut_off(site: &Site) -> bool {
    site.order.borrow().is_none() || !site.view.borrow().is_current()
}

fn lacks_authority(machine: &Machine, site: &Site) -> bool {
    let order = site.order.borrow();
    let has_member = |order: &Rc<Order>| machines::has_member(&order.placement, &machine.host());
    order.as_ref().is_some_and(has_member) && !Authority::is_in(&site.state.authority())
}

async fn ask_for_authority(machine: &Machine, state: &State) {
    for (host, address) in machine.others() {
        // Most machines do not have it, or do not answer yet.
        let Ok(files) = machine.peers.authority(address).await else {
            continue;
        };
        match keep(state, &files) {
            Ok(()) => return tracing::info!(%host, "got the site's authority from another machine"),
            Err(error) => tracing::error!(error, "cannot keep the site's authority"),
        }
    }
}

/// Keeps the secrets first: with the authority nothing is missing any more.
fn keep(state: &State, files: &AuthorityFiles) -> Result<(), String> {
    let written = write_document(&state.secrets(), &files.secrets, SCHEMA);
    let written = written.and_then(|()| write_json(&state.keeper_key(), &files.keeper_key));
    written.map_err(|error| gaiola_os::chain(&error))?;
    let kept = Authority::import(&state.authority(), &files.certificate, &files.key);
    kept.map(drop).map_err(|error| gaiola_os::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_agent::engine::Secrets;
    use gaiola_agent::state::read_document;

    #[test]
    fn the_authority_that_another_machine_sent_signs_here() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().join("here"));
        state.make().unwrap();
        let authority = Authority::create_or_load(&folder.path().join("there")).unwrap();
        let (certificate, key) = authority.export();
        let files = AuthorityFiles {
            certificate: certificate.into(),
            key,
            secrets: Secrets::generate().unwrap(),
            keeper_key: "abc".into(),
        };
        keep(&state, &files).unwrap();
        let own = Authority::load_from(&state.authority()).unwrap().unwrap();
        assert_eq!(own.certificate(), certificate);
        let secrets: Secrets = read_document(&state.secrets()).unwrap();
        assert_eq!(secrets, files.secrets);
        let address = [[127, 0, 0, 1].into()];
        own.issue("web1", &address, &folder.path().join("web1"))
            .unwrap();
        let none = AuthorityFiles {
            key: "none".into(),
            ..files
        };
        assert!(keep(&state, &none).is_err());
    }
}
