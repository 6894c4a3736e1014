//! How responses are compressed: the key `compress`, which both files have.

use crate::file::value::{Wrong, size};
use crate::file::{At, Mistakes, Section, checked, shown, text};
use gaiola_model::http::Coding;
use gaiola_model::proxy::Compression;
use std::ops::RangeInclusive;

/// The keys of its table.
pub(crate) const KEYS: &[&str] = &["encodings", "levels", "types", "min_size"];
/// The keys of its table `levels`.
pub(crate) const LEVELS: &[&str] = &["gzip", "br", "zstd"];
/// Most types.
const MOST_TYPES: usize = 64;

/// What a section says; `None` if it says nothing, `Some(None)` if nothing is compressed. `kinds`: those of the table and of its
/// `levels`.
pub(crate) fn read(
    section: &Section<'_>,
    kinds: [&'static str; 2],
    mistakes: &mut Mistakes<'_>,
) -> Option<Option<Compression>> {
    if !section.has("compress") {
        return None;
    }
    if !section.has_table("compress") {
        let wanted = section.boolean("compress", mistakes);
        return Some(
            wanted
                .filter(|wanted| *wanted)
                .map(|_| Compression::default()),
        );
    }
    let section = section.table("compress", kinds[0], mistakes)?;
    let default = Compression::default();
    let types = types(&section, mistakes);
    Some(Some(Compression {
        codings: codings(&section, kinds[1], mistakes),
        types: if section.has("types") {
            types
        } else {
            default.types
        },
        min_size: text(&section, "min_size", size, mistakes).unwrap_or(default.min_size),
    }))
}

fn codings(
    section: &Section<'_>,
    kind: &'static str,
    mistakes: &mut Mistakes<'_>,
) -> Vec<(Coding, u8)> {
    let written = section.one_or_more("encodings", "\"gzip\"", mistakes);
    let mut codings = Vec::new();
    for element in &written {
        let Some(coding) = checked("encodings", element, coding, mistakes) else {
            continue;
        };
        if codings.contains(&coding) {
            let what = format!("`encodings` has {} twice", shown(&element.value));
            mistakes.add(&element.span, what, "leave one of them out");
        } else {
            codings.push(coding);
        }
    }
    if !section.has("encodings") {
        let default = Compression::default().codings;
        codings = default.into_iter().map(|(coding, _)| coding).collect();
    }
    let levels = section.table("levels", kind, mistakes);
    let mut level = |coding: Coding| {
        let written = levels.as_ref();
        let written =
            written.and_then(|levels| levels.number(coding.token(), range(coding), mistakes));
        (
            coding,
            written.unwrap_or(Compression::default_level(coding)),
        )
    };
    // In order, so that levels of codings that are not used are checked too.
    let levels = Coding::ALL.map(&mut level);
    let with_level = |coding| levels.iter().find(|(known, _)| *known == coding).copied();
    codings.into_iter().filter_map(with_level).collect()
}

/// The levels that do not hold up a worker's other requests.
const fn range(coding: Coding) -> RangeInclusive<u8> {
    match coding {
        Coding::Gzip => 1..=9,
        Coding::Brotli => 0..=6,
        Coding::Zstd => 1..=9,
    }
}

fn coding(text: &str) -> Result<Coding, Wrong> {
    let known = Coding::ALL
        .into_iter()
        .find(|coding| coding.token() == text);
    known.ok_or_else(|| {
        let hint = match text {
            "brotli" => "write \"br\"",
            "gz" => "write \"gzip\"",
            "zst" => "write \"zstd\"",
            _ => "write \"zstd\", \"br\" or \"gzip\"",
        };
        ("is not an encoding that is supported".into(), hint.into())
    })
}

fn types(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Vec<String> {
    let written = section.one_or_more("types", "\"text/*\"", mistakes);
    if written.len() > MOST_TYPES {
        let span = section.value_span("types").unwrap_or_default();
        let what = format!("`types` has {} entries", written.len());
        mistakes.add(&span, what, format!("at most {MOST_TYPES} are allowed"));
    }
    let of = |element: &At<String>| checked("types", element, media_type, mistakes);
    written.iter().filter_map(of).collect()
}

/// A media type, in lower case, with at most one `*`.
fn media_type(text: &str) -> Result<String, Wrong> {
    let hint = || "write it as \"text/html\", \"text/*\" or \"application/*+json\"".to_owned();
    let is_token = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&byte);
        !part.is_empty() && part.bytes().all(is_plain)
    };
    let parts = text.split_once('/');
    if !parts.is_some_and(|(kind, rest)| is_token(kind) && is_token(rest)) {
        return Err(("is not a media type".into(), hint()));
    }
    if text.matches('*').count() > 1 {
        return Err(("has more than one `*`".into(), hint()));
    }
    Ok(text.to_ascii_lowercase())
}
