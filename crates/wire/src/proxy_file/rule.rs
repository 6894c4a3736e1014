//! `[[...rule]]`: one rule for requests.

use super::route::{REGEX_HINT, answers_all};
use super::value::{self, path_prefix};
use super::{Part, Reader};
use crate::file::{Section, text};
use gaiola_model::proxy::{Fixed, HeaderEdit, Rewrite, Route, Rule};

pub(super) const KEYS: &[&str] = &[
    "deny",
    "auth",
    "limit",
    "redirect",
    "return",
    "strip",
    "rewrite",
    "rewrite_regex",
    "host",
    "set_header",
    "add_header",
    "remove_header",
    "set_response_header",
    "add_response_header",
    "remove_response_header",
    "hsts",
    "status",
    "body",
    "content_type",
    "to",
    "value",
];

/// Number of verbs, which come first in [`KEYS`]; the others are parameters.
const VERBS: usize = 16;

/// Keys allowed beside a verb.
fn companions(verb: &str) -> &'static [&'static str] {
    match verb {
        "redirect" => &["status"],
        "return" => &["body", "content_type"],
        "rewrite" | "rewrite_regex" => &["to"],
        "set_header" | "add_header" | "set_response_header" | "add_response_header" => &["value"],
        _ => &[],
    }
}

const HINT: &str = "docs/proxy.md has the rules and their variables";

impl Reader<'_, '_, '_> {
    /// Every `[[rule]]` of a section, in file order. A wrong one is replaced by one that answers, to avoid follow-up
    /// mistakes about where requests lead.
    pub(super) fn rules(
        &mut self,
        section: &Section<'_>,
        kind: &'static str,
        https: bool,
    ) -> Vec<Rule> {
        let written = section.tables("rule", kind, self.mistakes);
        let mut rules = Vec::new();
        let mut is_answered = false;
        for section in &written {
            let wrong = self.mistakes.len();
            let rule = self.rule(section);
            let right = rule.as_ref().filter(|_| self.mistakes.len() == wrong);
            if is_answered && right.is_some_and(is_step) {
                let what = "no request reaches this rule: an earlier one answers all of them";
                let hint = "move it before that one, or leave it out";
                self.mistakes.add(section.span(), what, hint);
            }
            is_answered |= right.is_some_and(|rule| answers_all(rule, https));
            rules.push(rule.unwrap_or(Rule::Deny));
        }
        rules
    }

    fn rule(&mut self, section: &Section<'_>) -> Option<Rule> {
        let verbs = &KEYS[..VERBS];
        let entries = section.entries();
        let Some(verb) = verbs.iter().find(|verb| section.has(verb)) else {
            // An unknown key has been reported already.
            if entries.iter().all(|entry| KEYS.contains(&entry.value)) {
                let hint = format!("it is one of {}", verbs.join(", "));
                let what = format!("a [[{}]] does nothing", section.name());
                self.mistakes.missing(section.span(), what, hint);
            }
            return None;
        };
        let stray = entries.iter().find(|entry| {
            let fits = entry.value == *verb || companions(verb).contains(&entry.value);
            !fits && KEYS.contains(&entry.value)
        });
        if let Some(stray) = stray {
            let what = format!("`{}` does not go with `{verb}`", stray.value);
            let hint = "each rule does one thing: write a second rule";
            self.mistakes.add(&stray.span, what, hint);
            return None;
        }
        let rule = self.meaning(verb, section)?;
        let hint = match &rule {
            // What they name was checked where it is defined.
            Rule::Limit(_) | Rule::Auth(_) => return Some(rule),
            Rule::Rewrite(Rewrite::Regex { .. }) => REGEX_HINT,
            _ => HINT,
        };
        let route = Route {
            rules: vec![rule.clone()],
            ..Route::default()
        };
        let span = section
            .key_span(verb)
            .unwrap_or_else(|| section.span().clone());
        self.ask(&span, Part::Route(&route), hint);
        Some(rule)
    }

    fn meaning(&mut self, verb: &str, section: &Section<'_>) -> Option<Rule> {
        let mut words = |key| Some(section.string(key, self.mistakes)?.value);
        match verb {
            "deny" => {
                section.boolean(verb, self.mistakes)?;
                if section.truth(verb) == Some(true) {
                    return Some(Rule::Deny);
                }
                let span = section.key_span(verb)?;
                let hint = "leave the rule out";
                self.mistakes.add(&span, "a rule that denies nothing", hint);
                None
            }
            "auth" => {
                let name = section.string(verb, self.mistakes)?;
                let users = std::mem::take(&mut self.users);
                let names: Vec<&str> = users.iter().map(|(name, _)| &**name).collect();
                let found = self.find(("list of users", "users"), &name, &names);
                let auth = found.map(|index| users[index].1.clone());
                self.users = users;
                auth.map(Rule::Auth)
            }
            "limit" => self.limit_name(section, verb).map(Rule::Limit),
            "redirect" => {
                let to = words(verb)?;
                let status = section.number("status", 300..=399, self.mistakes);
                Some(match (&*to, status) {
                    ("https", status) => Rule::to_https(status.unwrap_or(308)),
                    (_, status) => Rule::Redirect {
                        status: status.unwrap_or(302),
                        to,
                    },
                })
            }
            "return" => {
                let content_type = words("content_type");
                Some(Rule::Return(Fixed {
                    body: words("body").unwrap_or_default(),
                    content_type: content_type
                        .unwrap_or_else(|| "text/plain; charset=utf-8".into()),
                    status: section.number(verb, 200..=599, self.mistakes)?,
                    needs: None,
                }))
            }
            "strip" => Some(Rule::Rewrite(Rewrite::Prefix {
                from: text(section, verb, path_prefix, self.mistakes)?,
                to: "/".into(),
            })),
            "rewrite" => {
                let from = text(section, verb, path_prefix, self.mistakes);
                let to = section.required("to", "\"/to\"", self.mistakes)?.value;
                Some(Rule::Rewrite(Rewrite::Prefix { from: from?, to }))
            }
            "rewrite_regex" => {
                let pattern = words(verb);
                let to = section.required("to", "\"/$1\"", self.mistakes)?.value;
                let pattern = pattern?;
                Some(Rule::Rewrite(Rewrite::Regex { pattern, to }))
            }
            "host" => words(verb).map(Rule::Host),
            "hsts" => self.hsts(section),
            _ => {
                let edit = self.edit(verb, section)?;
                Some(if verb.contains("response") {
                    Rule::ResponseHeader(edit)
                } else {
                    Rule::RequestHeader(edit)
                })
            }
        }
    }

    fn edit(&mut self, verb: &str, section: &Section<'_>) -> Option<HeaderEdit> {
        let name = section.string(verb, self.mistakes)?.value;
        if verb.starts_with("remove") {
            return Some(HeaderEdit::Remove { name });
        }
        let value = section.required("value", "\"...\"", self.mistakes)?.value;
        Some(if verb.starts_with("set") {
            HeaderEdit::Set { name, value }
        } else {
            HeaderEdit::Add { name, value }
        })
    }

    /// `Strict-Transport-Security` (RFC 6797).
    fn hsts(&mut self, section: &Section<'_>) -> Option<Rule> {
        let mut further = String::new();
        let age = if section.has_table("hsts") {
            let own = section.table("hsts", "frontend.NAME.rule.hsts", self.mistakes)?;
            own.need("max_age", "\"365d\"", self.mistakes);
            for (key, word) in [
                ("include_subdomains", "; includeSubDomains"),
                ("preload", "; preload"),
            ] {
                if own.boolean(key, self.mistakes) == Some(true) {
                    further.push_str(word);
                }
            }
            text(&own, "max_age", value::days, self.mistakes)?
        } else {
            text(section, "hsts", value::days, self.mistakes)?
        };
        Some(Rule::hsts(age, &further))
    }
}

/// Whether a rule applies at its place in the order, rather than to every response of the route.
fn is_step(rule: &Rule) -> bool {
    !matches!(
        rule,
        Rule::Host(_) | Rule::RequestHeader(_) | Rule::ResponseHeader(_) | Rule::Hsts(_)
    )
}
