//! The store's members during a roll: one that does not come back after its turn could cost the quorum at the next one.

use super::Turn;
use gaiola_model::ServerName;
use gaiola_model::inventory::Host;
use gaiola_model::status::StoreMemberStatus;

/// The store would have no majority without a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "without {host} {left} of the store's {members} members would work, which is no majority: {}",
    if ill.is_empty() { "the others are on it".into() } else { ill.join("; ") }
)]
pub struct NoQuorum {
    /// The machine whose turn it is.
    pub host: Host,
    /// Members elsewhere that work.
    pub left: usize,
    /// All members.
    pub members: usize,
    /// Those elsewhere that do not, in words.
    pub ill: Vec<String>,
}

/// What is missing of the store, in words.
pub fn members_missing(members: &[StoreMemberStatus]) -> Vec<String> {
    members.iter().filter_map(in_words).collect()
}

fn in_words(member: &StoreMemberStatus) -> Option<String> {
    let trouble = member.trouble.as_ref()?;
    let server = member.server;
    Some(format!("the store's member on {server} {trouble}"))
}

/// Whether the store keeps its majority while the machine of a turn is away. The only member of a store is away with its machine: nothing
/// can be changed meanwhile, and no other member is lost.
///
/// # Errors
/// Where it does not.
pub fn keeps_quorum(members: &[StoreMemberStatus], turn: &Turn) -> Result<(), NoQuorum> {
    let is_away = |server: ServerName| turn.servers.contains(&server);
    let stays = |member: &&StoreMemberStatus| !is_away(member.server);
    let works = |member: &&StoreMemberStatus| member.trouble.is_none();
    let left = members.iter().filter(stays).filter(works).count();
    if members.len() <= 1 || left > members.len() / 2 {
        return Ok(());
    }
    Err(NoQuorum {
        host: turn.host.clone(),
        left,
        members: members.len(),
        ill: members.iter().filter(stays).filter_map(in_words).collect(),
    })
}
