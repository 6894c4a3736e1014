//! Follows a change to its end.

use super::power_trouble;
use super::release::prune_releases;
use crate::api::steps::{Gone, Steps};
use crate::api::{Outcome, Progress, refused};
use crate::monitor::poll;
use crate::monitor::status::status;
use crate::site::Site;
use crate::traffic::Totals;
use gaiola_core::follow::{self, Follow, Next, Sight};
use gaiola_model::placement::Revision;
use gaiola_model::status::{ServerState, ServerStatus, Status};
use gaiola_model::{Exit, Observed, ServerName};
use gaiola_net::client::Client;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Poll interval during a change.
const POLL: Duration = Duration::from_millis(200);
/// Keep-alive interval: a failed write shows that the client has disconnected.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The end of a change, and the requests of clients meanwhile.
pub(super) struct Followed {
    pub(super) outcome: Outcome,
    pub(super) requests: u64,
    pub(super) failed: u64,
}

/// Follows a change to its end; for `deploys` see [`Follow::new`].
pub(super) async fn follow(
    site: &Rc<Site>,
    since: Revision,
    deploys: bool,
    deadline: Instant,
    steps: &mut Steps,
) -> Followed {
    site.watch();
    // What is known may be seconds old: earlier requests are not counted as this change's.
    poll::ask_all(site, &Client::new(None)).await;
    let before = site.traffic.totals();
    let outcome = to_its_end(site, since, deploys, deadline, steps).await;
    let (requests, failed) = requests_since(site, before).await;
    let mut followed = Followed {
        outcome,
        requests,
        failed,
    };
    if followed.outcome.exit == Exit::Ok && requests > 0 {
        followed.outcome.message = format!("requests {requests}, failed {failed}");
    }
    followed
}

async fn to_its_end(
    site: &Rc<Site>,
    since: Revision,
    deploys: bool,
    deadline: Instant,
    steps: &mut Steps,
) -> Outcome {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut following = Follow::new(deploys, site.now() + left);
    let mut reported: BTreeMap<ServerName, String> = BTreeMap::new();
    let mut next_sign = Instant::now() + KEEP_ALIVE;
    let mut views = site.view.subscribe();
    loop {
        let view = views.borrow_and_update().clone();
        let is_seen = view.desired.as_ref().is_some_and(|(at, _)| *at >= since);
        let status = status(site);
        let mut listens = true;
        if is_seen {
            listens = report_servers(&status, &mut reported, steps).await.is_ok();
        }
        if Instant::now() >= next_sign {
            next_sign = Instant::now() + KEEP_ALIVE;
            listens &= steps.say_nothing().await.is_ok();
        }
        if !listens {
            return refused(Exit::Failed, "the client of this change disconnected");
        }
        let observed: Vec<&Observed> = view.observed.values().map(|(_, seen)| &**seen).collect();
        let sight = is_seen.then_some(Sight {
            status: &status,
            placement: view.placement.as_ref().map(|(_, placement)| &**placement),
            observed: &observed,
        });
        match following.step(site.now(), sight) {
            Next::Wait => {}
            Next::Failed(why) => return outcome(site, Exit::Failed, why),
            Next::Done => {
                prune_releases(site);
                return outcome(site, Exit::Ok, String::new());
            }
            Next::Late(mut missing) => {
                missing.extend(power_trouble(site));
                let (missing, is_silence) = follow::in_words(&missing, &status);
                let exit = if is_silence {
                    Exit::Degraded
                } else {
                    waiting_exit(site)
                };
                return outcome(site, exit, format!("not reached yet: {missing}"));
            }
        }
        let next_poll = (Instant::now() + POLL).min(deadline);
        let _ = timeout_at(next_poll, views.changed()).await;
    }
}

/// The number of client requests during the change, and of failed ones.
async fn requests_since(site: &Site, before: Totals) -> (u64, u64) {
    poll::ask_all(site, &Client::new(None)).await;
    let now = site.traffic.totals();
    (now.requests - before.requests, now.failed - before.failed)
}

/// Waiting does not help if a server is off: the site is degraded, not late.
pub(super) fn waiting_exit(site: &Site) -> Exit {
    if site.provider.off().is_empty() {
        Exit::Timeout
    } else {
        Exit::Degraded
    }
}

fn outcome(site: &Site, exit: Exit, message: String) -> Outcome {
    Outcome {
        exit,
        message,
        status: Some(Box::new(status(site))),
    }
}

async fn report_servers(
    status: &Status,
    reported: &mut BTreeMap<ServerName, String>,
    steps: &mut Steps,
) -> Result<(), Gone> {
    let mut states: BTreeMap<ServerName, String> = reported
        .keys()
        .map(|server| (*server, "removed".to_string()))
        .collect();
    states.extend(
        status
            .servers
            .iter()
            .map(|server| (server.name, in_words(server))),
    );
    for (name, state) in states {
        if reported.get(&name) != Some(&state) {
            steps
                .say(Progress::Server {
                    name,
                    state: state.clone(),
                })
                .await?;
            reported.insert(name, state);
        }
    }
    Ok(())
}

fn in_words(server: &ServerStatus) -> String {
    let mut words = server.state.in_words().to_string();
    if !server.reason.is_empty() {
        words.push_str(": ");
        words.push_str(&server.reason);
    }
    if let Some(database) = server
        .database
        .as_ref()
        .filter(|_| server.state == ServerState::Serving)
    {
        words.push_str(", ");
        words.push_str(database.role.in_words());
    }
    words
}
