//! What a configuration says about single requests, prepared for use: routes, rules, error pages.

use super::{auth, io};
use gaiola_core::route::{self, Table};
use gaiola_core::rule::Rules;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{
    Address, Allowance, Frontend, InlinePage, Limit, LimitKey, Mode, Most, Route, Rule, SniRoute,
};
use gaiola_wire::http1::Limits;
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Limits of a request whose route sets none. A head leaves room in its buffer for part of the body.
pub(super) const LIMITS: Limits = Limits {
    head: io::BUFFER_LEN - 1024,
    target: 8 * 1024,
    fields: 100,
};

/// Largest error page.
const PAGE_LIMIT: usize = 256 * 1024;

/// Windows of rates.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Most keys that one limit may hold: 64 MiB.
const KEYS_LIMIT: u32 = 1_000_000;

/// The per-request settings of one frontend. Each worker has a clone, so that none contends for another's search state.
#[derive(Clone, Default)]
pub(super) struct Guide {
    /// Its routes.
    pub(super) table: Table,
    /// The rules of each route.
    pub(super) rules: Vec<Rules>,
    /// Largest head that any of its routes accepts, in bytes.
    pub(super) largest_head: usize,
    /// Index of the configuration's limit for its connections.
    pub(super) connection_limit: Option<usize>,
    /// Bodies of responses that the proxy makes itself, by status.
    pub(super) pages: Arc<BTreeMap<u16, Page>>,
}

/// The body of a response.
pub(super) struct Page {
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Page {
    fn inline(page: &InlinePage) -> Self {
        Self {
            content_type: page.content_type.clone(),
            body: page.body.clone().into_bytes(),
        }
    }
}

/// The routes of a frontend; none in TCP mode.
pub(super) fn routes(frontend: &Frontend) -> &[Route] {
    match &frontend.mode {
        Mode::Http { routes, .. } => routes,
        Mode::Tcp { .. } => &[],
    }
}

/// Largest head that a frontend reads: the maximum over its routes, since the route is not known yet.
pub(super) fn largest_head(routes: &[Route]) -> usize {
    let allowed = routes.iter().filter_map(|route| route.allowance.head);
    let most = allowed.max().unwrap_or_default().min(Allowance::MOST_HEAD);
    LIMITS.head.max(most as usize)
}

/// Every mistake in routes, rules, pages and limits, with its place.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct RulesError(Vec<String>);

/// Why a page cannot be served instead of an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    #[error("{0} is no error's status: 400 to 599")]
    Status(u16),
    #[error("the page for {status}, {}, cannot be read: {error}", .path.display())]
    Read {
        status: u16,
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the page for {status}, {}, is larger than {PAGE_LIMIT} bytes", .path.display())]
    TooLarge { status: u16, path: PathBuf },
}

/// Why connections cannot be counted by a limit.
#[derive(Debug, thiserror::Error)]
enum ConnectionLimitError {
    #[error("there is no limit {0}")]
    Unknown(String),
    #[error("connections cannot be counted by the limit {0}: it is not by address or network")]
    NotByAddress(String),
}

/// Builds the guides of all frontends; one in TCP mode has no routes.
///
/// # Errors
/// Every mistake in routes, rules and limits.
pub(super) fn guides(config: &ProxyConfig) -> Result<Vec<Arc<Guide>>, RulesError> {
    let mut mistakes = Vec::new();
    limits(&config.limits, &mut mistakes);
    let mut guides = Vec::new();
    for frontend in &config.frontends {
        let mut found = Vec::new();
        guides.push(Arc::new(guide(frontend, &config.limits, &mut found)));
        let name = &frontend.name;
        mistakes.extend(
            found
                .iter()
                .map(|mistake| format!("frontend {name}: {mistake}")),
        );
    }
    if mistakes.is_empty() {
        Ok(guides)
    } else {
        Err(RulesError(mistakes))
    }
}

/// Every mistake in a route, apart from the limits that it names.
pub(super) fn route_mistakes(route: &Route) -> Vec<String> {
    let found = Table::new(std::slice::from_ref(route)).err();
    let found = found
        .into_iter()
        .flatten()
        .map(|(_, mistake)| mistake.to_string());
    let rules = Rules::new(route, &[]).err().into_iter().flatten();
    let rules = rules.map(|mistake| mistake.to_string());
    found.chain(rules).chain(hashes(route)).collect()
}

/// Reports whether an earlier route leaves nothing for this one.
pub(super) fn taken_by(before: &[Route], route: &Route) -> Vec<String> {
    let taken = route::taken_by(before, route);
    let mistake = taken.map(|number| {
        let number = number + 1;
        format!("no request comes here: the frontend's route {number} takes all of them before")
    });
    mistake.into_iter().collect()
}

/// Reports whether an earlier name leaves nothing for this one.
pub(super) fn name_taken_by(before: &[SniRoute], name: &str) -> Vec<String> {
    let taken = route::name_taken_by(before, name);
    let mistake = taken.map(|number| {
        let number = number + 1;
        format!(
            "no client comes here by {name:?}: the frontend's sni {number} takes all of them before"
        )
    });
    mistake.into_iter().collect()
}

/// Whether this machine has the address: then it is also the source it would use towards it. Binding to it proves
/// nothing if `net.ipv4.ip_nonlocal_bind` is set. No packet is sent.
fn leads_back(address: IpAddr) -> std::io::Result<bool> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, 9))?;
    Ok(socket.local_addr()?.ip() == address)
}

/// Reports whether what is sent to a server at this address comes back to this proxy.
pub(super) fn comes_back(config: &ProxyConfig, address: &Address) -> Vec<String> {
    let is_ours = |address: IpAddr| {
        address.is_loopback() || address.is_unspecified() || leads_back(address).unwrap_or(false)
    };
    let mistake = route::comes_back(config, address, &is_ours).then(|| {
        format!("{address} is the proxy itself: what is sent there comes back without end")
    });
    mistake.into_iter().collect()
}

fn guide(frontend: &Frontend, limits: &[Limit], mistakes: &mut Vec<String>) -> Guide {
    let routes = routes(frontend);
    let at =
        |index: usize, mistake: &dyn std::fmt::Display| format!("route {}: {mistake}", index + 1);
    let table = Table::new(routes).unwrap_or_else(|found| {
        mistakes.extend(found.iter().map(|(index, mistake)| at(*index, mistake)));
        Table::default()
    });
    let mut rules = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        mistakes.extend(hashes(route).map(|mistake| at(index, &mistake)));
        match Rules::new(route, limits) {
            Ok(ready) => rules.push(ready),
            Err(found) => mistakes.extend(found.iter().map(|mistake| at(index, mistake))),
        }
    }
    let connection_limit = connection_limit(frontend, limits).unwrap_or_else(|mistake| {
        mistakes.push(mistake.to_string());
        None
    });
    let mut pages = BTreeMap::new();
    for (status, path) in &frontend.error_pages {
        match page(*status, path) {
            Ok(page) => drop(pages.insert(*status, page)),
            Err(mistake) => mistakes.push(mistake.to_string()),
        }
    }
    for (status, page) in &frontend.pages {
        if (400..=599).contains(status) {
            pages.insert(*status, Page::inline(page));
        } else {
            mistakes.push(PageError::Status(*status).to_string());
        }
    }
    Guide {
        largest_head: largest_head(routes),
        table,
        rules,
        connection_limit,
        pages: Arc::new(pages),
    }
}

fn connection_limit(
    frontend: &Frontend,
    limits: &[Limit],
) -> Result<Option<usize>, ConnectionLimitError> {
    let Some(name) = &frontend.connection_limit else {
        return Ok(None);
    };
    let index = limits.iter().position(|limit| limit.name == *name);
    let index = index.ok_or_else(|| ConnectionLimitError::Unknown(name.clone()))?;
    match limits[index].key {
        LimitKey::Source | LimitKey::Network => Ok(Some(index)),
        LimitKey::Header(_) | LimitKey::Path => {
            Err(ConnectionLimitError::NotByAddress(name.clone()))
        }
    }
}

/// Password hashes that cannot be used for comparison.
fn hashes(route: &Route) -> impl Iterator<Item = String> {
    let users = route.rules.iter().filter_map(|rule| match rule {
        Rule::Auth(auth) => Some(&auth.users),
        _ => None,
    });
    users.flatten().filter_map(|user| {
        let mistake = auth::check_hash(&user.hash).err()?;
        Some(format!("the user {}: {mistake}", user.name))
    })
}

/// Reads a page for a status.
///
/// # Errors
/// What is wrong with it.
pub(super) fn page(status: u16, path: &Path) -> Result<Page, PageError> {
    if !(400..=599).contains(&status) {
        return Err(PageError::Status(status));
    }
    let whole = || path.to_owned();
    let body = std::fs::read(path).map_err(|error| PageError::Read {
        status,
        path: whole(),
        error,
    })?;
    if body.len() > PAGE_LIMIT {
        let path = whole();
        return Err(PageError::TooLarge { status, path });
    }
    let guess = mime_guess::from_path(path).first_raw();
    let content_type = match guess.unwrap_or("text/html") {
        text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        other => other.into(),
    };
    Ok(Page { content_type, body })
}

fn limits(limits: &[Limit], mistakes: &mut Vec<String>) {
    for (index, limit) in limits.iter().enumerate() {
        let mut say = |mistake: &str| mistakes.push(format!("limit {}: {mistake}", limit.name));
        if limits[..index].iter().any(|other| other.name == limit.name) {
            say("there is another of this name");
        }
        if !(1..=KEYS_LIMIT).contains(&limit.keys) {
            say(&format!("must be 1 to {KEYS_LIMIT} distinct keys"));
        }
        let most = match limit.most {
            Most::Rate { requests, window } => {
                if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
                    say("its window is 1 s to 1 day");
                }
                requests
            }
            Most::Concurrent(requests) => requests,
        };
        if most == 0 {
            say("it allows no request at all; a rule to deny says so");
        }
    }
}
