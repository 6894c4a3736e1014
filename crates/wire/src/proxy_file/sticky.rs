//! `[backend.NAME.sticky]`: the cookie that keeps a client on its server.

use super::{Reader, value};
use crate::file::{Section, text};
use gaiola_model::proxy::{Secret, Sticky};

impl Reader<'_, '_, '_> {
    pub(super) fn sticky(&mut self, section: &Section<'_>) -> Option<Sticky> {
        let section = section.table("sticky", "backend.NAME.sticky", self.mistakes)?;
        section.need("cookie", "\"SERVERID\"", self.mistakes);
        let mut string = |key| Some(section.string(key, self.mistakes)?.value);
        let cookie = string("cookie").unwrap_or_else(|| "SERVERID".into());
        let (path, domain, key) = (string("path"), string("domain"), string("key"));
        let usual = Sticky::new(cookie);
        let mut flag = |key| section.boolean(key, self.mistakes).unwrap_or_default();
        let [indirect, nocache, secure, http_only] =
            ["indirect", "nocache", "secure", "http_only"].map(&mut flag);
        let sticky = Sticky {
            indirect,
            nocache,
            secure,
            http_only,
            key: key.map(Secret),
            path: path.unwrap_or(usual.path),
            domain,
            same_site: text(&section, "same_site", value::same_site, self.mistakes),
            max_idle: text(&section, "max_idle", value::cookie_age, self.mistakes),
            max_life: text(&section, "max_life", value::cookie_age, self.mistakes),
            cookie: usual.cookie,
        };
        for fault in sticky.faults() {
            if let Some(written) = section.string(fault.field, self.mistakes) {
                let what = format!("`{}` {}", fault.field, fault.what);
                self.mistakes.add(&written.span, what, fault.hint);
            }
        }
        Some(sticky)
    }
}
