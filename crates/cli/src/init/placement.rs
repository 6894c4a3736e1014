//! Which machine gets which tiers.

use gaiola_model::Tier;
use std::collections::BTreeSet;
use std::ops::Range;

/// What decided which machine gets which tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Every machine's name says its tier.
    Names,
    /// How many there are, in their order.
    Number,
}

/// The machines of each tier, by [`Tier`]'s number, and the spare ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) reason: Reason,
    /// Without machines: the site has no such tier.
    pub(super) tiers: [Vec<String>; 4],
    pub(super) spare: Vec<String>,
}

/// The tiers that a site may go without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) web: bool,
    pub(super) database: bool,
}

/// What a machine's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Tier(Tier),
    Spare,
}

/// Words in machines' names.
const WORDS: [(&str, Role); 9] = [
    ("lb", Role::Tier(Tier::Balancer)),
    ("balancer", Role::Tier(Tier::Balancer)),
    ("web", Role::Tier(Tier::Web)),
    ("app", Role::Tier(Tier::App)),
    ("db", Role::Tier(Tier::Database)),
    ("database", Role::Tier(Tier::Database)),
    ("pg", Role::Tier(Tier::Database)),
    ("postgres", Role::Tier(Tier::Database)),
    ("spare", Role::Spare),
];

impl Placement {
    /// By their names if all of them say a tier, balancers and application servers among them; else by their number.
    pub(super) fn of(machines: &[String], wanted: Wanted) -> Self {
        let roles: Option<Vec<Role>> = machines.iter().map(|name| role(name)).collect();
        let named = roles.and_then(|roles| Self::by_name(machines, &roles, wanted));
        named.unwrap_or_else(|| Self::by_number(machines, wanted))
    }

    /// The machines of a tier.
    pub(super) fn of_tier(&self, tier: Tier) -> &[String] {
        &self.tiers[tier as usize]
    }

    /// Whether there is a web tier.
    pub(super) fn has_web(&self) -> bool {
        !self.of_tier(Tier::Web).is_empty()
    }

    /// How many machines have servers.
    pub(super) fn count(&self) -> usize {
        self.tiers.iter().flatten().collect::<BTreeSet<_>>().len()
    }

    /// A tier that no name says shares the machines of the one above it.
    fn by_name(machines: &[String], roles: &[Role], wanted: Wanted) -> Option<Self> {
        let with = |role: Role| -> Vec<String> {
            let all = std::iter::zip(machines, roles);
            let those = all.filter(|(_, of)| **of == role);
            those.map(|(name, _)| name.clone()).collect()
        };
        let mut tiers = Tier::ALL.map(|tier| with(Role::Tier(tier)));
        let mut spare = with(Role::Spare);
        let [balancers, web, app, databases] = &mut tiers;
        if balancers.is_empty() || app.is_empty() {
            return None;
        }
        if web.is_empty() && wanted.web {
            web.clone_from(balancers);
        }
        match (databases.is_empty(), wanted.database) {
            (true, true) => databases.clone_from(app),
            (false, false) => spare.append(databases),
            _ => {}
        }
        Some(Self {
            reason: Reason::Names,
            tiers,
            spare,
        })
    }

    fn by_number(machines: &[String], wanted: Wanted) -> Self {
        let ranges = ranges(machines.len(), wanted);
        Self {
            reason: Reason::Number,
            tiers: ranges.map(|range| machines[range].to_vec()),
            spare: Vec::new(),
        }
    }
}

/// The machines of each tier.
///
/// Up to three have every tier each. Beyond that each tier is on at least two, so that it survives the loss of one: first the balancers and
/// web servers part from the rest, then the database from the application, then the web servers from the balancers. Of
/// machines that are left over one makes a third database server, and all others are application servers.
fn ranges(count: usize, wanted: Wanted) -> [Range<usize>; 4] {
    let (all, none) = (0..count, 0..0);
    let of = |wanted: bool, range: Range<usize>| if wanted { range } else { none.clone() };
    if count <= 3 {
        let (web, database) = (
            of(wanted.web, all.clone()),
            of(wanted.database, all.clone()),
        );
        return [all.clone(), web, all, database];
    }
    let own_database = wanted.database && count >= 6;
    let own_web = wanted.web && count >= if wanted.database { 8 } else { 6 };
    let app_from = if own_web { 4 } else { 2 };
    let beyond = count - app_from;
    let databases = match (own_database, beyond) {
        (false, _) => 0,
        (true, 4) => 2,
        (true, _) => 3,
    };
    let database_from = count - databases;
    let app = app_from..database_from;
    let web = if own_web { 2..4 } else { 0..2 };
    let database = if own_database {
        database_from..count
    } else {
        app.clone()
    };
    [
        0..2,
        of(wanted.web, web),
        app,
        of(wanted.database, database),
    ]
}

/// What one word of the name of its host says, if no other word says something else: `deploy@shop-web-1.example.net`.
fn role(machine: &str) -> Option<Role> {
    let host = machine.rsplit('@').next()?;
    let label = host.split('.').next()?.to_ascii_lowercase();
    let words = label.split(['-', '_']);
    let mut found = words.filter_map(|word| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let known = WORDS.iter().find(|(known, _)| *known == word);
        known.map(|(_, role)| *role)
    });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted {
        web: true,
        database: true,
    };

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(Into::into).collect()
    }

    /// `m1` to as many.
    fn counted(count: usize, wanted: Wanted) -> String {
        let machines: Vec<String> = (1..=count).map(|n| format!("m{n}")).collect();
        let placed = Placement::of(&machines, wanted);
        assert_eq!((placed.reason, placed.spare.len()), (Reason::Number, 0));
        let numbers = |tier: &Vec<String>| {
            let numbers = tier.iter().map(|name| name.trim_start_matches('m'));
            numbers.collect::<Vec<_>>().join(" ")
        };
        placed.tiers.each_ref().map(numbers).join(" | ")
    }

    #[test]
    fn the_number_of_machines_decides() {
        for (count, expected) in [
            (1, "1 | 1 | 1 | 1"),
            (2, "1 2 | 1 2 | 1 2 | 1 2"),
            (3, "1 2 3 | 1 2 3 | 1 2 3 | 1 2 3"),
            (4, "1 2 | 1 2 | 3 4 | 3 4"),
            (5, "1 2 | 1 2 | 3 4 5 | 3 4 5"),
            (6, "1 2 | 1 2 | 3 4 | 5 6"),
            (7, "1 2 | 1 2 | 3 4 | 5 6 7"),
            (8, "1 2 | 3 4 | 5 6 | 7 8"),
            (9, "1 2 | 3 4 | 5 6 | 7 8 9"),
            (11, "1 2 | 3 4 | 5 6 7 8 | 9 10 11"),
        ] {
            assert_eq!(counted(count, ALL), expected);
        }
    }

    #[test]
    fn a_tier_that_is_not_wanted_leaves_its_machines_to_others() {
        let plain = |web, database| Wanted { web, database };
        assert_eq!(counted(3, plain(false, false)), "1 2 3 |  | 1 2 3 | ");
        assert_eq!(counted(4, plain(true, false)), "1 2 | 1 2 | 3 4 | ");
        assert_eq!(counted(6, plain(true, false)), "1 2 | 3 4 | 5 6 | ");
        assert_eq!(counted(5, plain(false, true)), "1 2 |  | 3 4 5 | 3 4 5");
        assert_eq!(counted(6, plain(false, true)), "1 2 |  | 3 4 | 5 6");
        assert_eq!(counted(8, plain(false, true)), "1 2 |  | 3 4 5 | 6 7 8");
        assert_eq!(counted(5, plain(false, false)), "1 2 |  | 3 4 5 | ");
    }

    #[test]
    fn every_machine_has_a_tier_and_every_tier_at_least_two() {
        for count in 1..=99 {
            for (web, database) in [(true, true), (true, false), (false, true), (false, false)] {
                let ranges = ranges(count, Wanted { web, database });
                let [balancers, webs, app, databases] = &ranges;
                let least = count.min(2);
                assert!(balancers.len() >= least && app.len() >= least, "{count}");
                assert!(webs.is_empty() != web && databases.is_empty() != database);
                assert!(databases.is_empty() || databases.len() >= least);
                for machine in 0..count {
                    assert!(
                        ranges.iter().any(|range| range.contains(&machine)),
                        "{count}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_that_all_say_a_tier_decide() {
        let machines =
            names("db-1 root@lb-1 app-1.example.net web-1 LB2 shop-app-2 spare-1 pg2 app3");
        let placed = Placement::of(&machines, ALL);
        assert_eq!(placed.reason, Reason::Names);
        assert_eq!(placed.of_tier(Tier::Balancer), names("root@lb-1 LB2"));
        assert_eq!(placed.of_tier(Tier::Web), names("web-1"));
        assert_eq!(
            placed.of_tier(Tier::App),
            names("app-1.example.net shop-app-2 app3")
        );
        assert_eq!(placed.of_tier(Tier::Database), names("db-1 pg2"));
        assert_eq!(placed.spare, names("spare-1"));
    }

    #[test]
    fn a_tier_that_no_name_says_shares_machines() {
        let placed = Placement::of(&names("lb-1 lb-2 app-1"), ALL);
        assert_eq!(placed.of_tier(Tier::Web), names("lb-1 lb-2"));
        assert_eq!(placed.of_tier(Tier::Database), names("app-1"));
        let without = Wanted {
            web: false,
            database: false,
        };
        let placed = Placement::of(&names("lb-1 app-1 web-1 db-1"), without);
        assert_eq!(placed.of_tier(Tier::Web), names("web-1"));
        assert_eq!(placed.spare, names("db-1"));
    }

    #[test]
    fn names_that_say_too_little_do_not_decide() {
        for machines in [
            "web-1 web-2 web-3",
            "lb-1 app-1 m-3",
            "lb-1 lb-2 db-1",
            "10.0.0.1 10.0.0.2",
            "app-db-1 lb-1 app-2",
            "webapp lbx appserver",
        ] {
            let placed = Placement::of(&names(machines), ALL);
            assert_eq!(placed.reason, Reason::Number, "{machines}");
        }
    }
}
