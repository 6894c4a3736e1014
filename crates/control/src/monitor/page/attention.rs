//! What needs the operator's attention: what is missing, and a command that helps, if there is one.

use gaiola_model::status::{MayFail, ServerState, ServerStatus, Status};
use maud::{Markup, html};

/// How many are listed; the others are counted.
const MOST: usize = 10;

/// One thing that needs attention.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    words: String,
    command: Option<String>,
}

/// The box, if there is anything to report.
pub(super) fn section(status: &Status) -> Markup {
    let needs = needs(status);
    html! {
        @if !needs.is_empty() {
            section.attention aria-labelledby="attention" {
                h2 #attention { "Needs attention" }
                ul.needs {
                    @for need in needs.iter().take(MOST) {
                        li { p { (need.words) } @if let Some(text) = &need.command { (command(text)) } }
                    }
                    @if needs.len() > MOST { li { p { "and " (needs.len() - MOST) " more" } } }
                }
            }
        }
        @if !status.waiting.is_empty() {
            section aria-labelledby="waiting" {
                h2 #waiting { "Waiting" }
                ul { @for text in status.waiting.iter().take(MOST) { li { (text) } } }
            }
        }
    }
}

/// A command to run.
pub(super) fn command(text: &str) -> Markup {
    html! { code.command { (text) } }
}

fn needs(status: &Status) -> Vec<Need> {
    let mut needs: Vec<Need> = status
        .failed
        .iter()
        .map(|reason| need(reason, Some("gaiola logs -t app".into())))
        .collect();
    let reported = |text: &&String| {
        !is_of_lost_server(status, text) && !needs.iter().any(|need| text.ends_with(&need.words))
    };
    let missing: Vec<Need> = status
        .missing
        .iter()
        .filter(reported)
        .map(|text| need(text, remedy(status, text)))
        .collect();
    needs.extend(missing);
    needs.extend(status.warnings.iter().map(|text| need(text, None)));
    for server in &status.servers {
        needs.extend(
            server
                .troubles
                .iter()
                .map(|trouble| need(format!("{}: {trouble}", server.name), None)),
        );
        if server.state == ServerState::Drained {
            needs.push(need(
                format!("{} is drained", server.name),
                Some(format!("gaiola undrain {}", server.name)),
            ));
        }
    }
    needs
}

fn need(words: impl Into<String>, command: Option<String>) -> Need {
    Need {
        words: words.into(),
        command,
    }
}

/// The server that a text begins with, by its own name or by that of an instance on it.
fn subject<'a>(status: &'a Status, text: &str) -> Option<&'a ServerStatus> {
    let word = text.split_whitespace().next()?;
    let name = word.split(['.', ',', ':']).next()?.parse().ok()?;
    status.servers.iter().find(|server| server.name == name)
}

/// An instance that is missing because its server is, which is listed already.
fn is_of_lost_server(status: &Status, text: &str) -> bool {
    let of_instance = text
        .split_whitespace()
        .next()
        .is_some_and(|word| word.contains('.'));
    of_instance && subject(status, text).is_some_and(|server| server.state == ServerState::Lost)
}

/// The command that helps if something is missing.
fn remedy(status: &Status, text: &str) -> Option<String> {
    let server = subject(status, text)?;
    match server.state {
        ServerState::Lost => Some("gaiola up".into()),
        ServerState::Busy | ServerState::Degraded => {
            Some(format!("gaiola logs -n {}", server.name))
        }
        ServerState::Starting
        | ServerState::Serving
        | ServerState::Draining
        | ServerState::Drained => None,
    }
}

/// The command that adds a second server to a tier with one.
pub(super) fn more_servers(status: &Status, part: &MayFail) -> Option<String> {
    let tier = part.tier?;
    let placed = status
        .servers
        .iter()
        .filter(|server| server.tier == tier)
        .count();
    (placed == 1).then(|| format!("gaiola scale {tier}=2"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::page::tests::made_up;

    #[test]
    fn a_lost_server_is_reported_once_and_how_to_switch_it_on() {
        let mut status = made_up();
        status
            .servers
            .iter_mut()
            .find(|server| server.name.to_string() == "app2")
            .unwrap()
            .state = ServerState::Lost;
        status.missing = vec![
            "app2 is silent".into(),
            "app2.1 is on app2, which is silent".into(),
        ];
        assert_eq!(
            needs(&status)[0],
            need("app2 is silent", Some("gaiola up".into()))
        );
        assert!(
            !needs(&status)
                .iter()
                .any(|need| need.words.starts_with("app2.1"))
        );
    }

    #[test]
    fn a_lone_server_may_have_a_second_one() {
        let mut status = made_up();
        let part = MayFail {
            tier: Some(gaiola_model::Tier::Web),
            words: String::new(),
        };
        assert_eq!(more_servers(&status, &part), None);
        status
            .servers
            .retain(|server| server.name.to_string() != "web2");
        assert_eq!(
            more_servers(&status, &part).as_deref(),
            Some("gaiola scale web=2")
        );
    }
}
