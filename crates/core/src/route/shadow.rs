//! Unreachable routes, because an earlier one takes all their requests.

use super::leads;
use gaiola_model::proxy::{Conditions, PathMatch, Presence, Route, SniRoute, ValueMatch};
use ipnet::IpNet;

/// The first of the routes that takes every request this one would.
///
/// A result is certain; a route shadowed only by several others together is not found.
///
/// ```
/// use gaiola_core::route::taken_by;
/// use gaiola_model::proxy::Route;
///
/// let route = |prefix: &str| Route { path_prefix: prefix.into(), ..Route::to("app") };
/// assert_eq!(taken_by(&[route("/api"), route("/")], &route("/admin")), Some(1));
/// assert_eq!(taken_by(&[route("/api")], &route("/")), None);
/// ```
pub fn taken_by(before: &[Route], route: &Route) -> Option<usize> {
    before.iter().position(|other| takes(other, route))
}

/// The earlier route that already takes this name.
pub fn name_taken_by(before: &[SniRoute], name: &str) -> Option<usize> {
    let takes = |pattern: &String| covers_host(pattern, name);
    before
        .iter()
        .position(|route| route.names.iter().any(takes))
}

fn takes(one: &Route, other: &Route) -> bool {
    let (wide, narrow) = (&one.when, &other.when);
    takes_hosts(wide, narrow)
        && takes_paths(one, other)
        && all_in(&wide.methods, &narrow.methods, |wide, narrow| {
            wide == narrow
        })
        && all_in(&wide.sources, &narrow.sources, covers_network)
        && takes_named(wide, narrow)
}

/// Whether one of `wide` covers each of `narrow`; an empty list means everything.
fn all_in<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    let is_covered = |narrow: &T| wide.iter().any(|wide| covers(wide, narrow));
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(is_covered))
}

fn covers_network(wide: &IpNet, narrow: &IpNet) -> bool {
    wide.contains(narrow)
}

fn takes_hosts(wide: &Conditions, narrow: &Conditions) -> bool {
    all_in(&wide.hosts, &narrow.hosts, |wide, narrow| {
        covers_host(wide, narrow)
    })
}

/// Whether a host pattern takes all names that another one takes.
fn covers_host(wide: &str, narrow: &str) -> bool {
    let (wide, narrow) = (wide.to_ascii_lowercase(), narrow.to_ascii_lowercase());
    match wide.strip_prefix('*') {
        _ if wide == narrow => true,
        Some(below) => narrow.strip_prefix('*').unwrap_or(&narrow).ends_with(below),
        None => false,
    }
}

/// What must hold of a path: a prefix, and possibly more.
struct Way<'a> {
    prefix: &'a str,
    further: Option<&'a PathMatch>,
}

fn ways(route: &Route) -> Vec<Way<'_>> {
    let prefix = &*route.path_prefix;
    let way = |further| Way { prefix, further };
    match &*route.when.paths {
        [] => vec![way(None)],
        paths => paths.iter().map(|path| way(Some(path))).collect(),
    }
}

fn takes_paths(one: &Route, other: &Route) -> bool {
    all_in(&ways(one), &ways(other), covers_way)
}

fn covers_way(wide: &Way<'_>, narrow: &Way<'_>) -> bool {
    let prefix_holds = is_below(wide.prefix, narrow.prefix)
        || matches!(narrow.further, Some(PathMatch::Exact(path) | PathMatch::Prefix(path))
            if is_below(wide.prefix, path));
    prefix_holds
        && match (wide.further, narrow.further) {
            (None, _) => true,
            (Some(wide), Some(narrow)) if wide == narrow => true,
            (
                Some(PathMatch::Prefix(wide)),
                Some(PathMatch::Exact(path) | PathMatch::Prefix(path)),
            ) => is_below(wide, path),
            (Some(PathMatch::Prefix(wide)), _) => is_below(wide, narrow.prefix),
            (Some(PathMatch::Regex(wide)), Some(PathMatch::Exact(path))) => {
                super::regex(wide).is_ok_and(|wide| wide.is_match(path.as_bytes()))
            }
            (Some(PathMatch::Exact(_) | PathMatch::Regex(_)), _) => false,
        }
}

/// Whether every path below `path` is below `prefix` too, in complete segments.
fn is_below(prefix: &str, path: &str) -> bool {
    let rest = path.as_bytes().strip_prefix(prefix.as_bytes());
    prefix == "/" || rest.is_some_and(|rest| leads(prefix.as_bytes(), rest))
}

/// Whether every condition on header fields, parameters and cookies of `wide` is also one of `narrow`.
fn takes_named(wide: &Conditions, narrow: &Conditions) -> bool {
    let headers = wide.headers.iter().all(|wide| {
        narrow.headers.iter().any(|narrow| {
            wide.name.eq_ignore_ascii_case(&narrow.name) && covers(&wide.wanted, &narrow.wanted)
        })
    });
    let cookies = wide.cookies.iter().all(|wide| {
        let mut all = narrow.cookies.iter();
        all.any(|narrow| wide.name == narrow.name && covers(&wide.wanted, &narrow.wanted))
    });
    let query = wide.query.iter().all(|wide| {
        let mut all = narrow.query.iter();
        all.any(|narrow| wide.name == narrow.name && covers_texts(&wide.wanted, &narrow.wanted))
    });
    headers && cookies && query
}

fn covers(wide: &Presence<ValueMatch>, narrow: &Presence<ValueMatch>) -> bool {
    covers_texts(wide, narrow)
}

fn covers_texts<T: PartialEq>(wide: &Presence<T>, narrow: &Presence<T>) -> bool {
    match (wide, narrow) {
        (Presence::Absent, Presence::Absent) => true,
        (Presence::Present, Presence::Present | Presence::OneOf(_)) => true,
        (Presence::OneOf(wide), Presence::OneOf(narrow)) => {
            narrow.iter().all(|value| wide.contains(value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::{HeaderMatch, QueryMatch};

    fn route(set: impl FnOnce(&mut Route)) -> Route {
        let mut route = Route::to("b");
        set(&mut route);
        route
    }

    fn below(prefix: &str) -> Route {
        route(|route| route.path_prefix = prefix.into())
    }

    fn paths(paths: &[PathMatch]) -> Route {
        route(|route| route.when.paths = paths.to_vec())
    }

    fn hosts(hosts: &[&str]) -> Route {
        route(|route| route.when.hosts = hosts.iter().map(|host| (*host).into()).collect())
    }

    fn header(wanted: Presence<ValueMatch>) -> Route {
        let name = "X-Kind".into();
        route(|route| route.when.headers = vec![HeaderMatch { name, wanted }])
    }

    #[test]
    fn a_wider_route_before_leaves_nothing() {
        let exact = |path: &str| PathMatch::Exact(path.into());
        let prefix = |path: &str| PathMatch::Prefix(path.into());
        let regex = |path: &str| PathMatch::Regex(path.into());
        let network = |text: &str| route(|route| route.when.sources = vec![text.parse().unwrap()]);
        let method = |all: &[&str]| {
            route(|route| route.when.methods = all.iter().map(|it| (*it).into()).collect())
        };
        let is = |value: &str| Presence::OneOf(vec![ValueMatch::Equals(value.into())]);
        for (wide, narrow) in [
            (below("/"), below("/admin")),
            (below("/"), hosts(&["a"])),
            (below("/a"), below("/a/b")),
            (below("/a"), paths(&[exact("/a/b"), prefix("/a")])),
            (paths(&[prefix("/a"), prefix("/b")]), below("/b")),
            (paths(&[regex("[.]php$")]), paths(&[exact("/x.php")])),
            (paths(&[regex("x")]), paths(&[regex("x")])),
            (hosts(&["A", "*.b"]), hosts(&["x.b", "a"])),
            (hosts(&["*.b"]), hosts(&["*.x.b"])),
            (network("10.0.0.0/8"), network("10.1.0.0/16")),
            (method(&["GET", "PUT"]), method(&["PUT"])),
            (header(Presence::Present), header(is("a"))),
            (below("/"), header(Presence::Absent)),
        ] {
            assert_eq!(
                taken_by(std::slice::from_ref(&wide), &narrow),
                Some(0),
                "{wide:?} {narrow:?}"
            );
        }
        for (one, other) in [
            (below("/admin"), below("/")),
            (below("/a/"), below("/a")),
            (below("/a"), below("/ab")),
            (hosts(&["a"]), below("/")),
            (hosts(&["*.b"]), hosts(&["b"])),
            (hosts(&["*.b"]), hosts(&["x.b", "a"])),
            (paths(&[exact("/a")]), below("/a")),
            (paths(&[regex("[.]php$")]), below("/x.php")),
            (network("10.1.0.0/16"), network("10.0.0.0/8")),
            (method(&["GET"]), method(&["GET", "PUT"])),
            (method(&["GET"]), below("/")),
            (header(is("a")), header(Presence::Present)),
            (header(Presence::Absent), header(Presence::Present)),
            (header(Presence::Present), below("/")),
        ] {
            assert_eq!(
                taken_by(std::slice::from_ref(&one), &other),
                None,
                "{one:?} {other:?}"
            );
        }
    }

    #[test]
    fn what_is_asked_of_the_query_counts() {
        let asks = |value: &str| {
            route(|route| {
                route.when.query = vec![QueryMatch {
                    name: "a".into(),
                    wanted: Presence::OneOf(vec![value.into()]),
                }];
            })
        };
        assert_eq!(taken_by(&[asks("1")], &asks("1")), Some(0));
        assert_eq!(taken_by(&[asks("1")], &asks("2")), None);
    }

    #[test]
    fn names_are_taken_by_those_above_them() {
        let routes = [SniRoute {
            names: vec!["*.example.org".into()],
            backend: "a".into(),
        }];
        assert_eq!(name_taken_by(&routes, "www.example.org"), Some(0));
        assert_eq!(name_taken_by(&routes, "*.x.example.org"), Some(0));
        assert_eq!(name_taken_by(&routes, "example.org"), None);
    }
}
