//! `[[frontend.NAME.route]]`: conditions on a request, and where it goes.

use super::value::{self, head_size, plain, route_path};
use super::{Part, Reader, Reference, positive};
use crate::compress;
use crate::file::value::Wrong;
use crate::file::value::size;
use crate::file::{At, Section, checked, text};
use crate::file_options;
use gaiola_model::proxy::{
    Allowance, Compression, Conditions, CookieMatch, FileOptions, HeaderMatch, PathMatch, Presence,
    QueryMatch, Route, Rule, ValueMatch,
};
use std::path::PathBuf;

pub(super) const KEYS: &[&str] = &[
    "host",
    "path",
    "path_exact",
    "path_regex",
    "method",
    "header",
    "query",
    "cookie",
    "source",
    "max_body",
    "max_head",
    "timeouts",
    "files",
    "try",
    "not_found",
    "precompressed",
    "cache_control",
    "compress",
    "backend",
    "rule",
];

/// The kinds of a route's `compress` and of its levels.
const COMPRESS: [&str; 2] = [
    "frontend.NAME.route.compress",
    "frontend.NAME.route.compress.levels",
];

pub(super) const REGEX_HINT: &str = "https://docs.rs/regex/#syntax has the syntax";

impl Reader<'_, '_, '_> {
    /// The frontend's routes; the last one is for requests that no other takes. Each begins with the frontend's rules.
    /// `https`: some requests come by HTTPS, which a redirect to HTTPS lets pass.
    pub(super) fn routes(
        &mut self,
        section: &Section<'_>,
        references: &mut Vec<Reference>,
        https: bool,
    ) -> Vec<Route> {
        let wrong = self.mistakes.len();
        let common = self.rules(section, "frontend.NAME.rule", https);
        let written = section.tables("route", "frontend.NAME.route", self.mistakes);
        let kinds = ["frontend.NAME.compress", "frontend.NAME.compress.levels"];
        let compress = compress::read(section, kinds, self.mistakes).flatten();
        let all_answered = always_answer(&common, https);
        let mut routes =
            self.written_routes(&written, &common, compress.as_ref(), references, https);
        if let Some(backend) = self.backend_name(section, "backend") {
            routes.push(Route {
                compress,
                ..Route::to(&*backend.value)
            });
            references.push(backend);
        } else if !common.is_empty() {
            // These rules also apply to a request that no route takes.
            routes.push(Route::default());
        }
        // A mistake in a route may be what makes it look shadowed.
        if self.mistakes.len() == wrong {
            let own = section.key_span("backend");
            let spans = written.iter().map(|route| route.span().clone()).chain(own);
            self.ask_about_order(&routes, &spans.collect::<Vec<_>>());
        }
        for route in &mut routes {
            route.rules.splice(0..0, common.iter().cloned());
        }
        let leads = ["route", "backend"].iter().any(|key| section.has(key));
        if !leads && !all_answered {
            let what = format!("[{}] leads nowhere", section.name());
            let hint = if always_answer(&common, false) {
                "add backend = \"NAME\", for requests that came by HTTPS: they are not redirected again"
            } else {
                "add backend = \"NAME\", for requests that no [[...route]] matches"
            };
            self.mistakes.missing(section.span(), what, hint);
        }
        routes
    }

    /// These routes, behind the `common` rules; `compress`: for those that say nothing of it.
    pub(super) fn written_routes(
        &mut self,
        written: &[Section<'_>],
        common: &[Rule],
        compress: Option<&Compression>,
        references: &mut Vec<Reference>,
        https: bool,
    ) -> Vec<Route> {
        let all_answered = always_answer(common, https);
        // A site's routes lead to the tier behind its balancers.
        let lead = all_answered || self.site;
        let mut routes = Vec::new();
        for route in written {
            let mut read = self.route(route, lead, references, https);
            let own = compress::read(route, COMPRESS, self.mistakes);
            read.compress = own.unwrap_or_else(|| compress.cloned());
            if all_answered {
                let hint = "leave it out, or move the rule that answers into a later route";
                let of = if self.site {
                    "[balancer]"
                } else {
                    "the frontend"
                };
                let what = format!("no request reaches this: a rule of {of} answers all of them");
                self.mistakes.add(route.span(), what, hint);
            }
            routes.push(read);
        }
        routes
    }

    /// Reports unreachable routes, because an earlier one takes all their requests.
    pub(super) fn ask_about_order(&mut self, routes: &[Route], spans: &[std::ops::Range<usize>]) {
        for (place, (route, span)) in routes.iter().zip(spans).enumerate() {
            let part = Part::Behind(&routes[..place], route);
            self.ask(span, part, "move it before that one, or leave it out");
        }
    }

    fn route(
        &mut self,
        section: &Section<'_>,
        leads_anyway: bool,
        references: &mut Vec<Reference>,
        https: bool,
    ) -> Route {
        let rules = self.rules(section, "frontend.NAME.route.rule", https);
        let backend = self.backend_name(section, "backend");
        let leads = ["backend", "files"].iter().any(|key| section.has(key));
        if !leads && !always_answer(&rules, https) && !leads_anyway {
            let what = format!("a [[{}]] leads nowhere", section.name());
            let hint =
                "add backend = \"NAME\", files, or a rule that answers: deny, redirect or return";
            self.mistakes.missing(section.span(), what, hint);
        }
        let mut when = self.conditions(section);
        self.tell_open_paths(section, &when, &rules);
        // A single prefix becomes the route's own, which is indexed.
        let path_prefix = match &mut *when.paths {
            [PathMatch::Prefix(prefix)] => Some(std::mem::take(prefix)),
            _ => None,
        };
        if path_prefix.is_some() {
            when.paths.clear();
        }
        let route = Route {
            path_prefix: path_prefix.unwrap_or_else(|| "/".into()),
            when,
            rules,
            allowance: self.allowance(section),
            files: self.directories(section),
            file_options: self.file_options(section),
            compress: None,
            backend: backend.as_ref().map(|backend| backend.value.clone()),
        };
        references.extend(backend);
        route
    }

    /// Reports a protected path whose equivalent without the slash stays open.
    fn tell_open_paths(&mut self, section: &Section<'_>, when: &Conditions, rules: &[Rule]) {
        if !rules
            .iter()
            .any(|rule| matches!(rule, Rule::Deny | Rule::Auth(_)))
        {
            return;
        }
        let open = when.paths.iter().find_map(|path| match path {
            PathMatch::Prefix(path) => path.strip_suffix('/').filter(|bare| !bare.is_empty()),
            PathMatch::Exact(_) | PathMatch::Regex(_) => None,
        });
        if let (Some(bare), Some(span)) = (open, section.key_span("path")) {
            let what = format!("`path` \"{bare}/\" does not match \"{bare}\" itself");
            let hint = format!("write \"{bare}\", which matches both");
            self.mistakes.add(&span, what, hint);
        }
    }

    fn directories(&mut self, section: &Section<'_>) -> Vec<PathBuf> {
        let files = section.one_or_more("files", "\"/srv/www\"", self.mistakes);
        files
            .iter()
            .filter_map(|element| checked("files", element, value::path, self.mistakes))
            .map(|path| self.around.directory.join(path))
            .collect()
    }

    fn file_options(&mut self, section: &Section<'_>) -> FileOptions {
        if !section.has("files") {
            for key in file_options::KEYS {
                self.has_no_meaning(section, key, "it is for routes with `files`");
            }
        }
        file_options::read(section, "frontend.NAME.route.cache_control", self.mistakes)
    }

    fn allowance(&mut self, section: &Section<'_>) -> Allowance {
        let waits = section.table("timeouts", "frontend.NAME.route.timeouts", self.mistakes);
        if let Some(waits) = waits.as_ref().filter(|_| self.site) {
            let hint = "instances are waited for by the tier that chooses them: set [balancer.timeouts] queue";
            self.has_no_meaning(waits, "queue", hint);
        }
        let mut wait = |key| text(waits.as_ref()?, key, positive, self.mistakes);
        Allowance {
            response: wait("server"),
            queue: wait("queue"),
            body: text(section, "max_body", size, self.mistakes),
            head: text(section, "max_head", head_size, self.mistakes),
        }
    }

    fn conditions(&mut self, section: &Section<'_>) -> Conditions {
        let mut when = Conditions {
            sources: self.networks(section, "source"),
            headers: self.headers(section),
            query: self.query(section),
            cookies: self.cookies(section),
            ..Conditions::default()
        };
        let host = (
            "host",
            "\"www.example.com\"",
            "write the name alone, or \"*.example.com\" for all below it",
        );
        let method = ("method", "\"GET\"", "write it as \"GET\" or \"POST\"");
        let regex = ("path_regex", "\"[.]php$\"", REGEX_HINT);
        let path = |key| (key, "\"/api\"", "it begins with `/`");
        self.listed(section, host, plain, &mut when, |when, host| {
            when.hosts.push(host);
        });
        self.listed(section, method, value::method, &mut when, |when, method| {
            when.methods.push(method);
        });
        self.listed(
            section,
            path("path"),
            route_path,
            &mut when,
            |when, path| {
                when.paths.push(PathMatch::Prefix(path));
            },
        );
        self.listed(
            section,
            path("path_exact"),
            route_path,
            &mut when,
            |when, path| {
                when.paths.push(PathMatch::Exact(path));
            },
        );
        self.listed(section, regex, plain, &mut when, |when, regex| {
            when.paths.push(PathMatch::Regex(regex));
        });
        when
    }

    /// Adds one value, or each of several, to `when`.
    fn listed(
        &mut self,
        section: &Section<'_>,
        (key, example, hint): (&str, &str, &str),
        value: impl Fn(&str) -> Result<String, Wrong>,
        when: &mut Conditions,
        put: impl Fn(&mut Conditions, String),
    ) {
        for element in section.one_or_more(key, example, self.mistakes) {
            if let Some(value) = checked(key, &element, &value, self.mistakes) {
                let mut alone = Conditions::default();
                put(&mut alone, value.clone());
                self.ask_about(&element, alone, hint);
                put(when, value);
            }
        }
    }

    /// Reports mistakes in a condition at its position.
    fn ask_about<T>(&mut self, written: &At<T>, when: Conditions, hint: &str) {
        let route = Route {
            when,
            ..Route::default()
        };
        self.ask(&written.span, Part::Route(&route), hint);
    }

    fn headers(&mut self, section: &Section<'_>) -> Vec<HeaderMatch> {
        let kinds = (
            "frontend.NAME.route.header",
            "frontend.NAME.route.header.NAME",
        );
        let named = |name: &str, wanted| Conditions {
            headers: vec![HeaderMatch {
                name: name.into(),
                wanted,
            }],
            ..Conditions::default()
        };
        let all = self.named_values(section, "header", kinds, named);
        all.into_iter()
            .map(|(name, wanted)| HeaderMatch { name, wanted })
            .collect()
    }

    fn cookies(&mut self, section: &Section<'_>) -> Vec<CookieMatch> {
        let kinds = (
            "frontend.NAME.route.cookie",
            "frontend.NAME.route.cookie.NAME",
        );
        let named = |name: &str, wanted| Conditions {
            cookies: vec![CookieMatch {
                name: name.into(),
                wanted,
            }],
            ..Conditions::default()
        };
        let all = self.named_values(section, "cookie", kinds, named);
        all.into_iter()
            .map(|(name, wanted)| CookieMatch { name, wanted })
            .collect()
    }

    /// `NAME = true` or `false`, one value or several, or `{ is, regex }`.
    fn named_values(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        (kind, value_kind): (&'static str, &'static str),
        named: impl Fn(&str, Presence<ValueMatch>) -> Conditions,
    ) -> Vec<(String, Presence<ValueMatch>)> {
        let Some(all) = section.table(key, kind, self.mistakes) else {
            return Vec::new();
        };
        let mut read = Vec::new();
        for entry in all.entries() {
            let name = entry.value;
            let hint = "write a name such as X-Kind";
            self.ask_about(&entry, named(name, Presence::Present), hint);
            let wanted = self.wanted(&all, name, |reader| {
                let values = reader.values(&all, name, value_kind);
                for value in &values {
                    let alone = Presence::OneOf(vec![value.value.clone()]);
                    reader.ask_about(value, named("x", alone), REGEX_HINT);
                    if let ValueMatch::Equals(text) = &value.value
                        && let Some(hint) = value::text_pattern(name, text)
                    {
                        reader.tell_pattern(value, text, hint);
                    }
                }
                values.into_iter().map(|value| value.value).collect()
            });
            read.push((name.to_owned(), wanted));
        }
        read
    }

    fn tell_pattern<T>(&mut self, written: &At<T>, text: &str, hint: String) {
        let what = format!("{text:?} is a pattern, but would match only that exact text");
        self.mistakes.add(&written.span, what, hint);
    }

    /// `true`: it must be there; `false`: it must not; or its values.
    fn wanted<T>(
        &mut self,
        all: &Section<'_>,
        name: &str,
        values: impl FnOnce(&mut Self) -> Vec<T>,
    ) -> Presence<T> {
        match all.truth(name) {
            Some(true) => Presence::Present,
            Some(false) => Presence::Absent,
            None => Presence::OneOf(values(self)),
        }
    }

    fn values(&mut self, all: &Section<'_>, name: &str, kind: &'static str) -> Vec<At<ValueMatch>> {
        let of = |written: Vec<At<String>>, value: fn(String) -> ValueMatch| {
            written.into_iter().map(move |at| At {
                value: value(at.value),
                span: at.span,
            })
        };
        if !all.has_table(name) {
            let written = all.one_or_more(name, "\"value\"", self.mistakes);
            return of(written, ValueMatch::Equals).collect();
        }
        let Some(section) = all.table(name, kind, self.mistakes) else {
            return Vec::new();
        };
        let is = section.one_or_more("is", "\"value\"", self.mistakes);
        let regex = section.one_or_more("regex", "\"^a\"", self.mistakes);
        if !(section.has("is") || section.has("regex")) {
            let what = format!("[{}] has no value", section.name());
            let hint = "add is or regex, or write true for any value";
            self.mistakes.missing(section.span(), what, hint);
        }
        let is = of(is, ValueMatch::Equals);
        is.chain(of(regex, ValueMatch::Regex)).collect()
    }

    /// `NAME = true` or `false`, one value or several.
    fn query(&mut self, section: &Section<'_>) -> Vec<QueryMatch> {
        let Some(all) = section.table("query", "frontend.NAME.route.query", self.mistakes) else {
            return Vec::new();
        };
        let parameter = |entry: At<&str>| QueryMatch {
            name: entry.value.to_owned(),
            wanted: self.wanted(&all, entry.value, |reader| {
                let values = all.one_or_more(entry.value, "\"value\"", reader.mistakes);
                for value in values.iter().filter(|value| value.value == "*") {
                    reader.tell_pattern(value, "*", "write true for any value".into());
                }
                values.into_iter().map(|value| value.value).collect()
            }),
        };
        all.entries().into_iter().map(parameter).collect()
    }
}

/// Whether no request gets past these rules. `https`: some come by HTTPS, and are not redirected there again.
pub(super) fn always_answer(rules: &[Rule], https: bool) -> bool {
    rules.iter().any(|rule| answers_all(rule, https))
}

/// Whether a rule answers every request.
pub(super) fn answers_all(rule: &Rule, https: bool) -> bool {
    match rule {
        Rule::Deny | Rule::Return(_) => true,
        Rule::Redirect { .. } => !(https && rule.is_to_https()),
        _ => false,
    }
}
