//! Polls the health of the site's instances on this server.

use gaiola_model::InstanceName;
use gaiola_model::config::{Config, HealthCheck};
use gaiola_model::placement::InstanceState;
use gaiola_model::proxy::StatusRange;
use gaiola_net::client::{Client, ClientError, HeaderName, HeaderValue, Request, Target};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Default poll interval of an instance that is ready,
const CALM: Duration = Duration::from_millis(1000);
/// and poll interval of one that is not ready yet.
const WAITING: Duration = Duration::from_millis(100);
/// Default timeout of one poll; a slower answer counts as a failure.
const LIMIT: Duration = Duration::from_millis(2000);
/// Default of the failures in a row that make a ready instance unhealthy.
const FALL: u32 = 3;

/// An instance whose process runs, and how to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PollTarget {
    /// Where it answers.
    pub address: SocketAddr,
    /// Where it listens, if it answers elsewhere: something else may answer there.
    pub own: Option<SocketAddr>,
    /// The path that is requested.
    pub path: String,
    /// How it is checked.
    pub check: PollCheck,
    /// Distinguishes one process of that name from the next.
    pub pid: u32,
}

/// The site's settings for checking an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PollCheck {
    host: String,
    set: HealthCheck,
}

impl PollCheck {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            host: config.health_host().into(),
            set: config.app.check.clone(),
        }
    }

    fn calm(&self) -> Duration {
        self.set.interval.unwrap_or(CALM)
    }

    fn limit(&self) -> Duration {
        self.set.timeout.unwrap_or(LIMIT)
    }

    fn fall(&self) -> u32 {
        self.set.fall.unwrap_or(FALL)
    }

    fn accepts(&self, status: u16) -> bool {
        StatusRange::any(&self.set.status, HealthCheck::STATUS, status)
    }

    /// The request of a poll. A field that cannot be sent is left out: the file's check refuses it.
    fn request(&self, path: &str) -> Request {
        let host = ("host", self.host.as_str());
        let further = self.set.headers.iter();
        let further = further.map(|(name, value)| (name.as_str(), value.as_str()));
        let fields = std::iter::once(host).chain(further);
        let fields = fields.filter_map(|(name, value)| {
            let name: HeaderName = name.parse().ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        });
        fields.fold(Request::get(path), |request, (name, value)| {
            request.header(name, value)
        })
    }
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
        for (name, asked) in all.clone() {
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
            if let (Some(one), Some(asked)) = (probed.get_mut(&name), all.get(&name)) {
                one.record(result, &asked.check);
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
    fn record(&mut self, result: Result<(), PollError>, check: &PollCheck) {
        match result {
            Ok(()) => {
                self.failures = 0;
                self.answer.state = InstanceState::Ready;
                self.answer.reason = None;
            }
            Err(error) => {
                self.failures += 1;
                if self.answer.state == InstanceState::Ready && self.failures >= check.fall() {
                    self.answer.state = InstanceState::Unhealthy;
                }
                self.answer.reason = Some(error.to_string());
            }
        }
        let calm = self.answer.state == InstanceState::Ready && self.failures == 0;
        let pause = check.calm();
        self.next = Instant::now() + if calm { pause } else { WAITING.min(pause) };
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
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("nothing listens at {0}, where requests go")]
    Deaf(SocketAddr),
}

async fn ask(client: &Client, asked: &PollTarget) -> Result<(), PollError> {
    let question = asked.check.request(&asked.path);
    let target = Target::Tcp(asked.address);
    let limit = asked.check.limit();
    let path = asked.path.clone();
    if let Some(own) = asked.own
        && !matches!(timeout(limit, TcpStream::connect(own)).await, Ok(Ok(_)))
    {
        let why = Failure::Deaf(own);
        return Err(PollError { path, why });
    }
    let request = client.request(&target, &question, limit);
    let why = match timeout(limit, request).await {
        Ok(Ok(response)) if asked.check.accepts(response.status) => return Ok(()),
        Ok(Ok(response)) => Failure::Status(response.status),
        Ok(Err(error)) => Failure::Request(error),
        Err(_) => Failure::Timeout(limit),
    };
    Err(PollError { path, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::App;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn what_the_file_does_not_set_has_the_agents_defaults() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        let usual = PollCheck::of(&config);
        assert_eq!(
            (usual.calm(), usual.limit(), usual.fall()),
            (CALM, LIMIT, 3)
        );
        assert!(usual.accepts(200) && !usual.accepts(204));
        let set = &mut config.app.check;
        (set.fall, set.timeout) = (Some(1), Some(Duration::from_millis(50)));
        set.status = vec![StatusRange::only(204)];
        let set = PollCheck::of(&config);
        assert_eq!((set.limit().as_millis(), set.fall()), (50, 1));
        assert!(set.accepts(204) && !set.accepts(200));
    }

    #[tokio::test]
    async fn an_instance_is_asked_for_the_files_host_with_its_fields() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&heard);
        let answer = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.unwrap();
            *hears.lock().unwrap() = String::from_utf8_lossy(&buffer[..count]).into_owned();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        };
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.app.check.host = Some("shop.example".into());
        config.app.check.headers = [("X-Probe".into(), "1".into())].into();
        let asked = PollTarget {
            address,
            own: None,
            path: "/up".into(),
            check: PollCheck::of(&config),
            pid: 1,
        };
        let client = Client::new(None);
        let (asked, ()) = tokio::join!(ask(&client, &asked), answer);
        asked.unwrap();
        let heard = heard.lock().unwrap().to_ascii_lowercase();
        assert!(heard.contains("\r\nhost: shop.example\r\n"), "{heard}");
        assert_eq!(heard.matches("host:").count(), 1, "{heard}");
        assert!(heard.contains("\r\nx-probe: 1\r\n"), "{heard}");
    }
}
