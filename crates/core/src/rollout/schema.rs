//! When the site's documents are written in a newer schema.

use super::RollOutStep;
use crate::words::all_of;
use gaiola_model::ServerName;
use gaiola_model::schema::SCHEMA;

impl RollOutStep<'_> {
    /// Documents are written in a newer schema only once every server reads it, the provider of the servers, and this conductor.
    /// Until then the step waits for those that do not, where anyone else reads it already.
    pub(super) fn raise_schema(&mut self) {
        let servers = self.plan.servers.keys();
        let servers: Vec<(ServerName, Option<u64>)> = servers
            .map(|server| (*server, self.reads(*server)))
            .collect();
        let provider = self.view.facts.provider_reads;
        let heard = servers.iter().filter_map(|(_, reads)| *reads);
        let newest = heard.chain(provider).fold(SCHEMA, u64::max);
        let all = servers.iter().map(|(_, reads)| reads.unwrap_or(0));
        let common = all.chain(provider).fold(SCHEMA, u64::min);
        let held = self.plan.schema;
        if common > held {
            self.plan.schema = common;
            self.report(
                None,
                format!("the site's documents are written in schema {common}"),
            );
        } else if newest > held {
            let words = waits_for(&servers, provider, held);
            let next = held + 1;
            self.wait(
                None,
                format!("to write documents in schema {next}: {words}"),
            );
        }
    }

    /// The newest schema that a server reads; `None`: it is silent, and may come back with an older program.
    fn reads(&self, server: ServerName) -> Option<u64> {
        self.view.live(server).map(|seen| seen.reads)
    }
}

/// Who does not read a schema above `held`, in words.
fn waits_for(servers: &[(ServerName, Option<u64>)], provider: Option<u64>, held: u64) -> String {
    let is_old = |reads: &u64| *reads <= held;
    let of = |is: &dyn Fn(Option<u64>) -> bool| {
        let named = servers.iter().filter(|(_, reads)| is(*reads));
        named.map(|(server, _)| server.to_string()).collect()
    };
    let mut older: Vec<String> = of(&|reads| reads.as_ref().is_some_and(is_old));
    if provider.as_ref().is_some_and(is_old) {
        older.push("what provides the servers".into());
    }
    let silent: Vec<String> = of(&|reads| reads.is_none());
    if older.is_empty() && silent.is_empty() {
        older.push("the conductor".into());
    }
    let mut parts = Vec::new();
    if !older.is_empty() {
        parts.push(format!("an older gaiola still runs on {}", all_of(&older)));
    }
    match silent.as_slice() {
        [] => {}
        [one] => parts.push(format!("{one} is silent")),
        all => parts.push(format!("{} are silent", all_of(all))),
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Facts, Next, first, next};
    use gaiola_model::config::{App, Config};
    use gaiola_model::placement::{Desired, Release, ReleaseNumber};
    use gaiola_model::{Inventory, Observed, Placement, Revision, Time};

    /// A site of two servers whose documents are in the schema before the newest.
    fn site() -> (Desired, Placement) {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.app.servers = 2;
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::numbered(&config, [10, 77]);
        let desired = Desired::first(config, release, inventory);
        let mut placement = first(&desired, "a".into());
        placement.schema = SCHEMA - 1;
        (desired, placement)
    }

    /// The next step where app1 and app2 read these schemas; `None`: that one is silent.
    fn step(reads: [Option<u64>; 2], provider_reads: Option<u64>) -> Next {
        let (desired, placement) = site();
        let servers = placement.servers.keys().zip(reads);
        let observed = servers.filter_map(|(server, reads)| {
            let seen = Observed::nothing_on(*server);
            Some((
                *server,
                Observed {
                    reads: reads?,
                    ..seen
                },
            ))
        });
        let mut facts = Facts::default();
        facts.provider_reads = provider_reads;
        facts.observe(Time::ZERO, &placement, Revision(1), observed.collect());
        next(&desired, &placement, Revision(1), &facts)
    }

    #[test]
    fn documents_are_written_in_a_newer_schema_only_once_everyone_reads_it() {
        let (old, new) = (SCHEMA - 1, SCHEMA);
        let schema = |reads, provider| {
            let placement = step(reads, provider).placement;
            placement.map_or(old, |placement| placement.schema)
        };
        assert_eq!(schema([Some(new), Some(new)], None), new);
        assert_eq!(schema([Some(new), Some(new)], Some(new)), new);
        assert_eq!(schema([Some(new + 1), Some(new + 1)], Some(new + 1)), new);
        assert_eq!(schema([Some(new), Some(old)], None), old);
        assert_eq!(
            schema([Some(new), None], None),
            old,
            "it may be an older one"
        );
        assert_eq!(schema([Some(new), Some(new)], Some(old)), old);
    }

    #[test]
    fn the_schema_waits_for_those_who_are_older_or_silent_by_name() {
        let (old, new) = (SCHEMA - 1, SCHEMA);
        let waiting = |reads, provider| {
            let waiting = step(reads, provider).waiting.into_iter();
            let mut texts = waiting.map(|waiting| waiting.text);
            let start = format!("to write documents in schema {new}: ");
            texts.find_map(|text| Some(text.strip_prefix(&start)?.to_string()))
        };
        assert_eq!(waiting([Some(new), Some(new)], Some(new)), None);
        let older = waiting([Some(old), Some(new)], Some(old)).unwrap();
        assert_eq!(
            older,
            "an older gaiola still runs on app1 and what provides the servers"
        );
        let both = waiting([None, Some(old)], Some(new)).unwrap();
        assert_eq!(both, "an older gaiola still runs on app2; app1 is silent");
    }
}
