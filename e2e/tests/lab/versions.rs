//! Programs of two versions in one site: `gaiola-next` is the same program, which calls itself one schema newer.

use gaiola_e2e::{Programs, Site, Who};
use gaiola_model::schema::SCHEMA;
use gaiola_os::process::signal;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);

/// An old proxy ends once its idle connections have, within 30 s.
const TAKE_OVER: Duration = Duration::from_secs(90);

/// A balancer and an application server: its keeper and proxy get orders, and the conductor is one of two.
fn site() -> Site {
    let file = "[balancer]\nservers = 1\n[app]\nservers = 1\ngrace = \"1s\"\nrun = \"{run}\"\n";
    Site::new(Who::caller(), "versions", file)
}

/// Whether a process of this server is of this program.
fn runs(site: &Site, server: &str, process: &str, program: &Path) -> bool {
    let pid = site.process(server, process).pid;
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
}

/// The agent that became the conductor last, by the times in the agents' logs.
fn conductor(site: &Site) -> Option<&'static str> {
    let became = |server: &&str| {
        let log = site.state().join("servers").join(server);
        let log = fs::read_to_string(log.join("log/agent.log")).ok()?;
        let mut lines = log.lines().rev();
        let line = lines.find(|line| line.contains("became the conductor"))?;
        Some(line.split_whitespace().next()?.to_string())
    };
    let servers = ["lb1", "app1"].into_iter();
    let last = servers.filter_map(|server| Some((became(&server)?, server)));
    last.max().map(|(_, server)| server)
}

/// Freezes the other agent until this one has become the conductor.
fn make_conductor(site: &Site, server: &str, other: &str) {
    if conductor(site) != Some(server) {
        let frozen = site.process(other, "agent").pid;
        signal(frozen, Signal::STOP);
        site.wait_for("another agent conducts", SOON, || {
            conductor(site) == Some(server)
        });
        signal(frozen, Signal::CONT);
    }
    site.wait_for("it is healthy", SOON, || site.is_healthy());
}

/// What the status says that the schema waits for.
fn waits_for(site: &Site) -> Option<String> {
    let (_, status) = site.status();
    let waiting = status["waiting"].as_array()?.iter();
    let mut texts = waiting.filter_map(Value::as_str);
    let start = format!("to write documents in schema {}: ", SCHEMA + 1);
    texts.find_map(|text| Some(text.strip_prefix(&start)?.to_string()))
}

/// The schema of what a server's agent has on its disk and the keeper in its run directory.
fn schemas(site: &Site, server: &str) -> Vec<u64> {
    let order = site.state().join("servers").join(server);
    let order = fs::read_to_string(order.join("placement.json")).unwrap();
    let files = ["keeper.json", "keeper-state.json"];
    let files = files.map(|file| format!("/run/gaiola/{file}"));
    let read = |file: &String| site.gaiola(&["exec", server, "--", "cat", file]).stdout;
    let keeper = files.iter().filter(|_| server == "lb1").map(read);
    let schema = |text: String| {
        let document: Value = serde_json::from_str(&text).unwrap();
        document["schema"].as_u64().unwrap()
    };
    [order].into_iter().chain(keeper).map(schema).collect()
}

#[test]
fn programs_of_two_versions_share_a_site_until_all_are_newer() {
    let site = site();
    let programs = site.programs();
    site.up();
    the_balancer_is_newer(&site, &programs);
    the_conductor_is_newer(&site, &programs);
    all_are_newer(&site, &programs);
    an_older_one_is_refused(&site, &programs);
}

/// Its agent first, which adopts an older keeper, and starts a newer proxy that takes over from the older one.
fn the_balancer_is_newer(site: &Site, programs: &Programs) {
    make_conductor(site, "app1", "lb1");
    site.switch_program("lb1", &programs.new);
    site.start_again("lb1", "agent");
    assert!(runs(site, "lb1", "agent", &programs.new));
    // The agent carries out a revision, and so has reported what it adopted.
    site.gaiola(&["scale", "app=1x2"]).expect(0, &[]);
    assert_eq!(waits_for(site), None, "its keeper is older");
    site.wait_for("the older proxy has ended", TAKE_OVER, || {
        runs(site, "lb1", "proxy", &programs.new)
    });
    let log = site.state().join("servers/lb1/log/proxy.log");
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("cannot take over"), "{log}");
    site.start_again("lb1", "keeper");
    let all = "an older gaiola still runs on app1 and what provides the servers";
    site.wait_for("the schema waits", SOON, || {
        waits_for(site).is_some_and(|words| words == all)
    });
    site.wait_for("it is healthy", SOON, || site.is_healthy());
}

/// Servers come and go that run the older program.
fn the_conductor_is_newer(site: &Site, programs: &Programs) {
    make_conductor(site, "lb1", "app1");
    assert!(runs(site, "lb1", "agent", &programs.new));
    site.gaiola(&["scale", "app=2x1"]).expect(0, &[]);
    assert!(!runs(site, "app2", "agent", &programs.new));
    site.gaiola(&["scale", "app=1x1"]).expect(0, &[]);
    assert_eq!(schemas(site, "lb1"), [SCHEMA; 3]);
    assert_eq!(schemas(site, "app1"), [SCHEMA]);
    assert_eq!(site.get("/").unwrap().status, 200);
}

/// The servers first, and then the lab, which comes up with all of them.
fn all_are_newer(site: &Site, programs: &Programs) {
    site.switch_program("app1", &programs.new);
    site.start_again("app1", "agent");
    let lab = "an older gaiola still runs on what provides the servers";
    site.wait_for("the schema waits for the lab alone", SOON, || {
        waits_for(site).is_some_and(|words| words == lab)
    });
    site.down();
    site.use_program(&programs.new);
    site.up();
    let raised =
        || schemas(site, "lb1") == [SCHEMA + 1; 3] && schemas(site, "app1") == [SCHEMA + 1];
    site.wait_for("all documents are of the newer schema", SOON, raised);
    let event = format!("the site's documents are written in schema {}", SCHEMA + 1);
    site.gaiola(&["events"]).expect(0, &[&event]);
    site.wait_for("it is healthy", SOON, || site.is_healthy());
    site.gaiola(&["scale", "app=1x2"]).expect(0, &[]);
}

fn an_older_one_is_refused(site: &Site, programs: &Programs) {
    site.switch_program("lb1", &programs.old);
    site.server("lb1").unwrap().kill();
    let [written, read] = [SCHEMA + 1, SCHEMA];
    let written = format!("lb1 cannot be switched on: it has schema {written}, which a newer");
    let read = format!("reads up to schema {read}: upgrade it on this server");
    site.wait_for("it is off", SOON, || {
        let missing = &site.status().1["missing"];
        missing
            .as_array()
            .is_some_and(|missing| missing.contains(&"lb1 is switched off".into()))
    });
    site.gaiola(&["up", "-d", "--timeout", "15s"])
        .expect(4, &[&written, &read]);
    site.switch_program("lb1", &programs.new);
    site.up();
    assert!(site.is_healthy());
}
