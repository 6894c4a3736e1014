//! Chooses the route for a request.

mod circle;
mod condition;
mod error;
mod index;
mod path;
mod shadow;

pub use circle::comes_back;
pub use error::{RegexError, RouteError};
pub use path::normal;
pub use shadow::{name_taken_by, taken_by};

use condition::Test;
use gaiola_model::http::RequestHead;
use gaiola_model::proxy::{PathMatch, Route, SniRoute};
use index::{How, PathIndex};
use regex::bytes::{Regex, RegexBuilder};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Memory limit of one compiled regular expression, and of each worker's search state for it.
const REGEX_LIMIT: usize = 1024 * 1024;
const REGEX_STATES_LIMIT: usize = 128 * 1024;

/// Longest host that can be looked up: a name has at most 253 bytes (RFC 1035).
const HOST_LIMIT: usize = 253;

/// The input to the choice of a route.
#[derive(Clone, Copy, Debug)]
pub struct RouteInput<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// The buffer that begins with it.
    pub buffer: &'a [u8],
    /// Client address.
    pub client: IpAddr,
}

/// A path that servers read in several ways which lead to different routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("servers read its path in several ways, which lead to different routes")]
pub struct Ambiguous;

/// A frontend's routes, indexed by host and then by path, so that many cost about as much as one.
///
/// Each thread should search its own clone: threads that share one contend where routes have regular expressions.
///
/// ```
/// use gaiola_core::route::{Ambiguous, RouteInput, Table};
/// use gaiola_model::http::{RequestHead, Span};
/// use gaiola_model::proxy::Route;
///
/// let route = |prefix: &str| Route { path_prefix: prefix.into(), ..Route::to("app") };
/// let table = Table::new(&[route("/api"), route("/")]).unwrap();
/// let find = |path: &str| {
///     let head = RequestHead { path: Span::new(0, path.len()), ..RequestHead::default() };
///     let asked = RouteInput { head: &head, buffer: path.as_bytes(), client: [192, 0, 2, 7].into() };
///     table.find(&asked, &mut Vec::new())
/// };
/// assert_eq!(find("/api/entries"), Ok(Some(0)));
/// assert_eq!(find("/%61pi;v=2"), Ok(Some(0)));
/// assert_eq!(find("/apis"), Ok(Some(1)));
/// assert_eq!(find("/api/..;/apis"), Err(Ambiguous));
/// ```
#[derive(Clone, Default)]
pub struct Table {
    any_host: PathIndex,
    hosts: BTreeMap<Box<[u8]>, PathIndex>,
    /// Keyed by the part after `*.`.
    wildcards: BTreeMap<Box<[u8]>, PathIndex>,
    tests: Vec<Test>,
    /// Whether any route depends on the path.
    reads_path: bool,
}

impl Table {
    /// The table for these routes.
    ///
    /// # Errors
    /// Every mistake in their conditions, with the route's index.
    pub fn new(routes: &[Route]) -> Result<Self, Vec<(usize, RouteError)>> {
        let mut table = Self::default();
        let mut mistakes = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let mut found = Vec::new();
            table.add(index, route, &mut found);
            mistakes.extend(found.into_iter().map(|mistake| (index, mistake)));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        table.any_host.link();
        table.hosts.values_mut().for_each(PathIndex::link);
        table.wildcards.values_mut().for_each(PathIndex::link);
        Ok(table)
    }

    fn add(&mut self, index: usize, route: &Route, mistakes: &mut Vec<RouteError>) {
        self.tests.push(Test::new(route, mistakes));
        let ways = ways(route, mistakes);
        self.reads_path |= ways != [(Box::default(), How::Below)];
        let insert = |paths: &mut PathIndex| {
            for (path, how) in &ways {
                paths.add(path, index, how.clone());
            }
        };
        if route.when.hosts.is_empty() {
            return insert(&mut self.any_host);
        }
        for host in &route.when.hosts {
            let (names, name) = match host.strip_prefix("*.") {
                Some(below) => (&mut self.wildcards, below),
                None => (&mut self.hosts, &**host),
            };
            if !is_host(name) {
                mistakes.push(RouteError::Host(host.clone()));
                continue;
            }
            let name = name.to_ascii_lowercase().into_bytes().into_boxed_slice();
            insert(names.entry(name).or_default());
        }
    }

    /// The first route whose conditions all hold. `scratch` is used if the path is not in normal form.
    ///
    /// # Errors
    /// Servers may read the path in several ways which lead to different routes.
    pub fn find(
        &self,
        asked: &RouteInput<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<usize>, Ambiguous> {
        if !self.reads_path {
            return Ok(self.at(b"/", asked));
        }
        let sent = asked.head.path(asked.buffer);
        let path = normal(sent, scratch);
        let found = self.at(path, asked);
        if path.as_ptr() == sent.as_ptr() {
            // Every server reads it the same way.
            return Ok(found);
        }
        let mut others = path::other_readings(sent, path).into_iter();
        if others.all(|other| self.at(&other, asked) == found) {
            Ok(found)
        } else {
            Err(Ambiguous)
        }
    }

    fn at(&self, path: &[u8], asked: &RouteInput<'_>) -> Option<usize> {
        let holds = |route: usize| self.tests[route].holds(path, asked);
        let mut best = usize::MAX;
        self.any_host.search(path, &mut best, &holds);
        if !(self.hosts.is_empty() && self.wildcards.is_empty()) {
            let mut lower = [0; HOST_LIMIT];
            let host = host_name(asked).and_then(|host| {
                let lower = lower.get_mut(..host.len())?;
                lower.copy_from_slice(host);
                lower.make_ascii_lowercase();
                Some(&*lower)
            });
            for paths in host.into_iter().flat_map(|host| self.of_host(host)) {
                paths.search(path, &mut best, &holds);
            }
        }
        (best != usize::MAX).then_some(best)
    }

    /// The routes for this very host, and those of every wildcard that matches it.
    fn of_host<'a>(&'a self, host: &'a [u8]) -> impl Iterator<Item = &'a PathIndex> {
        let dots = host.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        let below = dots
            .filter(|_| !self.wildcards.is_empty())
            .filter_map(|(dot, _)| self.wildcards.get(&host[dot + 1..]));
        self.hosts.get(host).into_iter().chain(below)
    }
}

/// The first route that matches the host name, which is in lower case: one of the route's names is the name itself, or
/// `*.` followed by a parent domain of it.
///
/// ```
/// use gaiola_core::route;
/// use gaiola_model::proxy::SniRoute;
///
/// let route = |name: &str| SniRoute { names: vec![name.into()], backend: "app".into() };
/// let routes = [route("www.example.org"), route("*.example.org")];
/// assert_eq!(route::find_by_name(&routes, "www.example.org"), Some(0));
/// assert_eq!(route::find_by_name(&routes, "a.b.example.org"), Some(1));
/// assert_eq!(route::find_by_name(&routes, "example.org"), None);
/// assert_eq!(route::find_by_name(&routes, "badexample.org"), None);
/// ```
pub fn find_by_name(routes: &[SniRoute], name: &str) -> Option<usize> {
    let takes = |pattern: &String| match pattern.strip_prefix('*') {
        Some(below) => below.starts_with('.') && name.len() > below.len() && name.ends_with(below),
        None => pattern == name,
    };
    routes
        .iter()
        .position(|route| route.names.iter().any(takes))
}

/// The paths that a route is indexed under, and what must hold of each.
fn ways(route: &Route, mistakes: &mut Vec<RouteError>) -> Vec<(Box<[u8]>, How)> {
    let below = |prefix: &str| (prefix_key(prefix), How::Below);
    for path in std::iter::once(&route.path_prefix).chain(route.when.paths.iter().filter_map(plain))
    {
        if !path.starts_with('/') {
            mistakes.push(RouteError::RelativePath(path.clone()));
        }
    }
    if route.when.paths.is_empty() {
        return vec![below(&route.path_prefix)];
    }
    let way = |path: &PathMatch| match path {
        PathMatch::Exact(path) => Some((path.as_bytes().into(), How::Exact)),
        PathMatch::Prefix(prefix) => Some(below(prefix)),
        PathMatch::Regex(pattern) => {
            match regex(pattern).and_then(|regex| matches_paths(pattern, regex)) {
                Ok(regex) => Some((prefix_key(&route.path_prefix), How::Regex(regex))),
                Err(mistake) => {
                    mistakes.push(mistake.into());
                    None
                }
            }
        }
    };
    route.when.paths.iter().filter_map(way).collect()
}

fn plain(path: &PathMatch) -> Option<&String> {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => Some(path),
        PathMatch::Regex(_) => None,
    }
}

/// The root matches every path, `*` included, so its key is empty.
fn prefix_key(prefix: &str) -> Box<[u8]> {
    match prefix {
        "/" => Box::default(),
        other => other.as_bytes().into(),
    }
}

/// Whether a path that begins with `prefix`, followed by `rest`, is the prefix itself or lies below it.
fn leads(prefix: &[u8], rest: &[u8]) -> bool {
    matches!(rest, [] | [b'/', ..]) || prefix.is_empty() || prefix.ends_with(b"/")
}

/// A regular expression over bytes, with bounded memory; a search is linear in the length of its input.
pub(crate) fn regex(pattern: &str) -> Result<Regex, RegexError> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(REGEX_LIMIT)
        .dfa_size_limit(REGEX_STATES_LIMIT)
        .build()
        .map_err(|error| {
            // The error draws the pattern before its last line.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            RegexError::Invalid {
                pattern: pattern.into(),
                why: why.trim_start_matches("error: ").into(),
            }
        })
}

/// Rejects an expression that no path can match: paths are matched from their slash on, decoded, without query and
/// parameters.
fn matches_paths(pattern: &str, regex: Regex) -> Result<Regex, RegexError> {
    let wrong = |why| {
        Err(RegexError::Unmatchable {
            pattern: pattern.into(),
            why,
        })
    };
    let mut beginning = pattern.chars();
    let is_anchored = beginning.next() == Some('^');
    let begins_otherwise = is_anchored && beginning.next().is_some_and(char::is_alphanumeric);
    if begins_otherwise && !matches!(beginning.next(), Some('?' | '*' | '{')) {
        return wrong("a path begins with `/`, so write `^/...`");
    }
    if outside_of_classes(pattern, "\\?") {
        return wrong("the query is not in it; `query` of the route compares that");
    }
    if outside_of_classes(pattern, ";") {
        return wrong("paths are compared without parameters such as `;x=1`");
    }
    let is_encoded = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    let escapes = pattern.as_bytes().windows(3);
    let mut escapes = escapes.filter(|three| three[0] == b'%' && is_encoded(&three[1..]));
    match escapes.next() {
        Some(_) => wrong("paths are compared decoded, so write the character itself"),
        None => Ok(regex),
    }
}

/// Whether a text occurs in an expression outside of brackets.
fn outside_of_classes(pattern: &str, text: &str) -> bool {
    let outside = pattern
        .split('[')
        .enumerate()
        .map(|(place, part)| match place {
            0 => part,
            _ => part.split_once(']').map_or("", |(_, behind)| behind),
        });
    outside.into_iter().any(|part| part.contains(text))
}

/// The requested host, without port and trailing dot.
pub(crate) fn host_name<'a>(asked: &RouteInput<'a>) -> Option<&'a [u8]> {
    let host = asked.head.host?.of(asked.buffer);
    let name = match host.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(colon) if host[colon] == b':' => &host[..colon],
        Some(_) | None => host,
    };
    Some(name.strip_suffix(b".").unwrap_or(name))
}

fn is_host(name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let inner = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let fits = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.bytes().all(is_name) && !name.starts_with('.') && !name.ends_with('.'),
    };
    fits && !name.is_empty() && name.len() <= HOST_LIMIT
}

/// Whether a field or method may have this name (RFC 9110, section 5.6.2).
pub(crate) fn is_token(name: &str) -> bool {
    let is_mark = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

#[cfg(test)]
mod tests;
