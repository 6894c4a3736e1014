//! Plays conversations, many at a time, and reports what client and servers saw.

use super::client::Client;
use super::conversation::{Conversation, Step};
use super::proxies::{Place, Site};
use super::record::Transcripts;
use super::stage::Stage;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Conversations at a time.
const AT_A_TIME: usize = 24;
/// Between two pieces, so that each is read by itself.
pub(crate) const PAUSE: Duration = Duration::from_millis(60);
/// For what was written to a server to be read there, once the client has all that it will get.
const SETTLING: Duration = Duration::from_millis(50);

/// Plays all conversations through one proxy.
pub(crate) fn all<P>(conversations: &[Conversation], start: fn(&[Site<'_>]) -> P) -> Transcripts {
    let place = Place::new();
    let stages: Vec<_> = conversations
        .iter()
        .map(|it| Stage::new(&it.servers, place))
        .collect();
    let sites: Vec<_> = (0..)
        .zip(conversations.iter().zip(&stages))
        .map(|(index, (it, stage))| Site {
            bind: place.bind(index),
            setup: &it.setup,
            servers: stage.addresses.clone(),
        })
        .collect();
    let _proxy = start(&sites);
    let next = AtomicUsize::new(0);
    let transcripts = Mutex::new(Transcripts::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(conversation) = conversations.get(index)
                {
                    let lines = play(conversation, &stages[index], sites[index].bind);
                    let name = conversation.name.clone();
                    transcripts.lock().unwrap().insert(name, lines);
                }
            });
        }
    });
    transcripts.into_inner().unwrap()
}

fn play(conversation: &Conversation, stage: &Stage, bind: SocketAddr) -> Vec<String> {
    stage.open(&conversation.servers);
    let mut clients = vec![Client::connect(bind, conversation.hello.as_ref())];
    let mut at = 0;
    for step in &conversation.steps {
        match step {
            Step::Open => {
                at = clients.len();
                clients.push(Client::connect(bind, conversation.hello.as_ref()));
            }
            Step::On(number) => at = number - 1,
            Step::Await(events) => stage.wait_for(*events),
            _ => clients[at].step(step),
        }
    }
    let several = clients.len() > 1;
    let mut lines = Vec::new();
    for (number, client) in (1..).zip(clients) {
        if several {
            lines.push(format!("client {number}"));
        }
        lines.extend(client.finish());
    }
    std::thread::sleep(SETTLING);
    lines.extend(stage.seen());
    let bind = bind.to_string();
    lines
        .iter()
        .map(|line| line.replace(&bind, "BIND"))
        .collect()
}
