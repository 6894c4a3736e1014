//! A backend's check: a path, `"tcp"`, `"tls"`, or a table.

use super::{Reader, value};
use crate::file::value::{Wrong, url_path};
use crate::file::{At, Section, text};
use gaiola_model::proxy::{Check, CheckKind};
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
        let keys: [(&str, &[Kind], &str); 6] = [
            ("host", &[Http], "\"http\""),
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

fn check(kind: CheckKind, connect: Duration) -> Check {
    Check {
        kind,
        port: None,
        host: None,
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
