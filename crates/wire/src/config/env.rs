//! `[env]` and `[app.env]`: variables of the processes' environment.

use crate::file::{At, Mistakes, Section, shown};
use gaiola_model::config::Variables;

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

/// The variables of the table `env`; empty if there is none.
///
/// `kind`: which one it is, as in the vocabulary.
pub(super) fn variables(
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
    let bytes: usize = found
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MOST {
        let what = format!("the variables of [{kind}] are {bytes} bytes");
        let hint = format!("they are {MOST} at most: put what is long into a file of the site");
        mistakes.add(table.span(), what, hint);
    }
    found
}

type Wrong = (String, String);

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
