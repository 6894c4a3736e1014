//! Silent processes: they have answered before and no longer do, so that their figures are outdated.

use super::{Source, Traffic};
use gaiola_core::status::{Silence, Silent};
use gaiola_model::{Placement, ServerName, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// A process is silent after this time without an answer: two polls in a row.
const SILENT: Duration = Duration::from_millis(2500);

impl Traffic {
    /// Records which processes answered the last poll.
    pub(crate) fn record_answers(
        &self,
        placement: &Placement,
        now: Time,
        polled: &[(ServerName, Source)],
        answering: Vec<(ServerName, Source)>,
    ) {
        record(
            &mut self.0.borrow_mut().answered,
            placement,
            now,
            polled,
            answering,
        );
    }

    /// Forgets who has answered: nobody was asked for a while.
    pub(crate) fn forget_answers(&self) {
        self.0.borrow_mut().answered.clear();
    }

    /// Servers whose agent or proxy has answered before and no longer does, also because the server is off.
    pub(crate) fn silent(&self, now: Time) -> BTreeMap<ServerName, Silence> {
        silent(&self.0.borrow().answered, now)
    }
}

/// Records those that answered now. A process that is no longer polled is forgotten, unless its whole server is off.
fn record(
    answered: &mut BTreeMap<(ServerName, Source), Time>,
    placement: &Placement,
    now: Time,
    polled: &[(ServerName, Source)],
    answering: Vec<(ServerName, Source)>,
) {
    answered.retain(|(server, source), _| {
        let is_on = polled.iter().any(|(on, _)| on == server);
        let is_polled = polled.contains(&(*server, *source));
        placement.servers.contains_key(server) && (is_polled || !is_on)
    });
    answered.extend(answering.into_iter().map(|who| (who, now)));
}

/// Of two silent processes of a server the agent is named: it reports on everything.
fn silent(
    answered: &BTreeMap<(ServerName, Source), Time>,
    now: Time,
) -> BTreeMap<ServerName, Silence> {
    let mut all = BTreeMap::new();
    for ((server, source), at) in answered {
        let since = now - *at;
        let of = match source {
            Source::Agent => Silent::Agent,
            Source::Proxy => Silent::Proxy,
        };
        if since >= SILENT {
            // The agent comes after the proxy.
            all.insert(*server, Silence { of, since });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_not_answered_for_a_while_is_silent() {
        let at = |ms| Time::from_start(Duration::from_millis(ms));
        let who = |name: &str, source| (name.parse::<ServerName>().unwrap(), source);
        let answered = BTreeMap::from([
            (who("lb1", Source::Proxy), at(0)),
            (who("lb1", Source::Agent), at(9000)),
            (who("web1", Source::Proxy), at(1000)),
            (who("web1", Source::Agent), at(2000)),
            (who("app1", Source::Agent), at(9900)),
        ]);
        let silent = silent(&answered, at(10_000));
        let named: Vec<_> = silent
            .iter()
            .map(|(server, silence)| (server.to_string(), silence.of, silence.since.as_secs()))
            .collect();
        assert_eq!(
            named,
            [
                ("lb1".to_string(), Silent::Proxy, 10),
                ("web1".to_string(), Silent::Agent, 8)
            ]
        );
    }
}
