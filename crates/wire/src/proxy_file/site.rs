//! `[balancer]` of a site's file, as far as it has the words of a proxy's: of its frontends and, for the tier that chooses instances,
//! of a backend.

use super::{Part, Reader, ResolveError, Surroundings, positive, value};
use crate::file::value::size;
use crate::file::{At, Mistakes, Section, checked, text};
use gaiola_model::config::{BalancerProxy, ClientCa};
use gaiola_model::proxy::{
    ClientTimeouts, Compression, InlinePage, Route, Rule, ServerTimeouts, TlsVersion,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// The most bytes of these settings as JSON: every agent holds them, and so do the site's documents, several times.
const MOST: usize = 128 << 10;

/// The most bytes of all rules where they stand: each route has those of `[balancer]` too.
const MOST_RULES: usize = 2 << 20;
/// The largest `client_ca`.
const MOST_CA: usize = 64 << 10;

/// What the reader of a site's file needs for these settings.
pub(crate) struct SiteParts<'a> {
    /// Base of relative paths.
    pub(crate) folder: &'a Path,
    /// Reads a text file.
    pub(crate) read: &'a dyn Fn(&str) -> io::Result<String>,
    /// Reports every mistake in a part.
    pub(crate) check: &'a dyn Fn(Part<'_>) -> Vec<String>,
}

impl SiteParts<'_> {
    /// Calls `work` with a reader.
    fn reader<T>(
        &self,
        mistakes: &mut Mistakes<'_>,
        work: impl FnOnce(&mut Reader<'_, '_, '_>) -> T,
    ) -> T {
        let around = Surroundings {
            directory: self.folder,
            host: "",
            resolve: &|_| Err(ResolveError::NoAddress),
            check: self.check,
        };
        work(&mut Reader {
            around: &around,
            mistakes,
            site: true,
            bound: BTreeSet::new(),
            servers: Vec::new(),
            users: Vec::new(),
            limits: Vec::new(),
            only_http: Vec::new(),
        })
    }
}

/// The settings of `[balancer]`, which has this `compress`.
pub(crate) fn balancer(
    section: &Section<'_>,
    compress: Option<&Compression>,
    parts: &SiteParts<'_>,
    mistakes: &mut Mistakes<'_>,
) -> BalancerProxy {
    parts.reader(mistakes, |reader| reader.site(section, compress, parts))
}

/// `min_version`, `client_ca` and `client_certificate` of `[balancer.tls]`.
pub(crate) fn balancer_tls(
    section: &Section<'_>,
    parts: &SiteParts<'_>,
    mistakes: &mut Mistakes<'_>,
) -> (TlsVersion, Option<ClientCa>) {
    let oldest = text(section, "min_version", value::tls_version, mistakes);
    let clients = parts.reader(mistakes, |reader| reader.client_ca(section, parts));
    (oldest.unwrap_or_default(), clients)
}

impl Reader<'_, '_, '_> {
    fn site(
        &mut self,
        section: &Section<'_>,
        compress: Option<&Compression>,
        parts: &SiteParts<'_>,
    ) -> BalancerProxy {
        self.users = self.all_users(section);
        self.limits = self.all_limits(section);
        let https = section.has("trust") || section.has("tls");
        let (rules, routes) = self.site_routes(section, compress, https);
        let (hosts, aliases) = self.hosts(section);
        let (client_timeouts, server_timeouts) = self.site_timeouts(section);
        let chooses = section.has("balance") || section.has("hash");
        let read = BalancerProxy {
            hosts,
            aliases,
            rules,
            routes,
            connection_limit: self.connection_limit(section),
            maxconn: section.number("maxconn", 1..=10_000_000, self.mistakes),
            max_body: text(section, "max_body", size, self.mistakes),
            max_head: text(section, "max_head", value::head_size, self.mistakes),
            error_pages: self.inline_pages(section, parts),
            access_log: self.balancer_log(section),
            client_timeouts,
            server_timeouts,
            algorithm: Some(self.algorithm(section)).filter(|_| chooses),
            sticky: self.sticky(section),
            slow_start: text(section, "slow_start", positive, self.mistakes),
            limits: std::mem::take(&mut self.limits),
        };
        self.bound_site(&read, section);
        read
    }

    /// The rules for every request, and the routes, which lead to the tier behind the balancers.
    fn site_routes(
        &mut self,
        section: &Section<'_>,
        compress: Option<&Compression>,
        https: bool,
    ) -> (Vec<Rule>, Vec<Route>) {
        let wrong = self.mistakes.len();
        let common = self.rules(section, "frontend.NAME.rule", https);
        let written = section.tables("route", "frontend.NAME.route", self.mistakes);
        let hint = "requests that its rules do not answer go to the web tier, or to the app tier without one";
        for route in &written {
            self.has_no_meaning(route, "backend", hint);
            self.has_no_meaning(route, "files", hint);
        }
        let mut routes = self.written_routes(&written, &common, compress, &mut Vec::new(), https);
        if self.mistakes.len() == wrong {
            let spans: Vec<_> = written.iter().map(|route| route.span().clone()).collect();
            self.ask_about_order(&routes, &spans);
        }
        for route in &mut routes {
            (route.backend, route.files) = (None, Vec::new());
        }
        (common, routes)
    }

    /// `hosts` and `aliases`.
    fn hosts(&mut self, section: &Section<'_>) -> (Vec<String>, Vec<String>) {
        let example = "\"www.example.org\"";
        let hosts = section.one_or_more("hosts", example, self.mistakes);
        let aliases = section.one_or_more("aliases", example, self.mistakes);
        if let Some(first) = hosts.first().filter(|host| host.value.starts_with("*.")) {
            let what = format!(
                "the first of `hosts` is {:?}, which is no name",
                first.value
            );
            let hint = "begin with the site's own name, such as \"www.example.org\"";
            self.mistakes.add(&first.span, what, hint);
        }
        if let Some(alias) = aliases.first().filter(|_| !section.has("hosts")) {
            let hint =
                "add hosts = [\"www.example.org\"], the first of which clients are redirected to";
            let what = "`aliases` are redirected, but [balancer] has no `hosts`";
            self.mistakes.add(&alias.span, what, hint);
        }
        for alias in &aliases {
            if hosts.iter().any(|host| covers(&alias.value, &host.value)) {
                let what = format!("{:?} is in `hosts` and in `aliases`", alias.value);
                let hint = "leave it out of one: it is either served or redirected";
                self.mistakes.add(&alias.span, what, hint);
            }
        }
        let mut names = |key: &str, all: &[At<String>]| {
            let name = |name| checked(key, name, value::server_name, self.mistakes);
            let names = all.iter().filter_map(name);
            names.map(|name| name.to_ascii_lowercase()).collect()
        };
        (names("hosts", &hosts), names("aliases", &aliases))
    }

    /// Those of clients, and those of instances, as far as they are written.
    fn site_timeouts(
        &mut self,
        section: &Section<'_>,
    ) -> (Option<ClientTimeouts>, Option<ServerTimeouts>) {
        let Some(own) = section.table("timeouts", "balancer.timeouts", self.mistakes) else {
            return (None, None);
        };
        let client = self.client_timeouts(&own, &ClientTimeouts::default());
        let server = self.server_timeouts(&own, &ServerTimeouts::default());
        let is_usual = client == ClientTimeouts::default();
        let waits = ["server", "queue"].iter().any(|key| own.has(key));
        (
            Some(client).filter(|_| !is_usual),
            Some(server).filter(|_| waits),
        )
    }

    /// `error_pages`, with the contents of their files.
    fn inline_pages(
        &mut self,
        section: &Section<'_>,
        parts: &SiteParts<'_>,
    ) -> BTreeMap<u16, InlinePage> {
        let wrong = self.mistakes.len();
        let files = self.error_pages(section);
        let mut pages = BTreeMap::new();
        for (status, path) in files {
            if self.mistakes.len() > wrong {
                break;
            }
            match (parts.read)(&path.to_string_lossy()) {
                Ok(body) => {
                    let content_type = content_type(&path).into();
                    pages.insert(status, InlinePage { content_type, body });
                }
                Err(error) => {
                    let what = format!("the page for {status} cannot be read: {error}");
                    let span = section.key_span("error_pages").unwrap_or_default();
                    let hint = "name a text file, relative to this file's directory";
                    self.mistakes.add(&span, what, hint);
                }
            }
        }
        pages
    }

    /// `client_ca` with the contents of its file, and `client_certificate`.
    fn client_ca(&mut self, section: &Section<'_>, parts: &SiteParts<'_>) -> Option<ClientCa> {
        let wrong = self.mistakes.len();
        let clients = self.client_certificates(section)?;
        if self.mistakes.len() > wrong {
            return None;
        }
        match (parts.read)(&clients.ca.to_string_lossy()) {
            Ok(pem) if pem.len() > MOST_CA => {
                let span = section.value_span("client_ca").unwrap_or_default();
                let what = format!("`client_ca` has {} bytes", pem.len());
                let hint =
                    format!("it has {MOST_CA} at most: name the authorities of your clients alone");
                self.mistakes.add(&span, what, hint);
                None
            }
            Ok(pem) => Some(ClientCa {
                pem,
                required: clients.required,
            }),
            Err(error) => {
                let span = section.value_span("client_ca").unwrap_or_default();
                let what = format!("`client_ca` cannot be read: {error}");
                self.mistakes.add(&span, what, super::CA_HINT);
                None
            }
        }
    }

    /// Reports more settings than the site's documents have room for.
    fn bound_site(&mut self, read: &BalancerProxy, section: &Section<'_>) {
        let bytes = serde_json::to_string(read).map_or(usize::MAX, |text| text.len());
        if bytes > MOST {
            let what =
                format!("the settings of [balancer] are {bytes} bytes, error pages included");
            let hint = format!("they are {MOST} at most: shorten the pages or the lists");
            self.mistakes.add(section.span(), what, hint);
        }
        let common = serde_json::to_string(&read.rules).map_or(usize::MAX, |text| text.len());
        let everywhere = common.saturating_mul(read.routes.len() + 2);
        if everywhere > MOST_RULES {
            let what = format!(
                "the rules of [balancer] are {common} bytes and stand before those of {} routes",
                read.routes.len()
            );
            let hint = format!(
                "together {MOST_RULES} bytes at most: move them into the routes that need them"
            );
            self.mistakes.add(section.span(), what, hint);
        }
    }
}

/// Whether requests for a name of `hosts` are for this alias: the same name, or `*.` before the rest of it.
fn covers(alias: &str, host: &str) -> bool {
    let (alias, host) = (alias.to_ascii_lowercase(), host.to_ascii_lowercase());
    let below = alias
        .strip_prefix('*')
        .is_some_and(|rest| host.ends_with(rest));
    alias == host || below
}

/// The type of a page that is served in an answer's place.
pub fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("xml") => "text/xml; charset=utf-8",
        _ => "text/html; charset=utf-8",
    }
}
