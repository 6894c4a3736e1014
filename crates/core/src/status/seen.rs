//! What serves, according to the proxies that answer. The planner waits for every proxy that could send to a server;
//! whether users are served depends on the working ones, and what a silent one sees is unknown.

use crate::rollout::{Unmet, View, too_busy};
use crate::topology::{self, TrafficTarget};
use gaiola_model::placement::{InstanceState, ObservedProxy, Phase};
use gaiola_model::{InstanceName, Revision, ServerName, Tier};

/// A traffic target's observed condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServingState {
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

impl ServingState {
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

    fn from_result(result: Result<(), Unmet>) -> Self {
        result.map_or_else(|why| Self::Down(why.to_string()), |()| Self::Serving)
    }
}

/// The condition of a server that should serve.
pub(super) fn server(view: &View<'_>, name: ServerName) -> ServingState {
    match (name.tier, view.placement.servers.get(&name)) {
        (Tier::Web, Some(placed)) if placed.phase == Phase::Serve => {
            match view.proxy_at(name, placed.since) {
                Ok(_) => as_proxies_see(view, TrafficTarget::Server(name), placed.since),
                Err(why) => ServingState::Down(why.to_string()),
            }
        }
        (Tier::App, Some(placed)) if placed.phase == Phase::Serve => app_server(view, name),
        _ => ServingState::from_result(view.server_serves(name)),
    }
}

/// An application server serves while one of its instances does.
fn app_server(view: &View<'_>, name: ServerName) -> ServingState {
    if view.live(name).is_none() {
        return ServingState::from_result(view.server_serves(name));
    }
    let placed = view.placement.instances.iter();
    let serving = placed.filter(|(on, placed)| on.server == name && placed.phase == Phase::Serve);
    let seen: Vec<(InstanceName, ServingState)> = serving
        .map(|(name, _)| (*name, instance(view, *name)))
        .collect();
    if seen.is_empty() {
        return ServingState::Down("has no instance yet".into());
    }
    let any_serves = seen.iter().any(|(_, seen)| seen.is_used());
    let all_serve = seen
        .iter()
        .all(|(_, seen)| matches!(seen, ServingState::Serving | ServingState::Busy(_)));
    let all_unknown = seen.iter().all(|(_, seen)| seen.is_unknown());
    let worst = seen
        .into_iter()
        .find_map(|(name, seen)| Some(format!("has {name}, which {}", seen.why()?)));
    match worst {
        None => ServingState::Serving,
        Some(why) if all_serve => ServingState::Busy(why),
        Some(why) if any_serves => ServingState::Doubted(why),
        Some(why) if all_unknown => ServingState::Unknown(why),
        Some(why) => ServingState::Down(why),
    }
}

/// The condition of an instance that should serve.
pub(super) fn instance(view: &View<'_>, name: InstanceName) -> ServingState {
    let why = match view.instance_is_ready(name) {
        Ok(since) => return as_proxies_see(view, TrafficTarget::Instance(name), since),
        Err(why) => why.to_string(),
    };
    // One that does not answer its own agent still serves while proxies send to it.
    match reported_unhealthy(view, name) {
        Some(since) => match as_proxies_see(view, TrafficTarget::Instance(name), since) {
            ServingState::Busy(_) => ServingState::Busy(why),
            ServingState::Serving | ServingState::Doubted(_) => ServingState::Doubted(why),
            ServingState::Down(_) | ServingState::Unknown(_) => ServingState::Down(why),
        },
        None => ServingState::Down(why),
    }
}

/// Since when an instance that does not answer its own agent should serve.
fn reported_unhealthy(view: &View<'_>, name: InstanceName) -> Option<Revision> {
    let seen = view.live(name.server)?.instances.get(&name)?;
    let placed = view.placement.instances.get(&name)?;
    (seen.state == InstanceState::Unhealthy).then_some(placed.since)
}

/// The findings of the proxies that send to a target, of those that answer.
fn as_proxies_see(view: &View<'_>, target: TrafficTarget, since: Revision) -> ServingState {
    let name = target.to_string();
    let answer = |sender: ServerName| Some((sender, view.live(sender)?.proxy.as_ref()?));
    let senders = topology::senders(view.placement, target);
    let answering: Vec<(ServerName, &ObservedProxy)> =
        senders.iter().copied().filter_map(answer).collect();
    if let ([_, ..], []) = (senders.as_slice(), answering.as_slice()) {
        return ServingState::Unknown("is used by proxies that do not answer".into());
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
        .map(|(sender, _)| format!("is not up according to {sender}"));
    let busy = answering.iter().find(|(_, proxy)| is_busy(proxy));
    match (late.or(down), busy) {
        (None, None) => ServingState::Serving,
        (None, Some((sender, _))) => ServingState::Busy(too_busy(*sender)),
        (Some(why), _) if any_sends => ServingState::Doubted(why),
        (Some(why), _) => ServingState::Down(why),
    }
}
