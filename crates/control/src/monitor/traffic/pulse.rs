//! Asks every process whether it is there, more often than for what it has counted: what a silent one told is old.

use super::{Source, Traffic, who_tells};
use crate::site::Site;
use gaiola_core::status::{Silence, Silent};
use gaiola_core::topology;
use gaiola_model::{Placement, ServerName, Time};
use gaiola_net::client::{Client, Request, Target};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(500);
/// The longest until one is answered.
const LIMIT: Duration = Duration::from_secs(1);
/// One that has not answered for so long is silent: two questions in a row.
const SILENT: Duration = Duration::from_millis(2500);

/// Asks for ever.
pub(super) async fn run(site: Rc<Site>) {
    let client = Client::new(None);
    loop {
        let order = site.order.borrow().clone();
        if let Some(order) = order {
            let asked = who_tells(&site, &order.placement);
            let answering = ask_all(&client, &asked).await;
            let now = site.now();
            let heard = &mut site.traffic.0.borrow_mut().heard;
            take(heard, &order.placement, now, &asked, answering);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Those who answer.
async fn ask_all(client: &Client, asked: &[(ServerName, Source)]) -> Vec<(ServerName, Source)> {
    let mut questions = JoinSet::new();
    for (server, source) in asked.iter().copied() {
        let client = client.clone();
        let address = SocketAddr::new(topology::address_of(server).into(), source.port());
        questions.spawn_local(async move {
            let (target, question) = (Target::Tcp(address), Request::get("/livez"));
            let answer = client.request(&target, &question, LIMIT).await;
            answer.is_ok().then_some((server, source))
        });
    }
    let mut answering = Vec::new();
    while let Some(answer) = questions.join_next().await {
        answering.extend(answer.ok().flatten());
    }
    answering
}

impl Traffic {
    /// Servers whose agent or proxy has answered before, and does not any more; those that are switched off are too.
    pub(crate) fn silent(&self, now: Time) -> BTreeMap<ServerName, Silence> {
        silent(&self.0.borrow().heard, now)
    }
}

/// Takes note of those who answered now. Who is no longer asked is forgotten, but for servers that are off as a whole.
fn take(
    heard: &mut BTreeMap<(ServerName, Source), Time>,
    placement: &Placement,
    now: Time,
    asked: &[(ServerName, Source)],
    answering: Vec<(ServerName, Source)>,
) {
    heard.retain(|(server, source), _| {
        let is_on = asked.iter().any(|(on, _)| on == server);
        let is_asked = asked.contains(&(*server, *source));
        placement.servers.contains_key(server) && (is_asked || !is_on)
    });
    heard.extend(answering.into_iter().map(|who| (who, now)));
}

/// Of two that are silent the agent counts: it tells of everything.
fn silent(
    heard: &BTreeMap<(ServerName, Source), Time>,
    now: Time,
) -> BTreeMap<ServerName, Silence> {
    let mut all = BTreeMap::new();
    for ((server, source), at) in heard {
        let since = now - *at;
        let of = match source {
            Source::Agent => Silent::Agent,
            Source::Proxy => Silent::Proxy,
        };
        if since >= SILENT {
            // The agent comes behind the proxy.
            all.insert(*server, Silence { of, since });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_answered_for_a_while_is_silent() {
        let at = |ms| Time::from_start(Duration::from_millis(ms));
        let who = |name: &str, source| (name.parse::<ServerName>().unwrap(), source);
        let heard = BTreeMap::from([
            (who("lb1", Source::Proxy), at(0)),
            (who("lb1", Source::Agent), at(9000)),
            (who("web1", Source::Proxy), at(1000)),
            (who("web1", Source::Agent), at(2000)),
            (who("app1", Source::Agent), at(9900)),
        ]);
        let silent = silent(&heard, at(10_000));
        let told: Vec<_> = silent
            .iter()
            .map(|(server, silence)| (server.to_string(), silence.of, silence.since.as_secs()))
            .collect();
        assert_eq!(
            told,
            [
                ("lb1".to_string(), Silent::Proxy, 10),
                ("web1".to_string(), Silent::Agent, 8)
            ]
        );
    }
}
