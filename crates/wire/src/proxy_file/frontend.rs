//! `[frontend.NAME]`.

use super::{Reader, Reference, value};
use crate::file::{Section, checked, text};
use gaiola_model::proxy::{ClientTimeouts, Frontend, Mode, Refusal};
use ipnet::IpNet;

/// Default limit of connections.
const MAXCONN: u32 = 20_000;

impl Reader<'_, '_, '_> {
    pub(super) fn frontend(
        &mut self,
        name: &str,
        section: &Section<'_>,
        timeouts: &ClientTimeouts,
        references: &mut Vec<Reference>,
    ) -> Frontend {
        let is_http = text(section, "mode", value::mode, self.mistakes).unwrap_or(true);
        let binds = self.binds(section, is_http);
        let https = section.has("trust") || binds.iter().any(|bind| bind.tls.is_some());
        let mode = if is_http {
            self.http(section, references, https)
        } else {
            self.tcp(section, references)
        };
        if !is_http && binds.iter().any(|bind| bind.tls.is_some()) {
            let hint = "a bind with `tls` ends TLS, so that no server name is left to choose by";
            self.has_no_meaning(section, "sni", hint);
        }
        let own = section.table("timeouts", "frontend.NAME.timeouts", self.mistakes);
        Frontend {
            maxconn: section
                .number("maxconn", 1..=10_000_000, self.mistakes)
                .unwrap_or(MAXCONN),
            timeouts: match own {
                Some(own) => self.client_timeouts(&own, timeouts),
                None => timeouts.clone(),
            },
            connection_limit: self.connection_limit(section),
            error_pages: self.error_pages(section),
            return_request_id: section
                .boolean("return_request_id", self.mistakes)
                .unwrap_or_default(),
            ..Frontend::new(name, binds, mode)
        }
    }

    fn http(
        &mut self,
        section: &Section<'_>,
        references: &mut Vec<Reference>,
        https: bool,
    ) -> Mode {
        for key in ["refusal", "sni"] {
            self.has_no_meaning(section, key, "it belongs to mode = \"tcp\"");
        }
        Mode::Http {
            routes: self.routes(section, references, https),
            trusted: self.networks(section, "trust"),
        }
    }

    fn tcp(&mut self, section: &Section<'_>, references: &mut Vec<Reference>) -> Mode {
        for key in [
            "route",
            "rule",
            "error_pages",
            "trust",
            "return_request_id",
            "compress",
        ] {
            self.has_no_meaning(section, key, "it belongs to mode = \"http\"");
        }
        section.need("backend", "\"NAME\"", self.mistakes);
        let backend = self.backend_name(section, "backend");
        let refusal = text(section, "refusal", value::refusal, self.mistakes);
        let name = backend.as_ref().map(|backend| backend.value.clone());
        references.extend(backend);
        Mode::Tcp {
            backend: name.unwrap_or_default(),
            refusal: refusal.unwrap_or(Refusal::Close),
            sni: self.sni(section, references),
        }
    }

    /// Reports a key that has no effect here, and why.
    pub(super) fn has_no_meaning(&mut self, section: &Section<'_>, key: &str, hint: &str) {
        if let Some(span) = section.key_span(key) {
            let what = format!("`{key}` has no meaning here");
            self.mistakes.add(&span, what, hint);
        }
    }

    pub(super) fn networks(&mut self, section: &Section<'_>, key: &str) -> Vec<IpNet> {
        section
            .one_or_more(key, "\"10.0.0.0/8\"", self.mistakes)
            .iter()
            .filter_map(|element| checked(key, element, value::network, self.mistakes))
            .collect()
    }
}
