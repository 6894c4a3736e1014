//! The servers of a backend.

use super::{Part, Reader, ResolveError, value};
use crate::file::value::{Wrong, url_path};
use crate::file::{At, Section, checked, text};
use gaiola_model::proxy::{Address, Admin, Check, CheckKind, Server, ServerTls};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// An example of a server's address.
const EXAMPLE: &str = "\"10.0.0.1:3000\"";

impl Reader<'_, '_, '_> {
    pub(super) fn servers(&mut self, section: &Section<'_>, check: Option<&Check>) -> Vec<Server> {
        let Some(all) = section.table("server", "backend.NAME.server", self.mistakes) else {
            if !section.has("server") {
                let what = format!("[{}] has no servers", section.name());
                let hint = format!(
                    "add [{}.server] with lines NAME = \"ADDRESS:PORT\"",
                    section.name()
                );
                self.mistakes.missing(section.span(), what, hint);
            }
            return Vec::new();
        };
        let has_tls = check
            .is_some_and(|check| matches!(check.kind, CheckKind::Tls | CheckKind::Https { .. }));
        let mut cookies = BTreeSet::new();
        let servers = all.entries().into_iter().filter_map(|entry| {
            let name = self.entry_name(&entry, "server");
            let server = if all.has_table(entry.value) {
                self.server(&all, entry.value, has_tls, &mut cookies)
            } else {
                let written = all.string_like(entry.value, EXAMPLE, self.mistakes)?;
                let address = self.address(entry.value, &written, has_tls)?;
                Some(Server::new("", address))
            };
            Some(Server {
                name: name?,
                ..server?
            })
        });
        servers.collect()
    }

    fn server(
        &mut self,
        all: &Section<'_>,
        key: &str,
        check_has_tls: bool,
        cookies: &mut BTreeSet<String>,
    ) -> Option<Server> {
        let section = all.table(key, "backend.NAME.server.NAME", self.mistakes)?;
        let tls = self.server_tls(&section);
        let has_tls = check_has_tls || tls.is_some();
        section.need("address", EXAMPLE, self.mistakes);
        let written = section.string_like("address", EXAMPLE, self.mistakes);
        let address = written.and_then(|written| self.address("address", &written, has_tls));
        let weight = section.number("weight", 0..=Server::MOST_WEIGHT, self.mistakes);
        let maxconn = section.number("maxconn", 1..=1_000_000, self.mistakes);
        let check_path = text(&section, "check_path", url_path, self.mistakes);
        let check_port = section.number("check_port", 1..=65_535, self.mistakes);
        let is_disabled = section.boolean("disabled", self.mistakes) == Some(true);
        let drains = section.boolean("drain", self.mistakes) == Some(true);
        let spare = section.boolean("spare", self.mistakes);
        let cookie = self.cookie(&section, cookies);
        let send_proxy = text(&section, "send_proxy", value::proxy_version, self.mistakes);
        Some(Server {
            weight: weight.unwrap_or(1),
            maxconn,
            check_path,
            check_port,
            admin: match (is_disabled, drains) {
                (true, _) => Admin::Maint,
                (false, true) => Admin::Drain,
                (false, false) => Admin::Ready,
            },
            spare: spare.unwrap_or_default(),
            cookie,
            tls,
            send_proxy,
            ..Server::new("", address?)
        })
    }

    /// An address, or a host name that is resolved once.
    fn address(&mut self, key: &str, written: &At<String>, has_tls: bool) -> Option<Address> {
        let resolve = self.around.resolve;
        let address = checked(
            key,
            written,
            |text| server_address(text, resolve),
            self.mistakes,
        )?;
        if has_tls && address.tcp().is_none() {
            let what = format!("{address} cannot use TLS");
            let hint = "only servers on TCP can use TLS";
            self.mistakes.add(&written.span, what, hint);
        }
        self.servers.push(At {
            value: address.clone(),
            span: written.span.clone(),
        });
        Some(address)
    }

    /// Its name in the backend's cookie, unique within the backend.
    fn cookie(&mut self, section: &Section<'_>, seen: &mut BTreeSet<String>) -> Option<String> {
        let written = section.string_for("cookie", value::cookie, self.mistakes)?;
        let cookie = checked("cookie", &written, value::cookie, self.mistakes)?;
        if !seen.insert(cookie.clone()) {
            let what = format!("the cookie {cookie:?} belongs to another server");
            self.mistakes
                .add(&written.span, what, "give each server its own");
        }
        Some(cookie)
    }

    /// `tls` is `true`, or a table with the requirements on the server.
    fn server_tls(&mut self, section: &Section<'_>) -> Option<ServerTls> {
        if !section.has_table("tls") {
            let wanted = section.boolean("tls", self.mistakes)?;
            if wanted {
                self.ask_about_system_cas(section);
            }
            return wanted.then(ServerTls::default);
        }
        let server = section;
        let section = server.table("tls", "backend.NAME.server.NAME.tls", self.mistakes)?;
        let verify = section.boolean("verify", self.mistakes).unwrap_or(true);
        if !verify {
            self.has_no_meaning(&section, "ca", "with verify = false nothing is checked");
        }
        let [ca, certificate] = ["ca", "certificate"].map(|key| self.path_at(&section, key));
        match &ca {
            _ if !verify => {}
            Some(ca) => self.ask_about_cas(ca),
            None if section.has("ca") => {}
            None => self.ask_about_system_cas(server),
        }
        if let Some(own) = &certificate {
            self.ask_about_identity(own, &own.value);
        }
        Some(ServerTls {
            verify,
            ca: ca.map(|ca| ca.value),
            sni: text(&section, "sni", value::host_name, self.mistakes),
            host: text(&section, "host", value::host, self.mistakes),
            certificate: certificate.map(|own| own.value),
            key: None,
            starttls: text(&section, "starttls", value::starttls, self.mistakes),
            server_first: false,
        })
    }

    /// Reports missing system CAs, at the `tls` of a server that needs them.
    fn ask_about_system_cas(&mut self, section: &Section<'_>) {
        let span = section.key_span("tls").unwrap_or_default();
        let hint = "write tls = { ca = \"FILE\" }, a PEM file of CAs";
        self.ask(&span, Part::ServerCas(None), hint);
    }
}

fn server_address(
    text: &str,
    resolve: &dyn Fn(&str) -> Result<SocketAddr, ResolveError>,
) -> Result<Address, Wrong> {
    if let Some(unix) = value::unix(text) {
        return unix;
    }
    let hint = || match text.split_once(' ') {
        Some((address, _)) if address.contains(':') && address.len() < 100 => {
            format!("write {{ address = {address:?} }} and other keys beside it")
        }
        _ => "write ADDRESS:PORT or HOST:PORT, such as \"10.0.0.1:3000\"".to_owned(),
    };
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => {
            let named = text.rsplit_once(':').filter(|(host, port)| {
                let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                !host.is_empty() && host.chars().all(fits) && port.parse::<u16>().is_ok()
            });
            if named.is_none() {
                return Err(("is not an address".into(), hint()));
            }
            resolve(text).map_err(|why| (format!("cannot be looked up: {why}"), hint()))?
        }
    };
    match address.port() {
        0 => Err(("has no port".into(), hint())),
        _ => Ok(address.into()),
    }
}
