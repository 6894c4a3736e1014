//! A route's conditions besides host and path, compiled.

use super::path::decode;
use super::{RouteError, RouteInput, is_token, leads, prefix_key, regex};
use crate::cookie;
use gaiola_model::proxy::{Conditions, Presence, QueryMatch, Route, ValueMatch};
use ipnet::IpNet;
use regex::bytes::Regex;

/// One route's conditions.
#[derive(Clone)]
pub(super) struct Test {
    /// Present if the route is not already indexed under its prefix.
    prefix: Option<Box<[u8]>>,
    methods: Vec<String>,
    headers: Vec<Named>,
    query: Vec<QueryMatch>,
    cookies: Vec<Named>,
    sources: Vec<IpNet>,
}

/// A header field or a cookie.
#[derive(Clone)]
struct Named {
    name: String,
    wanted: Presence<Value>,
}

#[derive(Clone)]
enum Value {
    Equals(String),
    Regex(Regex),
}

impl Test {
    /// Compiles the route's conditions; appends mistakes in them to `mistakes`.
    pub(super) fn new(route: &Route, mistakes: &mut Vec<RouteError>) -> Self {
        let Conditions {
            paths,
            methods,
            headers,
            query,
            cookies,
            sources,
            hosts: _,
        } = &route.when;
        for method in methods.iter().filter(|method| !is_token(method)) {
            mistakes.push(RouteError::Method(method.clone()));
        }
        let has_own_paths = !paths.is_empty() && route.path_prefix != "/";
        let mut named = |name, wanted, invalid| Named::new(name, wanted, invalid, mistakes);
        let headers = headers
            .iter()
            .map(|header| named(&header.name, &header.wanted, RouteError::FieldName));
        let headers = headers.collect();
        let cookies = cookies
            .iter()
            .map(|cookie| named(&cookie.name, &cookie.wanted, RouteError::CookieName));
        Self {
            prefix: has_own_paths.then(|| prefix_key(&route.path_prefix)),
            methods: methods.clone(),
            headers,
            query: query.clone(),
            cookies: cookies.collect(),
            sources: sources.clone(),
        }
    }

    /// Whether all hold.
    pub(super) fn holds(&self, path: &[u8], asked: &RouteInput<'_>) -> bool {
        let below = |prefix: &[u8]| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| leads(prefix, rest))
        };
        let method = || asked.head.method_name.of(asked.buffer);
        let client = || asked.client.to_canonical();
        self.prefix.as_deref().is_none_or(below)
            && any(&self.methods, |wanted| wanted.as_bytes() == method())
            && any(&self.sources, |source| source.contains(&client()))
            && self.headers.iter().all(|header| header.is_in_fields(asked))
            && self.query.iter().all(|parameter| has(parameter, asked))
            && self
                .cookies
                .iter()
                .all(|cookie| cookie.is_in_cookies(asked))
    }
}

/// Whether it holds for any of them, or there are none.
fn any<T>(wanted: &[T], is_so: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is_so)
}

/// Whether these values satisfy `wanted`.
fn meets<T, V>(
    wanted: &Presence<T>,
    mut values: impl Iterator<Item = V>,
    is_it: impl Fn(&T, &V) -> bool,
) -> bool {
    match wanted {
        Presence::Absent => values.next().is_none(),
        Presence::Present => values.next().is_some(),
        Presence::OneOf(all) => values.any(|value| all.iter().any(|wanted| is_it(wanted, &value))),
    }
}

impl Named {
    fn new(
        name: &str,
        wanted: &Presence<ValueMatch>,
        invalid: fn(String) -> RouteError,
        mistakes: &mut Vec<RouteError>,
    ) -> Self {
        if !is_token(name) {
            mistakes.push(invalid(name.into()));
        }
        let value = |value: &ValueMatch| match value {
            ValueMatch::Equals(value) => Some(Value::Equals(value.clone())),
            ValueMatch::Regex(pattern) => match regex(pattern) {
                Ok(regex) => Some(Value::Regex(regex)),
                Err(mistake) => {
                    mistakes.push(mistake.into());
                    None
                }
            },
        };
        Self {
            name: name.to_owned(),
            wanted: match wanted {
                Presence::Absent => Presence::Absent,
                Presence::Present => Presence::Present,
                Presence::OneOf(values) => {
                    Presence::OneOf(values.iter().filter_map(value).collect())
                }
            },
        }
    }

    fn is_in_fields(&self, asked: &RouteInput<'_>) -> bool {
        let name = self.name.as_bytes();
        let fields = asked.head.fields.iter();
        let named = fields.filter(|field| field.name.of(asked.buffer).eq_ignore_ascii_case(name));
        self.holds(named.map(|field| field.value.of(asked.buffer)))
    }

    fn is_in_cookies(&self, asked: &RouteInput<'_>) -> bool {
        // HAProxy also ignores a cookie with an empty value.
        let values = cookie::values(asked.head, asked.buffer, &self.name);
        self.holds(values.filter(|value| !value.is_empty()))
    }

    fn holds<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> bool {
        meets(&self.wanted, values, |wanted, text| match wanted {
            Value::Equals(wanted) => wanted.as_bytes() == *text,
            Value::Regex(regex) => regex.is_match(text),
        })
    }
}

/// Whether the query satisfies this condition on the parameter.
fn has(parameter: &QueryMatch, asked: &RouteInput<'_>) -> bool {
    let query = asked.head.query.of(asked.buffer);
    let query = query.strip_prefix(b"?").unwrap_or(query);
    let same = |text: &[u8], wanted: &str| {
        let spaced = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        // An encoded plus stays a plus: `+` turns into a space before the rest is decoded.
        if text.contains(&b'+') {
            decode(&text.iter().map(spaced).collect::<Vec<_>>()).eq(wanted.bytes())
        } else {
            decode(text).eq(wanted.bytes())
        }
    };
    let values = query.split(|&byte| byte == b'&').filter_map(|part| {
        let mut halves = part.splitn(2, |&byte| byte == b'=');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next());
        same(name, &parameter.name).then(|| value.unwrap_or_default())
    });
    meets(&parameter.wanted, values, |wanted, value| {
        same(value, wanted)
    })
}
