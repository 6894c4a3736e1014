//! A server's proxy is replaced: a new process takes over while the old one ends.

use gaiola_e2e::{Site, Who};
use std::time::Duration;

/// An idle connection between two proxies is closed after 30 s: so long does an old one wait.
const SOON: Duration = Duration::from_secs(90);

/// The next agent finds a proxy that was started in another way than it would start one itself.
fn replace_proxy(site: &Site, server: &str) {
    let (agent, old) = (site.process(server, "agent"), site.process(server, "proxy"));
    agent.stop();
    let records = "/run/gaiola/processes.json";
    let edit = "s/proxy\\.log/earlier.log/";
    site.gaiola(&["exec", server, "--", "sed", "-i", edit, records])
        .expect(0, &[]);
    agent.kill();
    site.wait_for("another proxy has taken over", SOON, || {
        let new = site.on(server, "proxy");
        !old.lives() && new.is_some_and(|new| new.pid != old.pid)
    });
    site.wait_for("it is healthy again", SOON, || site.is_healthy());
}

#[test]
fn a_proxy_of_another_program_is_taken_over_from_without_a_failed_request_and_no_vip_moves() {
    let site = Site::new(
        Who::caller(),
        "takeover",
        "[balancer]\nservers = 2\n[web]\nservers = 1\nroot = \"public\"\n\
         [app]\nservers = 1\ninstances = 2\nrun = \"{run}\"\n",
    );
    site.write("public/hello.txt", "hello\n");
    site.up();
    let holders = || ["lb1", "lb2"].map(|balancer| site.keeper(balancer));
    site.wait_for("each has its VIP", SOON, || {
        holders().iter().all(|held| held.len() == 1)
    });
    let before = holders();
    let ((), figures) = site.under_load(100, || {
        for server in ["lb1", "web1", "lb2", "lb1"] {
            replace_proxy(&site, server);
        }
    });
    figures.assert_none_failed();
    assert_eq!(holders(), before, "a VIP has moved");
    site.down();
    site.wait_for_nothing();
}
