//! Clients of each single VIP while balancers are lost and return.

use gaiola_e2e::{Site, Who};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// More than the two seconds for which a home must serve, twice that if it was lost before, and the time of a start.
const HOME: Duration = Duration::from_secs(40);
/// Less than the first SYN retransmission: each SYN must be answered by one of the balancers.
const AT_ONCE: Duration = Duration::from_millis(1000);
/// Until the second retransmission.
const AT_LAST: Duration = Duration::from_millis(2900);
const VIPS: [&str; 2] = ["10.77.0.100", "10.77.0.101"];

fn site(name: &str) -> Site {
    let site = site_with(name, "");
    until_held(&site, "lb1");
    site
}

fn site_with(name: &str, vips: &str) -> Site {
    let site = Site::new(
        Who::caller(),
        name,
        &format!(
            "[balancer]\nservers = 2\n{vips}\n[app]\nservers = 1\ninstances = 2\ngrace = \"1s\"\nrun = \"{{run}}\"\n"
        ),
    );
    site.up();
    site
}

/// Waits until that balancer holds the first VIP, and lb2 the second.
#[track_caller]
fn until_held(site: &Site, by: &str) {
    until_these_are_held(site, VIPS, by);
}

#[track_caller]
fn until_these_are_held(site: &Site, vips: [&str; 2], by: &str) {
    site.wait_for(&format!("{by} holds the first VIP"), HOME, || {
        let holder = |vip: &str| {
            let holders = ["lb1", "lb2"].into_iter();
            let held: Vec<_> = holders.filter(|lb| site.holds(lb, vip)).collect();
            held
        };
        vips.map(holder) == [vec![by], vec!["lb2"]]
    });
}

#[test]
fn no_connection_fails_while_a_balancer_is_drained_and_comes_back() {
    let site = site("handover");
    let ((), probed) = site.probed("app1", &VIPS, AT_ONCE, || {
        site.gaiola(&["drain", "lb1"]).expect(0, &[]);
        until_held(&site, "lb2");
        site.gaiola(&["undrain", "lb1"]).expect(0, &[]);
        until_held(&site, "lb1");
    });
    for (vip, probed) in probed {
        assert!(probed.answered > 0, "{vip}: {probed:?}");
        assert!(
            probed.unconnected.is_empty() && probed.broken.is_empty(),
            "{vip}: {probed:?}"
        );
    }
}

#[test]
fn no_connection_to_an_ipv6_vip_fails_while_its_balancer_is_drained_and_comes_back() {
    let vips = ["fd0a:4d::100", "10.77.0.101"];
    let site = site_with("wide", &format!("vips = {vips:?}"));
    until_these_are_held(&site, vips, "lb1");
    let ((), probed) = site.probed("app1", &vips, AT_ONCE, || {
        site.gaiola(&["drain", "lb1"]).expect(0, &[]);
        until_these_are_held(&site, vips, "lb2");
        site.gaiola(&["undrain", "lb1"]).expect(0, &[]);
        until_these_are_held(&site, vips, "lb1");
    });
    for (vip, probed) in probed {
        assert!(probed.answered > 0, "{vip}: {probed:?}");
        assert!(
            probed.unconnected.is_empty() && probed.broken.is_empty(),
            "{vip}: {probed:?}"
        );
    }
}

#[test]
fn a_lost_balancer_costs_its_vip_one_take_over_and_no_more() {
    let site = site("lostlb");
    let ((), probed) = site.probed("app1", &VIPS, AT_LAST, || {
        site.harm(&json!({ "cut_power": "lb1" }));
        site.wait_for("lb2 holds both", SOON, || {
            VIPS.iter().all(|vip| site.holds("lb2", vip))
        });
        let taken = site.keeper("lb2");
        // Longer than the holder used to wait before it offered the VIP to a home that was off.
        site.wait_for("lb1 is known to be lost", SOON, || site.status().0 == 4);
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(site.keeper("lb2"), taken, "it offered the VIP to nobody");
        site.harm(&json!({ "power_on": "lb1" }));
        until_held(&site, "lb1");
    });
    for (vip, probed) in probed {
        assert!(probed.answered > 0, "{vip}: {probed:?}");
        assert!(probed.unconnected.is_empty(), "{vip}: {probed:?}");
    }
}

#[test]
fn a_vip_does_not_go_home_while_the_homes_keeper_hangs() {
    let site = site("hunglb");
    let ((), probed) = site.probed("app1", &VIPS, AT_LAST, || {
        let keeper = site.process("lb1", "keeper");
        keeper.stop();
        site.wait_for("lb2 holds both", SOON, || {
            VIPS.iter().all(|vip| site.holds("lb2", vip))
        });
        let taken = site.keeper("lb2");
        // It used to be offered after two seconds, and again every ten.
        std::thread::sleep(Duration::from_secs(13));
        assert_eq!(site.keeper("lb2"), taken, "it offered the VIP to nobody");
        keeper.go_on();
        until_held(&site, "lb1");
    });
    for (vip, probed) in probed {
        assert!(probed.answered > 0, "{vip}: {probed:?}");
        assert!(probed.unconnected.is_empty(), "{vip}: {probed:?}");
    }
}

#[test]
fn a_drained_balancer_keeps_its_vip_until_another_stands_by() {
    let site = site("kept");
    let ((), probed) = site.probed("app1", &VIPS, AT_LAST, || {
        let keeper = site.process("lb2", "keeper");
        keeper.stop();
        site.wait_for("lb1 holds both", SOON, || {
            VIPS.iter().all(|vip| site.holds("lb1", vip))
        });
        let taken = site.keeper("lb1");
        site.gaiola(&["drain", "lb1", "--timeout", "8s"])
            .expect(5, &["it still holds"]);
        assert_eq!(site.keeper("lb1"), taken, "it offered the VIP to nobody");
        keeper.go_on();
        site.wait_for("lb2 holds both", SOON, || {
            VIPS.iter().all(|vip| site.holds("lb2", vip))
                && VIPS.iter().all(|vip| !site.holds("lb1", vip))
        });
    });
    for (vip, probed) in probed {
        assert!(probed.answered > 0, "{vip}: {probed:?}");
        assert!(probed.unconnected.is_empty(), "{vip}: {probed:?}");
    }
}
