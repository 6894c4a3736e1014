//! The meaning of each section: its keys, their defaults and their limits.

use super::crons::{self, CRON};
use super::deploy;
use super::machines::{self, MACHINE, Sections};
use super::workers::{self, WORKER};
use super::{Surroundings, VipRange, value};
use super::{env, limits};
use crate::compress;
use crate::file::value::{Wrong, duration, network, url_path};
use crate::file::{At, Elsewhere, Mistakes, Section, Words, checked, shown, text};
use crate::{file_options, proxy_file};
use gaiola_model::config::{
    App, Balancer, BalancerTls, Config, Database, Drill, DrillLimits, DrillWrite, MAX_INSTANCES,
    MAX_SERVERS, Machines, Web,
};
use gaiola_model::proxy::FileOptions;
use gaiola_model::{SiteName, Tier};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Most VIPs and most ports; each VIP is a virtual router, each port a socket for every worker.
const MOST_ADDRESSES: usize = 99;
/// Every known key.
pub(super) static WORDS: Words = Words {
    keys: KEYS,
    foreign: &[],
    from: "",
    elsewhere: Some(Elsewhere {
        keys: crate::proxy_file::KEYS,
        kinds: &["", "balancer", "balancer.tls"],
        answer: "a site's balancers do not have this setting",
        file: "the file of a proxy by itself, `gaiola proxy -f FILE` (docs/proxy.md)",
    }),
};

const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "site", "env", "env_file", "balancer", "web", "app", "worker", "cron", "database",
            "machines", "deploy", "drill",
        ],
    ),
    (
        "machines",
        &[
            "spare",
            "power",
            "firewall",
            "encrypt",
            "replace",
            "replace_after",
        ],
    ),
    (MACHINE, &["ssh", "address", "interface"]),
    (
        "balancer",
        &[
            "servers",
            "vips",
            "vip_command",
            "listen",
            "tls",
            "trust",
            "accept_proxy",
            "drain",
            "hosts",
            "aliases",
            "route",
            "rule",
            "limit",
            "users",
            "connection_limit",
            "maxconn",
            "max_body",
            "max_head",
            "error_pages",
            "access_log",
            "timeouts",
            "balance",
            "hash",
            "sticky",
            "slow_start",
            "compress",
        ],
    ),
    (
        "balancer.tls",
        &[
            "certificates",
            "redirect",
            "hsts",
            "min_version",
            "client_ca",
            "client_certificate",
        ],
    ),
    (
        "balancer.timeouts",
        &[
            "http_request",
            "http_keep_alive",
            "http_body_rate",
            "client",
            "tunnel",
            "server",
            "queue",
        ],
    ),
    (
        "web",
        &[
            "servers",
            "root",
            "try",
            "not_found",
            "precompressed",
            "cache_control",
            "app_paths",
            "compress",
        ],
    ),
    ("balancer.compress", compress::KEYS),
    ("balancer.compress.levels", compress::LEVELS),
    ("web.compress", compress::KEYS),
    ("web.compress.levels", compress::LEVELS),
    (
        "app",
        &[
            "servers",
            "instances",
            "run",
            "release",
            "health",
            "maxconn",
            "count_tunnels",
            "queue_size",
            "ejection",
            "slow_ejection",
            "grace",
            "memory",
            "cpu",
            "tasks",
            "env",
        ],
    ),
    (
        WORKER,
        &[
            "run",
            "servers",
            "instances",
            "grace",
            "memory",
            "cpu",
            "tasks",
        ],
    ),
    (
        CRON,
        &[
            "schedule",
            "time_zone",
            "run",
            "timeout",
            "overlap",
            "memory",
            "cpu",
            "tasks",
        ],
    ),
    (
        "app.health",
        &[
            "path", "host", "headers", "status", "interval", "timeout", "fall", "port",
        ],
    ),
    ("database", &["servers", "strict", "maxconn", "wait"]),
    (
        "deploy",
        &["compare", "errors", "slower", "requests", "watch"],
    ),
    (
        "drill",
        &[
            "rate",
            "page",
            "read",
            "write",
            "max_outage",
            "max_failed",
            "max_lost",
            "disk",
        ],
    ),
    ("drill.write", &["path", "body", "look_up"]),
];
/// Names reserved by PostgreSQL or Patroni: the site's name is also that of its database and role.
const TAKEN_NAMES: [&str; 8] = [
    "none",
    "patroni",
    "postgres",
    "public",
    "replicator",
    "rewinder",
    "template0",
    "template1",
];

/// The whole file.
pub(super) fn config(
    root: &Section<'_>,
    around: &Surroundings<'_>,
    mistakes: &mut Mistakes<'_>,
) -> Config {
    let site = site(root, around.directory, mistakes);
    let sections = Sections::of(root, mistakes);
    let machines = machines::machines(&sections, mistakes);
    let drill = root.table("drill", "drill", mistakes);
    if machines.is_some() {
        drill.iter().for_each(|section| no_disk(section, mistakes));
    }
    let known = env::Known {
        has_database: root.has("database"),
        secrets: around.secrets,
    };
    let balancer = sections.tier(Tier::Balancer);
    let (env_file, env) = env::of_site(root, around, known, mistakes);
    let mut config = Config {
        site,
        balancer: balancer.map(|section| balancer_of(section, around, machines.as_ref(), mistakes)),
        web: (sections.tier(Tier::Web)).map(|section| web(section, mistakes)),
        app: app(root, sections.tier(Tier::App), known, mistakes),
        workers: workers::of(root, mistakes),
        crons: crons::of(root, mistakes),
        database: (sections.tier(Tier::Database)).map(|section| database(section, mistakes)),
        drill: drill.map(|section| drill_of(&section, mistakes)),
        env,
        env_file,
        machines: None,
    };
    config.app.deploy = deploy::of(root, mistakes);
    env::bound(&config.app_env(), root, mistakes);
    let encrypts = machines.as_ref().is_some_and(|machines| machines.encrypt);
    if encrypts && config.app.check.port.is_some() {
        let app = sections.tier(Tier::App);
        app.into_iter()
            .for_each(|section| no_port(section, mistakes));
    }
    match machines {
        Some(machines) => config.set_machines(machines),
        None => {
            (Tier::ALL.into_iter()).for_each(|tier| count(&sections, tier, &mut config, mistakes))
        }
    }
    config
}

fn site(root: &Section<'_>, directory: Option<&str>, mistakes: &mut Mistakes<'_>) -> SiteName {
    let placeholder = || SiteName::try_from("site".to_owned()).expect("a plain name");
    if !root.has("site") {
        return directory.and_then(usable_name).unwrap_or_else(|| {
            let hint = "add site = \"guestbook\" before every [section]";
            mistakes.missing(&(0..0), "the file has no `site`", hint);
            placeholder()
        });
    }
    let Some(written) = root.string("site", mistakes) else {
        return placeholder();
    };
    checked("site", &written, site_name, mistakes).unwrap_or_else(placeholder)
}

pub(super) fn site_name(text: &str) -> Result<SiteName, Wrong> {
    let name = SiteName::try_from(text.to_owned()).map_err(|_| {
        let hint = "use 1 to 32 of a-z, 0-9 and -, beginning with a letter";
        ("is not a site name".to_owned(), hint.to_owned())
    })?;
    if TAKEN_NAMES.contains(&text) || text.starts_with("pg-") {
        let hint = "use another: the site's database and its role have the same name";
        return Err(("is a name reserved by PostgreSQL".into(), hint.into()));
    }
    Ok(name)
}

/// A directory's name as a site name, if it is valid unchanged.
fn usable_name(directory: &str) -> Option<SiteName> {
    site_name(directory).ok()
}

fn balancer_of(
    section: &Section<'_>,
    around: &Surroundings<'_>,
    machines: Option<&Machines>,
    mistakes: &mut Mistakes<'_>,
) -> Balancer {
    let default = Balancer::default();
    let (vips, prefixes) = match machines {
        None => vips(section, around.vips.as_ref(), mistakes),
        Some(machines) => vips_on_machines(section, machines, mistakes),
    };
    let kinds = ["balancer.compress", "balancer.compress.levels"];
    let compress = compress::read(section, kinds, mistakes).flatten();
    Balancer {
        vips,
        prefixes,
        listen: section
            .strings("listen", "[\":80\"]", mistakes)
            .map_or(default.listen, |list| {
                if section.has("tls") {
                    https_is_taken(&list, mistakes);
                }
                unique("listen", &list, value::listen_port, mistakes)
            }),
        tls: tls(section, around, mistakes),
        proxy: around
            .with_parts(|parts| proxy_file::balancer(section, compress.as_ref(), parts, mistakes)),
        vip_command: text(section, "vip_command", value::command, mistakes),
        accept_proxy: accepts_proxy(section, mistakes),
        trust: trusted(section, mistakes),
        drain: text(section, "drain", duration, mistakes),
        compress,
        ..default
    }
}

/// Networks in front of the balancers, or single addresses.
fn trusted(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Vec<IpNet> {
    let list = At {
        value: section.one_or_more("trust", "\"10.0.0.0/8\"", mistakes),
        span: section.value_span("trust").unwrap_or_default(),
    };
    unique("trust", &list, network, mistakes)
}

fn accepts_proxy(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> bool {
    let accepts = section.boolean("accept_proxy", mistakes).unwrap_or(false);
    if accepts && !section.has("trust") {
        let span = section.key_span("accept_proxy").unwrap_or_default();
        let what = "`accept_proxy` is set, but [balancer] has no `trust`";
        let hint = "name the senders whose PROXY protocol header is believed: trust = [\"10.0.0.5\", \"10.0.0.6\"]";
        mistakes.add(&span, what, hint);
    }
    accepts
}

/// The VIPs, and the prefixes of those that have one.
type Vips = (Option<Vec<IpAddr>>, BTreeMap<IpAddr, u8>);

/// With `[]` there are none: clients connect to the balancers' own addresses.
fn vips(section: &Section<'_>, range: Option<&VipRange>, mistakes: &mut Mistakes<'_>) -> Vips {
    if section.length("vips") == Some(0) {
        return (Some(Vec::new()), BTreeMap::new());
    }
    let Some(list) = section.strings("vips", "[\"192.0.2.10\"]", mistakes) else {
        return Vips::default();
    };
    let vip = |text: &str| value::vip(text, range);
    let address = |text: &str| vip(text).map(|(address, _)| address);
    let vips = unique("vips", &list, address, mistakes);
    let prefix = |written: &At<String>| {
        let (address, prefix) = vip(&written.value).ok()?;
        Some((address, prefix?))
    };
    (Some(vips), list.value.iter().filter_map(prefix).collect())
}

/// Nobody but the operator knows which addresses of the machines' network are free.
fn vips_on_machines(
    section: &Section<'_>,
    machines: &Machines,
    mistakes: &mut Mistakes<'_>,
) -> Vips {
    if !section.has("vips") {
        let hint = "on machines name the addresses that clients use: vips = [\"203.0.113.100/24\"], or vips = [] if clients \
                    connect to the balancers' own addresses";
        mistakes.missing(section.span(), "[balancer] has no `vips`", hint);
    }
    let (vips, prefixes) = vips(section, None, mistakes);
    let written = vips.as_deref().unwrap_or_default();
    machines::no_vip_is_a_machines(section, written, machines, mistakes);
    (vips, prefixes)
}

fn https_is_taken(listen: &At<Vec<At<String>>>, mistakes: &mut Mistakes<'_>) {
    let port = format!(":{}", BalancerTls::PORT);
    for taken in listen.value.iter().filter(|written| written.value == port) {
        let what = format!("`listen` has {port}, where `tls` has HTTPS served");
        mistakes.add(&taken.span, what, "leave it out: it is served anyway");
    }
}

/// Certificates alone, or a table with more.
fn tls(
    section: &Section<'_>,
    around: &Surroundings<'_>,
    mistakes: &mut Mistakes<'_>,
) -> Option<BalancerTls> {
    const EXAMPLE: &str = "\"certificates/example.org.pem\"";
    if !section.has("tls") {
        return None;
    }
    if !section.has_table("tls") {
        let certificates = section.one_or_more("tls", EXAMPLE, mistakes);
        return Some(BalancerTls::new(paths("tls", &certificates, mistakes)));
    }
    let section = section.table("tls", "balancer.tls", mistakes)?;
    let certificates = section.one_or_more("certificates", EXAMPLE, mistakes);
    if !section.has("certificates") {
        let what = format!("[{}] has no `certificates`", section.name());
        let hint = format!("add certificates = {EXAMPLE}");
        mistakes.missing(section.span(), what, hint);
    }
    let (min_version, clients) =
        around.with_parts(|parts| proxy_file::balancer_tls(&section, parts, mistakes));
    Some(BalancerTls {
        min_version,
        clients,
        redirect: section.boolean("redirect", mistakes).unwrap_or(true),
        hsts_days: text(&section, "hsts", value::days, mistakes),
        ..BalancerTls::new(paths("certificates", &certificates, mistakes))
    })
}

fn paths(key: &str, written: &[At<String>], mistakes: &mut Mistakes<'_>) -> Vec<String> {
    let path = |path: &At<String>| checked(key, path, value::path, mistakes);
    written.iter().filter_map(path).collect()
}

fn web(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Web {
    let default = Web::default();
    let files = file_options::read(section, "web.cache_control", mistakes);
    Web {
        root: text(section, "root", value::inner_directory, mistakes).unwrap_or(default.root),
        app_paths: app_paths(section, &files, mistakes),
        compress: compress::read(section, ["web.compress", "web.compress.levels"], mistakes)
            .flatten(),
        files,
        ..default
    }
}

/// Paths that go to the app tier. Without `try` and `not_found` all do that are no files.
fn app_paths(
    section: &Section<'_>,
    files: &FileOptions,
    mistakes: &mut Mistakes<'_>,
) -> Vec<String> {
    let written = section.one_or_more("app_paths", "\"/api\"", mistakes);
    if section.has("app_paths") && !files.ends_the_search() {
        let span = section.key_span("app_paths").unwrap_or_default();
        let what =
            "`app_paths` has no effect: every request that no file answers goes to the app tier";
        let hint = "leave it out; it is for sites with a fixed name in `try`, or with `not_found`";
        mistakes.add(&span, what, hint);
    }
    let path = |path: &At<String>| checked("app_paths", path, value::app_path, mistakes);
    written.iter().filter_map(path).collect()
}

fn app(
    root: &Section<'_>,
    section: Option<&Section<'_>>,
    known: env::Known<'_>,
    mistakes: &mut Mistakes<'_>,
) -> App {
    let mut app = App::new(String::new());
    if !root.has("app") {
        let hint = "add [app] and below it run = \"COMMAND\", the command that starts the site";
        mistakes.missing(&(0..0), "the file has no [app]", hint);
        return app;
    }
    let Some(section) = section else {
        return app;
    };
    if let Some(instances) = section.number("instances", 1..=MAX_INSTANCES, mistakes) {
        app.instances = instances;
    }
    let example = "\"COMMAND\", the command that starts the site";
    section.need("run", example, mistakes);
    if let Some(run) = text(section, "run", value::command, mistakes) {
        app.run = run;
    }
    app.release = text(section, "release", value::command, mistakes);
    let (path, check) = proxy_file::health(section, mistakes);
    app.health = path.unwrap_or(app.health);
    app.check = check;
    app.maxconn = maxconn(section, mistakes).unwrap_or(app.maxconn);
    app.count_tunnels = section
        .boolean("count_tunnels", mistakes)
        .unwrap_or_default();
    app.queue_size = section.number("queue_size", 0..=1_000_000, mistakes);
    if section.has("ejection") {
        app.ejection = Some(proxy_file::ejection(section, mistakes));
    }
    app.slow_ejection = proxy_file::slow_ejection(section, mistakes);
    if let Some(grace) = text(section, "grace", duration, mistakes) {
        app.grace = grace;
    }
    app.limits = limits::of(section, mistakes);
    app.env = env::of_app(section, known, mistakes);
    app
}

/// A number, or `"none"`: no limit.
fn maxconn(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Option<Option<u32>> {
    if section.has_text("maxconn") {
        return text(section, "maxconn", value::no_maxconn, mistakes).map(|()| None);
    }
    section.number("maxconn", 1..=1_000_000, mistakes).map(Some)
}

/// With TLS between the tiers a proxy stands in front of the instance's port, and of no other.
fn no_port(section: &Section<'_>, mistakes: &mut Mistakes<'_>) {
    if let Some(span) = section.key_span("health") {
        let what = "`port` of `health` does not go with `encrypt` of [machines]";
        let hint = "leave it out: the instance's own port is checked, by TLS";
        mistakes.add(&span, what, hint);
    }
}

fn database(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Database {
    let default = Database::default();
    Database {
        strict: section
            .boolean("strict", mistakes)
            .unwrap_or(default.strict),
        maxconn: section.number("maxconn", 1..=1_000_000, mistakes),
        wait: text(section, "wait", duration, mistakes).unwrap_or(default.wait),
        ..default
    }
}

fn no_disk(section: &Section<'_>, mistakes: &mut Mistakes<'_>) {
    if let Some(span) = section.key_span("disk") {
        let what = "`disk` is of the lab, which makes the database servers' disks";
        mistakes.add(&span, what, "leave it out: a machine has its own");
    }
}

fn drill_of(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Drill {
    let default = Drill::default();
    Drill {
        rate: section.number("rate", 1..=10_000, mistakes),
        page: text(section, "page", url_path, mistakes).unwrap_or(default.page),
        read: text(section, "read", url_path, mistakes),
        write: section
            .table("write", "drill.write", mistakes)
            .map(|section| drill_write(&section, mistakes)),
        limits: drill_limits(section, mistakes),
        disk: text(section, "disk", value::disk, mistakes),
    }
}

fn drill_limits(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> DrillLimits {
    let default = DrillLimits::default();
    let most = 0..=1_000_000_u32;
    let failed: Option<u32> = section.number("max_failed", most.clone(), mistakes);
    let lost: Option<u32> = section.number("max_lost", most, mistakes);
    DrillLimits {
        max_outage: text(section, "max_outage", duration, mistakes).unwrap_or(default.max_outage),
        max_failed: failed.map(u64::from),
        max_lost: lost.map_or(default.max_lost, u64::from),
    }
}

fn drill_write(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> DrillWrite {
    let mut part = |key: &str, example: &str, check: fn(&str) -> Result<String, Wrong>| {
        section.need(key, example, mistakes);
        text(section, key, check, mistakes).unwrap_or_default()
    };
    DrillWrite {
        path: part("path", "\"/api/entries\"", url_path),
        body: part("body", "'{\"text\": \"{id}\"}'", body),
        look_up: part("look_up", "\"/api/entries/{id}\"", look_up),
    }
}

fn body(text: &str) -> Result<String, Wrong> {
    if text.contains("{id}") {
        return Ok(text.to_owned());
    }
    let hint = "put {id} where each write may have an id of its own: '{\"text\": \"{id}\"}'";
    Err(("does not contain `{id}`".into(), hint.into()))
}

fn look_up(text: &str) -> Result<String, Wrong> {
    let path = url_path(text)?;
    let field = path
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(field, _)| !field.is_empty());
    if field {
        return Ok(path);
    }
    let hint = "name a field of the write's answer in braces: \"/api/entries/{id}\"";
    Err(("does not identify a write".into(), hint.into()))
}

/// The number of a tier's servers, if it is written.
fn count(sections: &Sections<'_>, tier: Tier, config: &mut Config, mistakes: &mut Mistakes<'_>) {
    let section = sections.tier(tier);
    let servers = section.and_then(|section| section.number("servers", 1..=MAX_SERVERS, mistakes));
    servers
        .into_iter()
        .for_each(|servers| config.set_servers(tier, servers));
}

/// Every element parsed by `check`; a duplicate is a mistake.
fn unique<T: Ord + Copy>(
    key: &str,
    list: &At<Vec<At<String>>>,
    check: impl Fn(&str) -> Result<T, Wrong>,
    mistakes: &mut Mistakes<'_>,
) -> Vec<T> {
    if list.value.len() > MOST_ADDRESSES {
        let what = format!("`{key}` has {} values", list.value.len());
        mistakes.add(
            &list.span,
            what,
            format!("at most {MOST_ADDRESSES} are allowed"),
        );
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut values = Vec::new();
    for element in &list.value {
        let Some(value) = checked(key, element, &check, mistakes) else {
            continue;
        };
        if seen.insert(value) {
            values.push(value);
        } else {
            let what = format!("`{key}` has {} twice", shown(&element.value));
            mistakes.add(&element.span, what, "leave one of them out");
        }
    }
    values
}
