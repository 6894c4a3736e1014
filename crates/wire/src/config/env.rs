//! `[env]`, `[app.env]` and `env_file`: variables of the processes' environment.

use super::Surroundings;
use super::env_file::{self, Entry};
use crate::file::value::Wrong;
use crate::file::{At, Mistakes, Section, shown};
use gaiola_model::config::Variables;
use gaiola_model::secret::{self, SecretName};
use std::collections::BTreeSet;
use std::io;

/// Set for every process by Gaiola itself.
const OURS: [&str; 5] = ["HOST", "PORT", "INSTANCE", "RELEASE", "SITE"];
/// Set where the site has a database.
const OF_DATABASE: [&str; 2] = ["DATABASE_URL", "DATABASE_REPLICA_URL"];
/// A variable of that begins so may come to mean something to Gaiola.
const RESERVED: &str = "GAIOLA_";
/// The longest value in bytes: the kernel takes strings of 128 KiB.
const LONGEST: usize = 32 << 10;
/// The most bytes of all variables of an instance, as JSON: every agent holds them, and the store, whose documents are bounded, several sets of
/// them.
const MOST: usize = 64 << 10;

/// What variables are checked against.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Whether the site has a database.
    pub(super) has_database: bool,
    /// The operator's secrets; `None`: not known.
    pub(super) secrets: Option<&'a BTreeSet<SecretName>>,
}

/// The file that `env_file` names, and the variables for every process of the site: those of it, and of `[env]` above them.
pub(super) fn of_site(
    root: &Section<'_>,
    around: &Surroundings<'_>,
    known: Known<'_>,
    mistakes: &mut Mistakes<'_>,
) -> (Option<String>, Variables) {
    let file = root.string("env_file", mistakes);
    let of_file = file
        .as_ref()
        .map(|file| of_file(file, around, known, mistakes));
    let mut found = of_file.unwrap_or_default();
    found.extend(of_table(root, "env", known, mistakes));
    (file.map(|file| file.value), found)
}

/// Variables for the app tier alone.
pub(super) fn of_app(
    section: &Section<'_>,
    known: Known<'_>,
    mistakes: &mut Mistakes<'_>,
) -> Variables {
    of_table(section, "app.env", known, mistakes)
}

/// Those of the table `env`, which is a section of this kind.
fn of_table(
    section: &Section<'_>,
    kind: &'static str,
    known: Known<'_>,
    mistakes: &mut Mistakes<'_>,
) -> Variables {
    let Some(table) = section.table("env", kind, mistakes) else {
        return Variables::new();
    };
    let mut found = Variables::new();
    for At { value: name, span } in table.entries() {
        if let Err((what, hint)) = name_of(name, known) {
            mistakes.add(&span, format!("{} {what}", shown(name)), hint);
            continue;
        }
        let Some(value) = table.plain(name, mistakes) else {
            continue;
        };
        match value_of(&value, known) {
            Ok(()) => _ = found.insert(name.into(), value),
            Err((what, hint)) => {
                let span = table.value_span(name).unwrap_or(span);
                mistakes.add(&span, format!("`{name}` {what}"), hint);
            }
        }
    }
    found
}

/// Those of a file. Its mistakes are reported where it is named, each with its own line.
fn of_file(
    At { value: path, span }: &At<String>,
    around: &Surroundings<'_>,
    known: Known<'_>,
    mistakes: &mut Mistakes<'_>,
) -> Variables {
    let mut found = Variables::new();
    let read = around.read.map(|read| read(path));
    let text = match read.unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into())) {
        Ok(text) => text.replace("\r\n", "\n"),
        Err(error) => {
            let hint = "name a file of lines NAME=value, relative to this file's directory";
            let what = format!("`env_file` {} cannot be read: {error}", shown(path));
            mistakes.add(span, what, hint);
            return found;
        }
    };
    for Entry { line, entry } in env_file::entries(&text) {
        let checked = entry.and_then(|(name, value)| {
            let named = |(what, hint)| (format!("{} {what}", quotable(&name)), hint);
            name_of(&name, known).map_err(named)?;
            value_of(&value, known).map_err(named)?;
            match found.contains_key(&name) {
                true => Err((
                    format!("{} is set twice", shown(&name)),
                    "leave one of them out".into(),
                )),
                false => Ok((name, value)),
            }
        });
        match checked {
            Ok((name, value)) => _ = found.insert(name, value),
            Err((what, hint)) => {
                mistakes.add(span, format!("{} line {line}: {what}", shown(path)), hint);
            }
        }
    }
    found
}

/// A name that is wrong, unless it is none at all: it may be the end of somebody's key.
fn quotable(name: &str) -> String {
    let is_near = |sign: char| sign.is_ascii_alphanumeric() || "_.- ".contains(sign);
    match name.len() <= 40 && name.chars().all(is_near) {
        true => shown(name),
        false => "what is before `=`".into(),
    }
}

/// Reports more variables than the site's documents have room for.
pub(super) fn bound(all: &Variables, root: &Section<'_>, mistakes: &mut Mistakes<'_>) {
    let bytes = serde_json::to_string(all).map_or(usize::MAX, |text| text.len());
    if bytes > MOST {
        let span = root.key_span("env_file").or_else(|| root.key_span("env"));
        let what =
            format!("the variables of an instance are {bytes} bytes in the site's documents");
        let hint = format!("they are {MOST} at most: put what is long into a file of the site");
        mistakes.add(&span.unwrap_or(0..0), what, hint);
    }
}

fn name_of(name: &str, known: Known<'_>) -> Result<(), Wrong> {
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
            "leave it out (docs/file.md)",
        );
    }
    if known.has_database && OF_DATABASE.contains(&name) {
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

fn value_of(value: &str, known: Known<'_>) -> Result<(), Wrong> {
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
    references(value, known.secrets)
}

/// Whether each secret that a value refers to is there.
fn references(value: &str, secrets: Option<&BTreeSet<SecretName>>) -> Result<(), Wrong> {
    if let Err(error) = secret::pieces(value) {
        let hint = "refer to a secret as `{secret.NAME}`";
        return Err((error.to_string(), hint.into()));
    }
    let named = secret::referred([&value.to_string()]).into_iter();
    let missing = named.filter(|name| secrets.is_some_and(|secrets| !secrets.contains(name)));
    match missing.into_iter().next() {
        None => Ok(()),
        Some(name) => Err((
            format!("refers to the secret {name}, which is not there"),
            format!("set it with: gaiola secret set {name}"),
        )),
    }
}
