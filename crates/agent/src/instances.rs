//! Polls the health of the site's instances on this server.

use gaiola_model::InstanceName;
use gaiola_model::placement::InstanceState;
use gaiola_net::client::{Client, ClientError, Request, Target};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Poll interval of an instance that is ready,
const CALM: Duration = Duration::from_millis(1000);
/// and of one that is not ready yet.
const WAITING: Duration = Duration::from_millis(100);
/// Timeout of one poll; a slower answer counts as a failure.
const LIMIT: Duration = Duration::from_millis(2000);
/// Failures in a row that make a ready instance unhealthy.
const FALL: u32 = 3;

/// An instance whose process runs, and how to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PollTarget {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path that answers 200.
    pub path: String,
    /// Distinguishes one process of that name from the next.
    pub pid: u32,
}

/// What an instance last answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstanceAnswer {
    /// The process that answered.
    pub pid: u32,
    /// `Starting`, `Ready` or `Unhealthy`.
    pub state: InstanceState,
    /// How the last poll failed; `None` after a success.
    pub reason: Option<String>,
}

/// The latest answers.
pub(super) type InstanceAnswers = BTreeMap<InstanceName, InstanceAnswer>;

struct Probed {
    answer: InstanceAnswer,
    failures: u32,
    next: Instant,
}

/// Polls the instances until the agent ends.
pub(super) async fn follow(
    mut asked: watch::Receiver<BTreeMap<InstanceName, PollTarget>>,
    answers: watch::Sender<InstanceAnswers>,
) {
    let client = Client::new(None);
    let mut probed: BTreeMap<InstanceName, Probed> = BTreeMap::new();
    loop {
        let all = asked.borrow_and_update().clone();
        probed.retain(|name, probed| {
            all.get(name)
                .is_some_and(|asked| asked.pid == probed.answer.pid)
        });
        let now = Instant::now();
        let mut questions = JoinSet::new();
        for (name, asked) in all {
            let fresh = || Probed {
                answer: starting(asked.pid),
                failures: 0,
                next: now,
            };
            if probed.entry(name).or_insert_with(fresh).next <= now {
                let client = client.clone();
                questions.spawn_local(async move { (name, ask(&client, &asked).await) });
            }
        }
        while let Some(Ok((name, result))) = questions.join_next().await {
            if let Some(one) = probed.get_mut(&name) {
                one.record(result);
            }
        }
        let new: InstanceAnswers = probed
            .iter()
            .map(|(name, probed)| (*name, probed.answer.clone()))
            .collect();
        super::send_if_new(&answers, new);
        let pause = probed
            .values()
            .map(|probed| probed.next)
            .min()
            .map_or(CALM, |next| next - Instant::now());
        tokio::select! {
            changed = asked.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

fn starting(pid: u32) -> InstanceAnswer {
    InstanceAnswer {
        pid,
        state: InstanceState::Starting,
        reason: Some("has not answered yet".into()),
    }
}

impl Probed {
    fn record(&mut self, result: Result<(), PollError>) {
        match result {
            Ok(()) => {
                self.failures = 0;
                self.answer.state = InstanceState::Ready;
                self.answer.reason = None;
            }
            Err(error) => {
                self.failures += 1;
                if self.answer.state == InstanceState::Ready && self.failures >= FALL {
                    self.answer.state = InstanceState::Unhealthy;
                }
                self.answer.reason = Some(error.to_string());
            }
        }
        let calm = self.answer.state == InstanceState::Ready && self.failures == 0;
        self.next = Instant::now() + if calm { CALM } else { WAITING };
    }
}

/// Why a poll of an instance failed.
#[derive(Debug, thiserror::Error)]
#[error("GET {path}: {why}")]
struct PollError {
    path: String,
    why: Failure,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("status {0}")]
    Status(u16),
    #[error("{0}")]
    Request(ClientError),
    #[error("no answer within {} s", LIMIT.as_secs())]
    Timeout,
}

async fn ask(client: &Client, asked: &PollTarget) -> Result<(), PollError> {
    let question = Request::get(&asked.path);
    let target = Target::Tcp(asked.address);
    let request = client.request(&target, &question, LIMIT);
    let why = match timeout(LIMIT, request).await {
        Ok(Ok(response)) if response.status == 200 => return Ok(()),
        Ok(Ok(response)) => Failure::Status(response.status),
        Ok(Err(error)) => Failure::Request(error),
        Err(_) => Failure::Timeout,
    };
    let path = asked.path.clone();
    Err(PollError { path, why })
}
