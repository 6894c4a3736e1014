//! Everything that is asked of a request besides its host and path, made ready.

use super::path::decode;
use super::{Asked, is_token, leads, prefix_key, regex};
use gaiola_model::proxy::{Conditions, HeaderMatch, QueryMatch, Route, ValueMatch};
use ipnet::IpNet;
use regex::bytes::Regex;

/// One route's conditions.
#[derive(Clone)]
pub(super) struct Test {
    /// Where the route is not found under its prefix already.
    prefix: Option<Box<[u8]>>,
    methods: Vec<String>,
    headers: Vec<Header>,
    query: Vec<QueryMatch>,
    sources: Vec<IpNet>,
}

#[derive(Clone)]
struct Header {
    name: String,
    values: Vec<Value>,
}

#[derive(Clone)]
enum Value {
    Equals(String),
    Regex(Regex),
}

impl Test {
    /// The route's conditions; what is wrong with them is added to `mistakes`.
    pub(super) fn new(route: &Route, mistakes: &mut Vec<String>) -> Self {
        let Conditions {
            paths,
            methods,
            headers,
            query,
            sources,
            hosts: _,
        } = &route.when;
        for method in methods.iter().filter(|method| !is_token(method)) {
            mistakes.push(format!("{method:?} is no method"));
        }
        let has_own_paths = !paths.is_empty() && route.path_prefix != "/";
        let headers = headers.iter().map(|header| Header::new(header, mistakes));
        Self {
            prefix: has_own_paths.then(|| prefix_key(&route.path_prefix)),
            methods: methods.clone(),
            headers: headers.collect(),
            query: query.clone(),
            sources: sources.clone(),
        }
    }

    /// Whether all hold.
    pub(super) fn holds(&self, path: &[u8], asked: &Asked<'_>) -> bool {
        let below = |prefix: &[u8]| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| leads(prefix, rest))
        };
        let method = || asked.head.method_name.of(asked.buffer);
        let client = || asked.client.to_canonical();
        self.prefix.as_deref().is_none_or(below)
            && any(&self.methods, |wanted| wanted.as_bytes() == method())
            && any(&self.sources, |source| source.contains(&client()))
            && self.headers.iter().all(|header| header.holds(asked))
            && self.query.iter().all(|parameter| has(parameter, asked))
    }
}

/// Whether it is so for any of them, or there are none.
fn any<T>(wanted: &[T], is_so: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is_so)
}

impl Header {
    fn new(header: &HeaderMatch, mistakes: &mut Vec<String>) -> Self {
        if !is_token(&header.name) {
            mistakes.push(format!("{:?} is no header field's name", header.name));
        }
        let value = |value: &ValueMatch| match value {
            ValueMatch::Equals(value) => Some(Value::Equals(value.clone())),
            ValueMatch::Regex(pattern) => match regex(pattern) {
                Ok(regex) => Some(Value::Regex(regex)),
                Err(mistake) => {
                    mistakes.push(mistake);
                    None
                }
            },
        };
        Self {
            name: header.name.clone(),
            values: header.values.iter().filter_map(value).collect(),
        }
    }

    fn holds(&self, asked: &Asked<'_>) -> bool {
        let name = self.name.as_bytes();
        let fields = asked.head.fields.iter();
        let mut named =
            fields.filter(|field| field.name.of(asked.buffer).eq_ignore_ascii_case(name));
        named.any(|field| {
            let text = field.value.of(asked.buffer);
            any(&self.values, |value| match value {
                Value::Equals(wanted) => wanted.as_bytes() == text,
                Value::Regex(regex) => regex.is_match(text),
            })
        })
    }
}

/// Whether the query has the parameter with one of its values.
fn has(parameter: &QueryMatch, asked: &Asked<'_>) -> bool {
    let query = asked.head.query.of(asked.buffer);
    let query = query.strip_prefix(b"?").unwrap_or(query);
    let same = |text: &[u8], wanted: &str| {
        let spaced = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        // A plus that was encoded is one: `+` turns into a space before the rest is decoded.
        match text.contains(&b'+') {
            false => decode(text).eq(wanted.bytes()),
            true => decode(&text.iter().map(spaced).collect::<Vec<_>>()).eq(wanted.bytes()),
        }
    };
    query.split(|&byte| byte == b'&').any(|part| {
        let mut halves = part.splitn(2, |&byte| byte == b'=');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next());
        same(name, &parameter.name)
            && any(&parameter.values, |wanted| {
                same(value.unwrap_or_default(), wanted)
            })
    })
}
