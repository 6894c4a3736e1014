//! Polls every process's liveness, more often than its metrics.

use super::{Source, who_tells};
use crate::site::Site;
use gaiola_model::{Placement, ServerName};
use gaiola_net::client::{Client, Request, Target};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Poll interval.
const EVERY: Duration = Duration::from_millis(500);
/// Poll timeout.
const LIMIT: Duration = Duration::from_secs(1);
/// Polls until it is dropped.
pub(super) async fn run(site: Rc<Site>) {
    let client = Client::new(None);
    loop {
        site.until_watched().await;
        let order = site.order.borrow().clone();
        if let Some(order) = order {
            let asked = who_tells(&site, &order.placement);
            let answering = ask_all(&client, &order.placement, &asked).await;
            let traffic = &site.traffic;
            traffic.record_answers(&order.placement, site.now(), &asked, answering);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The processes that answer.
async fn ask_all(
    client: &Client,
    placement: &Placement,
    asked: &[(ServerName, Source)],
) -> Vec<(ServerName, Source)> {
    let mut questions = JoinSet::new();
    for (server, source) in asked.iter().copied() {
        let Some(address) = source.address(placement, server) else {
            continue;
        };
        let client = client.clone();
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
