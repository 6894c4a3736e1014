//! Whether all members of a database hold the same rows.

use gaiola_model::ServerName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The contents of one database member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The member.
    pub server: ServerName,
    /// Row count and checksum of each table.
    pub tables: BTreeMap<String, Rows>,
}

/// The rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// How many.
    pub count: u64,
    /// Independent of the order of rows.
    pub checksum: String,
}

/// Result of comparing all members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contents {
    /// There is no database, or the drill did not get this far.
    #[default]
    NotAsked,
    /// The comparison failed, for this reason.
    Unknown(String),
    /// All of them hold the same.
    Same {
        /// The members.
        members: Vec<ServerName>,
        /// Rows that each of them holds.
        rows: u64,
    },
    /// They differ: one line for each differing table and member.
    Different(Vec<String>),
}

/// Compares the members with the first of them, the primary.
///
/// ```
/// use gaiola_core::drill::{Contents, compare};
///
/// assert_eq!(compare(&[]), Contents::NotAsked);
/// ```
pub fn compare(holdings: &[Holding]) -> Contents {
    let Some((primary, standbys)) = holdings.split_first() else {
        return Contents::NotAsked;
    };
    let differences: Vec<String> = standbys
        .iter()
        .flat_map(|standby| differences(primary, standby))
        .collect();
    if differences.is_empty() {
        Contents::Same {
            members: holdings.iter().map(|holding| holding.server).collect(),
            rows: primary.tables.values().map(|rows| rows.count).sum(),
        }
    } else {
        Contents::Different(differences)
    }
}

fn differences(primary: &Holding, standby: &Holding) -> Vec<String> {
    let tables: BTreeSet<&String> = primary.tables.keys().chain(standby.tables.keys()).collect();
    let differ = tables.into_iter().filter_map(|table| {
        let (first, second) = (primary.tables.get(table), standby.tables.get(table));
        let count = |rows: Option<&Rows>| rows.map(|rows| rows.count);
        let note = if count(first) == count(second) {
            ", which differ"
        } else {
            ""
        };
        let (first_words, second_words) = (in_words(first), in_words(second));
        let (primary, standby) = (primary.server, standby.server);
        let words = format!("{table}: {primary} {first_words}, {standby} {second_words}{note}");
        (first != second).then_some(words)
    });
    differ.collect()
}

fn in_words(rows: Option<&Rows>) -> String {
    rows.map_or("has none".into(), |rows| format!("has {} rows", rows.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(server: &str, tables: &[(&str, u64, &str)]) -> Holding {
        let rows = |&(name, count, checksum): &(&str, u64, &str)| {
            let checksum = checksum.into();
            (name.to_string(), Rows { count, checksum })
        };
        Holding {
            server: server.parse().unwrap(),
            tables: tables.iter().map(rows).collect(),
        }
    }

    #[test]
    fn members_with_the_same_rows_are_the_same() {
        let tables = [("public.entries", 12, "a"), ("public.users", 3, "b")];
        let same = compare(&[holding("db2", &tables), holding("db1", &tables)]);
        let members = ["db2", "db1"].map(|name| name.parse().unwrap()).to_vec();
        assert_eq!(same, Contents::Same { members, rows: 15 });
    }

    #[test]
    fn each_table_that_differs_is_named() {
        let primary = holding("db2", &[("a", 12, "x"), ("b", 3, "y"), ("c", 1, "z")]);
        let standby = holding(
            "db1",
            &[("a", 14, "q"), ("b", 3, "w"), ("c", 1, "z"), ("d", 0, "")],
        );
        let expected = [
            "a: db2 has 12 rows, db1 has 14 rows",
            "b: db2 has 3 rows, db1 has 3 rows, which differ",
            "d: db2 has none, db1 has 0 rows",
        ];
        let expected = expected.map(String::from).to_vec();
        assert_eq!(compare(&[primary, standby]), Contents::Different(expected));
    }
}
