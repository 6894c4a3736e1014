//! The file of `gaiola proxy -f FILE`: decodes its text to a [`ProxyFile`], or reports every mistake with line and column.
//!
//! Sections have HAProxy's meanings: a frontend listens and chooses, a backend holds servers. Dangling names are found once
//! everything has been read.

mod backend;
mod balance;
mod bind;
mod check;
mod frontend;
mod haproxy;
mod keys;
mod limit;
mod log;
mod route;
mod rule;
mod server;
mod site;
mod sni;
mod sticky;
mod tcp;
mod value;

pub use crate::file::{ConfigErrors, Mistake};
pub(crate) use balance::{ejection, slow_ejection};
pub(crate) use check::health;
pub(crate) use keys::KEYS;
pub use site::content_type;
pub(crate) use site::{SiteParts, balancer, balancer_tls};

use crate::file::value::duration;
use crate::file::{self, At, Mistakes, Section, checked, closest, shown, text};
use gaiola_model::proxy::{
    Address, BasicAuth, ClientTimeouts, Limit, Route, ServerTimeouts, SniRoute,
};
use gaiola_model::proxy_file::{Process, ProxyFile};
use gaiola_model::{ProxyConfig, Revision};
use keys::WORDS;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CA_HINT: &str = "name a PEM file of the CAs' certificates";

/// What a reader needs from its environment.
pub struct Surroundings<'a> {
    /// Base of relative paths: the file's own directory.
    pub directory: &'a Path,
    /// The process's name if the file has no `name`.
    pub host: &'a str,
    /// Resolves `HOST:PORT`, or returns why it cannot.
    pub resolve: &'a dyn Fn(&str) -> Result<SocketAddr, ResolveError>,
    /// Reports every mistake in a part that only its user can validate.
    pub check: &'a dyn Fn(Part<'_>) -> Vec<String>,
}

/// Why a host name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name exists, but has no address.
    #[error("it has no address")]
    NoAddress,
    /// The resolver failed, with this reason.
    #[error("{0}")]
    Failed(String),
}

/// A part of a file that is validated on its own, so that its mistakes get its line.
pub enum Part<'a> {
    /// A route with one condition or one rule.
    Route(&'a Route),
    /// A route, and those before it in order: is it reachable?
    Behind(&'a [Route], &'a Route),
    /// A TLS server name, and the routes before it: is it reachable?
    NameBehind(&'a [SniRoute], &'a str),
    /// The configuration, and the address of a server: do requests sent there come back?
    Server(&'a ProxyConfig, &'a Address),
    /// An error page for a status.
    Page(u16, &'a Path),
    /// A file of certificates that a bind serves, or a folder of them.
    Certificates(&'a Path),
    /// A file of the CAs that must have issued clients' certificates.
    ClientCas(&'a Path),
    /// A file of the CAs that must have issued servers' certificates; `None`: the system's.
    ServerCas(Option<&'a Path>),
    /// Our own certificate.
    Identity {
        /// The file with it and its chain.
        certificate: &'a Path,
        /// The file with its key.
        key: &'a Path,
    },
    /// The whole configuration, once each part is valid by itself.
    Whole(&'a ProxyConfig),
}

/// Decodes the text of a file.
///
/// ```
/// use gaiola_wire::proxy_file::{ResolveError, Surroundings, load};
///
/// let around = Surroundings {
///     directory: "/etc/gaiola".as_ref(),
///     host: "edge1",
///     resolve: &|_| Err(ResolveError::NoAddress),
///     check: &|_| Vec::new(),
/// };
/// let text = "[frontend.www]\nbind = ':80'\nbackend = 'app'\n[backend.app.server]\napp1 = '10.0.0.1:3000'";
/// assert_eq!(load(text, &around).unwrap().config.backends[0].servers[0].name, "app1");
/// ```
///
/// # Errors
/// Every mistake in the text.
pub fn load(text: &str, around: &Surroundings<'_>) -> Result<ProxyFile, ConfigErrors> {
    file::read(text, &WORDS, |root, mistakes| {
        let mut reader = Reader {
            around,
            mistakes,
            site: false,
            bound: BTreeSet::new(),
            servers: Vec::new(),
            users: Vec::new(),
            limits: Vec::new(),
            only_http: Vec::new(),
        };
        reader.whole(root)
    })
}

/// The state of reading one file.
struct Reader<'a, 'm, 't> {
    around: &'a Surroundings<'a>,
    mistakes: &'m mut Mistakes<'t>,
    /// Whether it is `[balancer]` of a site's file.
    site: bool,
    /// The listening addresses so far.
    bound: BTreeSet<Address>,
    /// The servers' addresses and their positions.
    servers: Vec<At<Address>>,
    /// User lists that rules may refer to.
    users: Vec<(String, BasicAuth)>,
    limits: Vec<Limit>,
    /// Settings of backends that only HTTP has.
    only_http: Vec<tcp::OnlyHttp>,
}

/// A name that must be a backend's.
type Reference = At<String>;

impl Reader<'_, '_, '_> {
    fn whole(&mut self, root: &Section<'_>) -> ProxyFile {
        let defaults = self.defaults(root);
        let mut references = Vec::new();
        let backends = self.named(root, "backend", "backend.NAME");
        let backends: Vec<_> = backends
            .iter()
            .map(|(name, section)| self.backend(name, section, &defaults.1, &mut references))
            .collect();
        self.users = self.all_users(root);
        self.limits = self.all_limits(root);
        let frontends = self.named(root, "frontend", "frontend.NAME");
        let frontends: Vec<_> = frontends
            .iter()
            .map(|(name, section)| self.frontend(name, section, &defaults.0, &mut references))
            .collect();
        if frontends.is_empty() {
            let hint = "add [frontend.NAME] with bind = \"0.0.0.0:80\" and backend = \"NAME\"";
            self.mistakes
                .missing(&(0..0), "the file has no [frontend.NAME]", hint);
        }
        let names: Vec<&str> = backends.iter().map(|backend| &*backend.name).collect();
        for reference in &references {
            self.find(("backend", "backend"), reference, &names);
        }
        self.tell_only_http(&frontends, &backends);
        let name = text(root, "name", value::name, self.mistakes);
        let process = self.process(root);
        let config = ProxyConfig {
            revision: Revision::default(),
            server: name.unwrap_or_else(|| self.around.host.to_owned()),
            frontends,
            backends,
            peers: self.peers(root),
            limits: std::mem::take(&mut self.limits),
            limit_secret: text(root, "limit_secret", value::secret, self.mistakes),
        };
        if self.mistakes.is_empty() {
            for server in std::mem::take(&mut self.servers) {
                let hint = "name the server's own address, or let the frontend listen elsewhere";
                self.ask(&server.span, Part::Server(&config, &server.value), hint);
            }
            let hint = "see docs/proxy.md";
            self.ask(&(0..0), Part::Whole(&config), hint);
        }
        ProxyFile { process, config }
    }

    fn process(&mut self, root: &Section<'_>) -> Process {
        Process {
            workers: root
                .number("workers", 1..=1024u16, self.mistakes)
                .and_then(|workers| NonZeroUsize::new(workers.into())),
            admin: self.admin(root),
            control: self.control(root),
            access_log: self.access_log(root),
            hard_stop_after: text(root, "hard_stop_after", positive, self.mistakes),
            take_over_limit: text(root, "take_over_limit", positive, self.mistakes),
        }
    }

    /// The default timeouts of all frontends and backends.
    fn defaults(&mut self, root: &Section<'_>) -> (ClientTimeouts, ServerTimeouts) {
        let client = ClientTimeouts::default();
        // Servers may be far away: a lost SYN is resent after a second, and again after two more.
        let server = ServerTimeouts {
            connect: Duration::from_secs(5),
            user: Duration::from_secs(10),
            ..ServerTimeouts::default()
        };
        match root.table("timeouts", "timeouts", self.mistakes) {
            Some(section) => (
                self.client_timeouts(&section, &client),
                self.server_timeouts(&section, &server),
            ),
            None => (client, server),
        }
    }

    fn client_timeouts(
        &mut self,
        section: &Section<'_>,
        default: &ClientTimeouts,
    ) -> ClientTimeouts {
        ClientTimeouts {
            request_head: self.span(section, "http_request", default.request_head),
            keep_alive: self.span(section, "http_keep_alive", default.keep_alive),
            idle: self.span(section, "client", default.idle),
            tunnel: self.span(section, "tunnel", default.tunnel),
            body_rate: section
                .number("http_body_rate", 0..=u32::MAX, self.mistakes)
                .unwrap_or(default.body_rate),
        }
    }

    fn server_timeouts(
        &mut self,
        section: &Section<'_>,
        default: &ServerTimeouts,
    ) -> ServerTimeouts {
        ServerTimeouts {
            connect: self.span(section, "connect", default.connect),
            queue: self.span(section, "queue", default.queue),
            response: self.span(section, "server", default.response),
            user: self.span(section, "tcp_user", default.user),
            pooled: self.span(section, "pool", default.pooled),
            ..default.clone()
        }
    }

    fn span(&mut self, section: &Section<'_>, key: &str, default: Duration) -> Duration {
        text(section, key, positive, self.mistakes).unwrap_or(default)
    }

    /// Every `[key.NAME]`, in file order.
    fn named<'s>(
        &mut self,
        root: &Section<'s>,
        key: &'static str,
        kind: &'static str,
    ) -> Vec<(String, Section<'s>)> {
        let Some(all) = root.table(key, key, self.mistakes) else {
            return Vec::new();
        };
        let mut named = Vec::new();
        for entry in all.entries() {
            let name = self.entry_name(&entry, key);
            if let Some(section) = all.table(entry.value, kind, self.mistakes) {
                named.extend(name.map(|name| (name, section)));
            }
        }
        named
    }

    /// The user's own name of a section or server.
    fn entry_name(&mut self, entry: &At<&str>, what: &str) -> Option<String> {
        match value::name(entry.value) {
            Ok(name) => Some(name),
            Err((wrong, hint)) => {
                let what = format!("the {what}'s name {} {wrong}", shown(entry.value));
                self.mistakes.add(&entry.span, what, hint);
                None
            }
        }
    }

    fn path(&mut self, section: &Section<'_>, key: &str) -> Option<PathBuf> {
        self.path_at(section, key).map(|path| path.value)
    }

    fn path_at(&mut self, section: &Section<'_>, key: &str) -> Option<At<PathBuf>> {
        let written = section.string_for(key, value::path, self.mistakes)?;
        self.path_of(key, &written)
    }

    fn path_of(&mut self, key: &str, written: &At<String>) -> Option<At<PathBuf>> {
        let path = checked(key, written, value::path, self.mistakes)?;
        Some(At {
            value: self.around.directory.join(path),
            span: written.span.clone(),
        })
    }

    /// Reports mistakes in our own certificate, at its name in the file.
    fn ask_about_identity(&mut self, certificate: &At<PathBuf>, key: &Path) {
        let part = Part::Identity {
            certificate: &certificate.value,
            key,
        };
        let hint = "name PEM files of the certificate with its chain, and of its key";
        self.ask(&certificate.span, part, hint);
    }

    /// Reports mistakes in a file of CAs for servers' certificates.
    fn ask_about_cas(&mut self, ca: &At<PathBuf>) {
        let part = Part::ServerCas(Some(&ca.value));
        self.ask(&ca.span, part, CA_HINT);
    }

    /// Resolves a reference to one of the names. A dangling one is reported, with a hint to add `section`.
    fn find(
        &mut self,
        (what, section): (&str, &str),
        reference: &Reference,
        names: &[&str],
    ) -> Option<usize> {
        let name = &*reference.value;
        let found = names.iter().position(|known| *known == name);
        if found.is_none() {
            let hint = match closest(name, names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if self.site => format!("add [balancer.{section}.NAME] of this name"),
                None => format!("add [{section}.NAME] of this name"),
            };
            let what = format!("there is no {what} {}", shown(name));
            self.mistakes.add(&reference.span, what, hint);
        }
        found
    }

    /// Reports the mistakes in a part at this position.
    fn ask(&mut self, span: &Range<usize>, part: Part<'_>, hint: &str) {
        for mistake in (self.around.check)(part) {
            self.mistakes
                .add(span, file::value::one_line(&mistake), hint);
        }
    }

    fn backend_name(&mut self, section: &Section<'_>, key: &str) -> Option<Reference> {
        let written = section.string_for(key, value::name, self.mistakes)?;
        let name = checked(key, &written, value::name, self.mistakes)?;
        Some(At {
            value: name,
            span: written.span,
        })
    }
}

/// A timeout; zero is rejected.
fn positive(text: &str) -> Result<Duration, file::value::Wrong> {
    match duration(text)? {
        Duration::ZERO => Err((
            "would expire at once".into(),
            "write a number and ms, s, m or h, at most 1h: \"500ms\", \"10s\"".into(),
        )),
        span => Ok(span),
    }
}

#[cfg(test)]
mod tests;
