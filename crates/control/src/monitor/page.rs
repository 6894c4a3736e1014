//! The status page: one page that shows whether the site is healthy, drawn on the server and readable without JavaScript.
//!
//! Everything on it comes from documents in memory; rendering sends no requests.

mod attention;
mod map;
mod table;
mod words;

use crate::traffic::Figures;
use gaiola_model::SiteName;
use gaiola_model::event::{Event, Severity};
use gaiola_model::status::{MayFail, Status};
use maud::{DOCTYPE, Markup, html};

/// The page's style sheet.
pub const STYLE: &str = include_str!("page/style.css");
/// The page's script: it fetches the page again and replaces `main`.
pub const SCRIPT: &str = include_str!("page/refresh.js");
/// The page's Content-Security-Policy: its own style sheet, its own script and itself.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's data.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The site.
    pub site: &'a SiteName,
    /// Its status; `None` before its store has answered.
    pub status: Option<&'a Status>,
    /// Its traffic.
    pub figures: &'a Figures,
    /// The current time as text.
    pub now: &'a str,
}

/// The whole page.
pub fn render(sight: Sight<'_>) -> String {
    let (shape, word) = health(sight.status);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (shape) " " (word) " · " (sight.site) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/style.css";
                script type="module" src="/refresh.js" {}
                noscript { meta http-equiv="refresh" content="2"; }
            }
            body {
                p #said .unseen role="status" { (sight.site) " is " (word) "." }
                main { (headline(sight)) @if let Some(status) = sight.status { (sections(status, sight.figures)) } }
                footer {
                    p { "Read-only, and refreshed every 2 s; rates are means over 6 s. For programs: "
                        a href="/status.json" { "status.json" } " and " a href="/metrics" { "metrics" } "." }
                }
            }
        }
    };
    page.into_string()
}

/// The site's health as a shape and in words.
fn health(status: Option<&Status>) -> (&'static str, &'static str) {
    match status {
        Some(status) if status.healthy => ("●", "healthy"),
        Some(_) => ("▲", "not healthy"),
        None => ("◌", "being brought up"),
    }
}

fn sections(status: &Status, figures: &Figures) -> Markup {
    html! {
        (attention::section(status))
        (map::section(status, figures))
        (table::section(status, figures))
        div.pair {
            (events_section(&status.events))
            (may_fail_section(status))
        }
    }
}

/// The first line: whether users are served, and the key figures.
fn headline(
    Sight {
        site,
        status,
        figures,
        now,
    }: Sight<'_>,
) -> Markup {
    let (load, (shape, word)) = (figures.site, health(status));
    let class = status.map_or("new", |status| if status.healthy { "well" } else { "ill" });
    html! {
        header class={ "headline " (class) } {
            div.name {
                h1 { (site) }
                p.health { span.shape aria-hidden="true" { (shape) } " " strong { (word) } @if let Some(status) = status { (missing(status)) } }
            }
            @if let Some(status) = status {
                dl.figures {
                    (figure("release", release(status), ""))
                    (figure("requests/s", words::rate(load.map(|load| load.requests)), ""))
                    (figure("errors/s", words::rate(load.map(|load| load.errors)), words::error_class(load)))
                    (figure("p99", words::duration(load.and_then(|load| load.p99)), ""))
                    (figure("survives any one loss", survives(status), if status.may_fail.is_empty() { "" } else { "doubt" }))
                }
            }
            p.now { "as of " time { (now) } }
        }
    }
}

fn figure(name: &str, value: String, class: &str) -> Markup {
    html! { div { dt { (name) } dd class=(class) { (value) } } }
}

fn missing(status: &Status) -> String {
    match status.missing.as_slice() {
        [] => String::new(),
        [only] => format!(": {only}"),
        [first, rest @ ..] => format!(": {first}, and {} more", rest.len()),
    }
}

fn release(status: &Status) -> String {
    let desired = status.release.desired;
    match status.release.running.as_slice() {
        [running] if *running == desired => desired.to_string(),
        [] => format!("{desired} (none runs)"),
        running => format!(
            "{} → {desired}",
            words::list(running.iter().filter(|number| **number != desired))
        ),
    }
}

fn survives(status: &Status) -> String {
    let parts = status
        .may_fail
        .iter()
        .map(|MayFail { tier, .. }| tier.map_or("store", |tier| tier.section()));
    if status.may_fail.is_empty() {
        "yes".into()
    } else {
        format!("not {}", words::list(parts))
    }
}

fn events_section(events: &[Event]) -> Markup {
    html! {
        section aria-labelledby="events" {
            h2 #events { "Events" }
            @if events.is_empty() { p.none { "None yet." } } @else {
                table.events {
                    thead { tr { th scope="col" { "time (UTC)" } th scope="col" { "what happened" } } }
                    tbody {
                        @for event in events.iter().rev().take(20) {
                            tr class=(event.severity.to_string()) {
                                td { time datetime=(event.time) title=(event.time) { (words::time_of_day(&event.time)) } }
                                td { (severity(event.severity)) (what_happened(event)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The class of an event that matters.
fn severity(severity: Severity) -> Markup {
    let shape = match severity {
        Severity::Info => return Markup::default(),
        Severity::Notice => "◆",
        Severity::Warning => "▲",
        Severity::Error => "✕",
    };
    html! { span.severity { span aria-hidden="true" { (shape) } " " (severity) } " " }
}

/// The event's text, after its subject, unless the text begins with an instance of it.
fn what_happened(Event { subject, text, .. }: &Event) -> Markup {
    match text.split_once(' ') {
        Some((first, rest)) if first.starts_with(&format!("{subject}.")) => {
            html! { b { (first) } " " (rest) }
        }
        _ => html! { b { (subject) } " " (text) },
    }
}

fn may_fail_section(status: &Status) -> Markup {
    html! {
        section aria-labelledby="may-fail" {
            h2 #may-fail { "What may still fail" }
            @if status.may_fail.is_empty() && !status.servers.is_empty() {
                p.fine { span.shape aria-hidden="true" { "●" } " Any one server may die, and the site goes on." }
            } @else if status.servers.is_empty() {
                p.none { "Not known yet." }
            } @else {
                ul.needs {
                    @for part in &status.may_fail {
                        li { p { b { (part.tier.map_or("store", |tier| tier.section())) } " " (part.words) }
                            @if let Some(command) = attention::more_servers(status, part) { (attention::command(&command)) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
