//! What is seen to serve, by those who answer. The planner waits for every proxy that could send to a server; whether users are
//! served depends on those that work, and of what a silent one sees nothing is known.

use crate::rollout::View;
use crate::topology::{self, Member};
use gaiola_model::placement::{ObservedProxy, Phase};
use gaiola_model::{InstanceName, Revision, ServerName, Tier};

/// What is known of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Everybody who answers sends to it.
    Serving,
    /// Some do.
    Doubted(String),
    /// Nobody does.
    Down(String),
    /// Nobody who could send to it answers.
    Unknown(String),
}

impl Seen {
    /// Why it does not serve in everybody's eyes; `None`: it does.
    pub(super) fn why(self) -> Option<String> {
        match self {
            Self::Serving => None,
            Self::Doubted(why) | Self::Down(why) | Self::Unknown(why) => Some(why),
        }
    }

    /// Whether requests are sent to it.
    pub(super) const fn is_used(&self) -> bool {
        matches!(self, Self::Serving | Self::Doubted(_))
    }

    /// Whether nobody knows.
    pub(super) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    fn told(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Down, |()| Self::Serving)
    }
}

/// How a server does, of those that are to serve.
pub(super) fn server(view: &View<'_>, name: ServerName) -> Seen {
    match (name.tier, view.placement.servers.get(&name)) {
        (Tier::Web, Some(placed)) if placed.phase == Phase::Serve => {
            match view.proxy_at(name, placed.since) {
                Ok(_) => member(view, Member::Server(name), placed.since),
                Err(why) => Seen::Down(why),
            }
        }
        (Tier::App, Some(placed)) if placed.phase == Phase::Serve => app_server(view, name),
        _ => Seen::told(view.server_serves(name)),
    }
}

/// An application server serves while one of its instances does.
fn app_server(view: &View<'_>, name: ServerName) -> Seen {
    if view.live(name).is_none() {
        return Seen::told(view.server_serves(name));
    }
    let placed = view.placement.instances.iter();
    let serving = placed.filter(|(on, placed)| on.server == name && placed.phase == Phase::Serve);
    let seen: Vec<(InstanceName, Seen)> = serving
        .map(|(name, _)| (*name, instance(view, *name)))
        .collect();
    if seen.is_empty() {
        return Seen::Down("has no instance yet".into());
    }
    let any_serves = seen.iter().any(|(_, seen)| seen.is_used());
    let all_unknown = seen.iter().all(|(_, seen)| seen.is_unknown());
    let worst = seen
        .into_iter()
        .find_map(|(name, seen)| Some(format!("has {name}, which {}", seen.why()?)));
    match worst {
        None => Seen::Serving,
        Some(why) if any_serves => Seen::Doubted(why),
        Some(why) if all_unknown => Seen::Unknown(why),
        Some(why) => Seen::Down(why),
    }
}

/// How an instance does that is to serve.
pub(super) fn instance(view: &View<'_>, name: InstanceName) -> Seen {
    match view.instance_is_ready(name) {
        Ok(since) => member(view, Member::Instance(name), since),
        Err(why) => Seen::Down(why),
    }
}

/// What the proxies that send to a member find, of those that answer.
fn member(view: &View<'_>, member: Member, since: Revision) -> Seen {
    let name = member.to_string();
    let answer = |sender: ServerName| Some((sender, view.live(sender)?.proxy.as_ref()?));
    let senders = topology::senders(view.placement, member);
    let answering: Vec<(ServerName, &ObservedProxy)> =
        senders.iter().copied().filter_map(answer).collect();
    if let ([_, ..], []) = (senders.as_slice(), answering.as_slice()) {
        return Seen::Unknown("is sent to by proxies that do not answer".into());
    }
    let any_finds_up = answering.iter().any(|(_, proxy)| proxy.up.contains(&name));
    let late = answering
        .iter()
        .find(|(_, proxy)| proxy.revision < since)
        .map(|(sender, _)| {
            format!("waits for {sender}, which has not acknowledged revision {since} yet")
        });
    let down = answering
        .iter()
        .find(|(_, proxy)| !proxy.up.contains(&name))
        .map(|(sender, _)| format!("is not found up by {sender}"));
    match late.or(down) {
        None => Seen::Serving,
        Some(why) if any_finds_up => Seen::Doubted(why),
        Some(why) => Seen::Down(why),
    }
}
