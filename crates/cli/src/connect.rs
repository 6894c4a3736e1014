//! Requests to a running site: by its control socket here, or by that of any of its machines.

mod place;

pub(crate) use place::{Place, place};

use crate::args::Global;
use crate::machines::Machines;
use anyhow::{Context as _, bail};
use gaiola_agent::state::State;
use gaiola_control::api::schema::{self, Mismatch};
use gaiola_model::SiteName;
use gaiola_model::inventory::Host;
use gaiola_model::schema::SCHEMA;
use gaiola_net::client::{
    Client, HeaderMap, HeaderName, HeaderValue, Request, Response, Stream, Target, Writer,
};
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Timeout of a response that does not stream.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Timeout of a ping.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// The message for a response that cannot be decoded.
pub(crate) const UNREADABLE: &str =
    "cannot decode the site's response; does the site run another version of gaiola?";

/// How a site is, as it answers `/ping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ping {
    /// It runs.
    Up,
    /// It is going down.
    GoingDown,
    /// It is down, and comes up with the next `up`; machines answer then too.
    Down,
}

impl Ping {
    fn of(answer: &Response) -> Self {
        match answer.status {
            200 => Self::Up,
            _ if answer.text().trim().ends_with(" is down") => Self::Down,
            _ => Self::GoingDown,
        }
    }
}

/// A client of one site's control socket.
pub(crate) struct SiteClient {
    /// The site.
    pub(crate) site: SiteName,
    /// Its state directory, where it stands in the lab.
    pub(crate) state: State,
    /// Runs the requests.
    pub(crate) runtime: Runtime,
    client: Client,
    target: Target,
    /// The machine that answers; `None`: the lab.
    machine: Option<Host>,
    /// The schema in which it is asked: this program's own, or that of an older site.
    speaks: u64,
}

impl SiteClient {
    /// A client of the lab of this site, which need not run.
    pub(crate) fn of(site: SiteName) -> anyhow::Result<Self> {
        let state = State::of(&site);
        Ok(Self {
            runtime: crate::runtime::runtime()?,
            client: Client::new(None),
            target: Target::Unix(state.control_socket()),
            state,
            site,
            machine: None,
            speaks: SCHEMA,
        })
    }

    /// A client of a site on machines: the first machine that answers. `None`: the machines answer, and the site is not up.
    ///
    /// # Errors
    /// Where no machine answers.
    pub(crate) fn on_machines(site: SiteName, machines: &Machines) -> anyhow::Result<Option<Self>> {
        let runtime = crate::runtime::runtime()?;
        let client = Client::new(None);
        let answering = runtime.block_on(place::first_that_answers(&client, &site, machines))?;
        Ok(answering.map(|(host, target)| Self {
            state: State::of(&site),
            runtime,
            client,
            target,
            site,
            machine: Some(host),
            speaks: SCHEMA,
        }))
    }

    /// A client of this site, wherever it stands; `None`: it is not up.
    pub(crate) fn at(place: &Place) -> anyhow::Result<Option<Self>> {
        let site = place.site.clone();
        match &place.machines {
            Some(hosts) => Self::on_machines(site, &Machines::new(hosts.clone())?),
            None => {
                let client = Self::of(site)?;
                Ok(client.is_running().then_some(client))
            }
        }
    }

    /// As [`at`](Self::at), for `--site`, or the file's site, which must run.
    pub(crate) fn find(global: &Global, file: &Path) -> anyhow::Result<Self> {
        let place = place(global, file)?;
        let (site, file) = (&place.site, file.display());
        let found = Self::at(&place)?.filter(Self::is_running);
        found.with_context(|| {
            format!("the site {site} is not up; bring it up with: gaiola up -f {file}")
        })
    }

    /// Whether the site is up and not going down.
    pub(crate) fn is_running(&self) -> bool {
        self.ping() == Some(Ping::Up)
    }

    /// How the site is; `None`: it does not answer.
    pub(crate) fn ping(&self) -> Option<Ping> {
        let question = Request::get("/ping");
        let ping = self.send(&question, PING_LIMIT);
        self.runtime
            .block_on(ping)
            .ok()
            .map(|answer| Ping::of(&answer))
    }

    /// The schema of the site's program; `None`: it does not answer.
    pub(crate) fn schema(&self) -> Option<u64> {
        let question = Request::get("/ping");
        let answer = self.send(&question, PING_LIMIT);
        let answer = self.runtime.block_on(answer).ok()?;
        let theirs = answer.headers.get(schema::HEADER);
        Some(schema::read(theirs.map(HeaderValue::as_bytes)))
    }

    /// The machine that answers; `None`: the site stands in the lab.
    pub(crate) fn machine(&self) -> Option<&Host> {
        self.machine.as_ref()
    }

    /// Said where the site's process ends while it is followed.
    pub(crate) fn ended(&self) -> String {
        match &self.machine {
            None => format!(
                "the connection to the site closed during the change; see {}",
                self.state.lab_log().display()
            ),
            Some(host) => format!(
                "{host} ended the connection in the middle of it; what was begun goes on: see it with gaiola status"
            ),
        }
    }

    /// Asks in an older schema from now on: that of a site whose program is exchanged.
    pub(crate) fn speak(&mut self, schema: u64) {
        self.speaks = schema.min(SCHEMA);
    }

    /// Asks another one of these machines from now on: the first that answers.
    ///
    /// # Errors
    /// Where none does.
    pub(crate) async fn ask_by(&mut self, machines: &Machines) -> anyhow::Result<()> {
        let found = self.find_again(machines).await?;
        let (host, target) = found.with_context(|| format!("{} is not up", self.site))?;
        (self.machine, self.target) = (Some(host), target);
        Ok(())
    }

    /// Requests a JSON document.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.runtime.block_on(self.ask(&Request::get(path)))
    }

    /// Posts a JSON document and reads the response.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        let request = Request::post(path, serde_json::to_vec(body)?);
        self.runtime.block_on(self.ask(&request))
    }

    /// Sends a request and reads the JSON response.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: &Request) -> anyhow::Result<T> {
        let response = self.send(request, ANSWER_LIMIT).await?;
        if response.status != 200 {
            bail!("{}", response.text().trim());
        }
        serde_json::from_slice(&response.body).context(UNREADABLE)
    }

    /// Sends a request and reads the whole response, whatever its status.
    pub(crate) async fn send(
        &self,
        request: &Request,
        limit: Duration,
    ) -> anyhow::Result<Response> {
        self.send_to(&self.target, request, limit).await
    }

    /// As [`send`](Self::send), to a target that [`find_again`](Self::find_again) found.
    pub(crate) async fn send_to(
        &self,
        target: &Target,
        request: &Request,
        limit: Duration,
    ) -> anyhow::Result<Response> {
        let numbered = self.numbered(request);
        let sent = self.client.request(target, &numbered, limit).await;
        let response = sent.with_context(|| self.cannot_ask())?;
        self.understood(request, &response.headers)?;
        Ok(response)
    }

    /// Where requests go.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// A machine that answers, after the one that did no longer does; `None`: the site is not up.
    ///
    /// # Errors
    /// Where no machine answers.
    pub(crate) async fn find_again(
        &self,
        machines: &Machines,
    ) -> anyhow::Result<Option<(Host, Target)>> {
        place::first_that_answers(&self.client, &self.site, machines).await
    }

    /// Sends a request and streams the response; `limit` applies until the response begins.
    pub(crate) async fn stream(
        &self,
        request: &Request,
        limit: Duration,
    ) -> anyhow::Result<Stream> {
        let numbered = self.numbered(request);
        let sent = self.client.stream(&self.target, &numbered, limit).await;
        let stream = sent.with_context(|| self.cannot_ask())?;
        self.understood(request, &stream.headers)?;
        Ok(stream)
    }

    /// Sends what `write` writes, as [`Client::upload`] does. The inner error is `write`'s own.
    pub(crate) async fn upload<E: Send + 'static>(
        &self,
        request: &Request,
        limit: Duration,
        write: impl FnOnce(&mut Writer) -> Result<(), E> + Send + 'static,
    ) -> anyhow::Result<Result<Response, E>> {
        let (target, numbered) = (&self.target, self.numbered(request));
        let response = match self.client.upload(target, &numbered, limit, write).await {
            Ok(sent) => sent.with_context(|| self.cannot_ask())?,
            Err(error) => return Ok(Err(error)),
        };
        self.understood(request, &response.headers)?;
        Ok(Ok(response))
    }

    /// The request with the number of its schema.
    fn numbered(&self, request: &Request) -> Request {
        let name = HeaderName::from_static(schema::HEADER);
        request.clone().header(name, HeaderValue::from(self.speaks))
    }

    /// Checks that the site and this program have compatible schemas.
    fn understood(&self, request: &Request, headers: &HeaderMap) -> Result<(), Mismatch> {
        let theirs = headers.get(schema::HEADER).map(HeaderValue::as_bytes);
        if schema::is_exempt(request.path()) {
            Ok(())
        } else {
            schema::check(schema::read(theirs), self.speaks)
        }
    }

    fn cannot_ask(&self) -> String {
        match &self.machine {
            None => format!("cannot query the site {}", self.site),
            Some(host) => format!("cannot query the site {} through {host}", self.site),
        }
    }
}
