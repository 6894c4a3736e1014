//! `[env]`, `[app.env]` and `env_file`: variables of the processes' environment.

use super::Surroundings;
use super::env_file::{self, Entry};
use crate::file::value::Wrong;
use crate::file::{At, Mistakes, Section, shown};
use gaiola_model::config::Variables;
use std::io;
use std::ops::Range;

/// Set for every process by Gaiola itself.
const OURS: [&str; 5] = ["HOST", "PORT", "INSTANCE", "RELEASE", "SITE"];
/// Set where the site has a database.
const OF_DATABASE: [&str; 2] = ["DATABASE_URL", "DATABASE_REPLICA_URL"];
/// A variable of that begins so may come to mean something to Gaiola.
const RESERVED: &str = "GAIOLA_";
/// The longest value in bytes: the kernel takes strings of 128 KiB.
const LONGEST: usize = 32 << 10;
/// The most bytes of all variables of a section: every agent holds them, and the store several sets of them.
const MOST: usize = 64 << 10;

/// Variables for every process of the site: those of `env_file`, and of `[env]` above them.
pub(super) fn of_site(
    root: &Section<'_>,
    around: &Surroundings<'_>,
    has_database: bool,
    mistakes: &mut Mistakes<'_>,
) -> Variables {
    let mut found = of_file(root, around, has_database, mistakes);
    found.extend(of_table(root, "env", has_database, mistakes));
    let span = root
        .value_span("env")
        .or_else(|| root.value_span("env_file"));
    bounded(found, span, mistakes)
}

/// Variables for the app tier alone.
pub(super) fn of_app(
    section: &Section<'_>,
    has_database: bool,
    mistakes: &mut Mistakes<'_>,
) -> Variables {
    let found = of_table(section, "app.env", has_database, mistakes);
    bounded(found, section.value_span("env"), mistakes)
}

/// Those of the table `env`, which is a section of this kind.
fn of_table(
    section: &Section<'_>,
    kind: &'static str,
    has_database: bool,
    mistakes: &mut Mistakes<'_>,
) -> Variables {
    let Some(table) = section.table("env", kind, mistakes) else {
        return Variables::new();
    };
    let mut found = Variables::new();
    for At { value: name, span } in table.entries() {
        if let Err((what, hint)) = name_of(name, has_database) {
            mistakes.add(&span, format!("{} {what}", shown(name)), hint);
            continue;
        }
        let Some(value) = table.plain(name, mistakes) else {
            continue;
        };
        match value_of(&value) {
            Ok(()) => _ = found.insert(name.into(), value),
            Err((what, hint)) => {
                let span = table.value_span(name).unwrap_or(span);
                mistakes.add(&span, format!("`{name}` {what}"), hint);
            }
        }
    }
    found
}

/// Those of the file that `env_file` names. Its mistakes are reported at that key, each with its own line.
fn of_file(
    root: &Section<'_>,
    around: &Surroundings<'_>,
    has_database: bool,
    mistakes: &mut Mistakes<'_>,
) -> Variables {
    let mut found = Variables::new();
    let Some(At { value: path, span }) = root.string("env_file", mistakes) else {
        return found;
    };
    let read = around.read.map(|read| read(&path));
    let text = match read.unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into())) {
        Ok(text) => text,
        Err(error) => {
            let hint = "name a file of lines NAME=value, relative to this file's directory";
            let what = format!("`env_file` {} cannot be read: {error}", shown(&path));
            mistakes.add(&span, what, hint);
            return found;
        }
    };
    for Entry { line, entry } in env_file::entries(&text) {
        let checked = entry.and_then(|(name, value)| {
            let named = |(what, hint)| (format!("{} {what}", shown(&name)), hint);
            name_of(&name, has_database).map_err(named)?;
            value_of(&value).map_err(named)?;
            Ok((name, value))
        });
        match checked {
            Ok((name, value)) => _ = found.insert(name, value),
            Err((what, hint)) => {
                mistakes.add(&span, format!("{} line {line}: {what}", shown(&path)), hint);
            }
        }
    }
    found
}

fn bounded(found: Variables, span: Option<Range<usize>>, mistakes: &mut Mistakes<'_>) -> Variables {
    let sizes = found.iter().map(|(name, value)| name.len() + value.len());
    let bytes: usize = sizes.sum();
    if bytes > MOST {
        let what = format!("these variables are {bytes} bytes");
        let hint = format!("they are {MOST} at most: put what is long into a file of the site");
        mistakes.add(&span.unwrap_or(0..0), what, hint);
    }
    found
}

fn name_of(name: &str, has_database: bool) -> Result<(), Wrong> {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let later = |byte: u8| first(byte) || byte.is_ascii_digit();
    let plain = name.bytes().next().is_some_and(first) && name.bytes().all(later);
    let wrong = |what: &str, hint: &str| Err((what.into(), hint.into()));
    if !plain {
        let hint = "it has letters, digits and `_`, and does not begin with a digit";
        return wrong("is not the name of a variable", hint);
    }
    if OURS.contains(&name) {
        return wrong(
            "is set by Gaiola, for each process",
            "leave it out (docs/app.md)",
        );
    }
    if has_database && OF_DATABASE.contains(&name) {
        let hint = "leave it out, or leave out [database] if the site has one of its own";
        return wrong("is set by Gaiola, since the site has a [database]", hint);
    }
    if name.starts_with(RESERVED) {
        return wrong(
            "is kept for Gaiola",
            "take a name that does not begin with `GAIOLA_`",
        );
    }
    Ok(())
}

fn value_of(value: &str) -> Result<(), Wrong> {
    if value.contains('\0') {
        return Err((
            "has a NUL in it".into(),
            "the system ends a variable there: leave it out".into(),
        ));
    }
    if value.len() > LONGEST {
        return Err((
            format!("is {} bytes", value.len()),
            format!("it is {LONGEST} at most: put it into a file of the site, and name that"),
        ));
    }
    Ok(())
}
