//! What is worth telling to people: found by comparing what was seen with what is seen now.

use gaiola_model::event::{Event, Severity, Subject};
use gaiola_model::placement::{DatabaseRole, InstanceState, ObservedInstance};
use gaiola_model::{InstanceName, Observed};

/// Events between two looks at one server, in the order in which they are told.
pub(super) fn between(before: &Observed, after: &Observed) -> Vec<Event> {
    let mut news = Vec::new();
    let mut tell = |severity, kind: &str, text: String| {
        news.push(Event {
            time: crate::events::now(),
            subject: Subject::Server(after.server),
            kind: kind.into(),
            text,
            severity,
        });
    };
    for vip in after.vips.difference(&before.vips) {
        tell(Severity::Notice, "vip.taken", format!("holds {vip}"));
    }
    for vip in before.vips.difference(&after.vips) {
        tell(Severity::Notice, "vip.left", format!("holds {vip} no more"));
    }
    for (name, instance) in &after.instances {
        if let Some((severity, kind, text)) =
            of_instance(*name, before.instances.get(name), instance)
        {
            tell(severity, kind, text);
        }
    }
    let (was, is) = (role(before), role(after));
    if was != is {
        match is {
            DatabaseRole::Primary => tell(
                Severity::Notice,
                "database.primary",
                "is the primary now".into(),
            ),
            DatabaseRole::SyncStandby => tell(
                Severity::Info,
                "database.standby",
                "holds every acknowledged write as synchronous standby".into(),
            ),
            DatabaseRole::Standby => tell(
                Severity::Info,
                "database.standby",
                "follows the primary".into(),
            ),
            DatabaseRole::Unknown => tell(
                Severity::Warning,
                "database.lost",
                "has no PostgreSQL that answers".into(),
            ),
        }
    }
    for trouble in after
        .troubles
        .iter()
        .filter(|trouble| !before.troubles.contains(trouble))
    {
        tell(Severity::Error, "server.trouble", trouble.clone());
    }
    news
}

fn role(observed: &Observed) -> DatabaseRole {
    observed
        .database
        .as_ref()
        .map_or(DatabaseRole::Unknown, |database| database.role)
}

fn of_instance(
    name: InstanceName,
    before: Option<&ObservedInstance>,
    now: &ObservedInstance,
) -> Option<(Severity, &'static str, String)> {
    let was = before.map(|before| before.state);
    if was == Some(now.state) {
        return None;
    }
    match now.state {
        InstanceState::Ready => {
            Some((Severity::Info, "instance.ready", format!("{name} is ready")))
        }
        InstanceState::Crashed => Some((
            Severity::Warning,
            "instance.crashed",
            format!("{name} {}", now.reason),
        )),
        InstanceState::Unhealthy => Some((
            Severity::Warning,
            "instance.unhealthy",
            format!("{name} is unhealthy: {}", now.reason),
        )),
        InstanceState::Starting | InstanceState::Stopping => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::{Revision, ServerName, Tier};
    use std::collections::BTreeSet;

    fn seen() -> Observed {
        Observed {
            revision: Revision(1),
            ..Observed::nothing_on(ServerName::new(Tier::Balancer, 1))
        }
    }

    #[test]
    fn what_did_not_change_is_no_news() {
        assert_eq!(between(&seen(), &seen()), []);
    }

    #[test]
    fn a_vip_that_moves_is_told_by_both_sides() {
        let vip = "10.77.0.100".parse().unwrap();
        let holding = Observed {
            vips: BTreeSet::from([vip]),
            ..seen()
        };
        assert_eq!(between(&seen(), &holding)[0].text, "holds 10.77.0.100");
        assert_eq!(
            between(&holding, &seen())[0].text,
            "holds 10.77.0.100 no more"
        );
    }
}
