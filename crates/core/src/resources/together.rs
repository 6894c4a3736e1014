//! Reports each shared resource once: the servers of a lab share their machine's disk and memory.

use super::words;
use gaiola_model::ServerName;
use gaiola_model::resources::{Disk, Memory, Resources};

/// The findings for all servers, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is wrong now.
    pub faults: Vec<String>,
    /// What will be wrong soon.
    pub warnings: Vec<String>,
}

/// Merges the servers' findings, each sentence with the names of the servers it concerns.
pub fn findings<'a>(servers: impl IntoIterator<Item = (ServerName, &'a Resources)>) -> Findings {
    let mut groups: Vec<(Vec<ServerName>, Resources)> = Vec::new();
    for (server, resources) in servers {
        for single in singles(resources) {
            let mut all = groups.iter_mut();
            match all.find_map(|(names, group)| take_in(group, &single).then_some(names)) {
                Some(names) => names.push(server),
                None => groups.push((vec![server], single)),
            }
        }
    }
    Findings {
        faults: reports(&groups, words::faults),
        warnings: reports(&groups, words::warnings),
    }
}

fn reports(
    groups: &[(Vec<ServerName>, Resources)],
    words: fn(&Resources) -> Vec<String>,
) -> Vec<String> {
    let of_group = |(names, resources): &(Vec<ServerName>, Resources)| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let whose = names.join(", ");
        words(resources)
            .into_iter()
            .map(move |text| format!("{whose}: {text}"))
    };
    groups.iter().flat_map(of_group).collect()
}

/// Each finding (disk, memory and so on) on its own.
fn singles(resources: &Resources) -> impl Iterator<Item = Resources> {
    let disks = resources.disks.iter().map(|disk| Resources {
        disks: vec![disk.clone()],
        ..Resources::default()
    });
    let memory = resources.memory.map(|memory| Resources {
        memory: Some(memory),
        ..Resources::default()
    });
    let descriptors = resources.descriptors.iter().map(|descriptors| Resources {
        descriptors: vec![descriptors.clone()],
        ..Resources::default()
    });
    disks.chain(memory).chain(descriptors)
}

/// Merges one more into a group if it matches. Servers read at different moments: the worst figure is kept.
fn take_in(group: &mut Resources, single: &Resources) -> bool {
    match (group.disks.as_mut_slice(), single.disks.as_slice()) {
        ([disk], [other]) => return take_disk(disk, other),
        ([], []) => {}
        _ => return false,
    }
    match (&mut group.memory, &single.memory) {
        (Some(memory), Some(other)) => take_memory(memory, other),
        (None, None) => group.descriptors == single.descriptors,
        _ => false,
    }
}

fn take_disk(disk: &mut Disk, other: &Disk) -> bool {
    let key = |disk: &Disk| (disk.holds, disk.state, disk.total_bytes);
    let alike = key(disk) == key(other)
        && disk.refused == other.refused
        && disk.full_in_s.is_some() == other.full_in_s.is_some();
    if alike {
        disk.free_bytes = disk.free_bytes.min(other.free_bytes);
        disk.full_in_s = disk.full_in_s.min(other.full_in_s);
    }
    alike
}

fn take_memory(memory: &mut Memory, other: &Memory) -> bool {
    let alike = (memory.total_bytes, memory.low) == (other.total_bytes, other.low);
    if alike {
        memory.available_bytes = memory.available_bytes.min(other.available_bytes);
    }
    alike
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::resources::{DiskState, Holds};

    #[test]
    fn what_servers_share_is_reported_once() {
        let with = |total_bytes, free_bytes| Resources {
            disks: vec![Disk {
                holds: Holds::State,
                total_bytes,
                free_bytes,
                full_in_s: None,
                state: DiskState::Full,
                refused: String::new(),
            }],
            ..Resources::default()
        };
        let all = [
            ("lb1", with(50_000_000_000, 9)),
            ("web1", with(50_000_000_000, 8)),
            ("app1", with(60_000_000_000, 7)),
        ];
        let all = all.iter().map(|(name, left)| (name.parse().unwrap(), left));
        let found = findings(all);
        assert_eq!(
            found.faults,
            [
                "lb1, web1: the disk is full: 8 B of 50.0 GB are free",
                "app1: the disk is full: 7 B of 60.0 GB are free"
            ]
        );
        assert_eq!(found.warnings, [""; 0]);
    }
}
