//! Whether a primary should pass its role to a standby because it cannot continue.

use gaiola_model::ServerName;
use gaiola_model::placement::{DatabaseRole, ObservedDatabase};
use std::collections::BTreeMap;

/// The standby that takes over from `me`: synchronous, following, allowed to become primary, and not short of disk
/// itself.
///
/// `staying` are the servers that may be primary, `wanting` those that should not be: their disk is full.
pub fn successor(
    me: ServerName,
    all: &BTreeMap<ServerName, ObservedDatabase>,
    staying: &[ServerName],
    wanting: &[ServerName],
) -> Option<ServerName> {
    let primary = all.get(&me)?;
    let fits = |name: &&ServerName| {
        all.get(name).is_some_and(|member| {
            member.role == DatabaseRole::SyncStandby && member.follows(primary)
        }) && !wanting.contains(name)
    };
    staying.iter().find(fits).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn member(role: DatabaseRole, state: &str) -> ObservedDatabase {
        ObservedDatabase {
            role,
            state: state.into(),
            timeline: 1,
            lag_bytes: Some(0),
            ..ObservedDatabase::default()
        }
    }

    #[test]
    fn a_synchronous_standby_with_room_takes_over() {
        let all = BTreeMap::from([
            (name("db1"), member(DatabaseRole::Primary, "running")),
            (name("db2"), member(DatabaseRole::Standby, "streaming")),
            (name("db3"), member(DatabaseRole::SyncStandby, "streaming")),
        ]);
        let staying = ["db1", "db2", "db3"].map(name);
        let next = |wanting: &[ServerName]| successor(name("db1"), &all, &staying, wanting);
        assert_eq!(next(&[]), Some(name("db3")));
        assert_eq!(next(&[name("db1")]), Some(name("db3")));
        assert_eq!(next(&[name("db3")]), None);
        assert_eq!(successor(name("db1"), &all, &staying[..2], &[]), None);
    }
}
