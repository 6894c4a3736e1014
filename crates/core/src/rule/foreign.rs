//! Rejects other programs' syntax for variables and groups, which would otherwise be sent literally without notice.

use super::template::VARIABLES;
use regex::bytes::Regex;

/// The kind of text with variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
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

/// Rejects a text with another program's variables or groups.
pub(super) fn refuse(text: &str, place: Place) -> Result<(), String> {
    for (at, mark) in text.match_indices(['$', '\\', '%', '{']) {
        let behind = &text[at + 1..];
        let found = match mark {
            "$" => dollar(behind, place),
            "\\" => digit(behind).map(|group| back_reference(&format!("\\{group}"))),
            "%" => percent(behind),
            _ if text[..at].ends_with('{') => None,
            _ => doubled(behind),
        };
        if let Some(mistake) = found {
            return Err(format!("{text:?}: {mistake}"));
        }
    }
    Ok(())
}

/// Rejects groups, `*` and variables in a replacement for a path's prefix, where none are expanded.
pub(super) fn refuse_in_path(text: &str) -> Result<(), String> {
    let group = text.match_indices(['$', '\\']).find_map(|(at, mark)| {
        let behind = &text[at + 1..];
        let group = behind.strip_prefix('{').unwrap_or(behind);
        digit(group).map(|digit| format!("{mark}{digit}"))
    });
    match group.or_else(|| text.contains('*').then(|| "*".to_owned())) {
        Some(mark) => Err(format!(
            "{text:?} would have `{mark}` in the path as it stands: what follows the prefix is kept by itself, and \
             rewrite_regex has groups"
        )),
        None => refuse_variables(text),
    }
}

/// Rejects references to groups that the expression does not have.
pub(super) fn refuse_in_replacement(text: &str, regex: &Regex) -> Result<(), String> {
    for (at, _) in text.match_indices('\\') {
        if let Some(group) = digit(&text[at + 1..]) {
            return Err(format!(
                "{text:?}: a group is not written `\\{group}` here, but `${{{group}}}`"
            ));
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
        let name = name.ok_or_else(|| {
            format!("{text:?} has a `$` that names no group; a dollar sign itself is `$$`")
        })?;
        let is_group = match name.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|group| group == name),
        };
        if !is_group {
            return Err(no_group(text, name, braced, regex));
        }
    }
    Ok(())
}

fn no_group(text: &str, name: &str, braced: bool, regex: &Regex) -> String {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    let (number, letters) = name.split_at(digits);
    if !braced && digits > 0 && !letters.is_empty() {
        return format!(
            "{text:?}: `${name}` is the group of the name `{name}`, which the expression has not; write \
             `${{{number}}}{letters}`"
        );
    }
    let groups = regex.captures_len() - 1;
    format!(
        "{text:?} has a group `{name}`, which the expression has not; it has {groups}, and a dollar sign itself is `$$`"
    )
}

/// Rejects our own variables where none are expanded.
fn refuse_variables(text: &str) -> Result<(), String> {
    let is_there = |(name, _): &&(&str, _)| {
        text.contains(&format!("{{{name}}}")) && !text.contains(&format!("${{{name}}}"))
    };
    match VARIABLES.iter().find(is_there) {
        Some((name, _)) => Err(format!(
            "{text:?} would have `{{{name}}}` in the path as it stands: a rewrite has no variables"
        )),
        None => Ok(()),
    }
}

fn dollar(behind: &str, place: Place) -> Option<String> {
    let inner = behind.strip_prefix('{').unwrap_or(behind);
    if let Some(group) = digit(inner) {
        let next = inner.as_bytes().get(1);
        let is_amount = next.is_some_and(|next| next.is_ascii_digit() || b".,".contains(next));
        let is_group = place == Place::Target || !is_amount;
        return is_group.then(|| back_reference(&format!("${group}")));
    }
    let name = word(inner);
    let known = lookup(NGINX, name);
    let is_nginx = NGINX_FAMILIES.iter().any(|family| name.starts_with(family));
    match known {
        Some(ours) => Some(format!("nginx's `${name}` is {ours} here")),
        None if name.is_empty() => None,
        None if is_nginx || place == Place::Target || inner != behind => Some(format!(
            "`${name}` would be sent as it stands; there are {}",
            ours()
        )),
        None => None,
    }
}

fn percent(behind: &str) -> Option<String> {
    let (program, open, all, end) = match behind.as_bytes().first()? {
        b'[' => ("HAProxy", '[', HAPROXY, ']'),
        b'{' => ("Apache", '{', APACHE, '}'),
        _ => return None,
    };
    let (name, _) = behind[1..].split_once(end)?;
    let plain = name.split(',').next().unwrap_or_default();
    Some(match lookup(all, plain) {
        Some(ours) => format!("{program}'s `%{open}{name}{end}` is {ours} here"),
        None => format!(
            "{program}'s `%{open}{name}{end}` would be sent as it stands; there are {}",
            ours()
        ),
    })
}

/// A variable in double braces, as in many template languages.
fn doubled(behind: &str) -> Option<String> {
    let (name, _) = behind.strip_prefix('{')?.split_once("}}")?;
    let name = name.trim();
    let known = VARIABLES.iter().any(|(known, _)| *known == name);
    known.then(|| {
        format!("`{{{{{name}}}}}` would be sent as `{{{name}}}`; the variable has single braces")
    })
}

fn back_reference(written: &str) -> String {
    format!(
        "`{written}` would be sent as it stands: there are no groups here. The rule rewrite_regex has them, and {{path}} \
         is what it made of the path"
    )
}

fn lookup(all: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    let found = all
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, ours)| *ours)
}

fn ours() -> String {
    VARIABLES.map(|(name, _)| format!("{{{name}}}")).join(", ")
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
    fn other_programs_variables_are_told_with_ours() {
        for (text, told) in [
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
                "would be sent as it stands; there are {client}, ",
            ),
            (
                "https://%{HTTP_HOST}%{REQUEST_URI}",
                "Apache's `%{HTTP_HOST}` is {host} here",
            ),
            ("/new/$1", "`$1` would be sent as it stands"),
            (r"/new/\1", r"`\1` would be sent as it stands"),
            ("{{client}}", "the variable has single braces"),
            ("${scheme}://x", "nginx's `$scheme` is {scheme} here"),
            ("/$nothing", "`$nothing` would be sent as it stands"),
        ] {
            let mistake = refuse(text, Place::Target).unwrap_err();
            assert!(mistake.contains(told), "{mistake}");
        }
        for text in ["$remote_addr", "$http_x_kind", "$1", r"\2", "%[src]"] {
            assert!(refuse(text, Place::Value).is_err(), "{text}");
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
            assert_eq!(refuse(text, Place::Value).is_err(), is_percent, "{text}");
        }
        assert_eq!(
            refuse("https://{host}{path}{query}?a=%20b", Place::Target),
            Ok(())
        );
    }

    #[test]
    fn a_group_that_is_not_there_is_told() {
        let regex = crate::route::regex("^/x/([^/]*)/(?<name>.*)$").unwrap();
        for good in ["/y/$1", "/${1}_big/$name", "/$2$0", "/$$1"] {
            assert_eq!(refuse_in_replacement(good, &regex), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("/y/$1_big", "write `${1}_big`"),
            ("/$3", "a group `3`, which the expression has not; it has 2"),
            ("/$nam", "a group `nam`"),
            (r"/\1", "but `${1}`"),
            ("/$", "names no group"),
            ("/${1", "names no group"),
            ("/{path}", "no variables"),
        ] {
            let mistake = refuse_in_replacement(bad, &regex).unwrap_err();
            assert!(mistake.contains(told), "{mistake}");
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
