//! Which machine each server stands on once the file or `scale` has changed.
//!
//! A server keeps its name while its machine has the tier. A new one takes the lowest number that is free: used neither by
//! the configuration so far nor by a server that is still leaving.

use super::ScaleError;
use gaiola_model::config::{Machine, Machines};
use gaiola_model::{Placement, ServerName, Tier};
use std::collections::BTreeMap;

type Servers = BTreeMap<ServerName, Machine>;

/// The machines that result from applying the file `theirs`; `last` is the last applied file and the same with the changes
/// of `scale`, `None` if these had no machines.
pub(super) fn merge(
    last: Option<(&Machines, &Machines)>,
    theirs: &Machines,
    placed: Option<&Placement>,
) -> Machines {
    let names = Names {
        held: last.map(|(_, mine)| mine),
        placed,
    };
    let mut servers = Servers::new();
    for tier in Tier::ALL {
        servers.extend(names.given(tier, wanted(tier, last, theirs)));
    }
    let lost = last.map_or_else(Vec::new, |(_, mine)| mine.lost.clone());
    let mut spare = spare(&servers, last, theirs);
    spare.retain(|spare| lost.iter().all(|lost| lost.ssh != spare.ssh));
    Machines {
        servers,
        spare,
        lost,
        replace_after: theirs.replace_after,
        firewall: theirs.firewall,
        encrypt: theirs.encrypt,
        power: theirs.power.clone(),
    }
}

/// The machines that a tier should stand on: the file's, if its list has changed, otherwise those that were scaled to. One
/// that the file does not have at all any more is left.
fn wanted<'a>(
    tier: Tier,
    last: Option<(&Machines, &Machines)>,
    theirs: &'a Machines,
) -> Vec<&'a Machine> {
    let written: Vec<&Machine> = theirs.of(tier).map(|(_, machine)| machine).collect();
    let Some((base, mine)) = last else {
        return written;
    };
    let by_hand = mine.of(tier).map(|(_, machine)| machine);
    let by_hand: Vec<&Machine> = by_hand.filter_map(|on| theirs.find(&on.ssh)).collect();
    let unchanged = sorted(base, tier) == sorted(theirs, tier);
    if unchanged && !by_hand.is_empty() {
        by_hand
    } else {
        written
    }
}

fn sorted(machines: &Machines, tier: Tier) -> Vec<&str> {
    let mut names: Vec<&str> = machines.of(tier).map(|(_, on)| on.ssh.as_str()).collect();
    names.sort_unstable();
    names
}

/// The file's machines without a server: in the file's order if that has changed, otherwise as `scale` took them and gave
/// them back.
fn spare(
    servers: &Servers,
    last: Option<(&Machines, &Machines)>,
    theirs: &Machines,
) -> Vec<Machine> {
    let listed = |machines: &[Machine]| -> Vec<String> {
        machines.iter().map(|machine| machine.ssh.clone()).collect()
    };
    let by_hand = last.map_or(&[][..], |(_, mine)| &mine.spare);
    let unchanged = last.is_some_and(|(base, _)| listed(&base.spare) == listed(&theirs.spare));
    let (first, then) = if unchanged {
        (by_hand, &theirs.spare[..])
    } else {
        (&theirs.spare[..], by_hand)
    };
    let mut spare: Vec<Machine> = Vec::new();
    for machine in first.iter().chain(then).chain(theirs.servers.values()) {
        let is_used = servers.values().any(|on| on.ssh == machine.ssh);
        let is_listed = spare.iter().any(|other| other.ssh == machine.ssh);
        let written = theirs.find(&machine.ssh);
        spare.extend(written.filter(|_| !is_used && !is_listed).cloned());
    }
    spare
}

/// A tier with this many servers: more stand on spare machines, in their order; those with the highest numbers leave theirs.
pub(super) fn sized(
    mut machines: Machines,
    tier: Tier,
    servers: u16,
    placed: Option<&Placement>,
) -> Result<Machines, ScaleError> {
    let has = machines.of(tier).count();
    let wanted = usize::from(servers);
    let (needed, spare) = (wanted.saturating_sub(has), machines.spare.len());
    if needed > spare {
        return Err(ScaleError::TooFewSpare {
            tier,
            servers,
            needed,
            spare,
        });
    }
    for _ in wanted..has {
        give_back(&mut machines, tier);
    }
    for _ in 0..needed {
        let machine = machines.spare.remove(0);
        add(&mut machines, tier, machine, placed);
    }
    Ok(machines)
}

/// A tier with one server more, on this spare machine.
pub(super) fn with_spare(
    mut machines: Machines,
    tier: Tier,
    host: &str,
    placed: Option<&Placement>,
) -> Result<Machines, ScaleError> {
    let position = machines.spare.iter().position(|spare| spare.ssh == host);
    let Some(position) = position else {
        let spare = machines.spare.into_iter().map(|machine| machine.ssh);
        return Err(ScaleError::NotSpare {
            tier,
            host: host.into(),
            spare: spare.collect(),
        });
    };
    let machine = machines.spare.remove(position);
    add(&mut machines, tier, machine, placed);
    Ok(machines)
}

/// Takes the highest server of a tier from its machine, which is spare if that was its last.
fn give_back(machines: &mut Machines, tier: Tier) {
    let highest = machines.of(tier).last().map(|(name, _)| name);
    let machine = highest.and_then(|name| machines.servers.remove(&name));
    let idle = machine.filter(|machine| !machines.has_server(&machine.ssh));
    machines.spare.extend(idle);
}

fn add(machines: &mut Machines, tier: Tier, machine: Machine, placed: Option<&Placement>) {
    let held = machines.clone();
    let names = Names {
        held: Some(&held),
        placed,
    };
    let added = names.given(tier, vec![&machine]);
    machines.servers.extend(added);
}

/// The names that are in use.
struct Names<'a> {
    held: Option<&'a Machines>,
    placed: Option<&'a Placement>,
}

impl Names<'_> {
    /// A server of the tier for each of these machines.
    fn given(&self, tier: Tier, wanted: Vec<&Machine>) -> Servers {
        let mut servers = Servers::new();
        let mut new: Vec<&Machine> = Vec::new();
        for machine in wanted {
            match self.on(tier, machine) {
                Some(name) => drop(servers.insert(name, machine.clone())),
                None => new.push(machine),
            }
        }
        for machine in new {
            let mut names = (1..=u16::MAX).map(|number| ServerName::new(tier, number));
            let free = names.find(|name| !self.uses(*name) && !servers.contains_key(name));
            let name = free.expect("a tier has few servers");
            servers.insert(name, machine.clone());
        }
        servers
    }

    /// The name of the server of this tier that stands on the machine: it stays, or comes back while it is leaving.
    fn on(&self, tier: Tier, machine: &Machine) -> Option<ServerName> {
        let mut held = self.held.iter().flat_map(|held| held.of(tier));
        let held = held.find(|(_, other)| other.is_where(machine));
        held.map(|(name, _)| name).or_else(|| {
            let placed = self.placed.iter().flat_map(|placed| &placed.servers);
            let mut placed = placed.filter(|(name, _)| name.tier == tier && !self.holds(**name));
            let is_here = |(_, placed): &(_, &gaiola_model::placement::PlacedServer)| {
                let location = &placed.location;
                location.host == machine.host() && Some(location.address) == machine.address
            };
            placed.find(is_here).map(|(name, _)| *name)
        })
    }

    fn holds(&self, name: ServerName) -> bool {
        (self.held).is_some_and(|held| held.servers.contains_key(&name))
    }

    fn uses(&self, name: ServerName) -> bool {
        let is_placed = |placed: &Placement| placed.servers.contains_key(&name);
        self.holds(name) || self.placed.is_some_and(is_placed)
    }
}

#[cfg(test)]
mod tests;
