//! The example in `examples/gunicorn`: a site with a few synchronous workers keeps serving pages and reads while writes wait.

use gaiola_e2e::{Site, Who, post};
use gaiola_model::config::Drill;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const GUNICORN: &str = "/opt/gaiola/gunicorn/bin/gunicorn";
const SOON: Duration = Duration::from_secs(60);

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gunicorn")
}

fn site() -> Site {
    let read = |name: &str| std::fs::read_to_string(example().join(name)).unwrap();
    let file = read("gaiola.toml").replace("site = \"gunicorn\"\n", "");
    let site = Site::new(Who::caller(), "python", &file);
    site.write("app.py", &read("app.py"));
    site
}

/// Concurrent writes of a few visitors, which are answered 201 or 503.
#[derive(Default)]
struct Writes {
    kept: AtomicU32,
    refused: AtomicU32,
    stop: AtomicBool,
}

impl Writes {
    fn go_on(&self, site: &Site) {
        while !self.stop.load(Ordering::Relaxed) {
            match post(site.door(), "/entries").map(|answer| answer.status) {
                Ok(201) => self.kept.fetch_add(1, Ordering::Relaxed),
                Ok(503) => self.refused.fetch_add(1, Ordering::Relaxed),
                // A write in flight when its database was lost may be answered late or never.
                _ => 0,
            };
            thread::sleep(Duration::from_millis(300));
        }
    }

    fn more(&self, site: &Site) {
        let before = self.kept.load(Ordering::Relaxed);
        site.wait_for("writes are kept", SOON, || {
            self.kept.load(Ordering::Relaxed) > before + 5
        });
    }
}

#[test]
fn pages_and_reads_go_on_while_writes_wait_for_the_database() {
    if !Path::new(GUNICORN).exists() {
        gaiola_os::skip::skipped(
            "pages_and_reads_go_on_while_writes_wait_for_the_database",
            &format!("no {GUNICORN}; scripts/setup test installs it"),
        );
        return;
    }
    let site = site();
    site.up();
    site.wait_for("it is healthy", SOON, || site.is_healthy());
    let writes = Writes::default();
    let drill = Drill {
        rate: Some(20),
        page: "/page".into(),
        read: Some("/entries".into()),
        ..Drill::default()
    };
    let ((), figures) = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| writes.go_on(&site));
        }
        let done = site.under(drill, || {
            writes.more(&site);
            for role in ["primary", "standby"] {
                lose(&site, &writes, role);
            }
        });
        writes.stop.store(true, Ordering::Relaxed);
        done
    });
    figures.assert_none_failed();
    let refused = writes.refused.load(Ordering::Relaxed);
    assert!(
        refused > 0,
        "writes were refused while the primary was away"
    );
    site.down();
    site.wait_for_nothing();
}

/// Cuts the power of the database server in this role, and waits until writes succeed again and the site is whole.
fn lose(site: &Site, writes: &Writes, role: &str) {
    let primary = site.status().1["primary"].as_str().unwrap().to_string();
    let standby = if primary == "db1" { "db2" } else { "db1" };
    let lost = if role == "primary" {
        primary.as_str()
    } else {
        standby
    };
    site.harm(&json!({ "cut_power": lost }));
    site.wait_for("its loss is noticed", SOON, || !site.is_healthy());
    writes.more(site);
    site.harm(&json!({ "power_on": lost }));
    site.wait_for("it is healthy again", SOON, || site.is_healthy());
}
