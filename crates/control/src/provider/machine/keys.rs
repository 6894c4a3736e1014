//! Gets the key that opens the operator's secrets for this machine's application servers, where the site uses any.

use super::prepare::kept_secrets;
use super::{Machine, PeerError};
use gaiola_agent::engine::{Secrets, keep_key, key_of};
use gaiola_core::machines;
use gaiola_model::{Placement, ServerName, Tier};
use gaiola_net::seal::SealingKey;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(2);

/// Follows the order, without end. A server without a key runs what needs none.
pub(super) async fn run(machine: Rc<Machine>) {
    let mut orders = machine.order.clone();
    let mut said = false;
    loop {
        let order = orders.borrow_and_update().clone();
        let lacking = order.map_or_else(Vec::new, |order| lacking(&machine, &order.placement));
        if lacking.is_empty() {
            if orders.changed().await.is_err() {
                return;
            }
            continue;
        }
        match key(&machine).await {
            Ok(key) => lacking
                .iter()
                .for_each(|server| keep(&machine, *server, &key)),
            Err(why) if !said => {
                tracing::warn!(why, "has no key for the site's secrets yet");
                said = true;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

/// The application servers here that need the key and do not have it.
fn lacking(machine: &Machine, placement: &Placement) -> Vec<ServerName> {
    let mut environments = placement.environments.values();
    if environments.all(|environment| environment.secrets.is_empty()) {
        return Vec::new();
    }
    let here = machines::servers_on(placement, &machine.host()).into_iter();
    let apps = here.filter(|server| server.tier == Tier::App);
    let has_none = |server: &ServerName| key_of(&machine.state.server(*server)).is_none();
    apps.filter(has_none).collect()
}

async fn key(machine: &Machine) -> Result<SealingKey, String> {
    if let Some((passwords, _)) = kept_secrets(&machine.state) {
        return Ok(passwords.sealing_key());
    }
    let mut last = "no other machine is known".to_string();
    for (host, address) in machine.others() {
        last = match given(machine.peers.secrets(address).await) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => format!("{host} gave none"),
            Err(error) => format!("{host}: {}", gaiola_os::chain(&error)),
        };
    }
    Err(last)
}

/// A machine with an earlier program gives the passwords alone.
fn given(answer: Result<super::SecretFiles, PeerError>) -> Result<Option<SealingKey>, PeerError> {
    let files = answer?;
    let derived = || files.secrets.as_ref().map(Secrets::sealing_key);
    let key = files.sealing_key.as_deref().and_then(SealingKey::from_hex);
    Ok(key.or_else(derived))
}

fn keep(machine: &Machine, server: ServerName, key: &SealingKey) {
    let folder = machine.state.server(server);
    // One that is being prepared comes with the next attempt.
    if folder.is_dir()
        && let Err(error) = keep_key(&folder, key)
    {
        tracing::error!(%server, %error, "cannot keep the key for the site's secrets");
    }
}
