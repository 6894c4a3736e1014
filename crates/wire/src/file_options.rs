//! How files are served: keys that a route of `proxy.toml` and `[web]` of `gaiola.toml` share.

use crate::file::value::{Wrong, one_line};
use crate::file::{At, Mistakes, Section, checked, closest, shown, text};
use gaiola_model::proxy::{CacheControl, FileOptions, FilePattern};

/// The keys.
pub(crate) const KEYS: [&str; 4] = ["try", "not_found", "precompressed", "cache_control"];

/// Most names that are tried, and most patterns.
const MOST_TRIES: usize = 16;
const MOST_PATTERNS: usize = 64;
/// Longest value of `Cache-Control`.
const LONGEST_VALUE: usize = 256;
/// The pattern of names with a fingerprint.
const FINGERPRINTED: &str = "fingerprinted";

/// The directives of a response (RFC 9111, section 5.2.2, and RFC 5861, 8246), and whether they take seconds.
const DIRECTIVES: [(&str, bool); 13] = [
    ("max-age", true),
    ("s-maxage", true),
    ("stale-while-revalidate", true),
    ("stale-if-error", true),
    ("immutable", false),
    ("must-revalidate", false),
    ("must-understand", false),
    ("no-cache", false),
    ("no-store", false),
    ("no-transform", false),
    ("private", false),
    ("proxy-revalidate", false),
    ("public", false),
];

/// What a section says about its files. `kind`: that of its table `cache_control`.
pub(crate) fn read(
    section: &Section<'_>,
    kind: &'static str,
    mistakes: &mut Mistakes<'_>,
) -> FileOptions {
    let tries = section.one_or_more("try", "\"/index.html\"", mistakes);
    few("try", tries.len(), MOST_TRIES, section, mistakes);
    let tried = |name: &At<String>| checked("try", name, tried, mistakes);
    FileOptions {
        tries: tries.iter().filter_map(tried).collect(),
        not_found: text(section, "not_found", page, mistakes),
        precompressed: section.boolean("precompressed", mistakes).unwrap_or(false),
        cache_control: cache_control(section, kind, mistakes),
    }
}

fn few(key: &str, count: usize, most: usize, section: &Section<'_>, mistakes: &mut Mistakes<'_>) {
    if count > most {
        let what = format!("`{key}` has {count} entries");
        let span = section.value_span(key).unwrap_or_default();
        mistakes.add(&span, what, format!("at most {most} are allowed"));
    }
}

/// A name to try, with a slash at its beginning unless `{path}` brings one.
fn tried(text: &str) -> Result<String, Wrong> {
    if text.starts_with('=') {
        let hint = "write not_found = \"/404.html\", or no `backend`: a missing file then gets 404";
        return Err(("is nginx's".into(), hint.into()));
    }
    if text.contains('$') {
        let hint = "write {path} for the request's path: \"{path}.html\", \"/index.html\"";
        return Err((
            "is nginx's: there are no such variables".into(),
            hint.into(),
        ));
    }
    let plain = text.replace(FileOptions::PATH, "");
    if plain.contains(['{', '}']) {
        let hint = "{path} stands for the request's path; there are no other variables";
        return Err(("has an unknown variable".into(), hint.into()));
    }
    if plain.is_empty() {
        let hint = "leave it out: the file of the request's own name always comes first";
        return Err(("is the request's own name".into(), hint.into()));
    }
    file_name(text, &plain)
}

/// The page for missing files.
fn page(text: &str) -> Result<String, Wrong> {
    if text.ends_with('/') || text.is_empty() {
        let hint = "name a file below the directory: \"/404.html\"";
        return Err(("is not the name of a file".into(), hint.into()));
    }
    file_name(text, text)
}

/// A name below the directory; `plain` is what does not depend on the request.
fn file_name(text: &str, plain: &str) -> Result<String, Wrong> {
    let is_hidden = |name: &str| name.starts_with('.') && name != ".well-known";
    // After `{path}` it is the rest of a name: `.html`.
    let own = plain.split('/').skip(usize::from(text.starts_with('{')));
    if own.clone().any(is_hidden) || plain.split('/').any(|name| name == "..") {
        let hint = "name a file below the directory that does not begin with a dot";
        return Err(("is never served".into(), hint.into()));
    }
    if plain.contains(char::is_control) {
        let hint = "write the file's name as it is on the disk";
        return Err(("contains a control character".into(), hint.into()));
    }
    Ok(match text.starts_with(['/', '{']) {
        true => text.to_owned(),
        false => format!("/{text}"),
    })
}

fn cache_control(
    section: &Section<'_>,
    kind: &'static str,
    mistakes: &mut Mistakes<'_>,
) -> Vec<CacheControl> {
    if section.has("cache_control") && !section.has_table("cache_control") {
        let what = "`cache_control` is not a table of files and values";
        let hint = "write it as cache_control = { \"*.html\" = \"no-cache\" }; \"*\" stands for every file";
        let span = section.value_span("cache_control").unwrap_or_default();
        mistakes.add(&span, what, hint);
        return Vec::new();
    }
    let Some(all) = section.table("cache_control", kind, mistakes) else {
        return Vec::new();
    };
    let entries = all.entries();
    few(
        "cache_control",
        entries.len(),
        MOST_PATTERNS,
        section,
        mistakes,
    );
    let mut rules = Vec::new();
    for entry in entries {
        let files = pattern(&entry, mistakes);
        let value = text(&all, entry.value, directives, mistakes);
        rules.extend(
            files
                .zip(value)
                .map(|(files, value)| CacheControl { files, value }),
        );
    }
    rules
}

fn pattern(entry: &At<&str>, mistakes: &mut Mistakes<'_>) -> Option<FilePattern> {
    let name = entry.value;
    let hint = match name {
        FINGERPRINTED => return Some(FilePattern::Fingerprinted),
        "" => "write \"*\" for every file".to_owned(),
        _ if name.contains(char::is_control) => "write the name as it is on the disk".to_owned(),
        _ if name.contains('/') && !name.starts_with('/') => {
            format!("begin the whole path with a slash: \"/{}\"", one_line(name))
        }
        _ if name.starts_with('/') && name.ends_with('/') => {
            format!("write \"{}*\" for all files below it", one_line(name))
        }
        _ if name.contains('*') || name.contains('.') => {
            return Some(FilePattern::Name(name.to_owned()));
        }
        _ => {
            let known = closest(name, &[FINGERPRINTED]);
            known.map_or_else(
                || "write a file's name, \"*.css\", \"/assets/*\" or fingerprinted".to_owned(),
                |known| format!("did you mean `{known}`?"),
            )
        }
    };
    let what = format!("`cache_control` has {}, which fits no file", shown(name));
    mistakes.add(&entry.span, what, hint);
    None
}

/// A value of `Cache-Control`.
fn directives(text: &str) -> Result<String, Wrong> {
    let hint = || "write it as \"no-cache\" or \"public, max-age=3600\"".to_owned();
    if text.len() > LONGEST_VALUE || text.contains(|c: char| c != ' ' && !c.is_ascii_graphic()) {
        return Err(("is no value of a field".into(), hint()));
    }
    for directive in text.split(',').map(str::trim) {
        let (name, argument) = match directive.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (directive, None),
        };
        let known = DIRECTIVES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((known, takes_seconds)) = known else {
            let names: Vec<&str> = DIRECTIVES.iter().map(|(name, _)| *name).collect();
            let meant = closest(name, &names);
            let hint = meant.map_or_else(hint, |meant| format!("did you mean `{meant}`?"));
            return Err((format!("has the unknown directive {}", shown(name)), hint));
        };
        let is_number = |argument: &str| argument.parse::<u32>().is_ok();
        if *takes_seconds && !argument.is_some_and(is_number) {
            let what = format!("has {known} without a number of seconds");
            return Err((what, format!("write it as {known}=3600")));
        }
    }
    Ok(text.to_owned())
}
