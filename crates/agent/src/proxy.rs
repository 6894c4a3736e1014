//! The agent's control connection to its server's proxy: sends configurations, polls reports.

use gaiola_core::topology;
use gaiola_model::InstanceName;
use gaiola_model::placement::{ObservedProxy, ProxyFiles};
use gaiola_model::proxy::{
    Admission, ControlReply, ControlRequest, ProxyConfig, ProxyReport, TicketKey,
};
use gaiola_wire::document::{DocumentError, decode_message, encode_message};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// A proxy that does not answer within this time counts as hung; the agent retries.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Poll interval for reports while the proxy signals no change and nothing drains,
const CALM: Duration = Duration::from_secs(1);
/// and while a change waits for requests in flight to end, or the proxy is not there yet.
const BUSY: Duration = Duration::from_millis(100);
/// Timeout of a long poll for changes.
const AWAIT: Duration = Duration::from_secs(10);

/// The proxy's control socket on a server.
pub(super) fn socket(run: &Path) -> PathBuf {
    run.join("proxy.sock")
}

/// One connection to the proxy's control socket.
struct Line {
    stream: BufReader<UnixStream>,
    /// The schema that requests are written in.
    schema: u64,
}

/// Why a request to the proxy brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The socket failed.
    #[error("the proxy's control socket")]
    Io(#[from] io::Error),
    /// What came is no JSON of a reply.
    #[error("the proxy's reply is malformed")]
    Malformed(#[from] DocumentError),
    /// A request cannot be written as JSON.
    #[error("the request to the proxy")]
    Request(#[from] serde_json::Error),
    /// Nothing came in time.
    #[error("the proxy did not answer in time")]
    Timeout,
    /// The proxy closed the connection.
    #[error("the proxy closed its control socket")]
    Closed,
    /// A reply to something else, or a rejection.
    #[error("asked the proxy for {asked}, and got {reply}")]
    Unexpected {
        /// The request.
        asked: String,
        /// The reply, as it came.
        reply: String,
    },
}

impl AskError {
    fn unexpected(asked: impl Into<String>, reply: &ControlReply) -> Self {
        let (asked, reply) = (asked.into(), format!("{reply:?}"));
        Self::Unexpected { asked, reply }
    }
}

impl Line {
    async fn open(run: &Path, schema: u64) -> Result<Self, AskError> {
        let stream = BufReader::new(UnixStream::connect(socket(run)).await?);
        Ok(Self { stream, schema })
    }

    async fn ask(
        &mut self,
        request: &ControlRequest,
        limit: Duration,
    ) -> Result<ControlReply, AskError> {
        let reply = self.exchange(request);
        timeout(limit, reply).await.map_err(|_| AskError::Timeout)?
    }

    async fn exchange(&mut self, request: &ControlRequest) -> Result<ControlReply, AskError> {
        let mut text = encode_message(request, self.schema)?;
        text.push(b'\n');
        self.stream.write_all(&text).await?;
        let mut reply = String::new();
        match self.stream.read_line(&mut reply).await? {
            0 => Err(AskError::Closed),
            _ => Ok(decode_message(reply.as_bytes())?.0),
        }
    }
}

/// What the proxy should serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxySettings {
    /// The schema of the site's documents, in which it is asked.
    pub schema: u64,
    /// `None`: nothing.
    pub config: Option<ProxyConfig>,
    /// The site's files that the configuration names.
    pub files: ProxyFiles,
    /// Whether it is asked what became of the requests to each instance.
    pub compares: bool,
    /// Keys for session tickets; empty: the proxy uses keys of its own.
    pub tickets: Vec<TicketKey>,
}

/// Whether it has a bind with TLS.
pub(super) fn speaks_tls(config: &ProxyConfig) -> bool {
    let mut binds = config.frontends.iter().flat_map(|frontend| &frontend.binds);
    binds.any(|bind| bind.tls.is_some())
}

/// What was sent over this connection.
#[derive(Default)]
struct Sent {
    /// The last configuration, and why the proxy rejected it if it did. Within one revision it changes as files arrive.
    config: Option<(ProxyConfig, Option<String>)>,
    /// The files of the last one that it accepted.
    files: Option<ProxyFiles>,
    tickets: Vec<TicketKey>,
}

/// What the agent knows of its proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyState {
    /// `None` while it does not answer.
    pub proxy: Option<ObservedProxy>,
    /// Whether the local port of the primary has a backend server that is up.
    pub reaches_primary: bool,
    /// Why the last configuration was rejected; `None`: it was accepted.
    pub rejected: Option<String>,
    /// The site's files of the configuration that it accepted last; `None`: not known.
    pub files: Option<ProxyFiles>,
}

/// Keeps the proxy on the newest configuration and its report up to date, until the agent ends.
///
/// `run`: the server's run directory.
pub(super) async fn follow(
    run: PathBuf,
    wanted: watch::Receiver<ProxySettings>,
    known: watch::Sender<ProxyState>,
) {
    let changed = Notify::new();
    tokio::select! {
        () = keep(&run, wanted.clone(), known, &changed) => {}
        () = listen(&run, wanted, &changed) => {}
    }
}

async fn keep(
    run: &Path,
    mut wanted: watch::Receiver<ProxySettings>,
    known: watch::Sender<ProxyState>,
    changed: &Notify,
) {
    let mut line = None;
    let mut sent = Sent::default();
    // Whether the last answer came over this or an earlier connection: another process may have taken over since.
    let mut answered = false;
    loop {
        if line.is_none() {
            sent = Sent::default();
            let schema = wanted.borrow().schema;
            line = Line::open(run, schema).await.ok();
        }
        let now = wanted.borrow_and_update().clone();
        if let Some(open) = &mut line {
            open.schema = now.schema;
        }
        let serves = now.config.is_some();
        let drains = now.config.as_ref().is_some_and(is_draining);
        match &mut line {
            Some(open) => match update(open, now, &mut sent).await {
                Ok(new) => {
                    answered = true;
                    super::send_if_new(&known, new);
                }
                Err(AskError::Closed | AskError::Io(_)) if answered => {
                    (line, answered) = (None, false);
                    continue;
                }
                Err(_) => {
                    line = None;
                    super::send_if_new(&known, ProxyState::default());
                }
            },
            None => super::send_if_new(&known, ProxyState::default()),
        }
        // Where nothing is to be served there may be no proxy at all.
        let is_urgent = drains || serves && line.is_none();
        let pause = if is_urgent { BUSY } else { CALM };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
            () = changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Long-polls for changes in the proxy, over a connection of its own, and notifies of each at once.
async fn listen(run: &Path, wanted: watch::Receiver<ProxySettings>, changed: &Notify) {
    loop {
        let schema = wanted.borrow().schema;
        if let Ok(mut line) = Line::open(run, schema).await {
            let wait_ms = u64::try_from(AWAIT.as_millis()).unwrap_or(u64::MAX);
            let mut after = 0;
            loop {
                let request = ControlRequest::Await { after, wait_ms };
                match line.ask(&request, AWAIT + ANSWER_LIMIT).await {
                    Ok(ControlReply::Changed(seq)) if seq == after => {}
                    Ok(ControlReply::Changed(seq)) => {
                        after = seq;
                        changed.notify_one();
                    }
                    Ok(_) | Err(_) => break,
                }
            }
        }
        tokio::time::sleep(CALM).await;
    }
}

fn is_draining(config: &ProxyConfig) -> bool {
    use gaiola_model::proxy::Admin;
    config
        .backends
        .iter()
        .flat_map(|backend| &backend.servers)
        .any(|server| server.admin != Admin::Ready)
}

async fn update(
    line: &mut Line,
    wanted: ProxySettings,
    sent: &mut Sent,
) -> Result<ProxyState, AskError> {
    if !wanted.tickets.is_empty() && sent.tickets != wanted.tickets {
        let request = ControlRequest::TicketKeys(wanted.tickets.clone());
        if let ControlReply::Refused(error) = line.ask(&request, ANSWER_LIMIT).await? {
            tracing::error!(error, "the proxy rejected the ticket keys");
        }
        sent.tickets = wanted.tickets;
    }
    if let Some(config) = wanted.config
        && sent.config.as_ref().map(|(last, _)| last) != Some(&config)
    {
        let request = ControlRequest::Configure(Box::new(config.clone()));
        let rejected = match line.ask(&request, ANSWER_LIMIT).await? {
            ControlReply::Refused(why) => Some(why),
            _ => None,
        };
        if rejected.is_none() {
            sent.files = Some(wanted.files);
        }
        sent.config = Some((config, rejected));
    }
    let rejected = sent.config.as_ref().and_then(|(_, why)| why.clone());
    match line.ask(&ControlRequest::Report, ANSWER_LIMIT).await? {
        ControlReply::Report(report) => Ok(ProxyState {
            proxy: Some(observed(&report, wanted.compares)),
            reaches_primary: report
                .servers
                .iter()
                .any(|server| server.backend == topology::PRIMARY && server.up),
            rejected,
            files: sent.files.clone(),
        }),
        other => Err(AskError::unexpected("a report", &other)),
    }
}

fn observed(report: &ProxyReport, compares: bool) -> ObservedProxy {
    let results = report.servers.iter().filter(|_| compares);
    let results = results.filter_map(|server| {
        let instance: InstanceName = server.server.parse().ok()?;
        (server.results.requests() > 0).then_some((instance, server.results))
    });
    let mut in_flight = BTreeMap::new();
    let (mut up, mut busy) = (BTreeSet::new(), BTreeSet::new());
    for server in &report.servers {
        if server.in_flight > 0 {
            *in_flight.entry(server.server.clone()).or_default() += server.in_flight;
        }
        if server.up {
            up.insert(server.server.clone());
        }
        if server.busy {
            busy.insert(server.server.clone());
        }
    }
    ObservedProxy {
        revision: report.revision,
        in_flight,
        up,
        busy,
        results: results.collect(),
        ..ObservedProxy::default()
    }
}

/// Sets what happens to connections to one VIP, and returns how many are left.
///
/// # Errors
/// If the proxy does not answer.
pub(super) async fn admit(
    (run, schema): (&Path, u64),
    vip: IpAddr,
    admission: Admission,
    wait: Duration,
) -> Result<u64, AskError> {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let request = ControlRequest::Admit {
        address: vip,
        admission,
        wait_ms,
    };
    let mut line = Line::open(run, schema).await?;
    match line.ask(&request, wait + ANSWER_LIMIT).await? {
        ControlReply::Admitted { connections } => Ok(connections),
        other => Err(AskError::unexpected(format!("a change of {vip}"), &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::placement::{ReleaseNumber, Revision};
    use gaiola_model::schema::SCHEMA;
    use std::cell::RefCell;
    use tokio::net::UnixListener;

    /// A proxy that notes which configurations it gets, and rejects those of revision 9.
    async fn stand_in(listener: UnixListener, configured: &RefCell<Vec<ProxyConfig>>) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut revision = Revision(0);
        let mut request = String::new();
        while stream.read_line(&mut request).await.unwrap() > 0 {
            let (asked, schema) = decode_message(request.as_bytes()).unwrap();
            let reply = match asked {
                ControlRequest::Configure(config) if config.revision == Revision(9) => {
                    ControlReply::Refused("no".into())
                }
                ControlRequest::Configure(config) => {
                    revision = config.revision;
                    configured.borrow_mut().push(*config);
                    ControlReply::Configured(revision)
                }
                _ => ControlReply::Report(ProxyReport {
                    revision,
                    ..ProxyReport::default()
                }),
            };
            let mut text = encode_message(&reply, schema).unwrap();
            text.push(b'\n');
            stream.write_all(&text).await.unwrap();
            request.clear();
        }
    }

    #[tokio::test]
    async fn a_configuration_is_sent_again_as_its_files_arrive_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket(folder.path())).unwrap();
        let settings = |revision, releases: &[u64]| ProxySettings {
            schema: SCHEMA,
            compares: false,
            config: Some(ProxyConfig {
                revision: Revision(revision),
                server: format!("{releases:?}"),
                ..ProxyConfig::default()
            }),
            files: ProxyFiles {
                releases: releases.iter().copied().map(ReleaseNumber).collect(),
                certificates: None,
            },
            tickets: Vec::new(),
        };
        let configured = RefCell::default();
        let asking = async {
            let mut line = Line::open(folder.path(), SCHEMA).await.unwrap();
            let mut sent = Sent::default();
            let (old, new) = (settings(7, &[6]), settings(7, &[7, 6]));
            for wanted in [&old, &old, &new, &new] {
                let known = update(&mut line, wanted.clone(), &mut sent).await.unwrap();
                assert_eq!(known.files.as_ref(), Some(&wanted.files));
            }
            let known = update(&mut line, settings(9, &[9]), &mut sent)
                .await
                .unwrap();
            assert_eq!(known.rejected.as_deref(), Some("no"));
            assert_eq!(known.files, Some(new.files));
        };
        tokio::select! {
            () = stand_in(listener, &configured) => {}
            () = asking => {}
        }
        let servers = configured.take().into_iter().map(|config| config.server);
        assert_eq!(servers.collect::<Vec<_>>(), ["[6]", "[7, 6]"]);
    }
}
