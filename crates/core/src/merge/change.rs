//! The differences between two configurations in words: what `gaiola plan` prints, and what needs a `--yes`.

use gaiola_model::config::{App, Balancer, Config, Database, Drill};
use gaiola_model::placement::ReleaseNumber;
use gaiola_model::{ServerName, Tier};
use std::fmt;
use std::net::IpAddr;

/// One difference and its effect. `Display` is one line: `app: servers 2 -> 3: app3 is added`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A tier is added.
    TierAdded {
        /// The tier.
        tier: Tier,
        /// Its number of servers.
        servers: u16,
        /// The tier that sends to it; `None`: clients connect to it directly.
        above: Option<Tier>,
    },
    /// A tier is removed.
    TierRemoved {
        /// The tier.
        tier: Tier,
        /// The number of servers it had.
        servers: u16,
        /// The tier that sent to it and now bypasses it; `None`: clients connected to it directly.
        above: Option<Tier>,
    },
    /// A tier has more or fewer servers.
    Servers {
        /// The tier.
        tier: Tier,
        /// Before.
        from: u16,
        /// After.
        to: u16,
    },
    /// Each application server has more or fewer instances.
    Instances {
        /// Before.
        from: u16,
        /// After.
        to: u16,
    },
    /// VIPs are added or removed.
    Vips {
        /// Added VIPs.
        added: Vec<IpAddr>,
        /// Removed VIPs.
        removed: Vec<IpAddr>,
    },
    /// The site's directory has changed. [`changes`] cannot see this; the code that makes releases adds it.
    Release {
        /// The release in force.
        from: ReleaseNumber,
        /// The new one.
        to: ReleaseNumber,
    },
    /// The command of an instance.
    Run,
    /// The command that runs once for each release.
    ReleaseCommand,
    /// The balancers' TLS.
    Tls {
        /// Whether they served HTTPS before.
        from: bool,
        /// Whether they will afterwards.
        to: bool,
    },
    /// A value of the proxies' configuration: `listen`, `root`, `health`, `maxconn`.
    Proxies {
        /// The tier whose section has it.
        tier: Tier,
        /// The key.
        key: &'static str,
        /// Before, as written.
        from: String,
        /// After.
        to: String,
    },
    /// How long a stopping instance may take.
    Grace,
    /// Whether writes stop when no synchronous standby is left.
    Strict(bool),
    /// How drills load the site.
    Drill,
    /// Whether database servers get disks of their own.
    Disk,
}

/// Every difference between `old` and `new`, tier by tier; empty if they are equal.
///
/// ```
/// use gaiola_core::merge::{changes, scale};
/// # use gaiola_model::{Config, config::App};
/// # let old = Config { site: "a".parse().unwrap(), balancer: None, web: None, app: App::new("bin/a"), database: None, drill: None, machines: None };
/// let new = scale(&old, &"app=3".parse().unwrap()).unwrap();
/// assert_eq!(changes(&old, &new)[0].to_string(), "app: servers 2 -> 3: app3 is added");
/// ```
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut found = Vec::new();
    for tier in Tier::ALL {
        found.extend(size_change(tier, old, new));
        match tier {
            Tier::Balancer => {
                if let (Some(old), Some(new)) = (&old.balancer, &new.balancer) {
                    balancer_changes(old, new, &mut found);
                }
            }
            Tier::Web => {
                if let (Some(old), Some(new)) = (&old.web, &new.web) {
                    proxies(tier, "root", old.root.clone(), new.root.clone(), &mut found);
                }
            }
            Tier::App => app_changes(&old.app, &new.app, &mut found),
            Tier::Database => {
                if let (Some(old), Some(new)) = (&old.database, &new.database) {
                    database_changes(old, new, &mut found);
                }
            }
        }
    }
    if disk(old) != disk(new) {
        found.push(Change::Disk);
    }
    if load(old) != load(new) {
        found.push(Change::Drill);
    }
    found
}

fn disk(config: &Config) -> Option<u64> {
    config.drill.as_ref()?.disk
}

/// All of `[drill]` but the disk.
fn load(config: &Config) -> Option<Drill> {
    let drill = config.drill.clone()?;
    Some(Drill {
        disk: None,
        ..drill
    })
}

fn size_change(tier: Tier, old: &Config, new: &Config) -> Option<Change> {
    match (old.servers(tier), new.servers(tier)) {
        (from, to) if from == to => None,
        (0, servers) => Some(Change::TierAdded {
            tier,
            servers,
            above: above(tier, new),
        }),
        (servers, 0) => Some(Change::TierRemoved {
            tier,
            servers,
            above: above(tier, new),
        }),
        (from, to) => Some(Change::Servers { tier, from, to }),
    }
}

/// The nearest tier above that the site has.
fn above(tier: Tier, config: &Config) -> Option<Tier> {
    Tier::ALL
        .into_iter()
        .rfind(|&other| other < tier && config.servers(other) > 0)
}

fn balancer_changes(old: &Balancer, new: &Balancer, found: &mut Vec<Change>) {
    let (before, after) = (old.vips(), new.vips());
    let only_in = |these: &[IpAddr], those: &[IpAddr]| -> Vec<IpAddr> {
        these
            .iter()
            .filter(|vip| !those.contains(vip))
            .copied()
            .collect()
    };
    let (added, removed) = (only_in(after, before), only_in(before, after));
    if !added.is_empty() || !removed.is_empty() {
        found.push(Change::Vips { added, removed });
    }
    let ports = |balancer: &Balancer| list(balancer.listen.iter().map(|port| format!(":{port}")));
    proxies(Tier::Balancer, "listen", ports(old), ports(new), found);
    if old.tls != new.tls {
        let (from, to) = (old.tls.is_some(), new.tls.is_some());
        found.push(Change::Tls { from, to });
    }
}

fn app_changes(old: &App, new: &App, found: &mut Vec<Change>) {
    if old.instances != new.instances {
        found.push(Change::Instances {
            from: old.instances,
            to: new.instances,
        });
    }
    if old.run != new.run {
        found.push(Change::Run);
    }
    if old.release != new.release {
        found.push(Change::ReleaseCommand);
    }
    let app = Tier::App;
    proxies(app, "health", old.health.clone(), new.health.clone(), found);
    let (from, to) = (limit(old.maxconn), limit(new.maxconn));
    proxies(app, "maxconn", from, to, found);
    if old.grace != new.grace {
        found.push(Change::Grace);
    }
}

fn database_changes(old: &Database, new: &Database, found: &mut Vec<Change>) {
    if old.strict != new.strict {
        found.push(Change::Strict(new.strict));
    }
    let (from, to) = (limit(old.maxconn), limit(new.maxconn));
    proxies(Tier::Database, "maxconn", from, to, found);
    let wait = |database: &Database| format!("{} ms", database.wait.as_millis());
    proxies(Tier::Database, "wait", wait(old), wait(new), found);
}

fn limit(maxconn: Option<u32>) -> String {
    maxconn.map_or_else(|| "no limit".into(), |number| number.to_string())
}

fn proxies(tier: Tier, key: &'static str, from: String, to: String, found: &mut Vec<Change>) {
    if from != to {
        found.push(Change::Proxies {
            tier,
            key,
            from,
            to,
        });
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TierAdded {
                tier,
                servers,
                above,
            } => write_added(f, *tier, *servers, *above),
            Self::TierRemoved {
                tier,
                servers,
                above,
            } => write_removed(f, *tier, *servers, *above),
            Self::Servers { tier, from, to } => write_servers(f, *tier, *from, *to),
            Self::Instances { from, to } => {
                let effect = if to > from {
                    "are added"
                } else {
                    "are drained, then removed"
                };
                let servers = "on each server";
                write!(f, "app: instances {from} -> {to} {servers}: they {effect}")
            }
            Self::Vips { added, removed } => write_vips(f, added, removed),
            Self::Release { from, to } => write!(
                f,
                "app: the site's directory has changed: release {from} -> {to}: instances are replaced one at a time"
            ),
            Self::Run => f.write_str("app: run changes: instances are replaced one at a time"),
            Self::ReleaseCommand => f.write_str(
                "app: release changes: it runs before the instances of the next release",
            ),
            Self::Proxies {
                tier,
                key,
                from,
                to,
            } => write!(
                f,
                "{tier}: {key} {from} -> {to}: the proxies take it over; no connection is lost"
            ),
            Self::Tls { from: true, to: true } => f.write_str(
                "balancer: tls or its certificates change: the proxies take them over; no connection is lost",
            ),
            Self::Tls { to: true, .. } => {
                f.write_str("balancer: tls is set: HTTPS is served on port 443")
            }
            Self::Tls { .. } => f.write_str("balancer: tls is unset: port 443 is closed"),
            Self::Grace => f.write_str("app: grace changes: it holds from the next stop on"),
            Self::Strict(true) => f.write_str(
                "database: strict is set: writes stop when no synchronous standby is left",
            ),
            Self::Strict(false) => f.write_str(
                "database: strict is unset: writes go on unreplicated when no standby is left",
            ),
            Self::Drill => f.write_str("drill: changes: the next drill loads the site so"),
            Self::Disk => f.write_str(
                "drill: disk changes: it holds for database servers that have no data yet",
            ),
        }
    }
}

fn write_added(
    f: &mut fmt::Formatter<'_>,
    tier: Tier,
    servers: u16,
    above: Option<Tier>,
) -> fmt::Result {
    let (names, _) = names(tier, 1..=servers);
    write!(f, "{tier}: added with {names}: ")?;
    match (tier, above) {
        (Tier::Database, _) => {
            f.write_str("instances are replaced one at a time and get a DATABASE_URL")
        }
        (_, Some(above)) => write!(f, "{above} leads to it"),
        (_, None) => f.write_str("clients come to it"),
    }
}

fn write_removed(
    f: &mut fmt::Formatter<'_>,
    tier: Tier,
    servers: u16,
    above: Option<Tier>,
) -> fmt::Result {
    let (names, _) = names(tier, 1..=servers);
    write!(f, "{tier}: removed with {names}: ")?;
    match (tier, above) {
        (Tier::Database, _) => {
            f.write_str("instances are replaced one at a time and get no DATABASE_URL")
        }
        (_, Some(above)) => write!(f, "{above} leads past it"),
        (_, None) => f.write_str("clients come to the tier below"),
    }
}

fn write_servers(f: &mut fmt::Formatter<'_>, tier: Tier, from: u16, to: u16) -> fmt::Result {
    write!(f, "{tier}: servers {from} -> {to}: ")?;
    if to > from {
        let (names, are) = names(tier, from + 1..=to);
        return write!(f, "{names} {are} added");
    }
    let (names, are) = names(tier, to + 1..=from);
    match (tier, to) {
        (Tier::Database, 1) => write!(
            f,
            "{names} {are} removed, after a switchover where it is the primary; no standby is left"
        ),
        (Tier::Database, _) => write!(
            f,
            "{names} {are} removed, after a switchover where it is the primary"
        ),
        _ => write!(f, "{names} {are} drained, then removed"),
    }
}

fn write_vips(f: &mut fmt::Formatter<'_>, added: &[IpAddr], removed: &[IpAddr]) -> fmt::Result {
    let is = |vips: &[IpAddr]| if vips.len() == 1 { "is" } else { "are" };
    f.write_str("balancer: vips: ")?;
    if !added.is_empty() {
        write!(f, "{} {} added and announced", list(added), is(added))?;
    }
    if !added.is_empty() && !removed.is_empty() {
        f.write_str(", then ")?;
    }
    if !removed.is_empty() {
        write!(f, "{} {} removed", list(removed), is(removed))?;
    }
    Ok(())
}

/// Names of a tier's servers, and the verb that agrees with their number.
fn names(tier: Tier, numbers: std::ops::RangeInclusive<u16>) -> (String, &'static str) {
    let (first, last) = (*numbers.start(), *numbers.end());
    let name = |number| ServerName::new(tier, number);
    match last.saturating_sub(first) {
        0 => (name(first).to_string(), "is"),
        1 => (format!("{} and {}", name(first), name(last)), "are"),
        _ => (format!("{} to {}", name(first), name(last)), "are"),
    }
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// A change that needs `--yes`, because data or its safety may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer than two database servers remain.
    DatabaseShrinks {
        /// Before.
        from: u16,
        /// After.
        to: u16,
    },
    /// The database tier is removed.
    DatabaseRemoved {
        /// The number of servers it had.
        servers: u16,
    },
}

/// Which of the changes from `old` to `new` need a `--yes`.
pub fn refusals(old: &Config, new: &Config) -> Vec<Refusal> {
    match (old.servers(Tier::Database), new.servers(Tier::Database)) {
        (0, _) => Vec::new(),
        (servers, 0) => vec![Refusal::DatabaseRemoved { servers }],
        (from, to) if to < 2 && to < from => vec![Refusal::DatabaseShrinks { from, to }],
        _ => Vec::new(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DatabaseShrinks { from, to } => write!(
                f,
                "database: servers {from} -> {to} leaves no standby: what is written may be lost with its server; \
                 repeat it with --yes if you mean it"
            ),
            Self::DatabaseRemoved { servers } => {
                let (names, are) = names(Tier::Database, 1..=*servers);
                write!(
                    f,
                    "database: {names} {are} removed and the site is left without its database; \
                     repeat it with --yes if you mean it"
                )
            }
        }
    }
}
