//! Requests to a running site, over its control socket.

use crate::args::Global;
use anyhow::{Context as _, bail};
use gaiola_agent::state::State;
use gaiola_control::api::schema::{self, Mismatch};
use gaiola_model::SiteName;
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

/// A client of one site's control socket.
pub(crate) struct SiteClient {
    /// The site.
    pub(crate) site: SiteName,
    /// Its state directory.
    pub(crate) state: State,
    /// Runs the requests.
    pub(crate) runtime: Runtime,
    client: Client,
}

impl SiteClient {
    /// A client of this site, which need not be up.
    pub(crate) fn of(site: SiteName) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            state: State::of(&site),
            site,
            runtime,
            client: Client::new(None),
        })
    }

    /// As [`of`](Self::of), for `--site` or the file's site, which must be up.
    pub(crate) fn find(global: &Global, file: &Path) -> anyhow::Result<Self> {
        let client = Self::of(site(global, file)?)?;
        if !client.is_running() {
            bail!(
                "the site {} is not up; bring it up with: gaiola up -f {}",
                client.site,
                file.display()
            );
        }
        Ok(client)
    }

    /// Whether the site is up and not going down.
    pub(crate) fn is_running(&self) -> bool {
        self.ping() == Some(200)
    }

    /// Whether the site still answers, even if it is going down.
    pub(crate) fn answers(&self) -> bool {
        self.ping().is_some()
    }

    fn ping(&self) -> Option<u16> {
        let question = Request::get("/ping");
        let ping = self.send(&question, PING_LIMIT);
        self.runtime.block_on(ping).ok().map(|answer| answer.status)
    }

    fn target(&self) -> Target {
        Target::Unix(self.state.control_socket())
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
        let numbered = numbered(request);
        let sent = self.client.request(&self.target(), &numbered, limit).await;
        let response = sent.with_context(|| self.cannot_ask())?;
        understood(request, &response.headers)?;
        Ok(response)
    }

    /// Sends a request and streams the response; `limit` applies until the response begins.
    pub(crate) async fn stream(
        &self,
        request: &Request,
        limit: Duration,
    ) -> anyhow::Result<Stream> {
        let numbered = numbered(request);
        let sent = self.client.stream(&self.target(), &numbered, limit).await;
        let stream = sent.with_context(|| self.cannot_ask())?;
        understood(request, &stream.headers)?;
        Ok(stream)
    }

    /// Sends what `write` writes, as [`Client::upload`] does. The inner error is `write`'s own.
    pub(crate) async fn upload<E: Send + 'static>(
        &self,
        request: &Request,
        limit: Duration,
        write: impl FnOnce(&mut Writer) -> Result<(), E> + Send + 'static,
    ) -> anyhow::Result<Result<Response, E>> {
        let (target, numbered) = (self.target(), numbered(request));
        let response = match self.client.upload(&target, &numbered, limit, write).await {
            Ok(sent) => sent.with_context(|| self.cannot_ask())?,
            Err(error) => return Ok(Err(error)),
        };
        understood(request, &response.headers)?;
        Ok(Ok(response))
    }

    fn cannot_ask(&self) -> String {
        format!("cannot query the site {}", self.site)
    }
}

/// The request with the number of this program's schema.
fn numbered(request: &Request) -> Request {
    let name = HeaderName::from_static(schema::HEADER);
    request.clone().header(name, HeaderValue::from(SCHEMA))
}

/// Checks that the site and this program have compatible schemas.
fn understood(request: &Request, headers: &HeaderMap) -> Result<(), Mismatch> {
    let theirs = headers.get(schema::HEADER).map(HeaderValue::as_bytes);
    if schema::is_exempt(request.path()) {
        Ok(())
    } else {
        schema::check(schema::read(theirs), SCHEMA)
    }
}

/// The site: `--site`, the file's, or the only one there is.
pub(crate) fn site(global: &Global, file: &Path) -> anyhow::Result<SiteName> {
    if let Some(site) = &global.site {
        return Ok(site.clone());
    }
    if file.exists() {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        return Ok(crate::file::load(file, &text)?.site);
    }
    match State::sites().as_slice() {
        [only] => Ok(only.clone()),
        [] => bail!(
            "there is no {} here; name the site's file with -f",
            file.display()
        ),
        several => {
            let names: Vec<&str> = several.iter().map(SiteName::as_str).collect();
            bail!(
                "there is no {} here; name the site's file with -f, or one of these with --site: {}",
                file.display(),
                names.join(", ")
            )
        }
    }
}
