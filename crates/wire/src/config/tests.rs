mod balancer;
mod mistakes;

use super::{ConfigErrors, Surroundings, VipRange, load_in};
use gaiola_model::config::Variables;
use gaiola_model::config::{
    App, Balancer, BalancerTls, Database, DeployRules, Drill, DrillLimits, DrillWrite, HealthCheck,
    Limits, Machine, Overlap, Web,
};
use gaiola_model::proxy::{Compression, StatusRange};
use gaiola_model::{Config, Tier};
use proptest::prelude::*;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

const WHOLE: &str = r#"site = "guestbook"

[env]
TZ = "Europe/Lisbon"
THREADS = 4
DEBUG = false

[balancer]
servers = 3
vips = ["10.77.0.100", "10.77.0.120/16"]
vip_command = "/usr/local/bin/move-vip"
listen = [":80", ":8080"]
tls = { certificates = ["tls/a.pem", "/etc/tls"], redirect = false, hsts = "365d" }
trust = ["10.0.0.0/8", "2001:db8::7"]
accept_proxy = true
drain = "40s"
compress = true

[web]
servers = 4
root = "public"

[app]
servers = 5
instances = 2
run = "bin/guestbook"
release = "bin/guestbook migrate"
health = "/health"
maxconn = 50
grace = "30s"
env = { THREADS = 8, RATIO = 0.5 }

[database]
servers = 3
strict = true
maxconn = 4
wait = '500ms'

[drill]
rate = 200
page = "/index.html"
read = "/api/entries"
max_outage = "45s"
max_failed = 700
max_lost = 1
disk = "4GiB"

[drill.write]
path = "/api/entries"
body = '{"author": "drill", "text": "{id}"}'
look_up = "/api/entries/{id}"
"#;

/// With a provider that has 10.77.0.0/16, of which 10.77.1.0/24 is the servers' own.
fn load(text: &str) -> Result<Config, ConfigErrors> {
    load_in(text, &surroundings())
}

fn in_directory(text: &str, directory: &str) -> Result<Config, ConfigErrors> {
    let around = Surroundings {
        directory: Some(directory),
        ..surroundings()
    };
    load_in(text, &around)
}

fn surroundings() -> Surroundings<'static> {
    let servers = "10.77.1.0/24".parse().unwrap();
    Surroundings {
        directory: None,
        proxy: None,
        vips: Some(VipRange {
            networks: vec!["10.77.0.0/16".parse().unwrap()],
            taken: vec![(servers, "is a server's".into())],
            example: [10, 77, 0, 100].into(),
        }),
        read: Some(&|path| {
            match path {
            "shop.env" => Ok("TZ=UTC\nMODE=live\n".into()),
            "wrong.env" => Ok("# all of it\nPORT=1\nMODE\nA=1\nA=2\nMIIEvgIBADANBg/kqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQ==\n".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
        }),
        secrets: None,
    }
}

/// What is said of a text, one line for each mistake.
fn said(text: &str) -> Vec<String> {
    match load(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.mistakes().iter().map(ToString::to_string).collect(),
    }
}

/// What is said of the body of `[app]` beside its `run`, which stands on line 3.
fn said_of_app(line: &str) -> String {
    said(&format!("site = 'a'\n[app]\nrun = 'x'\n{line}")).join("\n")
}

#[test]
fn every_key_is_read() {
    let expected = Config {
        site: "guestbook".parse().unwrap(),
        balancer: Some(Balancer {
            servers: 3,
            vips: Some(vec![
                "10.77.0.100".parse().unwrap(),
                "10.77.0.120".parse().unwrap(),
            ]),
            prefixes: [("10.77.0.120".parse().unwrap(), 16)].into(),
            listen: vec![80, 8080],
            tls: Some(BalancerTls {
                contents: String::new(),
                certificates: vec!["tls/a.pem".into(), "/etc/tls".into()],
                redirect: false,
                hsts_days: Some(365),
                ..BalancerTls::new(Vec::new())
            }),
            vip_command: Some("/usr/local/bin/move-vip".into()),
            trust: ["10.0.0.0/8", "2001:db8::7/128"]
                .map(|network| network.parse().unwrap())
                .into(),
            accept_proxy: true,
            drain: Some(Duration::from_secs(40)),
            proxy: Default::default(),
            compress: Some(Compression::default()),
        }),
        web: Some(Web {
            servers: 4,
            ..Web::default()
        }),
        app: App {
            servers: 5,
            instances: 2,
            run: "bin/guestbook".into(),
            release: Some("bin/guestbook migrate".into()),
            health: "/health".into(),
            maxconn: Some(50),
            grace: Duration::from_secs(30),
            env: variables([("RATIO", "0.5"), ("THREADS", "8")]),
            ..App::new("")
        },
        workers: Default::default(),
        crons: Default::default(),
        database: Some(Database {
            servers: 3,
            strict: true,
            maxconn: Some(4),
            wait: Duration::from_millis(500),
        }),
        drill: Some(Drill {
            rate: Some(200),
            page: "/index.html".into(),
            read: Some("/api/entries".into()),
            write: Some(DrillWrite {
                path: "/api/entries".into(),
                body: r#"{"author": "drill", "text": "{id}"}"#.into(),
                look_up: "/api/entries/{id}".into(),
            }),
            limits: DrillLimits {
                max_outage: Duration::from_secs(45),
                max_failed: Some(700),
                max_lost: 1,
            },
            disk: Some(4 << 30),
        }),
        env: variables([
            ("DEBUG", "false"),
            ("THREADS", "4"),
            ("TZ", "Europe/Lisbon"),
        ]),
        env_file: None,
        machines: None,
    };
    let all = [
        ("DEBUG", "false"),
        ("RATIO", "0.5"),
        ("THREADS", "8"),
        ("TZ", "Europe/Lisbon"),
    ];
    assert_eq!(expected.app_env(), variables(all));
    assert_eq!(load(WHOLE), Ok(expected));
}

#[test]
fn a_secret_that_is_not_there_is_reported_where_it_is_referred_to() {
    let text = "site = 'shop'\nenv_file = 'shop.env'\n[env]\nKEY = '{secret.KEY}'\nURL = 'redis://:{secret.REDIS}@db'\n[app]\nrun = 'x'";
    let known = ["KEY".parse().unwrap()].into();
    let around = Surroundings {
        secrets: Some(&known),
        ..surroundings()
    };
    let errors = load_in(text, &around).unwrap_err();
    let expected = "f:5:7: `URL` refers to the secret REDIS, which is not there; set it with: gaiola secret set REDIS";
    assert_eq!(errors.in_file("f").to_string().trim(), expected);
    let unknown = load(text).unwrap();
    assert_eq!(unknown.env["KEY"], "{secret.KEY}", "{unknown:?}");
}

#[test]
fn a_file_of_variables_is_below_those_of_the_file_itself() {
    let text = "site = 'a'\nenv_file = 'shop.env'\n[env]\nTZ = 'Europe/Lisbon'\n[app]\nrun = 'x'";
    let expected = variables([("MODE", "live"), ("TZ", "Europe/Lisbon")]);
    assert_eq!(load(text).unwrap().env, expected);
}

fn variables<const N: usize>(all: [(&str, &str); N]) -> Variables {
    all.map(|(name, value)| (name.into(), value.into())).into()
}

const ON_MACHINES: &str = r#"
site = "shop"
[balancer]
servers = ["lb-a.example.net", "lb-b.example.net"]
vips = ["203.0.113.100/24"]
[web]
servers = ["web-a", { ssh = "deploy@web-b", address = "10.0.0.22", interface = "ens4" }]
[app]
run = "bin/shop"
servers = ["deploy@web-b", "web-a"]
[database]
servers = ["db-a"]
[machines]
spare = ["m-9", { ssh = "m-10", address = "10.0.0.30" }]
power = "bin/power"
firewall = false
encrypt = true
replace = "auto"
replace_after = "90s"
"#;

#[test]
fn a_file_may_name_machines() {
    let config = load(ON_MACHINES).unwrap();
    let machines = config.machines.as_ref().unwrap();
    let on = machines.servers.iter();
    let on: Vec<String> = on.map(|(name, on)| format!("{name} {}", on.ssh)).collect();
    assert_eq!(
        on,
        [
            "lb1 lb-a.example.net",
            "lb2 lb-b.example.net",
            "web1 web-a",
            "web2 deploy@web-b",
            "app1 deploy@web-b",
            "app2 web-a",
            "db1 db-a",
        ]
    );
    // What is written once of a machine holds for all of its servers.
    let whole = Machine {
        address: Some([10, 0, 0, 22].into()),
        interface: Some("ens4".into()),
        ..Machine::new("deploy@web-b")
    };
    for server in ["web2", "app1"] {
        assert_eq!(machines.servers[&server.parse().unwrap()], whole);
    }
    let spare: Vec<&str> = machines
        .spare
        .iter()
        .map(|spare| spare.ssh.as_str())
        .collect();
    assert_eq!(spare, ["m-9", "m-10"]);
    assert_eq!(machines.power.as_deref(), Some("bin/power"));
    assert!(!machines.firewall && machines.encrypt && machines.lost.is_empty());
    assert_eq!(machines.replace_after, Some(Duration::from_secs(90)));
    assert_eq!(Tier::ALL.map(|tier| config.servers(tier)), [2, 2, 2, 1]);
    assert_eq!(config.app.servers, 2);
    let balancer = config.balancer.unwrap();
    let vip = IpAddr::from([203, 0, 113, 100]);
    assert_eq!(balancer.vips(), [vip]);
    assert_eq!(balancer.prefixes, [(vip, 24)].into());
}

#[test]
fn a_site_may_stand_on_one_machine() {
    let tiers = "[balancer]\nservers = ['a']\nvips = []\n[web]\nservers = ['a']\n[database]\nservers = ['a']";
    let config = load(&format!(
        "site = 's'\n[app]\nrun = 'x'\nservers = ['a']\n{tiers}"
    ));
    let config = config.unwrap();
    assert_eq!(config.server_names().count(), 4);
    assert_eq!(config.machines.unwrap().all(), [&Machine::new("a")]);
    assert_eq!(config.balancer.unwrap().vips, Some(Vec::new()));
}

#[test]
fn tiers_speak_tls_only_where_no_client_connects_to_instances() {
    let app = "site = 's'\n[app]\nrun = 'x'\nservers = ['a']\n";
    let encrypt = "[machines]\nencrypt = true\n";
    let why = "6:11: `encrypt` is true, but clients connect to the instances themselves; ";
    let said = said(&format!("{app}{encrypt}"));
    assert!(said.len() == 1 && said[0].starts_with(why), "{said:?}");
    let web = format!("{app}{encrypt}[web]\nservers = ['a']");
    assert!(load(&web).unwrap().encrypts());
    assert!(
        !load(&format!("{app}[machines]\nencrypt = false"))
            .unwrap()
            .encrypts()
    );
}

#[test]
fn the_examples_of_the_documentation_are_read() {
    let page = include_str!("../../../../docs/file.md");
    let examples: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let [
        whole,
        least,
        on_machines,
        env,
        secrets,
        balancer,
        health,
        workers,
        crons,
    ] = examples[..]
    else {
        panic!("{examples:?}")
    };
    let with_env = load(&format!("{whole}\n{env}")).unwrap();
    assert_eq!(with_env.env["WEB_CONCURRENCY"], "4");
    let with_health = format!("site = 'a'\n[app]\nrun = 'x'\n{health}");
    assert_eq!(load(&with_health).unwrap().app.check.fall, Some(3));
    let with_balancer = format!("site = 'a'\n[app]\nrun = 'x'\n{balancer}");
    let around = Surroundings {
        read: Some(&|_| Ok("page".into())),
        ..Surroundings::default()
    };
    let config = load_in(&with_balancer, &around).unwrap();
    assert_eq!(config.host(), Some("shop.example.net"));
    assert!(load(whole).is_ok());
    let with_secrets = load(&format!("{whole}\n{secrets}")).unwrap();
    assert_eq!(
        gaiola_model::secret::referred(with_secrets.env.values()).len(),
        2
    );
    let with_workers = load(&format!("{whole}\n{workers}")).unwrap();
    let [mail, scheduler] =
        ["mail", "scheduler"].map(|kind| &with_workers.workers[&kind.parse().unwrap()]);
    assert_eq!((mail.instances, mail.servers), (2, None));
    assert_eq!((scheduler.instances, scheduler.servers), (1, Some(1)));
    let with_crons = load(&format!("{whole}\n{crons}")).unwrap();
    let [clean, report] = ["clean", "report"].map(|name| &with_crons.crons[&name.parse().unwrap()]);
    assert_eq!(
        (clean.overlap, clean.timeout.as_secs()),
        (Overlap::Skip, 3600)
    );
    assert_eq!(
        (report.overlap, report.timeout.as_secs()),
        (Overlap::Queue, 7200)
    );
    let config = load(on_machines).unwrap();
    assert_eq!(config.machines.unwrap().all().len(), 10);
    let config = in_directory(least, "guestbook").unwrap();
    assert_eq!(config.app, App::new("bin/guestbook"));
    assert_eq!(
        said("[balancer]\nserver = 3\n[app]\nrun = 'x'\nhealth = 'up'\n[web]")[1..],
        [
            "2:1: unknown key \"server\" in [balancer]; did you mean `servers`?",
            "5:10: `health` \"up\" does not begin with `/`; write it as \"/up\"",
        ]
    );
}

#[test]
fn web_servers_may_answer_for_missing_files() {
    let site = |web: &str| format!("site = 'a'\n[app]\nrun = 'x'\n[web]\n{web}");
    let text = site(
        "try = 'index.html'\napp_paths = ['/api', '/up/']\ncache_control = { '*' = 'no-cache' }",
    );
    let web = load(&text).unwrap().web.unwrap();
    assert_eq!(web.files.tries, ["/index.html"]);
    assert_eq!(web.app_paths, ["/api", "/up"]);
    assert_eq!(web.files.cache_control[0].value, "no-cache");
    assert_eq!(
        said(&site(
            "try = '{path}.html'\napp_paths = ['/api/*', 'x', '/']"
        )),
        [
            "6:1: `app_paths` has no effect: every request that no file answers goes to the app tier; leave it out; it is for sites with a fixed name in `try`, or with `not_found`",
            "6:14: `app_paths` \"/api/*\" contains \"*\", which no path has as it is compared; write it as \"/api\": all below it is meant too",
            "6:24: `app_paths` \"x\" does not begin with `/`; write it as \"/x\": all below it is meant too",
            "6:29: `app_paths` \"/\" matches no path, or all; write it as \"/api\": all below it is meant too",
        ]
    );
}

#[test]
fn all_but_run_has_a_default() {
    let text = "[balancer]\n[web]\n[app]\nrun = 'x'\n[database]\n[drill]";
    let config = in_directory(text, "guestbook").unwrap();
    let balancer = config.balancer.unwrap();
    assert_eq!(balancer, Balancer::default());
    assert_eq!(balancer.vips, None);
    assert_eq!(config.web, Some(Web::default()));
    assert_eq!(config.app, App::new("x"));
    assert_eq!(config.database, Some(Database::default()));
    assert_eq!(config.drill, Some(Drill::default()));
    assert_eq!(config.site.as_str(), "guestbook");
}

#[test]
fn a_tier_that_is_left_out_is_not_there() {
    let config = load("site = 'a'\napp.run = 'x'").unwrap();
    assert_eq!((config.balancer, config.web), (None, None));
    assert_eq!((config.database, config.drill), (None, None));
}

#[test]
fn the_name_in_the_file_wins_over_the_directorys() {
    let text = "site = 'a'\n[app]\nrun = 'x'";
    assert_eq!(in_directory(text, "b").unwrap().site.as_str(), "a");
    let errors = in_directory("[app]\nrun = 'x'", "My Site").unwrap_err();
    assert_eq!(errors.mistakes()[0].what, "the file has no `site`");
}

#[test]
fn tls_is_a_path_or_a_table() {
    let tls = |line: &str| {
        let text = format!("site = 'a'\n[balancer]\n{line}\n[app]\nrun = 'x'");
        load(&text).map(|config| config.balancer.unwrap().tls)
    };
    let one = Ok(Some(BalancerTls::new(vec!["a.pem".into()])));
    assert_eq!(tls("tls = 'a.pem'"), one);
    assert_eq!(tls("tls = { certificates = ['a.pem'] }"), one);
    assert_eq!(tls(""), Ok(None));
    for (line, expected) in [
        (
            "listen = [':80', ':443']\ntls = 'a.pem'",
            "`listen` has :443, where `tls` has HTTPS served",
        ),
        ("tls = ''", "`tls` \"\" is not a path"),
        (
            "tls = { hsts = '1d' }",
            "[balancer.tls] has no `certificates`",
        ),
        (
            "tls = { certificates = 'a', hsts = '1y' }",
            "`hsts` \"1y\" is not a number of days",
        ),
        (
            "tls = { certificates = 'a', hsts = '9999d' }",
            "`hsts` \"9999d\" is not a number of days",
        ),
        ("tls = 5", "`tls` is a number"),
    ] {
        let mistakes = tls(line).unwrap_err().to_string();
        assert!(mistakes.contains(expected), "{mistakes}");
    }
}

/// Whatever the text: no panic, at least one mistake where there is no configuration, each on a line of the text,
/// in order, on one line itself.
fn check_shape(text: &str) {
    let Err(errors) = load(text) else { return };
    let mistakes = errors.mistakes();
    assert!(!mistakes.is_empty());
    assert!(mistakes.is_sorted_by_key(|mistake| (mistake.line, mistake.column)));
    for mistake in mistakes {
        assert!((1..=text.split('\n').count()).contains(&mistake.line));
        assert!(mistake.column >= 1);
        assert!(!mistake.what.is_empty() && !mistake.hint.is_empty());
        assert!(
            !mistake.to_string().contains(char::is_control),
            "{mistake:?}"
        );
    }
}

fn toml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[app]"),
        Just("[drill.write]"),
        Just("[machines]"),
        Just("spare"),
        Just("ssh"),
        Just("address"),
        Just("[[web]]"),
        Just("run"),
        Just("servers"),
        Just("vips"),
        Just("listen"),
        Just("site"),
        Just("="),
        Just(" "),
        Just("\n"),
        Just("\""),
        Just("'"),
        Just("\"\"\""),
        Just("'''"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just("."),
        Just("0x"),
        Just("1"),
        Just("-"),
        Just("99999999999999999999"),
        Just("nan"),
        Just("1e400"),
        Just("true"),
        Just(":80"),
        Just("2024-01-01T00:00:00Z"),
        Just("\\u0000"),
        Just("\\"),
        Just("é"),
        Just("\r"),
        Just("#"),
        Just("\u{0}"),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        check_shape(&text);
    }

    #[test]
    fn no_text_that_looks_like_toml_makes_it_panic(text in toml_like()) {
        check_shape(&text);
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(
        at in any::<prop::sample::Index>(), length in 0..40usize, put in ".{0,8}"
    ) {
        let characters: Vec<char> = WHOLE.chars().collect();
        let from = at.index(characters.len());
        let to = (from + length).min(characters.len());
        let text: String = characters[..from].iter().copied()
            .chain(put.chars())
            .chain(characters[to..].iter().copied())
            .collect();
        check_shape(&text);
    }

    #[test]
    fn a_number_in_its_range_is_taken_and_another_refused(servers in any::<i64>()) {
        let loaded = load(&format!("site = 'a'\n[app]\nrun = 'x'\nservers = {servers}"));
        prop_assert_eq!(loaded.is_ok(), (1..=99).contains(&servers));
    }
}

#[test]
fn health_is_a_path_or_a_table_with_more() {
    let app = |lines: &str| {
        let text = format!("site = 'a'\n[app]\nrun = 'x'\n{lines}");
        load(&text).unwrap().app
    };
    let (usual, path) = (app(""), app("health = '/ok'"));
    assert_eq!(
        (usual.health.as_str(), path.health.as_str()),
        ("/up", "/ok")
    );
    assert!(usual.check.is_usual() && path.check.is_usual());
    let whole = app(
        "health = { host = 'shop.example', headers = { X-Probe = '1' }, status = '200-299,401', \
         interval = '2s', timeout = '1s', fall = 4, port = 9000 }",
    );
    let expected = HealthCheck {
        host: Some("shop.example".into()),
        headers: [("X-Probe".into(), "1".into())].into(),
        status: vec![
            StatusRange {
                first: 200,
                last: 299,
            },
            StatusRange::only(401),
        ],
        interval: Some(Duration::from_secs(2)),
        timeout: Some(Duration::from_secs(1)),
        fall: Some(4),
        port: Some(9000),
    };
    assert_eq!((whole.health.as_str(), whole.check), ("/up", expected));
    let one = app("health = { path = '/ok', status = 204 }");
    assert_eq!(one.check.status, [StatusRange::only(204)]);
}

#[test]
fn instances_and_workers_may_be_limited() {
    let text = "site = 'a'\n[app]\nrun = 'x'\nmemory = '512MiB'\ncpu = 1.5\ntasks = 100\n\
                [worker.mail]\nrun = 'y'\ncpu = 2";
    let config = load(text).unwrap();
    let limits = Limits {
        memory: Some(512 << 20),
        cpu: Some(1500),
        tasks: Some(100),
    };
    assert_eq!(config.app.limits, limits);
    let words = "512 MiB of memory, 1.5 processors, 100 tasks";
    assert_eq!(limits.in_words(), words);
    let mail = &config.workers[&"mail".parse().unwrap()];
    assert_eq!((mail.limits.cpu, mail.limits.memory), (Some(2000), None));
    let unlimited = load("site = 'a'\n[app]\nrun = 'x'").unwrap().app.limits;
    assert!(unlimited.is_none() && unlimited.in_words() == "no limits");
}

#[test]
fn when_a_release_is_given_up_can_be_set() {
    let rules = |lines: &str| {
        let text = format!("site = 'a'\n[app]\nrun = 'x'\n[deploy]\n{lines}");
        load(&text).map(|config| config.app.deploy)
    };
    assert_eq!(rules(""), Ok(DeployRules::default()));
    let set = rules("compare = false\nerrors = 1\nslower = 1.5\nrequests = 200\nwatch = '20s'");
    let expected = DeployRules {
        compare: false,
        errors: 1,
        slower: 1500,
        requests: 200,
        watch: Duration::from_secs(20),
    };
    assert_eq!(set, Ok(expected));
    let wrong = rules("errors = 101\nslower = 1\nwatch = '1h'\nmargin = 3").unwrap_err();
    let lines = wrong.mistakes().iter().map(|mistake| mistake.line);
    assert_eq!(lines.collect::<Vec<_>>(), [5, 6, 7, 8]);
}

#[test]
fn an_instance_has_a_maxconn_unless_the_file_wants_none() {
    let app = |lines: &str| {
        let text = format!("site = 'a'\n[app]\nrun = 'x'\n{lines}");
        load(&text).unwrap().app
    };
    assert_eq!(app("").maxconn, Some(App::MAXCONN));
    assert_eq!(app("maxconn = 5").maxconn, Some(5));
    assert_eq!(app("maxconn = 'none'").maxconn, None);
    let set = app(
        "count_tunnels = true\nqueue_size = 50\nejection = { error_limit = 5 }\n\
         slow_ejection = { factor = 300, after = '10s' }",
    );
    assert!(set.count_tunnels && set.queue_size == Some(50));
    assert_eq!(set.ejection.unwrap().error_limit, 5);
    assert_eq!(set.slow_ejection.unwrap().factor, 300);
}
