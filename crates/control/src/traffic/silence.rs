//! Who is silent: a process that has answered before and does not any more. What it told is old.

use super::{Source, Traffic};
use gaiola_core::status::{Silence, Silent};
use gaiola_model::{Placement, ServerName, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// One that has not answered for so long is silent: two questions in a row.
const SILENT: Duration = Duration::from_millis(2500);

impl Traffic {
    /// Takes note of who answered the last question.
    pub(crate) fn heard(
        &self,
        placement: &Placement,
        now: Time,
        asked: &[(ServerName, Source)],
        answering: Vec<(ServerName, Source)>,
    ) {
        take(
            &mut self.0.borrow_mut().heard,
            placement,
            now,
            asked,
            answering,
        );
    }

    /// Servers whose agent or proxy has answered before, and does not any more; those that are switched off are too.
    pub(crate) fn silent(&self, now: Time) -> BTreeMap<ServerName, Silence> {
        silent(&self.0.borrow().heard, now)
    }
}

/// Takes note of those who answered now. Who is no longer asked is forgotten, but for servers that are off as a whole.
fn take(
    heard: &mut BTreeMap<(ServerName, Source), Time>,
    placement: &Placement,
    now: Time,
    asked: &[(ServerName, Source)],
    answering: Vec<(ServerName, Source)>,
) {
    heard.retain(|(server, source), _| {
        let is_on = asked.iter().any(|(on, _)| on == server);
        let is_asked = asked.contains(&(*server, *source));
        placement.servers.contains_key(server) && (is_asked || !is_on)
    });
    heard.extend(answering.into_iter().map(|who| (who, now)));
}

/// Of two that are silent the agent counts: it tells of everything.
fn silent(
    heard: &BTreeMap<(ServerName, Source), Time>,
    now: Time,
) -> BTreeMap<ServerName, Silence> {
    let mut all = BTreeMap::new();
    for ((server, source), at) in heard {
        let since = now - *at;
        let of = match source {
            Source::Agent => Silent::Agent,
            Source::Proxy => Silent::Proxy,
        };
        if since >= SILENT {
            // The agent comes behind the proxy.
            all.insert(*server, Silence { of, since });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_answered_for_a_while_is_silent() {
        let at = |ms| Time::from_start(Duration::from_millis(ms));
        let who = |name: &str, source| (name.parse::<ServerName>().unwrap(), source);
        let heard = BTreeMap::from([
            (who("lb1", Source::Proxy), at(0)),
            (who("lb1", Source::Agent), at(9000)),
            (who("web1", Source::Proxy), at(1000)),
            (who("web1", Source::Agent), at(2000)),
            (who("app1", Source::Agent), at(9900)),
        ]);
        let silent = silent(&heard, at(10_000));
        let told: Vec<_> = silent
            .iter()
            .map(|(server, silence)| (server.to_string(), silence.of, silence.since.as_secs()))
            .collect();
        assert_eq!(
            told,
            [
                ("lb1".to_string(), Silent::Proxy, 10),
                ("web1".to_string(), Silent::Agent, 8)
            ]
        );
    }
}
