//! What serves, according to the proxies that answer. The planner waits for every proxy that could send to a server;
//! whether users are served depends on the working ones, and what a silent one sees is unknown.

use crate::rollout::{View, too_busy};
use crate::topology::{self, Member};
use gaiola_model::placement::{InstanceState, ObservedProxy, Phase};
use gaiola_model::{InstanceName, Revision, ServerName, Tier};

/// A member's observed condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Every proxy that answers sends to it.
    Serving,
    /// The same, but some send although their checks took it down, for lack of others.
    Busy(String),
    /// Some send to it.
    Doubted(String),
    /// None sends to it.
    Down(String),
    /// No proxy that could send to it answers.
    Unknown(String),
}

impl Seen {
    /// Why it does not serve for every proxy, or not well; `None`: it serves.
    pub(super) fn why(self) -> Option<String> {
        match self {
            Self::Serving => None,
            Self::Busy(why) | Self::Doubted(why) | Self::Down(why) | Self::Unknown(why) => {
                Some(why)
            }
        }
    }

    /// Whether requests are sent to it.
    pub(super) const fn is_used(&self) -> bool {
        matches!(self, Self::Serving | Self::Busy(_) | Self::Doubted(_))
    }

    /// Whether requests are sent to it only for lack of others.
    pub(super) const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// Whether its condition is unknown.
    pub(super) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    fn from_result(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Down, |()| Self::Serving)
    }
}

/// The condition of a server that should serve.
pub(super) fn server(view: &View<'_>, name: ServerName) -> Seen {
    match (name.tier, view.placement.servers.get(&name)) {
        (Tier::Web, Some(placed)) if placed.phase == Phase::Serve => {
            match view.proxy_at(name, placed.since) {
                Ok(_) => member(view, Member::Server(name), placed.since),
                Err(why) => Seen::Down(why),
            }
        }
        (Tier::App, Some(placed)) if placed.phase == Phase::Serve => app_server(view, name),
        _ => Seen::from_result(view.server_serves(name)),
    }
}

/// An application server serves while one of its instances does.
fn app_server(view: &View<'_>, name: ServerName) -> Seen {
    if view.live(name).is_none() {
        return Seen::from_result(view.server_serves(name));
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
    let all_serve = seen
        .iter()
        .all(|(_, seen)| matches!(seen, Seen::Serving | Seen::Busy(_)));
    let all_unknown = seen.iter().all(|(_, seen)| seen.is_unknown());
    let worst = seen
        .into_iter()
        .find_map(|(name, seen)| Some(format!("has {name}, which {}", seen.why()?)));
    match worst {
        None => Seen::Serving,
        Some(why) if all_serve => Seen::Busy(why),
        Some(why) if any_serves => Seen::Doubted(why),
        Some(why) if all_unknown => Seen::Unknown(why),
        Some(why) => Seen::Down(why),
    }
}

/// The condition of an instance that should serve.
pub(super) fn instance(view: &View<'_>, name: InstanceName) -> Seen {
    let why = match view.instance_is_ready(name) {
        Ok(since) => return member(view, Member::Instance(name), since),
        Err(why) => why,
    };
    // One that does not answer its own agent still serves while proxies send to it.
    match reported_unhealthy(view, name) {
        Some(since) => match member(view, Member::Instance(name), since) {
            Seen::Busy(_) => Seen::Busy(why),
            Seen::Serving | Seen::Doubted(_) => Seen::Doubted(why),
            Seen::Down(_) | Seen::Unknown(_) => Seen::Down(why),
        },
        None => Seen::Down(why),
    }
}

/// Since when an instance that does not answer its own agent should serve.
fn reported_unhealthy(view: &View<'_>, name: InstanceName) -> Option<Revision> {
    let seen = view.live(name.server)?.instances.get(&name)?;
    let placed = view.placement.instances.get(&name)?;
    (seen.state == InstanceState::Unhealthy).then_some(placed.since)
}

/// The findings of the proxies that send to a member, of those that answer.
fn member(view: &View<'_>, member: Member, since: Revision) -> Seen {
    let name = member.to_string();
    let answer = |sender: ServerName| Some((sender, view.live(sender)?.proxy.as_ref()?));
    let senders = topology::senders(view.placement, member);
    let answering: Vec<(ServerName, &ObservedProxy)> =
        senders.iter().copied().filter_map(answer).collect();
    if let ([_, ..], []) = (senders.as_slice(), answering.as_slice()) {
        return Seen::Unknown("is sent to by proxies that do not answer".into());
    }
    let is_busy = |proxy: &ObservedProxy| proxy.busy.contains(&name);
    let is_sent_to = |proxy: &ObservedProxy| proxy.up.contains(&name) || is_busy(proxy);
    let any_sends = answering.iter().any(|(_, proxy)| is_sent_to(proxy));
    let late = answering
        .iter()
        .find(|(_, proxy)| proxy.revision < since)
        .map(|(sender, _)| {
            format!("waits for {sender}, which has not acknowledged revision {since} yet")
        });
    let down = answering
        .iter()
        .find(|(_, proxy)| !is_sent_to(proxy))
        .map(|(sender, _)| format!("is not found up by {sender}"));
    let busy = answering.iter().find(|(_, proxy)| is_busy(proxy));
    match (late.or(down), busy) {
        (None, None) => Seen::Serving,
        (None, Some((sender, _))) => Seen::Busy(too_busy(*sender)),
        (Some(why), _) if any_sends => Seen::Doubted(why),
        (Some(why), _) => Seen::Down(why),
    }
}
