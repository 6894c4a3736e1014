//! Maintenance outlives what answers for it, and goes by the address of the client itself.

use gaiola_e2e::{Site, Who};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

const FILE: &str = r#"
[balancer]
servers = 2
trust = ["127.0.0.0/8"]
[app]
run = "bin/guestbook"
[database]
"#;

/// The status of a request that a trusted proxy says comes from this client; 0: nobody answered.
fn status_for(site: &Site, client: &str) -> u16 {
    let url = format!("http://{}/up", site.door());
    let from = format!("X-Forwarded-For: {client}");
    let asked = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &from])
        .args(["--max-time", "5", &url])
        .output()
        .expect("curl is installed");
    String::from_utf8_lossy(&asked.stdout).parse().unwrap_or(0)
}

#[test]
fn maintenance_outlives_proxies_agents_and_balancers() {
    let site = Site::new(Who::caller(), "maintenance", FILE);
    site.put_guest_book();
    site.up();
    let on = ["maintenance", "on", "--allow", "198.51.100.0/24"];
    site.gaiola(&on).expect(0, &["503 from lb1, lb2"]);
    let holds = |what: &str| {
        for _ in 0..6 {
            assert_eq!(status_for(&site, "192.0.2.9"), 503, "{what}");
            assert_eq!(status_for(&site, "198.51.100.7"), 200, "{what}");
        }
    };
    holds("at first");
    for name in ["proxy", "agent"] {
        let old = site.process("lb1", name);
        old.kill();
        site.wait_for("another one runs", SOON, || {
            site.on("lb1", name).is_some_and(|new| new.pid != old.pid)
        });
        site.wait_for("the site is whole", SOON, || site.is_healthy());
        holds(name);
    }
    site.gaiola(&["power", "off", "lb1"]).expect(0, &[]);
    site.gaiola(&["power", "on", "lb1"]).expect(0, &[]);
    site.wait_for("lb1 is back", SOON, || site.is_healthy());
    holds("a boot");
    site.gaiola(&["down"]).expect(0, &[]);
    site.gaiola(&["up", "-d"]).expect(0, &[]);
    holds("down and up");
    site.gaiola(&["maintenance", "off"]).expect(0, &[]);
    assert_eq!(status_for(&site, "192.0.2.9"), 200);
}
