//! `access_log`: a target, or a table with one.

use super::{Reader, value};
use crate::file::value::Wrong;
use crate::file::{Section, closest, shown, text};
use gaiola_model::config::BalancerLog;
use gaiola_model::proxy_file::{AccessLog, Facility, LogFormat, LogTarget};

impl Reader<'_, '_, '_> {
    /// Of a site's balancers, whose lines go to a file of their own or to syslog.
    pub(super) fn balancer_log(&mut self, section: &Section<'_>) -> Option<BalancerLog> {
        let log = match section.has_table("access_log") {
            false => BalancerLog {
                to: Some(self.target(section, "access_log", None)?),
                format: LogFormat::default(),
            },
            true => {
                let own = section.table("access_log", "access_log", self.mistakes)?;
                let facility = text(&own, "facility", facility, self.mistakes);
                if !own.has("to") {
                    self.has_no_meaning(&own, "facility", "it belongs to to = \"syslog:...\"");
                }
                BalancerLog {
                    format: text(&own, "format", format, self.mistakes).unwrap_or_default(),
                    to: self.target(&own, "to", facility),
                }
            }
        };
        if let Some(LogTarget::File(_) | LogTarget::Stdout) = &log.to {
            let span = section.key_span("access_log").unwrap_or_default();
            let what = "a site's balancers log to a file of their own, or to syslog";
            let hint =
                "leave `to` out, or write to = \"syslog:10.0.0.9:514\" or \"syslog:/dev/log\"";
            self.mistakes.add(&span, what, hint);
        }
        Some(log)
    }

    pub(super) fn access_log(&mut self, root: &Section<'_>) -> Option<AccessLog> {
        if !root.has_table("access_log") {
            let to = self.target(root, "access_log", None)?;
            let format = LogFormat::default();
            return Some(AccessLog { to, format });
        }
        let section = root.table("access_log", "access_log", self.mistakes)?;
        let facility = text(&section, "facility", facility, self.mistakes);
        let format = text(&section, "format", format, self.mistakes);
        section.need("to", "\"access.log\"", self.mistakes);
        let to = self.target(&section, "to", facility)?;
        if section.has("facility") && matches!(to, LogTarget::File(_) | LogTarget::Stdout) {
            let span = section.key_span("facility").unwrap_or_default();
            let what = format!("`facility` belongs to syslog, and the log goes to {to}");
            let hint = "take it out, or write to = \"syslog:/dev/log\"";
            self.mistakes.add(&span, what, hint);
        }
        Some(AccessLog {
            to,
            format: format.unwrap_or_default(),
        })
    }

    fn target(
        &mut self,
        section: &Section<'_>,
        key: &str,
        facility: Option<Facility>,
    ) -> Option<LogTarget> {
        let around = self.around;
        let facility = facility.unwrap_or_default();
        let check = |text: &str| match text.strip_prefix("syslog:") {
            None if text == "stdout" => Ok(LogTarget::Stdout),
            None => {
                let path = value::path(file_name(text)?)?;
                Ok(LogTarget::File(around.directory.join(path)))
            }
            Some(socket) if socket.starts_with('/') => {
                let path = value::path(socket_path(socket)?)?;
                Ok(LogTarget::Socket(path, facility))
            }
            Some(server) => {
                let address = server.parse().or_else(|_| (around.resolve)(server));
                let address = address.map_err(|why| {
                    let hint = "write syslog:ADDRESS:PORT or syslog:/SOCKET, such as \
                                \"syslog:127.0.0.1:514\" or \"syslog:/dev/log\"";
                    (format!("has no address: {why}"), hint.to_owned())
                })?;
                Ok(LogTarget::Udp(address, facility))
            }
        };
        text(section, key, check, self.mistakes)
    }
}

/// The name of a file, unless it looks like a target of another kind.
fn file_name(text: &str) -> Result<&str, Wrong> {
    let hint = || {
        format!(
            "the log goes to \"stdout\", \"syslog:ADDRESS:PORT\", \"syslog:/SOCKET\" or a file; \
             a file of this name is {}",
            shown(&format!("./{text}"))
        )
    };
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    match scheme.filter(|scheme| !scheme.contains('/')) {
        Some(scheme) => Err((
            format!(
                "goes to {}, which is not known",
                shown(&format!("{scheme}:"))
            ),
            hint(),
        )),
        None if text == "stderr" => {
            Err(("would mix with the process's own messages".into(), hint()))
        }
        None => Ok(text),
    }
}

/// The path of a socket, which has no port.
fn socket_path(path: &str) -> Result<&str, Wrong> {
    match path.rsplit_once(':') {
        Some((socket, port)) if port.parse::<u16>().is_ok() => Err((
            "has a socket and a port".into(),
            format!(
                "write {}, or an address instead of the socket",
                shown(&format!("syslog:{socket}"))
            ),
        )),
        _ => Ok(path),
    }
}

fn format(text: &str) -> Result<LogFormat, Wrong> {
    value::one_of(
        text,
        &[
            ("json", LogFormat::Json),
            ("httplog", LogFormat::Httplog),
            ("combined", LogFormat::Combined),
        ],
    )
}

fn facility(text: &str) -> Result<Facility, Wrong> {
    Facility::of(text).ok_or_else(|| {
        let hint = match closest(text, &Facility::NAMES) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("it is one of {}", Facility::NAMES.join(", ")),
        };
        ("is not known".into(), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Surroundings, load};
    use super::*;
    use crate::proxy_file::ResolveError;
    use std::path::Path;

    fn read(access_log: &str) -> Result<Option<AccessLog>, Vec<String>> {
        let around = Surroundings {
            directory: Path::new("/etc/gaiola"),
            host: "here",
            resolve: &|name| match name {
                "loghost:514" => Ok(([192, 0, 2, 1], 514).into()),
                _ => Err(ResolveError::Failed("no such host".into())),
            },
            check: &|_| Vec::new(),
        };
        let rest =
            "[frontend.www]\nbind = ':80'\nbackend = 'app'\n[backend.app.server]\ns = '[::1]:1'";
        match load(&format!("access_log = {access_log}\n{rest}"), &around) {
            Ok(file) => Ok(file.process.access_log),
            Err(errors) => Err(errors.mistakes().iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_log_has_a_target_and_a_format() {
        let is = |written: &str, to, format| {
            assert_eq!(
                read(written),
                Ok(Some(AccessLog { to, format })),
                "{written}"
            );
        };
        let file = |path: &str| LogTarget::File(path.into());
        is("'a.log'", file("/etc/gaiola/a.log"), LogFormat::Json);
        is("'/a.log'", file("/a.log"), LogFormat::Json);
        is("'./a:b'", file("/etc/gaiola/./a:b"), LogFormat::Json);
        is("'/log/a:b'", file("/log/a:b"), LogFormat::Json);
        is("'log/a:b'", file("/etc/gaiola/log/a:b"), LogFormat::Json);
        is("'stdout'", LogTarget::Stdout, LogFormat::Json);
        is(
            "{ to = 'syslog:loghost:514', format = 'httplog' }",
            LogTarget::Udp(([192, 0, 2, 1], 514).into(), Facility::default()),
            LogFormat::Httplog,
        );
        is(
            "{ to = 'syslog:/dev/log', format = 'combined', facility = 'local7' }",
            LogTarget::Socket("/dev/log".into(), Facility::of("local7").unwrap()),
            LogFormat::Combined,
        );
    }

    #[test]
    fn every_mistake_is_reported() {
        let said = read("{ to = 'syslog:nowhere', format = 'clf', facility = 'local8' }");
        let said = said.unwrap_err().join("\n");
        for part in [
            "1:21: `to` \"syslog:nowhere\" has no address: no such host",
            "`format` \"clf\" is not known; it is one of \"json\", \"httplog\", \"combined\"",
            "`facility` \"local8\" is not known; did you mean \"local",
        ] {
            assert!(said.contains(part), "{said}");
        }
        for (target, words) in [
            (
                "sylog:/dev/log",
                "`access_log` \"sylog:/dev/log\" goes to \"sylog:\", which is not known; the log goes to \"stdout\", \
                 \"syslog:ADDRESS:PORT\", \"syslog:/SOCKET\" or a file; a file of this name is \"./sylog:/dev/log\"",
            ),
            (
                "udp:1",
                "goes to \"udp:\", which is not known; the log goes to",
            ),
            (
                "stderr",
                "would mix with the process's own messages; the log",
            ),
            (
                "syslog:/dev/log:514",
                "has a socket and a port; write \"syslog:/dev/log\", or",
            ),
        ] {
            let said = read(&format!("'{target}'")).unwrap_err();
            assert!(said[0].contains(words), "{said:?}");
        }
        let said = read("{ to = 'a.log', facility = 'local1' }").unwrap_err();
        assert!(said[0].contains("belongs to syslog"), "{said:?}");
        let said = read("{ format = 'json' }").unwrap_err();
        assert!(said[0].contains("[access_log] has no `to`"), "{said:?}");
        assert!(read("5").is_err() && read("''").is_err());
    }
}
