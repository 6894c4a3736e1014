//! Mistakes, each with its place and what to write instead.

use super::*;
#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_lines() {
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
        r#"1:8: `site` "Guest Book" is not a site name; use 1 to 32 of a-z, 0-9 and -, beginning with a letter"#,
        "3:11: `servers` is 0; it is from 1 to 99",
        r#"4:9: `vips` "10.77.1.5" is a server's; take addresses from 10.77.0.100 up"#,
        r#"4:37: `vips` has "10.77.0.100" twice; leave one of them out"#,
        r#"4:52: `vips` holds a number, but must hold strings; write it as vips = ["192.0.2.10"]"#,
        r#"5:11: `listen` "80" does not begin with `:`; write a port as ":80"; it is served on every VIP"#,
        r#"5:17: `listen` ":7071" is a port that Gaiola itself listens on; use one other than 2379, 2380, 7071 and 9180 to 9199"#,
        r#"5:33: `listen` has ":80" twice; leave one of them out"#,
        r#"7:8: `root` "../secrets" leads outside by `..`; name a directory below this file's own, such as "public""#,
        r#"8:1: unknown key "instances" in [web]; `instances` belongs in [app] or [worker.NAME]"#,
        r#"9:2: [app] has no `run`; add run = "COMMAND", the command that starts the site"#,
        "10:11: `servers` is a string, but must be a whole number; write a number from 1 to 99, without quotes",
        "11:13: `instances` is 51; it is from 1 to 50",
        r#"12:11: `release` "" is empty; write a command, such as "bin/guestbook""#,
        r#"13:10: `health` "up" does not begin with `/`; write it as "/up""#,
        "14:11: `maxconn` is 0; it is from 1 to 1000000",
        r#"15:9: `grace` "10" is not a duration; write a number and ms, s, m or h, at most 1h: "500ms", "10s""#,
        r#"16:2: unknown key "databse"; did you mean `database`?"#,
        "18:8: `rate` is a number with a fraction, but must be a whole number; write a number from 1 to 10000, without quotes",
        r#"19:8: [drill.write] has no `look_up`; add look_up = "/api/entries/{id}""#,
        r#"21:8: `body` "{}" does not contain `{id}`; put {id} where each write may have an id of its own: '{"text": "{id}"}'"#,
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
            "`site` belongs at the top of the file, before every [section]",
        ),
        ("look_up = 1", "`look_up` belongs in [drill.write]"),
        (
            "colour = 1",
            "known here: servers, instances, run, release, health, maxconn, count_tunnels, queue_size, ejection, slow_ejection, grace, memory, cpu, tasks, env",
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
fn settings_of_a_standalone_proxy_are_answered_so() {
    let file = "of the file of a proxy by itself, `gaiola proxy -f FILE` (docs/proxy.md)";
    for (line, place) in [
        ("[balancer]\nall_spares = true", "[backend.NAME]"),
        ("[balancer]\nqueue-when-down = true", "[backend.NAME]"),
        ("[balancer]\nworkers = 5", "the top"),
        (
            "[balancer.tls]\ncertificates = ['a.pem']\nalpn = 'http/1.1'",
            "[frontend.NAME.bind.tls]",
        ),
    ] {
        let said = said(&format!("site = 'a'\n[app]\nrun = 'x'\n{line}"));
        assert_eq!(said.len(), 1, "{said:?}");
        let hint =
            format!("; a site's balancers do not have this setting: it belongs in {place} {file}");
        assert!(
            said[0].contains("unknown key") && said[0].ends_with(&hint),
            "{said:?}"
        );
    }
}

#[test]
fn values_of_a_wrong_kind_are_reported_with_how_to_write_them() {
    for (written, expected) in [
        (
            "release = 5",
            "4:11: `release` is a number, but must be a string; write it in quotes: release = \"5\"",
        ),
        (
            "release = ['a']",
            "4:11: `release` is a list, but must be a string; write one value in quotes: release = \"...\"",
        ),
        (
            "grace = 2024-01-01",
            "4:9: `grace` is a date, but must be a string; write one value in quotes: grace = \"...\"",
        ),
        (
            "[database]\nstrict = 'yes'",
            "5:10: `strict` is a string, but must be true or false; write true or false, without quotes",
        ),
        (
            "[balancer]\nlisten = ':80'",
            "5:10: `listen` is a string, but must be a list; write it as listen = [\":80\"]",
        ),
        (
            "[balancer]\naccept_proxy = true",
            "5:1: `accept_proxy` is set, but [balancer] has no `trust`; name the senders whose PROXY protocol header is believed: \
             trust = [\"10.0.0.5\", \"10.0.0.6\"]",
        ),
        (
            "[balancer]\ntrust = ['10.0.0.0/8', 'lb']",
            "5:24: `trust` \"lb\" is not a network; write it as \"10.0.0.0/8\" or \"192.0.2.7\"",
        ),
        (
            "memory = '512'",
            "4:10: `memory` \"512\" is not a size; write a number and MB, GB, MiB or GiB: \"512MiB\"",
        ),
        (
            "memory = '512KiB'",
            "4:10: `memory` \"512KiB\" is less than any program needs; write at least \"4MiB\"",
        ),
        ("cpu = 0", "4:7: `cpu` is 0; it is from 0.01 to 10000"),
        (
            "cpu = '2'",
            "4:7: `cpu` is a string, but must be a number; write a number from 0.01 to 10000, without quotes",
        ),
        ("cpu = nan", "4:7: `cpu` is nan; it is from 0.01 to 10000"),
        (
            "[worker.mail]\nrun = 'x'\ntasks = 0",
            "6:9: `tasks` is 0; it is from 1 to 4000000",
        ),
        (
            "[[web]]",
            "4:1: `web` is a list, but must be a table; write it as [web] with its keys below",
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
        assert!(said.contains("reserved by PostgreSQL"), "{said}");
    }
}

#[test]
fn broken_syntax_is_reported_with_the_other_mistakes_and_once_a_line() {
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
        "a/gaiola.toml:1:8: `site` \"é\" is not a site name; use 1 to 32 of a-z, 0-9 and -, beginning with a letter\n\
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

/// What is said of a file with `[app]` on machines and this.
fn said_on_machines(rest: &str) -> Vec<String> {
    said(&format!(
        "site = 'a'\n[app]\nrun = 'x'\nservers = ['a']\n{rest}"
    ))
}

#[test]
fn a_file_says_how_many_servers_or_which() {
    let hint = "a file says how many servers or which, not both; name the machines: servers = [\"web-a\", \"web-b\"]";
    assert_eq!(
        said_on_machines("[web]\nservers = 2\n[database]"),
        [
            format!("6:11: [app] names its machines, but [web] does not; {hint}"),
            format!("7:2: [app] names its machines, but [database] has no `servers`; {hint}"),
        ]
    );
    assert_eq!(
        said_on_machines("[web]\nservers = 'w'"),
        [format!(
            "6:11: [app] names its machines, but [web] does not; {hint}"
        )]
    );
    assert_eq!(
        said("site = 'a'\n[app]\nrun = 'x'\nservers = 2\n[machines]\nspare = ['m']"),
        [
            "5:2: the file has [machines], but no tier names its machines; \
             write servers = [\"web-a\", \"web-b\"] in every tier, or leave [machines] out"
        ]
    );
}

#[test]
fn every_mistake_with_a_machine_is_reported_at_once() {
    let text = r#"site = "a"
[balancer]
vips = ["203.0.113.100/24", "203.0.113.100", "10.0.0.5"]
servers = ["-oProxyCommand=reboot", { ssh = "lb", address = "10.0.0.5" }]
[web]
servers = []
[app]
run = "x"
servers = ["a", "a", { adress = "10.0.0.1" }, 5, { ssh = "b", address = "10.0.0.300", interface = "a/b" }]
[database]
servers = [{ ssh = "a", address = "10.0.0.1", interface = "ens4" }, { ssh = "c", address = "10.0.0.1" }]
[machines]
spare = ["m", "b", "m", { ssh = "a", address = "10.0.0.2", interface = "ens5" }]
spares = 1
replace = true
[drill]
disk = "4GiB"
"#;
    let expected = [
        r#"3:8: `vips` has 10.0.0.5, which is the address of lb; take an address that no machine has"#,
        r#"3:29: `vips` has "203.0.113.100" twice; leave one of them out"#,
        r#"4:12: `servers` "-oProxyCommand=reboot" is not a name for `ssh`; write what `ssh` takes, of letters, digits and . _ - : @ alone: "web-a", "deploy@192.0.2.7"; for everything else make an alias in ~/.ssh/config"#,
        r#"6:11: `servers` is empty; name its machines: servers = ["web-a", "web-b"], or leave [web] out"#,
        r#"9:17: `servers` has "a" twice; leave one of them out"#,
        r#"9:22: [app.servers] has no `ssh`; add ssh = "web-a", what `ssh` takes"#,
        r#"9:24: unknown key "adress" in [app.servers]; did you mean `address`?"#,
        r#"9:47: `servers` is a number, but must be a string or a table; write it as servers = ["web-a"]"#,
        r#"9:73: `address` "10.0.0.300" is not an IP address; write the address that the other machines reach it at: "10.0.0.22""#,
        r#"9:99: `interface` "a/b" is not the name of an interface; write it as `ip address` shows it on the machine: "ens4""#,
        r#"11:69: c has the address of a, 10.0.0.1; give each machine its own address, or write one machine with one name everywhere"#,
        r#"13:15: `spare` has "b", which [app] names too; a spare machine has no server: leave one of them out"#,
        r#"13:20: `spare` has "m" twice; leave one of them out"#,
        r#"13:25: `spare` has "a", which [app] names too; a spare machine has no server: leave one of them out"#,
        r#"13:25: a has the address 10.0.0.2 here, but 10.0.0.1 in another place; write it in one of them only"#,
        r#"13:25: a has the interface ens5 here, but ens4 in another place; write it in one of them only"#,
        r#"14:1: unknown key "spares" in [machines]; did you mean `spare`?"#,
        r#"15:11: `replace` is true or false, but must be a string; with "auto" a spare machine takes the place of one that is gone for ten minutes, or for `replace_after`"#,
        r#"17:1: `disk` is of the lab, which makes the database servers' disks; leave it out: a machine has its own"#,
    ];
    assert_eq!(said(text), expected);
}

#[test]
fn balancers_on_machines_need_vips_or_none() {
    let of = |vips: &str| said_on_machines(&format!("[balancer]\nservers = ['b']\n{vips}"));
    assert_eq!(
        of(""),
        [
            "5:2: [balancer] has no `vips`; on machines name the addresses that clients use: \
             vips = [\"203.0.113.100/24\"], or vips = [] if clients connect to the balancers' own addresses"
        ]
    );
    assert_eq!(of("vips = []"), [""; 0]);
    // What the lab cannot give does not matter here.
    assert_eq!(of("vips = ['203.0.113.100']"), [""; 0]);
    assert_eq!(of("vips = ['203.0.113.100/24', '2001:db8::1/64']"), [""; 0]);
    assert_eq!(
        of("vips = ['2001:db8::/64']"),
        [
            "7:9: `vips` \"2001:db8::/64\" is the network's own address; take an address inside of the network"
        ]
    );
}

#[test]
fn a_machine_is_replaced_by_itself_or_by_hand() {
    let of = |text: &str| said_on_machines(&format!("[machines]\n{text}"));
    for fine in [
        "replace = 'manual'",
        "replace = 'auto'",
        "replace = 'auto'\nreplace_after = '30s'",
    ] {
        assert_eq!(of(fine), [""; 0]);
    }
    assert_eq!(
        of("replace = 'always'"),
        [
            "6:11: `replace` \"always\" is neither \"auto\" nor \"manual\"; with \"auto\" a spare machine takes the place of one that is gone for ten minutes, or for `replace_after`"
        ]
    );
    assert_eq!(
        of("replace = 'auto'\nreplace_after = '29s'"),
        [
            "7:17: `replace_after` \"29s\" is shorter than 30 s; write more than a machine takes to restart: \"10m\""
        ]
    );
    assert_eq!(
        of("replace = 'auto'\nreplace_after = '25h'"),
        [
            "7:17: `replace_after` \"25h\" is longer than 24 hours; write a number and ms, s, m or h, at most 24h: \"500ms\", \"10s\""
        ]
    );
    assert_eq!(
        of("replace_after = '10m'"),
        [
            "6:17: `replace_after` does nothing without `replace`; write replace = \"auto\" too, or leave it out"
        ]
    );
}

#[test]
fn a_spare_machine_stands_in_a_list() {
    assert_eq!(
        said_on_machines("[machines]\nspare = 'm'"),
        ["6:9: `spare` is a string, but must be a list; write it as spare = [\"m-9\"]"]
    );
    assert_eq!(said_on_machines("[machines]\nspare = []"), [""; 0]);
    let many: Vec<String> = (0..100).map(|n| format!("'m{n}'")).collect();
    assert_eq!(
        said_on_machines(&format!("[machines]\nspare = [{}]", many.join(","))),
        ["6:9: `spare` has 100 machines; at most 99 are allowed"]
    );
}

#[test]
fn variables_have_names_values_and_limits() {
    let text = r#"site = 'a'
[env]
1ST = "a"
"MY KEY" = "a"
PORT = 80
GAIOLA_X = "a"
LIST = ["a"]
NUL = "a\u0000b"
DATABASE_URL = "postgres://elsewhere"
[app]
run = "x"
env = { RELEASE = "1", FINE = "" }
"#;
    let name = "it has letters, digits and `_`, and does not begin with a digit";
    let expected = [
        format!(r#"3:1: "1ST" is not the name of a variable; {name}"#),
        format!(r#"4:1: "MY KEY" is not the name of a variable; {name}"#),
        r#"5:1: "PORT" is set by Gaiola, for each process; leave it out (docs/file.md)"#.into(),
        r#"6:1: "GAIOLA_X" is kept for Gaiola; take a name that does not begin with `GAIOLA_`"#
            .into(),
        r#"7:8: `LIST` is a list, but must be a string; write it as LIST = "...""#.into(),
        "8:7: `NUL` has a NUL in it; the system ends a variable there: leave it out".into(),
        r#"12:9: "RELEASE" is set by Gaiola, for each process; leave it out (docs/file.md)"#.into(),
    ];
    assert_eq!(said(text), expected);
    let with_database = said(&format!("{text}[database]\n"));
    let of_database = with_database.iter().find(|said| said.starts_with("9:1: "));
    assert_eq!(
        of_database.unwrap(),
        r#"9:1: "DATABASE_URL" is set by Gaiola, since the site has a [database]; leave it out, or leave out [database] if the site has one of its own"#
    );
    let long = "x".repeat(33_000);
    assert!(
        said_of_app(&format!("env = {{ A = '{long}' }}"))
            .contains("`A` is 33000 bytes; it is 32768 at most")
    );
    let half = "x".repeat(32_000);
    let three = format!("env = {{ A = '{half}', B = '{half}', C = '{half}' }}");
    assert!(
        said_of_app(&three).contains("the variables of an instance are 96022 bytes in the site's documents; they are 65536 at most")
    );
}

#[test]
fn mistakes_of_a_file_of_variables_have_its_lines() {
    let with = |path: &str| {
        said(&format!(
            "site = 'a'\nenv_file = '{path}'\n[app]\nrun = 'x'"
        ))
    };
    let expected = [
        r#"2:12: "wrong.env" line 2: "PORT" is set by Gaiola, for each process; leave it out (docs/file.md)"#,
        r#"2:12: "wrong.env" line 3: has no `=`; write it as NAME=value"#,
        r#"2:12: "wrong.env" line 5: "A" is set twice; leave one of them out"#,
        r#"2:12: "wrong.env" line 6: what is before `=` is not the name of a variable; it has letters, digits and `_`, and does not begin with a digit"#,
    ];
    assert_eq!(with("wrong.env"), expected);
    let missing = r#"2:12: `env_file` "none.env" cannot be read: entity not found; name a file of lines NAME=value, relative to this file's directory"#;
    assert_eq!(with("none.env"), [missing]);
}

#[test]
fn mistakes_in_how_an_instance_is_checked_have_their_place() {
    for (line, mistake) in [
        (
            "health = { status = 99 }",
            "4:21: `status` is 99; it is from 100 to 599",
        ),
        (
            "health = { status = '399-200' }",
            r#"4:21: `status` "399-200" is not a status from 100 to 599; write 200, "200-299" or "200-299,401""#,
        ),
        (
            "health = { headers = { Host = 'a' } }",
            r#"4:24: "Host" has a key of its own; write host = "NAME""#,
        ),
        (
            "health = { headers = { 'X Y' = 'a' } }",
            r#"4:24: "X Y" is not a name; write it as it is sent, such as "X-User""#,
        ),
        (
            "health = { interval = '0s' }",
            r#"4:23: `interval` "0s" would expire at once; write a number and ms, s, m or h, at most 1h: "500ms", "10s""#,
        ),
        (
            "health = { rise = 2 }",
            r#"4:12: unknown key "rise" in [app.health]; known here: path, host, headers, status, interval, timeout, fall, port"#,
        ),
        (
            "maxconn = 'all'",
            r#"4:11: `maxconn` "all" is not a limit; write a number without quotes, or "none""#,
        ),
        (
            "slow_ejection = { factor = 50, after = '1s' }",
            "4:28: `factor` is 50; it is from 101 to 10000",
        ),
    ] {
        assert_eq!(said_of_app(line), mistake);
    }
    let said = said_on_machines("[machines]\nencrypt = true\n[app.health]\nport = 9000");
    assert!(
        said.iter()
            .any(|said| said.contains("does not go with `encrypt`")),
        "{said:?}"
    );
}

#[test]
fn mistakes_of_a_cron_are_reported_in_their_lines() {
    let text = r#"site = "a"
[app]
run = "x"
[cron.Clean]
schedule = "@hourly"
run = "x"
[cron.clean]
schedule = "61 * * * *"
time_zone = "Berlin"
timeout = "500ms"
overlap = "wait"
[cron.never]
schedule = "0 0 31 2 *"
run = "x"
timeout = "25h"
"#;
    let said = said(text);
    let starts = [
        r#"4:7: "Clean" is not the name of a cron; use 1 to 32"#,
        r#"7:7: [cron.clean] has no `run`; add run = "COMMAND", the command to run"#,
        r#"8:12: `schedule` "61 * * * *" is not a schedule: "#,
        r#"9:13: `time_zone` "Berlin" is not a time zone; write one of the IANA database"#,
        r#"10:11: `timeout` "500ms" is not a whole number of seconds; write "10s" or "30m""#,
        r#"11:11: `overlap` "wait" is not a way to deal with a run under way; write "skip", "queue" or "allow""#,
        r#"13:12: `schedule` "0 0 31 2 *" never comes; write a date that there is"#,
        r#"15:11: `timeout` "25h" is longer than 24 hours"#,
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (said, start) in said.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
}
