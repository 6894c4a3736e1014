use super::{ConfigErrors, Surroundings, VipRange, load_in};
use gaiola_model::Config;
use gaiola_model::config::{
    App, Balancer, BalancerTls, Database, Drill, DrillLimits, DrillWrite, Web,
};
use proptest::prelude::*;
use std::time::Duration;

const WHOLE: &str = r#"site = "guestbook"

[balancer]
servers = 3
vips = ["10.77.0.100", "10.77.0.120"]
listen = [":80", ":8080"]
tls = { certificates = ["tls/a.pem", "/etc/tls"], redirect = false, hsts = "365d" }

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
        vips: Some(VipRange {
            network: "10.77.0.0/16".parse().unwrap(),
            taken: vec![(servers, "is a server's".into())],
            example: [10, 77, 0, 100].into(),
        }),
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
            listen: vec![80, 8080],
            tls: Some(BalancerTls {
                contents: String::new(),
                certificates: vec!["tls/a.pem".into(), "/etc/tls".into()],
                redirect: false,
                hsts_days: Some(365),
            }),
        }),
        web: Some(Web {
            servers: 4,
            root: "public".into(),
        }),
        app: App {
            servers: 5,
            instances: 2,
            run: "bin/guestbook".into(),
            release: Some("bin/guestbook migrate".into()),
            health: "/health".into(),
            maxconn: Some(50),
            grace: Duration::from_secs(30),
        },
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
    };
    assert_eq!(load(WHOLE), Ok(expected));
}

#[test]
fn the_examples_of_the_documentation_are_read() {
    let page = include_str!("../../../../docs/file.md");
    let examples: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let [whole, least] = examples[..] else {
        panic!("{examples:?}")
    };
    assert!(load(whole).is_ok());
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
        ("tls = ''", "`tls` \"\" is no path"),
        (
            "tls = { hsts = '1d' }",
            "[balancer.tls] has no `certificates`",
        ),
        (
            "tls = { certificates = 'a', hsts = '1y' }",
            "`hsts` \"1y\" is no number of days",
        ),
        (
            "tls = { certificates = 'a', hsts = '9999d' }",
            "`hsts` \"9999d\" is no number of days",
        ),
        ("tls = 5", "`tls` is a number"),
    ] {
        let mistakes = tls(line).unwrap_err().to_string();
        assert!(mistakes.contains(expected), "{mistakes}");
    }
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_lines() {
    let text = r#"site = "Guest Book"
[balancer]
servers = 0
vips = ["10.77.1.5", "10.77.0.100", "10.77.0.100", 5]
listen = ["80", ":7071", ":80", ":80"]
[web]
root = "../secrets"
instances = 2
[app]
servers = "two"
instances = 51
release = ""
health = "up"
maxconn = 0
grace = "10"
[databse]
[drill]
rate = 1.5
[drill.write]
path = "/a"
body = "{}"
"#;
    let expected = [
        r#"1:8: `site` "Guest Book" is not a site's name; take 1 to 32 of a-z, 0-9 and -, beginning with a letter"#,
        "3:11: `servers` is 0; it is from 1 to 99",
        r#"4:9: `vips` "10.77.1.5" is a server's; take addresses from 10.77.0.100 up"#,
        r#"4:37: `vips` has "10.77.0.100" twice; leave one of them out"#,
        r#"4:52: `vips` holds a number, but is to hold strings; write it as vips = ["192.0.2.10"]"#,
        r#"5:11: `listen` "80" does not begin with `:`; write a port as ":80"; it is served on every VIP"#,
        r#"5:17: `listen` ":7071" is a port that Gaiola itself listens on; take one other than 2379, 2380, 7071 and 9180 to 9199"#,
        r#"5:33: `listen` has ":80" twice; leave one of them out"#,
        r#"7:8: `root` "../secrets" leads outside by `..`; name a directory below this file's own, such as "public""#,
        r#"8:1: unknown key "instances" in [web]; `instances` belongs in [app]"#,
        r#"9:2: [app] has no `run`; add run = "COMMAND", the command that starts the site"#,
        "10:11: `servers` is a string, but is to be a whole number; write a number from 1 to 99, without quotes",
        "11:13: `instances` is 51; it is from 1 to 50",
        r#"12:11: `release` "" is empty; write a command, such as "bin/guestbook""#,
        r#"13:10: `health` "up" does not begin with `/`; write it as "/up""#,
        "14:11: `maxconn` is 0; it is from 1 to 1000000",
        r#"15:9: `grace` "10" is not a duration; write a number and ms, s, m or h, at most 1h: "500ms", "10s""#,
        r#"16:2: unknown key "databse"; did you mean `database`?"#,
        "18:8: `rate` is a number with a fraction, but is to be a whole number; write a number from 1 to 10000, without quotes",
        r#"19:8: [drill.write] has no `look_up`; add look_up = "/api/entries/{id}""#,
        r#"21:8: `body` "{}" does not contain `{id}`; put {id} where an id may stand that no other write has: '{"text": "{id}"}'"#,
    ];
    assert_eq!(said(text), expected);
}

#[test]
fn an_unknown_key_is_answered_with_the_one_that_was_meant() {
    for (written, meant) in [
        ("healht = 1", "did you mean `health`?"),
        ("Instances = 1", "did you mean `instances`?"),
        ("max-conn = 1", "did you mean `maxconn`?"),
        ("root = 1", "`root` belongs in [web]"),
        (
            "site = 1",
            "`site` stands at the top of the file, before every [section]",
        ),
        ("look_up = 1", "`look_up` belongs in [drill.write]"),
        (
            "colour = 1",
            "known here: servers, instances, run, release, health, maxconn, grace",
        ),
    ] {
        let said = said_of_app(written);
        assert!(said.starts_with("4:1: unknown key"), "{said}");
        assert!(said.ends_with(meant), "{said}");
    }
    assert_eq!(
        said("site = 'a'\n[app]\nrun = 'x'\n[db]\n[lb]"),
        [
            r#"4:2: unknown key "db"; did you mean `database`?"#,
            r#"5:2: unknown key "lb"; did you mean `balancer`?"#,
        ]
    );
}

#[test]
fn what_only_a_proxy_by_itself_can_be_told_is_answered_so() {
    let file = "of the file of a proxy by itself, `gaiola proxy -f FILE` (docs/proxy.md)";
    for (line, place) in [
        ("[balancer]\ntrust = '10.0.0.0/8'", "[frontend.NAME]"),
        (
            "[balancer]\ntimeouts = { client = '5s' }",
            "the top or [frontend.NAME] or [frontend.NAME.route] or [backend.NAME]",
        ),
        ("[balancer]\nqueue-size = 5", "[backend.NAME]"),
        (
            "[balancer.tls]\ncertificates = ['a.pem']\nmin_version = '1.3'",
            "[frontend.NAME.bind.tls]",
        ),
        (
            "[limit.logins]",
            "the top or [frontend.NAME.route.rule] or [frontend.NAME.rule]",
        ),
    ] {
        let said = said(&format!("site = 'a'\n[app]\nrun = 'x'\n{line}"));
        assert_eq!(said.len(), 1, "{said:?}");
        let hint =
            format!("; a site's balancers cannot be told this yet: it stands in {place} {file}");
        assert!(
            said[0].contains("unknown key") && said[0].ends_with(&hint),
            "{said:?}"
        );
    }
}

#[test]
fn values_of_a_wrong_kind_are_told_with_how_to_write_them() {
    for (written, expected) in [
        (
            "release = 5",
            "4:11: `release` is a number, but is to be a string; write it in quotes: release = \"5\"",
        ),
        (
            "release = ['a']",
            "4:11: `release` is a list, but is to be a string; write one value in quotes: release = \"...\"",
        ),
        (
            "grace = 2024-01-01",
            "4:9: `grace` is a date, but is to be a string; write one value in quotes: grace = \"...\"",
        ),
        (
            "[database]\nstrict = 'yes'",
            "5:10: `strict` is a string, but is to be true or false; write true or false, without quotes",
        ),
        (
            "[balancer]\nlisten = ':80'",
            "5:10: `listen` is a string, but is to be a list; write it as listen = [\":80\"]",
        ),
        (
            "[balancer]\nvips = []",
            "5:8: `vips` is empty; write it as vips = [\"192.0.2.10\"]",
        ),
        (
            "[[web]]",
            "4:1: `web` is a list, but is to be a table; write it as [web] with its keys below",
        ),
        (
            "servers = 99999999999999999999999",
            "4:11: `servers` is 99999999999999999999999; it is from 1 to 99",
        ),
    ] {
        assert_eq!(said_of_app(written), expected);
    }
}

#[test]
fn a_file_without_site_or_app_says_what_to_add() {
    let expected = [
        "1:1: the file has no `site`; add site = \"guestbook\" before every [section]",
        "1:1: the file has no [app]; add [app] and below it run = \"COMMAND\", the command that starts the site",
    ];
    assert_eq!(said(""), expected);
}

#[test]
fn a_site_is_not_named_as_what_postgresql_keeps() {
    for name in ["postgres", "template1", "pg-site", "public"] {
        let said = said(&format!("site = '{name}'\n[app]\nrun = 'x'")).join("\n");
        assert!(said.contains("keeps for itself"), "{said}");
    }
}

#[test]
fn broken_syntax_is_told_with_the_other_mistakes_and_once_a_line() {
    let text = "site = guestbook\n[app]\nrun = 'x\nservers = = 3\ninstances = 99\nhealth = \"/up\n";
    let said = said(text);
    let places: Vec<&str> = said
        .iter()
        .map(|line| line.split_once(": ").unwrap().0)
        .collect();
    assert_eq!(places, ["1:8", "3:9", "4:11", "5:13", "6:14"], "{said:#?}");
}

#[test]
fn what_may_stand_on_a_broken_line_is_not_called_missing() {
    let said = said("site = 'a'\n[app]\nrun = \n");
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].starts_with("3:"), "{said:#?}");
}

#[test]
fn a_mistake_is_shown_with_file_line_and_column() {
    let errors = load("site = 'é'\n[app]\nrun = 'x'\nhealth = 'up'").unwrap_err();
    assert_eq!(
        errors.in_file("a/gaiola.toml").to_string(),
        "a/gaiola.toml:1:8: `site` \"é\" is not a site's name; take 1 to 32 of a-z, 0-9 and -, beginning with a letter\n\
         a/gaiola.toml:4:10: `health` \"up\" does not begin with `/`; write it as \"/up\""
    );
}

#[test]
fn a_file_may_have_carriage_returns_and_a_byte_order_mark() {
    let text = format!("\u{feff}{}", WHOLE.replace('\n', "\r\n"));
    assert_eq!(load(&text), load(WHOLE));
}

#[test]
fn a_huge_file_is_refused_unread() {
    let text = "#".repeat((1 << 20) + 1);
    assert_eq!(said(&text).len(), 1);
}

#[test]
fn deep_nesting_is_a_mistake_like_another() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a = ".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
    ] {
        assert!(!said(&text).is_empty());
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
