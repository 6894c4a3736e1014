//! A backend's check: a path, `"tcp"`, `"tls"`, or a table.

use super::{Reader, positive, value};
use crate::file::value::{Wrong, url_path};
use crate::file::{At, Mistakes, Section, shown, text};
use gaiola_model::config::HealthCheck;
use gaiola_model::proxy::{Check, CheckKind, StatusRange};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// HAProxy's defaults: `inter 2s rise 2 fall 3`.
const INTERVAL: Duration = Duration::from_secs(2);
const RISE: u32 = 2;
const FALL: u32 = 3;

/// The values of a table's `kind`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Tls,
    Postgres,
    Patroni,
}

impl Reader<'_, '_, '_> {
    pub(super) fn check(&mut self, section: &Section<'_>, connect: Duration) -> Option<Check> {
        if !section.has_table("check") {
            let kind = text(section, "check", short, self.mistakes)?;
            return Some(check(kind, connect));
        }
        let section = section.table("check", "backend.NAME.check", self.mistakes)?;
        let default = check(self.check_kind(&section), connect);
        let interval = self.span(&section, "interval", default.interval);
        Some(Check {
            port: section.number("port", 1..=u16::MAX, self.mistakes),
            host: text(&section, "host", host, self.mistakes),
            headers: headers(&section, "backend.NAME.check.headers", self.mistakes),
            status: status(&section, self.mistakes),
            interval,
            fast_interval: self.span(&section, "fast_interval", interval),
            connect: self.span(&section, "connect", default.connect),
            timeout: self.span(&section, "timeout", interval),
            rise: section
                .number("rise", 1..=1_000, self.mistakes)
                .unwrap_or(default.rise),
            fall: section
                .number("fall", 1..=1_000, self.mistakes)
                .unwrap_or(default.fall),
            ..default
        })
    }

    /// Without `kind` it is HTTP if there is a path.
    fn check_kind(&mut self, section: &Section<'_>) -> CheckKind {
        let written = text(section, "kind", kind, self.mistakes);
        let kind = written.unwrap_or(if section.has("path") {
            Kind::Http
        } else {
            Kind::Tcp
        });
        let path = text(section, "path", url_path, self.mistakes);
        let user = text(section, "user", value::postgres_user, self.mistakes);
        let [ca, cert] = ["ca", "certificate"].map(|key| self.path_at(section, key));
        let key = self.path(section, "key");
        if written.is_some() || !section.has("kind") {
            self.belongs_to_kinds(section, kind);
        }
        match kind {
            Kind::Tcp => CheckKind::Tcp,
            Kind::Tls => CheckKind::Tls,
            Kind::Http => CheckKind::Http {
                path: path.unwrap_or_else(|| "/".into()),
            },
            Kind::Postgres => {
                section.need(
                    "user",
                    "\"NAME\", a user that need not exist",
                    self.mistakes,
                );
                CheckKind::Postgres {
                    user: user.unwrap_or_default(),
                }
            }
            Kind::Patroni => {
                section.need("path", "\"/primary\"", self.mistakes);
                section.need("ca", "\"ca.pem\"", self.mistakes);
                section.need("certificate", "\"own.pem\"", self.mistakes);
                if let Some(ca) = &ca {
                    self.ask_about_cas(ca);
                }
                if let Some(cert) = &cert {
                    self.ask_about_identity(cert, key.as_ref().unwrap_or(&cert.value));
                }
                let of = |path: Option<At<PathBuf>>| path.map_or_else(PathBuf::new, |at| at.value);
                let cert = of(cert);
                CheckKind::Https {
                    path: path.unwrap_or_default(),
                    ca: of(ca),
                    key: key.unwrap_or_else(|| cert.clone()),
                    cert,
                }
            }
        }
    }

    fn belongs_to_kinds(&mut self, section: &Section<'_>, kind: Kind) {
        use Kind::{Http, Patroni, Postgres};
        let keys: [(&str, &[Kind], &str); 8] = [
            ("host", &[Http], "\"http\""),
            ("headers", &[Http], "\"http\""),
            ("status", &[Http], "\"http\""),
            ("path", &[Http, Patroni], "\"http\" or \"patroni\""),
            ("user", &[Postgres], "\"postgres\""),
            ("ca", &[Patroni], "\"patroni\""),
            ("certificate", &[Patroni], "\"patroni\""),
            ("key", &[Patroni], "\"patroni\""),
        ];
        for (key, kinds, names) in keys {
            if !kinds.contains(&kind) {
                self.has_no_meaning(section, key, &format!("it belongs to kind = {names}"));
            }
        }
    }
}

/// `health` of a site's `[app]`, in the words of an `http` check: a path, or a table. The path is `None` where none is written.
pub(crate) fn health(
    section: &Section<'_>,
    mistakes: &mut Mistakes<'_>,
) -> (Option<String>, HealthCheck) {
    if !section.has_table("health") {
        let path = text(section, "health", url_path, mistakes);
        return (path, HealthCheck::default());
    }
    let Some(section) = section.table("health", "app.health", mistakes) else {
        return Default::default();
    };
    let check = HealthCheck {
        host: text(&section, "host", host, mistakes),
        headers: headers(&section, "app.health.headers", mistakes),
        status: status(&section, mistakes),
        interval: text(&section, "interval", interval, mistakes),
        timeout: text(&section, "timeout", timeout, mistakes),
        fall: section.number("fall", 1..=1_000, mistakes),
        port: section.number("port", 1..=u16::MAX, mistakes),
    };
    (text(&section, "path", url_path, mistakes), check)
}

/// Instances are asked so often by their agent and by every proxy.
fn interval(text: &str) -> Result<Duration, Wrong> {
    between(text, Duration::from_millis(100), Duration::from_secs(60))
}

/// While one is waited for, its server reports nothing new of the others.
fn timeout(text: &str) -> Result<Duration, Wrong> {
    between(text, Duration::from_millis(10), Duration::from_secs(10))
}

fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, Wrong> {
    let read = positive(text)?;
    match (least..=most).contains(&read) {
        true => Ok(read),
        false => Err((
            "is out of range".into(),
            format!(
                "it is from {} ms to {} s",
                least.as_millis(),
                most.as_secs()
            ),
        )),
    }
}

/// Header fields of a check's request.
fn headers(
    section: &Section<'_>,
    kind: &'static str,
    mistakes: &mut Mistakes<'_>,
) -> BTreeMap<String, String> {
    let mut read = BTreeMap::new();
    let Some(all) = section.table("headers", kind, mistakes) else {
        return read;
    };
    for entry in all.entries() {
        if let Err((what, hint)) = header_name(entry.value) {
            mistakes.add(&entry.span, format!("{} {what}", shown(entry.value)), hint);
        } else if let Some(value) = text(&all, entry.value, header_value, mistakes) {
            read.insert(entry.value.to_owned(), value);
        }
    }
    read
}

/// A field that the check does not send by itself.
fn header_name(text: &str) -> Result<String, Wrong> {
    const OURS: [&str; 5] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "user-agent",
    ];
    if text.eq_ignore_ascii_case("host") {
        return Err((
            "has a key of its own".into(),
            "write host = \"NAME\"".into(),
        ));
    }
    if OURS.iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Err(("is set by the check".into(), "leave it out".into()));
    }
    value::token(text)
}

fn header_value(text: &str) -> Result<String, Wrong> {
    const LONGEST: usize = 1024;
    let may = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.len() <= LONGEST && text.bytes().all(may) && text.trim() == text {
        return Ok(text.to_owned());
    }
    Err((
        "is not a header field's value".into(),
        format!("use at most {LONGEST} printable characters of ASCII, without blanks around"),
    ))
}

/// The statuses that pass: `200`, `"200-299"`, or several of either: `"200-299,401"`.
fn status(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Vec<StatusRange> {
    if section.has_text("status") {
        return text(section, "status", statuses, mistakes).unwrap_or_default();
    }
    let one = section.number("status", 100..=599, mistakes);
    one.map(StatusRange::only).into_iter().collect()
}

fn statuses(text: &str) -> Result<Vec<StatusRange>, Wrong> {
    let wrong = || {
        (
            "is not a status from 100 to 599".to_owned(),
            "write 200, \"200-299\" or \"200-299,401\"".to_owned(),
        )
    };
    let number = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let status: u16 = text.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        (100..=599)
            .contains(&status)
            .then_some(status)
            .ok_or_else(wrong)
    };
    let range = |text: &str| match text.split_once('-') {
        None => number(text).map(StatusRange::only),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            let range = StatusRange { first, last };
            (first <= last).then_some(range).ok_or_else(wrong)
        }
    };
    text.split(',').map(|part| range(part.trim())).collect()
}

fn check(kind: CheckKind, connect: Duration) -> Check {
    Check {
        kind,
        port: None,
        host: None,
        headers: BTreeMap::new(),
        status: Vec::new(),
        interval: INTERVAL,
        fast_interval: INTERVAL,
        connect,
        timeout: INTERVAL,
        rise: RISE,
        fall: FALL,
    }
}

/// A check without further settings.
fn short(text: &str) -> Result<CheckKind, Wrong> {
    let hint = match text {
        "tcp" => return Ok(CheckKind::Tcp),
        "tls" => return Ok(CheckKind::Tls),
        path if path.starts_with('/') => {
            return url_path(path).map(|path| CheckKind::Http { path });
        }
        "postgres" => "write it as { kind = \"postgres\", user = \"NAME\" }",
        _ => "write the path to request, such as \"/up\", or \"tcp\" or \"tls\"",
    };
    Err(("is not a check".into(), hint.into()))
}

/// A valid value of `Host`.
fn host(text: &str) -> Result<String, Wrong> {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !text.is_empty() && text.bytes().all(may) {
        Ok(text.to_owned())
    } else {
        Err((
            "is not a host".into(),
            "write a name, with a port or without: \"www.example.org\"".into(),
        ))
    }
}

fn kind(text: &str) -> Result<Kind, Wrong> {
    value::one_of(
        text,
        &[
            ("http", Kind::Http),
            ("tcp", Kind::Tcp),
            ("tls", Kind::Tls),
            ("postgres", Kind::Postgres),
            ("patroni", Kind::Patroni),
        ],
    )
}
