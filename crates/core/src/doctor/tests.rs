use super::*;
use gaiola_model::config::{App, Balancer, Database, Machine, Machines};

const GOOD: &str = "systemd yes\napt yes\ndistribution debian 12\narchitecture x86_64\nglibc 2.36\ndisk-kib 41943040\n\
     memory-kib 2097152\nports known\n";

fn machine(name: &str, last: u8) -> Machine {
    Machine {
        address: Some([10, 0, 0, last].into()),
        ..Machine::new(name)
    }
}

/// lb1 and app1 on `a`, db1 on `b`, `c` is spare.
fn config() -> Config {
    let mut config = Config::new("shop".parse().unwrap(), App::new("run"));
    let vips = Some(vec![[10, 0, 0, 100].into()]);
    config.balancer = Some(Balancer {
        vips,
        ..Balancer::default()
    });
    config.database = Some(Database::default());
    let servers = [("lb1", ("a", 1)), ("app1", ("a", 1)), ("db1", ("b", 2))];
    let servers =
        servers.map(|(server, (name, last))| (server.parse().unwrap(), machine(name, last)));
    config.machines = Some(Machines {
        servers: servers.into(),
        spare: vec![machine("c", 3)],
        ..Machines::default()
    });
    config
}

/// The facts of all three machines; `change` gets one machine's lines.
fn examined(change: impl Fn(&str, String) -> String) -> BTreeMap<Host, Examined> {
    let machines = [("a", 1), ("b", 2), ("c", 3)];
    let facts = machines.map(|(name, last)| {
        let own =
            format!("{GOOD}machine-id {name}\nhost-name {name}\naddress 10.0.0.{last}/24 eth0\n");
        let mut facts = Facts::parse(&change(name, own));
        facts.clock.get_or_insert(ClockOffset::measured(0, 0, 0));
        (Host(name.into()), Examined::Facts(Box::new(facts)))
    });
    facts.into()
}

fn found(examined: &BTreeMap<Host, Examined>) -> Vec<Finding> {
    judge(&Expected::of(&config(), "x86_64", &[]), examined)
}

/// The findings where one machine says this too.
fn with(name: &str, lines: &str) -> Vec<String> {
    let examined = examined(|of, own| if of == name { own + lines } else { own });
    words(&found(&examined))
}

fn words(findings: &[Finding]) -> Vec<String> {
    let bad = findings.iter().filter(|it| it.severity > Severity::Fine);
    bad.map(|it| format!("{} {}", it.machine, it.finding))
        .collect()
}

#[test]
fn machines_without_findings_are_ready() {
    let findings = found(&examined(|_, own| own));
    assert!(is_ready(&findings));
    assert_eq!(
        render(&findings).lines().next(),
        Some("a  ok       debian 12, x86_64, 2.0 GiB memory, 40.0 GiB free disk")
    );
}

#[test]
fn a_system_that_does_not_fit_is_refused() {
    assert_eq!(with("b", "glibc 2.31\n"), ["b it has glibc 2.31"]);
    assert_eq!(with("b", "systemd no\n"), ["b systemd does not run there"]);
    assert_eq!(with("b", "apt no\n"), ["b debian 12 has no apt-get"]);
    assert_eq!(
        with("b", "architecture aarch64\n"),
        ["b its architecture is aarch64, this program's x86_64"]
    );
    let older = with("b", "distribution debian 11\n");
    assert_eq!(
        older,
        ["b debian 11 is not among the systems that are tried"]
    );
    assert!(with("b", "distribution ubuntu 22.04\n").is_empty());
}

#[test]
fn ports_are_free_unless_something_else_has_them() {
    let nginx = "port *:80 nginx nginx.service\n";
    assert_eq!(
        with("a", nginx),
        ["a port 80, which the site needs, is in use by nginx"]
    );
    assert!(
        with("b", nginx).is_empty(),
        "a database server serves no clients"
    );
    assert!(with("a", "port 192.0.2.9:80 nginx nginx.service\n").is_empty());
    let postgres = "port 127.0.0.1:5432 postgres -\n";
    assert_eq!(with("a", postgres).len(), 1, "the local port of app1");
    assert!(
        with("b", postgres).is_empty(),
        "db1 listens on its address alone"
    );
    assert!(
        with(
            "b",
            "port 10.0.0.2:5432 postgres gaiola-database@db1.service\n"
        )
        .is_empty()
    );
    for name in ["a", "b", "c"] {
        assert_eq!(with(name, "port [::]:7071 java -\n").len(), 1, "{name}");
    }
}

#[test]
fn a_database_that_is_there_is_never_touched() {
    let postgres = "service postgres postgresql@15-main.service\n";
    let twice = postgres.repeat(2);
    assert_eq!(
        with("b", &twice),
        ["b postgres runs there already, and may hold data"]
    );
    assert!(with("a", postgres).is_empty());
    assert_eq!(
        with("c", postgres).len(),
        1,
        "a spare machine may become a database server"
    );
    assert_eq!(with("a", "service etcd etcd.service\n").len(), 1);
    assert!(with("a", "service etcd gaiola-agent@app1.service\n").is_empty());
}

#[test]
fn a_machine_belongs_to_one_site() {
    assert!(with("a", "site shop\n").is_empty());
    assert_eq!(
        with("a", "site blog\n"),
        ["a it is part of another site, blog"]
    );
}

#[test]
fn the_address_of_the_file_is_on_the_machine() {
    let moved = examined(|name, own| match name {
        "b" => own.replace("10.0.0.2/24", "10.0.0.9/24"),
        _ => own,
    });
    assert_eq!(
        words(&found(&moved)),
        ["b it does not have the address 10.0.0.2, but 10.0.0.9"]
    );
}

#[test]
fn clones_are_found_once() {
    assert_eq!(with("c", "machine-id a\n").len(), 1);
    assert_eq!(
        with("c", "host-name b\n"),
        ["c its host name, b, is that of b"]
    );
}

#[test]
fn a_cut_is_said_by_who_is_cut_off_and_not_of_machines_that_are_away() {
    let cut = "reaches 10.0.0.2:22 no\nreaches 10.0.0.3:22 yes\n";
    assert_eq!(with("a", cut), ["a it does not reach b at 10.0.0.2"]);
    let mut away = examined(|name, own| if name == "a" { own + cut } else { own });
    let silent = Examined::NotAsked {
        why: "it is not reached by ssh".into(),
        remedy: "see that the machine is on".into(),
        is_away: true,
    };
    away.insert(Host("b".into()), silent);
    assert_eq!(words(&found(&away)), ["b it is not reached by ssh"]);
    assert!(!is_ready(&found(&away)));
    let known = Expected::of(&config(), "x86_64", &[Host("b".into())]);
    let judged = judge(&known, &away);
    assert!(is_ready(&judged), "the running site goes on without it");
    assert_eq!(judged[1].severity, Severity::Warning);
}

#[test]
fn one_clock_that_is_off_is_the_machines_and_all_are_the_operators() {
    let clocks = |offsets: [i64; 3]| {
        let mut all = examined(|_, own| own);
        for (examined, offset) in all.values_mut().zip(offsets) {
            let Examined::Facts(facts) = examined else {
                continue;
            };
            facts.clock = Some(ClockOffset::measured(0, offset, 100));
        }
        words(&found(&all))
    };
    assert!(clocks([900, -200, 0]).is_empty());
    assert_eq!(clocks([0, 300_050, 0]), ["b its clock is 300.0 s ahead"]);
    let all = clocks([-5_000, -5_010, -4_990]);
    assert_eq!(all, ["a all clocks differ from this computer's by 5.0 s"]);
}

#[test]
fn little_room_is_refused_and_some_is_a_warning() {
    assert_eq!(
        with("b", "disk-kib 500000\n"),
        ["b 488 MiB are free below /var/lib/gaiola"]
    );
    assert_eq!(
        with("b", "program-kib 100000\n"),
        ["b 97 MiB are free below /opt/gaiola"]
    );
    assert_eq!(
        with("b", "memory-kib 400000\n"),
        ["b it has 390 MiB of memory"]
    );
}

#[test]
fn what_is_under_way_is_waited_for() {
    assert_eq!(
        with("b", "cloud-init running\n"),
        ["b cloud-init is still at work"]
    );
    let locked = with("b", "apt-lock apt-get\n");
    assert_eq!(locked, ["b apt-get holds the lock of apt"]);
}

#[test]
fn a_disk_that_fills_up_does_not_keep_the_operator_from_mending_it() {
    let is_ready_with = |lines: &str| {
        let of = |name: &str, own: String| if name == "b" { own + lines } else { own };
        is_ready(&found(&examined(of)))
    };
    let (little, none) = ("disk-kib 500000\n", "disk-kib 50000\n");
    assert!(!is_ready_with(little));
    assert!(is_ready_with(&format!("site shop\n{little}")));
    assert!(!is_ready_with(&format!("site shop\n{none}")));
    let program = "program-kib 100000\n";
    assert!(!is_ready_with(program));
    assert!(is_ready_with(&format!("program 0.2.0-aa\n{program}")));
}
