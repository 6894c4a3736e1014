//! `[limit.NAME]`, `[users.NAME]`, and a frontend's connection limit and error pages.

use super::{Part, Reader, value};
use crate::file::{At, Section, checked, text};
use gaiola_model::proxy::{BasicAuth, Limit, LimitKey, Most, Peers, Route, Rule, User};
use std::collections::BTreeMap;
use std::path::PathBuf;

const MOST_KEYS: u32 = 1_000_000;

impl Reader<'_, '_, '_> {
    pub(super) fn all_limits(&mut self, root: &Section<'_>) -> Vec<Limit> {
        let written = self.named(root, "limit", "limit.NAME");
        let limit = |(name, section): &(String, Section<'_>)| self.limit(name, section);
        written.iter().map(limit).collect()
    }

    fn limit(&mut self, name: &str, section: &Section<'_>) -> Limit {
        let rate = text(section, "rate", value::rate, self.mistakes);
        let concurrent = section.number("concurrent", 1..=u32::MAX, self.mistakes);
        if section.has("rate") == section.has("concurrent") {
            let what = format!("[{}] needs one of `rate` and `concurrent`", section.name());
            let hint = "write rate = \"100/10s\" or concurrent = 20";
            self.mistakes.missing(section.span(), what, hint);
        }
        let most = rate.or(concurrent.map(Most::Concurrent));
        // Without a usable value there is a mistake already, and this default is never used.
        let default = Limit::new(name, most.unwrap_or(Most::Concurrent(1)));
        let key = text(section, "by", value::limit_key, self.mistakes).unwrap_or(default.key);
        if matches!(key, LimitKey::Header(_) | LimitKey::Path) {
            let hint = "it belongs to by = \"source\" or \"network\"";
            self.has_no_meaning(section, "ipv6_prefix", hint);
        }
        Limit {
            key,
            ipv6_prefix: section
                .number("ipv6_prefix", 32..=128, self.mistakes)
                .unwrap_or(default.ipv6_prefix),
            keys: section
                .number("keys", 1..=MOST_KEYS, self.mistakes)
                .unwrap_or(default.keys),
            shared: self.shared(section),
            ..default
        }
    }

    fn shared(&mut self, section: &Section<'_>) -> bool {
        let usual = self.site && section.has("rate");
        let shared = section.boolean("shared", self.mistakes).unwrap_or(usual);
        if shared && section.has("concurrent") {
            let hint = "share a rate: each proxy counts its own requests in flight";
            let what = "`shared` has no meaning with `concurrent`";
            let span = section.key_span("shared").unwrap_or_default();
            self.mistakes.add(&span, what, hint);
        }
        shared
    }

    /// `[peers]`, required by shared limits.
    pub(super) fn peers(&mut self, root: &Section<'_>) -> Option<Peers> {
        let Some(section) = root.table("peers", "peers", self.mistakes) else {
            let shared = self.limits.iter().find(|limit| limit.shared);
            if let Some(limit) = shared {
                let what = format!(
                    "the limit {:?} is shared, but there are no [peers]",
                    limit.name
                );
                let hint = "add [peers] with `address` and `others`";
                self.mistakes.missing(&(0..0), what, hint);
            }
            return None;
        };
        if !root.has("limit_secret") {
            let what = "[peers] needs a `limit_secret`";
            let hint = "add limit_secret = \"...\" to the top of every peer's file, the same one";
            self.mistakes.missing(section.span(), what, hint);
        }
        section.need("address", "\"10.0.0.1:8405\"", self.mistakes);
        section.need("others", "[\"10.0.0.2:8405\"]", self.mistakes);
        let address = text(&section, "address", value::bind, self.mistakes);
        let others = section.one_or_more("others", "\"10.0.0.2:8405\"", self.mistakes);
        let others = others
            .iter()
            .filter_map(|other| checked("others", other, value::bind, self.mistakes));
        let others = others.collect();
        Some(Peers {
            address: address?,
            others,
        })
    }

    /// The name of an existing limit.
    pub(super) fn limit_name(&mut self, section: &Section<'_>, key: &str) -> Option<String> {
        let name = section.string(key, self.mistakes)?;
        self.limit_of(&name).map(|limit| limit.name)
    }

    fn limit_of(&mut self, name: &At<String>) -> Option<Limit> {
        let limits = std::mem::take(&mut self.limits);
        let names: Vec<&str> = limits.iter().map(|limit| &*limit.name).collect();
        let found = self.find(("limit", "limit"), name, &names);
        let limit = found.map(|index| limits[index].clone());
        self.limits = limits;
        limit
    }

    /// The limit of a frontend's connections, of which only the client address is known.
    pub(super) fn connection_limit(&mut self, section: &Section<'_>) -> Option<String> {
        let name = section.string("connection_limit", self.mistakes)?;
        let limit = self.limit_of(&name)?;
        if matches!(limit.key, LimitKey::Header(_) | LimitKey::Path) {
            let what = format!(
                "connections cannot be counted by the limit {:?}",
                limit.name
            );
            let hint = "name one that is by = \"source\" or \"network\"";
            self.mistakes.add(&name.span, what, hint);
        }
        Some(limit.name)
    }

    pub(super) fn all_users(&mut self, root: &Section<'_>) -> Vec<(String, BasicAuth)> {
        let written = self.named(root, "users", "users.NAME");
        let users =
            |(name, section): &(String, Section<'_>)| (name.clone(), self.users(name, section));
        written.iter().map(users).collect()
    }

    fn users(&mut self, name: &str, section: &Section<'_>) -> BasicAuth {
        let realm = match section.string("realm", self.mistakes) {
            Some(realm) => {
                let hint = "browsers show it: use ASCII letters and digits";
                self.ask_about_users(&realm, &realm.value, Vec::new(), hint);
                realm.value
            }
            None => name.to_owned(),
        };
        let mut users = Vec::new();
        section.need("user", "{ NAME = \"HASH\" }", self.mistakes);
        if let Some(all) = section.table("user", "users.NAME.user", self.mistakes) {
            for entry in all.entries() {
                let hash = all.string(entry.value, self.mistakes);
                users.extend(hash.map(|hash| {
                    let user = User {
                        name: entry.value.to_owned(),
                        hash: hash.value,
                    };
                    let hint = "`mkpasswd -m sha-512` or `htpasswd -nB NAME` makes one";
                    self.ask_about_users(&entry, "", vec![user.clone()], hint);
                    user
                }));
            }
        }
        BasicAuth { realm, users }
    }

    /// Reports mistakes in a realm or user at its position.
    fn ask_about_users<T>(&mut self, written: &At<T>, realm: &str, users: Vec<User>, hint: &str) {
        let auth = BasicAuth {
            realm: realm.to_owned(),
            users,
        };
        let route = Route {
            rules: vec![Rule::Auth(auth)],
            ..Route::default()
        };
        self.ask(&written.span, Part::Route(&route), hint);
    }

    pub(super) fn error_pages(&mut self, section: &Section<'_>) -> BTreeMap<u16, PathBuf> {
        let mut pages = BTreeMap::new();
        let Some(all) = section.table("error_pages", "frontend.NAME.error_pages", self.mistakes)
        else {
            return pages;
        };
        for entry in all.entries() {
            let path = self.path(&all, entry.value);
            let status = entry.value.parse().ok();
            let Some(status) = status.filter(|status| (400..=599).contains(status)) else {
                let what = format!("`error_pages` has a page for {:?}", entry.value);
                let hint = "write the status of an error, 400 to 599";
                self.mistakes.add(&entry.span, what, hint);
                continue;
            };
            if let Some(path) = path {
                let hint = "name a file that can be read, of 256 KiB at most";
                self.ask(&entry.span, Part::Page(status, &path), hint);
                pages.insert(status, path);
            }
        }
        pages
    }
}
