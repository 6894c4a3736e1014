//! Finds the running lab of a site and speaks to it.

use crate::args::Global;
use anyhow::{Context as _, bail};
use gaiola_agent::state::State;
use gaiola_model::SiteName;
use gaiola_net::client::{Client, Request, Target};
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// The longest wait for an answer that does not stream.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A line to the lab of one site.
pub(crate) struct Lab {
    /// The site.
    pub(crate) site: SiteName,
    /// Its state directory.
    pub(crate) state: State,
    /// What asks run on.
    pub(crate) runtime: Runtime,
    client: Client,
}

impl Lab {
    /// The lab of `--site`, or of the file's site; it need not run.
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

    /// As [`of`](Self::of), and the lab must run.
    pub(crate) fn find(global: &Global, file: &Path) -> anyhow::Result<Self> {
        let lab = Self::of(site(global, file)?)?;
        if !lab.is_running() {
            bail!(
                "the site {} is not up; bring it up with: gaiola up -f {}",
                lab.site,
                file.display()
            );
        }
        Ok(lab)
    }

    /// Whether the lab runs and is not going down.
    pub(crate) fn is_running(&self) -> bool {
        self.ping() == Some(200)
    }

    /// Whether the lab is still there, even if it is going down.
    pub(crate) fn answers(&self) -> bool {
        self.ping().is_some()
    }

    fn ping(&self) -> Option<u16> {
        let (target, question) = (self.target(), Request::get("/ping"));
        let ping = self
            .client
            .request(&target, &question, Duration::from_secs(5));
        self.runtime.block_on(ping).ok().map(|answer| answer.status)
    }

    /// Where requests go.
    pub(crate) fn target(&self) -> Target {
        Target::Unix(self.state.control_socket())
    }

    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks for a JSON document.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(&Request::get(path))
    }

    /// Posts a JSON document and reads the answer.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        self.ask(&Request::post(path, serde_json::to_vec(body)?))
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> anyhow::Result<T> {
        let target = self.target();
        let asked = self.client.request(&target, request, ANSWER_LIMIT);
        let response = self
            .runtime
            .block_on(asked)
            .with_context(|| format!("cannot ask the lab of {}", self.site))?;
        if response.status != 200 {
            bail!("{}", response.text().trim());
        }
        serde_json::from_slice(&response.body).context(
            "the lab answered with something else than was asked for; is it of another version?",
        )
    }
}

/// The site that is meant: `--site`, the file's, or the only one there is.
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
