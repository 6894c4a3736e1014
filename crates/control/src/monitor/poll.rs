//! Polls every proxy and every agent for its metrics and its liveness.

mod pulse;

use super::status;
use crate::site::Site;
use crate::traffic::{Answers, Source};
use gaiola_core::topology;
use gaiola_model::{Config, Placement, ServerName, Tier};
use gaiola_net::client::{Client, Request, Target};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Poll interval.
const EVERY: Duration = Duration::from_secs(2);
/// Poll timeout.
const LIMIT: Duration = Duration::from_millis(1500);
/// Maximum size of a response.
const LONGEST: usize = 1024 * 1024;

/// The first tier whose proxies see every request.
fn top(config: &Config) -> Option<Tier> {
    match (&config.balancer, &config.web) {
        (Some(_), _) => Some(Tier::Balancer),
        (None, Some(_)) => Some(Tier::Web),
        (None, None) => None,
    }
}

/// Polls until it is dropped.
pub async fn run(site: Rc<Site>) {
    let client = Client::new(None);
    let mut rounds = tokio::time::interval(EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::task::spawn_local(pulse::run(Rc::clone(&site)));
    loop {
        rounds.tick().await;
        status::poll(&site);
        if site.is_watched() {
            ask_all(&site, &client).await;
        }
    }
}

/// Polls all processes once, so that the figures are current.
pub async fn ask_all(site: &Site, client: &Client) {
    let asking = async {
        let order = site.order.borrow().clone()?;
        let asked = who_tells(site, &order.placement);
        let answers = ask(client, &order.placement, asked).await;
        let now = site.now();
        Some((now, top(&order.placement.config), answers))
    };
    site.traffic.round(asking).await;
}

/// The processes to poll: those of the placement, on servers that are switched on.
fn who_tells(site: &Site, placement: &Placement) -> Vec<(ServerName, Source)> {
    let has_proxy = |server: &ServerName| topology::has_proxy(placement, *server);
    let powered = placement
        .servers
        .keys()
        .copied()
        .filter(|server| site.provider.is_on(*server));
    let both = |server: ServerName| {
        [
            has_proxy(&server).then_some((server, Source::Proxy)),
            Some((server, Source::Agent)),
        ]
    };
    powered.flat_map(both).flatten().collect()
}

async fn ask(client: &Client, placement: &Placement, asked: Vec<(ServerName, Source)>) -> Answers {
    let mut answers: Answers = asked.iter().map(|who| (*who, None)).collect();
    let mut questions = JoinSet::new();
    for who in asked {
        let Some(address) = who.1.address(placement, who.0) else {
            continue;
        };
        let client = client.clone();
        questions.spawn_local(async move { (who, ask_one(&client, address).await) });
    }
    while let Some(answer) = questions.join_next().await {
        if let Ok((who, text)) = answer {
            answers.insert(who, text);
        }
    }
    answers
}

async fn ask_one(client: &Client, address: SocketAddr) -> Option<String> {
    let answer = client
        .request(&Target::Tcp(address), &Request::get("/metrics"), LIMIT)
        .await
        .ok()?;
    let fits = answer.status == 200 && answer.body.len() <= LONGEST;
    fits.then(|| String::from_utf8(answer.body.into()).ok())
        .flatten()
}
