//! The differences between two configurations in words: what `gaiola plan` prints, and what needs a `--yes`.

mod words;

use gaiola_model::config::{
    App, Balancer, BalancerProxy, Config, Cron, Database, Drill, Machine, Machines, Variables, Web,
};
use gaiola_model::http::Coding;
use gaiola_model::placement::ReleaseNumber;
use gaiola_model::proxy::{CacheControl, Compression, FilePattern, Observe};
use gaiola_model::{CronName, ServerName, Tier, WorkerKind};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use words::{list, names};

/// One difference and its effect. `Display` is one line: `app: servers 2 -> 3: app3 is added`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A tier is added.
    TierAdded {
        /// The tier.
        tier: Tier,
        /// Its servers.
        servers: Vec<ServerName>,
        /// The tier that sends to it; `None`: clients connect to it directly.
        above: Option<Tier>,
    },
    /// A tier is removed.
    TierRemoved {
        /// The tier.
        tier: Tier,
        /// The servers it had.
        servers: Vec<ServerName>,
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
    /// On machines: a server is added.
    ServerAdded {
        /// The server.
        server: ServerName,
        /// Its machine.
        on: String,
    },
    /// On machines: a server is drained, then removed.
    ServerLeaves {
        /// The server.
        server: ServerName,
        /// Its machine.
        from: String,
        /// How many servers its tier has then, if it stays.
        left: u16,
    },
    /// A machine's part in the site.
    Machine {
        /// The machine.
        ssh: String,
        /// What becomes of it.
        change: MachineChange,
    },
    /// Whether a spare machine takes the place of one that is gone by itself, and after how long.
    AutoReplace(Option<Duration>),
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
    /// A VIP has another prefix.
    VipPrefix {
        /// The VIP.
        vip: IpAddr,
        /// The prefix length before, if one was written.
        from: Option<u8>,
        /// After.
        to: Option<u8>,
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
    /// Variables of the instances' environment: their names. A value may be nobody's business.
    Env {
        /// Those that come.
        added: Vec<String>,
        /// Those with another value.
        changed: Vec<String>,
        /// Those that go.
        removed: Vec<String>,
    },
    /// A worker comes, changes or goes.
    Worker {
        /// Its section.
        kind: WorkerKind,
        /// What becomes of it.
        change: WorkerChange,
    },
    /// A command that runs at set times comes, changes or goes.
    Cron {
        /// Its section.
        name: CronName,
        /// What becomes of it.
        change: CronChange,
    },
    /// The command that runs once for each release.
    ReleaseCommand,
    /// The command that a balancer runs when it takes a VIP.
    VipCommand,
    /// Settings of `[balancer]` in the words of a proxy's file: their keys. The values of some are nobody's business.
    BalancerProxy(Vec<&'static str>),
    /// How long a balancer that drains goes on accepting clients at its own address.
    BalancerDrain,
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
    /// What an instance may use, in words.
    Limits {
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// When a release is given up.
    DeployRules,
    /// Whether writes stop when no synchronous standby is left.
    Strict(bool),
    /// How drills load the site.
    Drill,
    /// Whether database servers get disks of their own.
    Disk,
    /// Whether the tiers speak mutual TLS with each other.
    Encrypt(bool),
}

/// What becomes of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerChange {
    /// It is started.
    Added,
    /// Its command is another one.
    Run,
    /// It runs on more or fewer servers, or more or fewer times.
    Size,
    /// It may take another time to stop.
    Grace,
    /// It may use more or less.
    Limits,
    /// It is stopped.
    Removed,
}

/// What becomes of a command that runs at set times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CronChange {
    /// It is run.
    Added,
    /// It is run at other times.
    Schedule,
    /// Its command, timeout or overlap is another one.
    Settings,
    /// It is not run any more.
    Removed,
}

/// What becomes of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineChange {
    /// It becomes spare.
    Spare,
    /// It leaves the site.
    Leaves,
    /// Its interface for VIPs changes.
    Interface,
    /// Its address changes.
    Address,
}

/// Every difference between `old` and `new`, tier by tier; empty if they are equal.
///
/// ```
/// use gaiola_core::merge::{changes, scale};
/// # use gaiola_model::{Config, config::App};
/// # let old = Config { site: "a".parse().unwrap(), balancer: None, web: None, app: App::new("bin/a"), workers: Default::default(), crons: Default::default(), database: None, drill: None, env: Default::default(), env_file: None, machines: None };
/// let new = scale(&old, &"app=3".parse().unwrap(), None).unwrap();
/// assert_eq!(changes(&old, &new)[0].to_string(), "app: servers 2 -> 3: app3 is added");
/// ```
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut found = Vec::new();
    for tier in Tier::ALL {
        found.extend(size_change(tier, old, new));
        if let (Some(old), Some(new)) = (&old.machines, &new.machines) {
            moves(tier, old, new, &mut found);
        }
        match tier {
            Tier::Balancer => {
                if let (Some(old), Some(new)) = (&old.balancer, &new.balancer) {
                    balancer_changes(old, new, &mut found);
                }
            }
            Tier::Web => {
                if let (Some(old), Some(new)) = (&old.web, &new.web) {
                    web_changes(old, new, &mut found);
                }
            }
            Tier::App => {
                app_changes(&old.app, &new.app, &mut found);
                found.extend(env_change(&old.app_env(), &new.app_env()));
                worker_changes(old, new, &mut found);
                cron_changes(old, new, &mut found);
            }
            Tier::Database => {
                if let (Some(old), Some(new)) = (&old.database, &new.database) {
                    database_changes(old, new, &mut found);
                }
            }
        }
    }
    if let (Some(old), Some(new)) = (&old.machines, &new.machines) {
        machine_changes(old, new, &mut found);
    }
    if old.encrypts() != new.encrypts() {
        found.push(Change::Encrypt(new.encrypts()));
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
        (0, _) => Some(Change::TierAdded {
            tier,
            servers: new.servers_of(tier).collect(),
            above: above(tier, new),
        }),
        (_, 0) => Some(Change::TierRemoved {
            tier,
            servers: old.servers_of(tier).collect(),
            above: above(tier, new),
        }),
        // Told server by server.
        _ if old.machines.is_some() && new.machines.is_some() => None,
        (from, to) => Some(Change::Servers { tier, from, to }),
    }
}

/// Servers of a tier that come to a machine or leave one.
fn moves(tier: Tier, old: &Machines, new: &Machines, found: &mut Vec<Change>) {
    let stands = |on: &Machines, (name, machine): &(ServerName, &Machine)| {
        let other = on.servers.get(name);
        other.is_some_and(|other| other.is_where(machine))
    };
    let added = new.of(tier).filter(|server| !stands(old, server));
    found.extend(added.map(|(server, machine)| Change::ServerAdded {
        server,
        on: machine.ssh.clone(),
    }));
    let left = u16::try_from(new.of(tier).count()).unwrap_or(u16::MAX);
    let leaving = old.of(tier).filter(|server| !stands(new, server));
    found.extend(leaving.map(|(server, machine)| Change::ServerLeaves {
        server,
        from: machine.ssh.clone(),
        left,
    }));
}

fn machine_changes(old: &Machines, new: &Machines, found: &mut Vec<Change>) {
    let is_spare = |on: &Machines, ssh: &str| on.spare.iter().any(|spare| spare.ssh == ssh);
    let mut tell = |machine: &Machine, change: MachineChange| {
        let ssh = machine.ssh.clone();
        found.push(Change::Machine { ssh, change });
    };
    for machine in new.all() {
        if is_spare(new, &machine.ssh) && !is_spare(old, &machine.ssh) {
            tell(machine, MachineChange::Spare);
        }
        let Some(before) = old.find(&machine.ssh) else {
            continue;
        };
        if before.address != machine.address {
            tell(machine, MachineChange::Address);
        }
        if before.interface != machine.interface {
            tell(machine, MachineChange::Interface);
        }
    }
    let gone = old
        .all()
        .into_iter()
        .filter(|old| new.find(&old.ssh).is_none());
    gone.for_each(|machine| tell(machine, MachineChange::Leaves));
    if old.replace_after != new.replace_after {
        found.push(Change::AutoReplace(new.replace_after));
    }
}

/// The nearest tier above that the site has.
fn above(tier: Tier, config: &Config) -> Option<Tier> {
    Tier::ALL
        .into_iter()
        .rfind(|&other| other < tier && config.servers(other) > 0)
}

fn web_changes(old: &Web, new: &Web, found: &mut Vec<Change>) {
    let mut of = |key, value: &dyn Fn(&Web) -> String| {
        let [from, to] = [old, new].map(|web| match value(web) {
            value if value.is_empty() => "none".into(),
            value => value,
        });
        proxies(Tier::Web, key, from, to, found);
    };
    of("root", &|web| web.root.clone());
    of("try", &|web| list(&web.files.tries));
    of("not_found", &|web| {
        web.files.not_found.clone().unwrap_or_default()
    });
    of("precompressed", &|web| web.files.precompressed.to_string());
    of("cache_control", &|web| {
        list(web.files.cache_control.iter().map(in_words))
    });
    of("app_paths", &|web| list(&web.app_paths));
    of("compress", &|web| compression(web.compress.as_ref()));
}

/// How responses are compressed: `zstd 3, gzip 5, from 1024 bytes`.
fn compression(compress: Option<&Compression>) -> String {
    let Some(compress) = compress else {
        return "false".into();
    };
    let level = |(coding, level): &(Coding, u8)| format!("{} {level}", coding.token());
    let mut words = list(compress.codings.iter().map(level));
    let default = Compression::default();
    if compress.min_size != default.min_size {
        words.push_str(&format!(", from {} bytes", compress.min_size));
    }
    if compress.types != default.types {
        words.push_str(&format!(", only {}", list(&compress.types)));
    }
    words
}

/// A line of `cache_control`.
fn in_words(rule: &CacheControl) -> String {
    let files = match &rule.files {
        FilePattern::Fingerprinted => "fingerprinted",
        FilePattern::Name(name) => name,
    };
    format!("{files}: {}", rule.value)
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
    for vip in after.iter().filter(|vip| before.contains(vip)) {
        let prefix = |balancer: &Balancer| balancer.prefixes.get(vip).copied();
        let (from, to) = (prefix(old), prefix(new));
        if from != to {
            found.push(Change::VipPrefix {
                vip: *vip,
                from,
                to,
            });
        }
    }
    let ports = |balancer: &Balancer| list(balancer.listen.iter().map(|port| format!(":{port}")));
    proxies(Tier::Balancer, "listen", ports(old), ports(new), found);
    let compress = |balancer: &Balancer| compression(balancer.compress.as_ref());
    proxies(
        Tier::Balancer,
        "compress",
        compress(old),
        compress(new),
        found,
    );
    let trust = |balancer: &Balancer| match &balancer.trust[..] {
        [] => "nobody".to_owned(),
        networks => list(networks),
    };
    proxies(Tier::Balancer, "trust", trust(old), trust(new), found);
    let accepts = |balancer: &Balancer| balancer.accept_proxy.to_string();
    proxies(
        Tier::Balancer,
        "accept_proxy",
        accepts(old),
        accepts(new),
        found,
    );
    let keys = proxy_keys(&old.proxy, &new.proxy);
    if !keys.is_empty() {
        found.push(Change::BalancerProxy(keys));
    }
    if old.drain != new.drain {
        found.push(Change::BalancerDrain);
    }
    if old.tls != new.tls {
        let (from, to) = (old.tls.is_some(), new.tls.is_some());
        found.push(Change::Tls { from, to });
    }
    if old.vip_command != new.vip_command {
        found.push(Change::VipCommand);
    }
}

/// The keys that differ.
fn proxy_keys(old: &BalancerProxy, new: &BalancerProxy) -> Vec<&'static str> {
    let timeouts = |of: &BalancerProxy| (of.client_timeouts.clone(), of.server_timeouts.clone());
    let all = [
        ("hosts", old.hosts != new.hosts),
        ("aliases", old.aliases != new.aliases),
        ("rule", old.rules != new.rules),
        ("route", old.routes != new.routes),
        ("limit", old.limits != new.limits),
        (
            "connection_limit",
            old.connection_limit != new.connection_limit,
        ),
        ("maxconn", old.maxconn != new.maxconn),
        ("max_body", old.max_body != new.max_body),
        ("max_head", old.max_head != new.max_head),
        ("error_pages", old.error_pages != new.error_pages),
        ("access_log", old.access_log != new.access_log),
        ("timeouts", timeouts(old) != timeouts(new)),
        ("balance", old.algorithm != new.algorithm),
        ("sticky", old.sticky != new.sticky),
        ("slow_start", old.slow_start != new.slow_start),
    ];
    let changed = all.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| key).collect()
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
    if (&old.health, &old.check) != (&new.health, &new.check) {
        let (from, mut to) = (health(old), health(new));
        if from == to {
            to.push_str(", other header values");
        }
        proxies(app, "health", from, to, found);
    }
    let (from, to) = (limit(old.maxconn), limit(new.maxconn));
    proxies(app, "maxconn", from, to, found);
    let counts = |app: &App| app.count_tunnels.to_string();
    proxies(app, "count_tunnels", counts(old), counts(new), found);
    let size = |app: &App| {
        app.queue_size
            .map_or("1024".into(), |size| size.to_string())
    };
    proxies(app, "queue_size", size(old), size(new), found);
    let (from, to) = (ejection(old), ejection(new));
    proxies(app, "ejection", from, to, found);
    let (from, to) = (slow_ejection(old), slow_ejection(new));
    proxies(app, "slow_ejection", from, to, found);
    if old.grace != new.grace {
        found.push(Change::Grace);
    }
    if old.limits != new.limits {
        let (from, to) = (old.limits.in_words(), new.limits.in_words());
        found.push(Change::Limits { from, to });
    }
    if old.deploy != new.deploy {
        found.push(Change::DeployRules);
    }
}

/// How instances are checked, without the values of header fields, which may be nobody's business.
fn health(app: &App) -> String {
    let set = &app.check;
    let mut parts = vec![app.health.clone()];
    parts.extend(set.host.as_ref().map(|host| format!("Host {host}")));
    parts.extend(set.headers.keys().map(|name| format!("with {name}")));
    parts.extend(set.status.iter().map(|status| format!("status {status}")));
    let ms = |what, set: Option<Duration>| Some(format!("{what} {} ms", set?.as_millis()));
    parts.extend(ms("every", set.interval));
    parts.extend(ms("within", set.timeout));
    parts.extend(set.fall.map(|fall| format!("{fall} failures")));
    parts.extend(set.port.map(|port| format!("port {port}")));
    parts.join(", ")
}

fn ejection(app: &App) -> String {
    let Some(set) = app.ejection else {
        return "the default".into();
    };
    let observe = match set.observe {
        Observe::None => "nothing",
        Observe::Layer4 => "layer4",
        Observe::Layer7 => "layer7",
    };
    format!(
        "{observe}, {} errors, {} to {} ms, {}%",
        set.error_limit,
        set.time.as_millis(),
        set.max_time.as_millis(),
        set.max_share
    )
}

fn slow_ejection(app: &App) -> String {
    app.slow_ejection.map_or("never".into(), |set| {
        format!("{}% for {} ms", set.factor, set.after.as_millis())
    })
}

fn env_change(old: &Variables, new: &Variables) -> Option<Change> {
    let names = |which: &dyn Fn(&str) -> bool| {
        let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let names = all.into_iter().filter(|name| which(name));
        names.cloned().collect::<Vec<String>>()
    };
    let change = Change::Env {
        added: names(&|name| !old.contains_key(name)),
        changed: names(&|name| {
            let both = old.get(name).zip(new.get(name));
            both.is_some_and(|(old, new)| old != new)
        }),
        removed: names(&|name| !new.contains_key(name)),
    };
    (old != new).then_some(change)
}

fn worker_changes(old: &Config, new: &Config, found: &mut Vec<Change>) {
    let mut tell = |kind: &WorkerKind, change: WorkerChange| {
        let kind = kind.clone();
        found.push(Change::Worker { kind, change });
    };
    for (kind, now) in &new.workers {
        let Some(before) = old.workers.get(kind) else {
            tell(kind, WorkerChange::Added);
            continue;
        };
        if before.run != now.run {
            tell(kind, WorkerChange::Run);
        }
        if (before.servers, before.instances) != (now.servers, now.instances) {
            tell(kind, WorkerChange::Size);
        }
        if before.grace != now.grace {
            tell(kind, WorkerChange::Grace);
        }
        if before.limits != now.limits {
            tell(kind, WorkerChange::Limits);
        }
    }
    let gone = old.workers.keys();
    let gone = gone.filter(|kind| !new.workers.contains_key(kind));
    gone.for_each(|kind| tell(kind, WorkerChange::Removed));
}

fn cron_changes<'a>(old: &'a Config, new: &'a Config, found: &mut Vec<Change>) {
    let mut tell = |name: &CronName, change: CronChange| {
        let name = name.clone();
        found.push(Change::Cron { name, change });
    };
    for (name, now) in &new.crons {
        let Some(before) = old.crons.get(name) else {
            tell(name, CronChange::Added);
            continue;
        };
        if !before.is_due_as(now) {
            tell(name, CronChange::Schedule);
        }
        let rest = |cron: &'a Cron| (&cron.run, cron.timeout, cron.overlap, cron.limits);
        if rest(before) != rest(now) {
            tell(name, CronChange::Settings);
        }
    }
    let gone = old.crons.keys();
    let gone = gone.filter(|name| !new.crons.contains_key(name));
    gone.for_each(|name| tell(name, CronChange::Removed));
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

/// A change that needs `--yes`, because data or its safety may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        /// The servers it had.
        servers: Vec<ServerName>,
    },
}

/// A server that would stand on a machine that gave its place to another one, and that machine.
pub fn on_lost_machine(new: &Config) -> Option<(ServerName, &Machine)> {
    let machines = new.machines.as_ref()?;
    let is_lost = |on: &Machine| machines.lost.iter().any(|lost| lost.ssh == on.ssh);
    let mut servers = machines.servers.iter();
    let found = servers.find(|(_, on)| is_lost(on))?;
    Some((*found.0, found.1))
}

/// Which of the changes from `old` to `new` need a `--yes`.
pub fn refusals(old: &Config, new: &Config) -> Vec<Refusal> {
    match (old.servers(Tier::Database), new.servers(Tier::Database)) {
        (0, _) => Vec::new(),
        (_, 0) => vec![Refusal::DatabaseRemoved {
            servers: old.servers_of(Tier::Database).collect(),
        }],
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
                let (names, are) = names(servers);
                write!(
                    f,
                    "database: {names} {are} removed and the site is left without its database; \
                     repeat it with --yes if you mean it"
                )
            }
        }
    }
}
