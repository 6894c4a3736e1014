//! Rejects other programs' syntax for variables and groups, which would otherwise be sent literally without notice.

use super::RuleError;
use super::template::{self, VARIABLES};
use regex::bytes::Regex;

/// Where a text with variables is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// A header field's value, which may contain a dollar sign of its own.
    Value,
    /// A target or host, which may not.
    Target,
}

/// nginx's variables, and their equivalents here.
const NGINX: &[(&str, &str)] = &[
    ("host", "{host}"),
    ("http_host", "{host}"),
    ("uri", "{path}"),
    ("document_uri", "{path}"),
    ("request_uri", "{path}{query}"),
    ("is_args", "{query}, which has its `?`"),
    ("args", "{query}, which has its `?`"),
    ("query_string", "{query}, which has its `?`"),
    ("remote_addr", "{client}"),
    ("binary_remote_addr", "{client}"),
    ("realip_remote_addr", "{client}"),
    ("scheme", "{scheme}"),
    ("request_method", "{method}"),
    ("request_id", "{request_id}"),
    ("hostname", "{server}"),
    (
        "proxy_add_x_forwarded_for",
        "not needed: X-Forwarded-For is sent to every server",
    ),
];

/// HAProxy's samples and log variables within `%[...]`.
const HAPROXY: &[(&str, &str)] = &[
    ("src", "{client}"),
    ("path", "{path}"),
    ("query", "{query}, which has its `?`"),
    ("pathq", "{path}{query}"),
    ("url", "{path}{query}"),
    ("capture.req.uri", "{path}{query}"),
    ("method", "{method}"),
    ("capture.req.method", "{method}"),
    ("hdr(host)", "{host}"),
    ("req.hdr(host)", "{host}"),
    ("ssl_fc", "{scheme}"),
    ("unique-id", "{request_id}"),
    ("hostname", "{server}"),
];

/// Apache's variables within `%{...}`.
const APACHE: &[(&str, &str)] = &[
    ("http_host", "{host}"),
    ("server_name", "{host}"),
    ("request_uri", "{path}"),
    ("query_string", "{query}, which has its `?`"),
    ("remote_addr", "{client}"),
    ("request_scheme", "{scheme}"),
    ("request_method", "{method}"),
    ("unique_id", "{request_id}"),
];

/// Prefixes of nginx's families of variables.
const NGINX_FAMILIES: [&str; 8] = [
    "http_",
    "arg_",
    "cookie_",
    "sent_",
    "ssl_",
    "upstream_",
    "server_",
    "remote_",
];

/// Another program's syntax, or a group that an expression does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A variable that has an equivalent here.
    #[error("{program}'s `{syntax}` is {equivalent} here")]
    Equivalent {
        /// nginx, HAProxy or Apache.
        program: &'static str,
        /// As it was written.
        syntax: String,
        /// What to write instead.
        equivalent: &'static str,
    },
    /// A variable without an equivalent.
    #[error(
        "`{0}` would be sent literally; the variables are {names}",
        names = template::names()
    )]
    Unknown(String),
    /// One of our variables in double braces, as in many template languages.
    #[error("`{{{{{0}}}}}` would be sent as `{{{0}}}`; a variable has single braces")]
    DoubleBraces(String),
    /// A group of a regular expression where there is none.
    #[error(
        "`{0}` would be sent literally: only the rule rewrite_regex has groups, and {{path}} is its result"
    )]
    Group(String),
    /// A group or `*` in the replacement of a prefix.
    #[error(
        "`{0}` would be part of the path: the rest of the path is appended anyway, and rewrite_regex has groups"
    )]
    InPrefix(String),
    /// A group written with a backslash.
    #[error("a group is written `${{{0}}}` here, not `\\{0}`")]
    Backslash(char),
    /// A dollar sign that begins no group.
    #[error("a `$` that names no group; a literal dollar sign is written `$$`")]
    LoneDollar,
    /// A group's number with letters after it, which the expression reads as one name.
    #[error(
        "`${number}{letters}` is read as a group named `{number}{letters}`; write `${{{number}}}{letters}`"
    )]
    GroupWithLetters {
        /// The number.
        number: String,
        /// The letters.
        letters: String,
    },
    /// A group that the expression does not have.
    #[error(
        "the expression has no group `{name}`, only {groups} numbered ones; a literal dollar sign is written `$$`"
    )]
    UnknownGroup {
        /// Its name or number.
        name: String,
        /// How many groups there are.
        groups: usize,
    },
    /// One of our variables where none are expanded.
    #[error("`{{{0}}}` would be part of the path: a rewrite has no variables")]
    Variable(&'static str),
}

/// Rejects a text with another program's variables or groups.
pub(super) fn refuse(text: &str, context: Context) -> Result<(), RuleError> {
    for (at, mark) in text.match_indices(['$', '\\', '%', '{']) {
        let behind = &text[at + 1..];
        let found = match mark {
            "$" => dollar(behind, context),
            "\\" => digit(behind).map(|group| Foreign::Group(format!("\\{group}"))),
            "%" => percent(behind),
            _ if text[..at].ends_with('{') => None,
            _ => doubled(behind),
        };
        if let Some(found) = found {
            return Err(found.of(text));
        }
    }
    Ok(())
}

/// Rejects groups, `*` and variables in a replacement for a path's prefix, where none are expanded.
pub(super) fn refuse_in_path(text: &str) -> Result<(), RuleError> {
    let group = text.match_indices(['$', '\\']).find_map(|(at, mark)| {
        let behind = &text[at + 1..];
        let group = behind.strip_prefix('{').unwrap_or(behind);
        digit(group).map(|digit| format!("{mark}{digit}"))
    });
    match group.or_else(|| text.contains('*').then(|| "*".to_owned())) {
        Some(mark) => Err(Foreign::InPrefix(mark).of(text)),
        None => refuse_variables(text),
    }
}

/// Rejects references to groups that the expression does not have.
pub(super) fn refuse_in_replacement(text: &str, regex: &Regex) -> Result<(), RuleError> {
    for (at, _) in text.match_indices('\\') {
        if let Some(group) = digit(&text[at + 1..]) {
            return Err(Foreign::Backslash(group).of(text));
        }
    }
    refuse_variables(text)?;
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('$') {
        if let Some(behind) = behind.strip_prefix('$') {
            rest = behind;
            continue;
        }
        rest = behind;
        let (name, braced) = match behind.strip_prefix('{') {
            Some(inner) => (inner.split_once('}').map(|(name, _)| name), true),
            None => (Some(word(behind)).filter(|name| !name.is_empty()), false),
        };
        let name = name.ok_or_else(|| Foreign::LoneDollar.of(text))?;
        let is_group = match name.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|group| group == name),
        };
        if !is_group {
            return Err(no_group(name, braced, regex).of(text));
        }
    }
    Ok(())
}

impl Foreign {
    fn of(self, text: &str) -> RuleError {
        RuleError::Foreign {
            text: text.into(),
            found: self,
        }
    }
}

fn no_group(name: &str, braced: bool, regex: &Regex) -> Foreign {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    let (number, letters) = name.split_at(digits);
    if !braced && digits > 0 && !letters.is_empty() {
        return Foreign::GroupWithLetters {
            number: number.into(),
            letters: letters.into(),
        };
    }
    Foreign::UnknownGroup {
        name: name.into(),
        groups: regex.captures_len() - 1,
    }
}

/// Rejects our own variables where none are expanded.
fn refuse_variables(text: &str) -> Result<(), RuleError> {
    let is_there = |(name, _): &&(&str, _)| {
        text.contains(&format!("{{{name}}}")) && !text.contains(&format!("${{{name}}}"))
    };
    match VARIABLES.iter().find(is_there) {
        Some((name, _)) => Err(Foreign::Variable(name).of(text)),
        None => Ok(()),
    }
}

fn dollar(behind: &str, context: Context) -> Option<Foreign> {
    let inner = behind.strip_prefix('{').unwrap_or(behind);
    if let Some(group) = digit(inner) {
        let next = inner.as_bytes().get(1);
        let is_amount = next.is_some_and(|next| next.is_ascii_digit() || b".,".contains(next));
        let is_group = context == Context::Target || !is_amount;
        return is_group.then(|| Foreign::Group(format!("${group}")));
    }
    let name = word(inner);
    let syntax = format!("${name}");
    let is_nginx = NGINX_FAMILIES.iter().any(|family| name.starts_with(family));
    match lookup(NGINX, name) {
        Some(equivalent) => Some(Foreign::Equivalent {
            program: "nginx",
            syntax,
            equivalent,
        }),
        None if name.is_empty() => None,
        None if is_nginx || context == Context::Target || inner != behind => {
            Some(Foreign::Unknown(syntax))
        }
        None => None,
    }
}

fn percent(behind: &str) -> Option<Foreign> {
    let (program, open, all, end) = match behind.as_bytes().first()? {
        b'[' => ("HAProxy", '[', HAPROXY, ']'),
        b'{' => ("Apache", '{', APACHE, '}'),
        _ => return None,
    };
    let (name, _) = behind[1..].split_once(end)?;
    let syntax = format!("%{open}{name}{end}");
    let plain = name.split(',').next().unwrap_or_default();
    Some(match lookup(all, plain) {
        Some(equivalent) => Foreign::Equivalent {
            program,
            syntax,
            equivalent,
        },
        None => Foreign::Unknown(syntax),
    })
}

fn doubled(behind: &str) -> Option<Foreign> {
    let (name, _) = behind.strip_prefix('{')?.split_once("}}")?;
    let name = name.trim();
    let known = VARIABLES.iter().any(|(known, _)| *known == name);
    known.then(|| Foreign::DoubleBraces(name.into()))
}

fn lookup(all: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    let found = all
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, equivalent)| *equivalent)
}

fn digit(text: &str) -> Option<char> {
    text.chars().next().filter(char::is_ascii_digit)
}

/// The leading letters, digits and underscores of a text.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_variables_are_reported_with_ours() {
        for (text, expected) in [
            (
                "https://$host$request_uri",
                "nginx's `$host` is {host} here",
            ),
            ("/a?$args", "nginx's `$args` is {query}"),
            (
                "https://%[req.hdr(host),field(1,:)]%[pathq]",
                "HAProxy's `%[req.hdr(host),field(1,:)]` is {host} here",
            ),
            ("%[src]", "HAProxy's `%[src]` is {client} here"),
            (
                "%[ssl_c_s_dn]",
                "would be sent literally; the variables are {client}, ",
            ),
            (
                "https://%{HTTP_HOST}%{REQUEST_URI}",
                "Apache's `%{HTTP_HOST}` is {host} here",
            ),
            ("/new/$1", "`$1` would be sent literally"),
            (r"/new/\1", r"`\1` would be sent literally"),
            ("{{client}}", "a variable has single braces"),
            ("${scheme}://x", "nginx's `$scheme` is {scheme} here"),
            ("/$nothing", "`$nothing` would be sent literally"),
        ] {
            let mistake = refuse(text, Context::Target).unwrap_err().to_string();
            assert!(mistake.contains(expected), "{mistake}");
        }
        for text in ["$remote_addr", "$http_x_kind", "$1", r"\2", "%[src]"] {
            assert!(refuse(text, Context::Value).is_err(), "{text}");
        }
        for text in [
            "pa$word",
            "$5.00",
            "100%",
            "{{\"a\": 1}}",
            r"a\b",
            "$ 1",
            "50%{client}",
        ] {
            let is_percent = text.contains("%{");
            assert_eq!(refuse(text, Context::Value).is_err(), is_percent, "{text}");
        }
        assert_eq!(
            refuse("https://{host}{path}{query}?a=%20b", Context::Target),
            Ok(())
        );
    }

    #[test]
    fn a_group_that_does_not_exist_is_reported() {
        let regex = crate::route::regex("^/x/([^/]*)/(?<name>.*)$").unwrap();
        for good in ["/y/$1", "/${1}_big/$name", "/$2$0", "/$$1"] {
            assert_eq!(refuse_in_replacement(good, &regex), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("/y/$1_big", "write `${1}_big`"),
            ("/$3", "has no group `3`, only 2 numbered ones"),
            ("/$nam", "no group `nam`"),
            (r"/\1", "is written `${1}` here"),
            ("/$", "names no group"),
            ("/${1", "names no group"),
            ("/{path}", "no variables"),
        ] {
            let mistake = refuse_in_replacement(bad, &regex).unwrap_err().to_string();
            assert!(mistake.contains(expected), "{mistake}");
        }
    }

    #[test]
    fn what_follows_a_prefix_needs_no_sign() {
        assert_eq!(refuse_in_path("/new"), Ok(()));
        for bad in ["/new/*", "/new/$1", r"/new\1", "/new/${1}", "/new{path}"] {
            assert!(refuse_in_path(bad).is_err(), "{bad}");
        }
    }
}
