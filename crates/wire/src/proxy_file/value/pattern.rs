//! Paths of URLs, and patterns of other programs that people write instead.

use crate::file::value::Wrong;

/// A path in its form for comparison: decoded, without anything that normalization would resolve.
pub(in crate::proxy_file) fn route_path(text: &str) -> Result<String, Wrong> {
    let inner = text.strip_prefix('/').ok_or_else(|| {
        let hint = "it begins at the root, such as \"/api\"";
        ("does not begin with `/`".to_owned(), hint.to_owned())
    })?;
    let mut segments = inner.split('/').peekable();
    while let Some(segment) = segments.next() {
        if matches!(segment, "." | "..") || (segment.is_empty() && segments.peek().is_some()) {
            let hint = "remove `.`, `..` and empty segments: paths are compared without them";
            return Err(("matches no path".into(), hint.into()));
        }
    }
    if let Some(hint) = pattern(text) {
        return Err((
            "is a pattern, but would match only that exact path".into(),
            hint,
        ));
    }
    match text
        .chars()
        .find(|c| matches!(c, '?' | '%' | '#' | ';') || c.is_control())
    {
        Some('%') => Err((
            "contains `%`".into(),
            "write the character itself: paths are compared decoded".into(),
        )),
        Some(';') => Err((
            "contains `;`".into(),
            "remove parameters such as `;x=1`: paths are compared without them".into(),
        )),
        Some(c) => Err((
            format!("contains {c:?}"),
            "write the path alone; `query` compares what follows `?`".into(),
        )),
        None => Ok(text.to_owned()),
    }
}

/// The equivalent of a path that is a pattern of another program.
fn pattern(text: &str) -> Option<String> {
    const ENDINGS: [&str; 10] = [
        "/*", "/**", "/**/*", "/.*", "/.*$", "(.*)", "/(.*)", "(.*)$", "/(.*)$", "(/.*)?",
    ];
    if !is_pattern(text) {
        return None;
    }
    let below = ENDINGS
        .iter()
        .filter_map(|ending| text.strip_suffix(ending));
    let plain = below.min_by_key(|prefix| prefix.len());
    Some(match plain.filter(|prefix| !is_pattern(prefix)) {
        Some("") => "write path = \"/\", which matches every path, or leave it out".into(),
        Some(prefix) => {
            format!("write path = \"{prefix}\", which also matches everything below it")
        }
        None => format!("write path_regex = '{}'", expression(text)),
    })
}

fn is_pattern(text: &str) -> bool {
    let marks = ["*", "^", "|", "\\", ".+", "[0-9]", "[a-z", "[^"];
    marks.iter().any(|mark| text.contains(mark))
        || text.ends_with('$')
        || text.split('/').any(is_placeholder)
}

/// Whether a segment is a placeholder: `:id`, `{id}`, `<id>`.
fn is_placeholder(segment: &str) -> bool {
    let within = |open, close| segment.starts_with(open) && segment.ends_with(close);
    let is_named = segment
        .strip_prefix(':')
        .is_some_and(|name| name.starts_with(|first: char| first.is_ascii_alphabetic()));
    is_named || within('{', '}') || within('<', '>')
}

/// The regular expression equivalent to a pattern.
fn expression(text: &str) -> String {
    let is_one = ["(", "|", "^", "\\", ".*", ".+", "["];
    if is_one.iter().any(|mark| text.contains(mark)) || text.ends_with('$') {
        return format!("^{text}");
    }
    let segment = |segment: &str| match segment {
        "**" => ".*".to_owned(),
        _ if is_placeholder(segment) => "[^/]+".to_owned(),
        _ => segment.replace('.', "[.]").replace('*', "[^/]*"),
    };
    let segments: Vec<_> = text.split('/').map(segment).collect();
    format!("^{}$", segments.join("/"))
}

/// The equivalent of a field's or cookie's value that looks like a pattern.
pub(in crate::proxy_file) fn text_pattern(name: &str, text: &str) -> Option<String> {
    let has_stars = ["accept", "if-match", "if-none-match"];
    let name = name.to_ascii_lowercase();
    if has_stars.iter().any(|known| name.starts_with(known)) {
        return None;
    }
    let literal = |text: &str| text.replace('.', "[.]").replace('*', ".*");
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        _ if text == "*" => {
            Some("write true for any value, or { regex = '^[*]$' } for a star itself".into())
        }
        (Some(inner), Some(_)) => {
            let inner = inner.strip_suffix('*').unwrap_or(inner);
            Some(format!("write {{ regex = '{}' }}", literal(inner)))
        }
        (Some(end), None) => Some(format!("write {{ regex = '{}$' }}", literal(end))),
        (None, Some(beginning)) => Some(format!("write {{ regex = '^{}' }}", literal(beginning))),
        (None, None) => None,
    }
}

/// The prefix of a path, as sent.
pub(in crate::proxy_file) fn path_prefix(text: &str) -> Result<String, Wrong> {
    let prefix = crate::file::value::url_path(text)?;
    if prefix.contains('?') {
        let hint = "write the path alone, without the query";
        return Err(("contains `?`".into(), hint.into()));
    }
    if is_pattern(&prefix) {
        let plain = prefix.split("/*").next().unwrap_or_default();
        let hint = if is_pattern(plain) || plain.is_empty() {
            "write rewrite_regex = \"EXPRESSION\"".into()
        } else {
            format!("write \"{plain}\": the rest of the path is kept")
        };
        return Err(("is a pattern, but would be taken literally".into(), hint));
    }
    Ok(prefix)
}
