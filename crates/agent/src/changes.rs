//! Events worth reporting, found by comparing the last observation with the current one.

use gaiola_core::resources;
use gaiola_model::event::{Event, Severity, Subject};
use gaiola_model::placement::{DatabaseRole, InstanceState, ObservedInstance};
use gaiola_model::resources::{Descriptors, Disk, DiskState, Resources};
use gaiola_model::{InstanceName, Observed, WorkerName};

/// Events between two observations of one server, in reporting order.
pub(super) fn between(before: &Observed, after: &Observed) -> Vec<Event> {
    let mut events = Vec::new();
    let mut report = |severity, kind: &str, text: String| {
        events.push(Event {
            time: gaiola_store::events::now(),
            subject: Subject::Server(after.server),
            kind: kind.into(),
            text,
            severity,
        });
    };
    for vip in after.vips.difference(&before.vips) {
        report(Severity::Notice, "vip.taken", format!("holds {vip}"));
    }
    for vip in before.vips.difference(&after.vips) {
        report(
            Severity::Notice,
            "vip.left",
            format!("no longer holds {vip}"),
        );
    }
    for (name, instance) in &after.instances {
        if let Some((severity, kind, text)) =
            of_instance(*name, before.instances.get(name), instance)
        {
            report(severity, kind, text);
        }
    }
    for (name, worker) in &after.workers {
        let was = before.workers.get(name);
        if let Some((severity, kind, text)) = of_worker(name, was, worker) {
            report(severity, kind, text);
        }
    }
    let (was, is) = (role(before), role(after));
    if was != is {
        match is {
            DatabaseRole::Primary => report(
                Severity::Notice,
                "database.primary",
                "is the primary now".into(),
            ),
            DatabaseRole::SyncStandby => report(
                Severity::Info,
                "database.standby",
                "holds every acknowledged write as synchronous standby".into(),
            ),
            DatabaseRole::Standby => report(
                Severity::Info,
                "database.standby",
                "follows the primary".into(),
            ),
            DatabaseRole::Unknown => report(
                Severity::Warning,
                "database.lost",
                "has no PostgreSQL that answers".into(),
            ),
        }
    }
    for (severity, kind, text) in of_resources(&before.resources, &after.resources) {
        report(severity, kind, text);
    }
    let missing = after.unlimited.iter();
    for why in missing.filter(|why| !before.unlimited.contains(why)) {
        report(Severity::Warning, "limits.missing", why.clone());
    }
    for trouble in after
        .troubles
        .iter()
        .filter(|trouble| !before.troubles.contains(trouble))
    {
        report(
            Severity::Error,
            "server.trouble",
            format!("reports: {trouble}"),
        );
    }
    events
}

/// A disk, memory or descriptors that became scarce, or recovered.
fn of_resources(
    before: &Resources,
    now: &Resources,
) -> impl Iterator<Item = (Severity, &'static str, String)> {
    let disks = now.disks.iter().filter_map(|disk| {
        let was = before.disks.iter().find(|was| was.holds == disk.holds);
        of_disk(was.map_or(DiskState::Room, |was| was.state), disk)
    });
    let was_low = before.memory.is_some_and(|memory| memory.low);
    let memory = now.memory.filter(|memory| memory.low && !was_low);
    let memory = memory.map(|memory| Resources {
        memory: Some(memory),
        ..Resources::default()
    });
    let was_scarce = |one: &Descriptors| {
        before
            .descriptors
            .iter()
            .any(|was| was.process == one.process)
    };
    let descriptors = now.descriptors.iter().filter(move |one| !was_scarce(one));
    let descriptors = descriptors.map(|one| Resources {
        descriptors: vec![one.clone()],
        ..Resources::default()
    });
    let warned = |kind| move |scarce: Resources| (Severity::Warning, kind, found(&scarce));
    let scarce = memory.into_iter().map(warned("memory.low"));
    disks
        .chain(scarce)
        .chain(descriptors.map(warned("descriptors.low")))
}

fn of_disk(was: DiskState, disk: &Disk) -> Option<(Severity, &'static str, String)> {
    let text = found(&Resources {
        disks: vec![disk.clone()],
        ..Resources::default()
    });
    match (was, disk.state) {
        (was, is) if was == is => None,
        (_, DiskState::Full | DiskState::Failing) => Some((Severity::Error, "disk.full", text)),
        (DiskState::Room, DiskState::Low) => Some((Severity::Warning, "disk.low", text)),
        (DiskState::Full | DiskState::Failing, _) => {
            let text = "can write to its disk again".into();
            Some((Severity::Notice, "disk.room", text))
        }
        (_, DiskState::Room | DiskState::Low) => None,
    }
}

/// The sentence that follows the server's name in an event.
fn found(scarce: &Resources) -> String {
    let mut all = resources::faults(scarce);
    all.extend(resources::warnings(scarce));
    format!("finds that {}", all.join(", and "))
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

fn of_worker(
    name: &WorkerName,
    before: Option<&ObservedInstance>,
    now: &ObservedInstance,
) -> Option<(Severity, &'static str, String)> {
    if before.map(|before| before.state) == Some(now.state) {
        return None;
    }
    match now.state {
        InstanceState::Ready => Some((Severity::Info, "worker.runs", format!("{name} runs"))),
        InstanceState::Crashed => Some((
            Severity::Warning,
            "worker.crashed",
            format!("{name} {}", now.reason),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::resources::Holds;
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
    fn a_disk_is_reported_as_it_gets_low_full_and_well_again() {
        let with = |state, free_bytes| Observed {
            resources: Resources {
                disks: vec![Disk {
                    holds: Holds::State,
                    total_bytes: 50_000_000_000,
                    free_bytes,
                    full_in_s: None,
                    state,
                    refused: String::new(),
                }],
                ..Resources::default()
            },
            ..seen()
        };
        let steps = [
            seen(),
            with(DiskState::Room, 40_000_000_000),
            with(DiskState::Low, 900_000_000),
            with(DiskState::Low, 800_000_000),
            with(DiskState::Full, 0),
            with(DiskState::Room, 40_000_000_000),
        ];
        let reported = steps
            .windows(2)
            .flat_map(|pair| between(&pair[0], &pair[1]));
        let reported: Vec<_> = reported.map(|event| (event.kind, event.text)).collect();
        let expected = [
            (
                "disk.low",
                "finds that the disk is almost full: 900 MB of 50.0 GB are free",
            ),
            (
                "disk.full",
                "finds that the disk is full: 0 B of 50.0 GB are free",
            ),
            ("disk.room", "can write to its disk again"),
        ];
        assert_eq!(
            reported,
            expected.map(|(kind, text)| (kind.into(), text.into()))
        );
    }

    #[test]
    fn a_vip_that_moves_is_reported_by_both_sides() {
        let vip = "10.77.0.100".parse().unwrap();
        let holding = Observed {
            vips: BTreeSet::from([vip]),
            ..seen()
        };
        assert_eq!(between(&seen(), &holding)[0].text, "holds 10.77.0.100");
        assert_eq!(
            between(&holding, &seen())[0].text,
            "no longer holds 10.77.0.100"
        );
    }
}
