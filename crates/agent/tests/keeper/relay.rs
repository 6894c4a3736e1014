//! Adverts that take a second way, and balancers that nobody hears.

use crate::namespace::isolated;
use crate::probe::Probe;
use crate::site::{Server, Site, VIP, wait};
use gaiola_model::keeper::{KeeperConfig, VipRole};
use std::process::Stdio;
use std::time::Instant;

/// So many answers of the probe take some two seconds: six times what a Backup waits.
const A_WHILE: usize = 200;

/// lb1, which is home to the VIP and holds it, lb2, and a server that relays between them.
fn site_with_a_relay(
    site: &mut Site,
    change: impl Fn(KeeperConfig) -> KeeperConfig,
) -> (Server, Server, Server) {
    let (mut home, mut other, mut relay) = (site.server(1), site.server(2), site.server(11));
    relay.start_relay();
    home.join(&change(home.sealed_config(250, &[&relay])));
    home.wait_for_role(VipRole::Active);
    other.join(&change(other.sealed_config(240, &[&relay])));
    other.wait_for_role(VipRole::Backup);
    wait("lb1 to know that lb2 stands by", || {
        let state = home.state().unwrap();
        state.vips[&VIP].standby == Some(other.address)
    });
    (home, other, relay)
}

/// Whether the balancers reach each other; all others do reach them.
fn cut_balancers(site: &mut Site, balancers: [&Server; 2], cut: bool) {
    for balancer in balancers {
        site.net.set_port_isolated(&balancer.port, cut).unwrap();
    }
}

/// Whether one server can connect to another.
fn reaches(from: &Server, to: &Server) -> bool {
    let connect = format!("exec 3<>/dev/tcp/{}/80", to.address);
    let connected = from
        .inside("timeout")
        .args(["1", "bash", "-c", &connect])
        .stderr(Stdio::null())
        .status();
    connected.unwrap().success()
}

#[test]
fn a_cut_between_the_balancers_alone_moves_nothing_and_fails_nothing() {
    isolated(
        "relay::a_cut_between_the_balancers_alone_moves_nothing_and_fails_nothing",
        || {
            let mut site = Site::new();
            let (home, other, relay) = site_with_a_relay(&mut site, |config| config);
            let probe = Probe::patient();
            probe.wait_for("lb1");
            let since = home.state().unwrap().vips[&VIP].since_ms;
            cut_balancers(&mut site, [&home, &other], true);
            assert!(!reaches(&other, &home) && reaches(&other, &relay));
            let mut answers = probe.next(A_WHILE);
            assert_eq!(other.role(), Some(VipRole::Backup));
            assert!(!other.has_vip());

            // It would still take the VIP if it were asked to.
            let standby = home.state().unwrap().vips[&VIP].standby;
            assert_eq!(standby, Some(other.address));
            cut_balancers(&mut site, [&home, &other], false);
            answers.extend(probe.next(A_WHILE));
            assert!(answers.iter().all(|it| it == "lb1"));
            assert_eq!(probe.failed(), 0);
            let state = home.state().unwrap();
            assert_eq!(state.vips[&VIP].since_ms, since);
            assert_eq!(state.rejected, [].into(), "copies are no replays");
            assert!(other.state().unwrap().vips[&VIP].takeovers.is_empty());
        },
    );
}

#[test]
fn a_dead_balancer_is_replaced_as_fast_as_without_relays() {
    isolated(
        "relay::a_dead_balancer_is_replaced_as_fast_as_without_relays",
        || {
            let mut site = Site::new();
            let (mut home, other, _relay) = site_with_a_relay(&mut site, |config| config);
            let probe = Probe::start();
            probe.wait_for("lb1");
            let begin = Instant::now();
            home.signal("-KILL");
            other.wait_for_role(VipRole::Active);
            let span = begin.elapsed();
            println!(
                "measured: taken over after a kill, with relays: {} ms",
                span.as_millis()
            );
        },
    );
}

#[test]
fn a_balancer_that_nobody_hears_lets_go_and_takes_nothing_when_it_returns() {
    isolated(
        "relay::a_balancer_that_nobody_hears_lets_go_and_takes_nothing_when_it_returns",
        || {
            let mut site = Site::new();
            let (home, other, _relay) = site_with_a_relay(&mut site, |config| config);
            let probe = Probe::patient();
            probe.wait_for("lb1");
            site.net.set_port_forwarding(&home.port, false).unwrap();
            wait("lb1 to let go", || !home.has_vip());
            home.wait_for_role(VipRole::Backup);
            let state = home.state().unwrap();
            assert_eq!(state.vips[&VIP].reason, "cut_off");
            assert!(!state.ready && state.reason.unwrap().contains("nobody hears"));
            probe.wait_for("lb2");
            let failed = probe.failed();
            site.net.set_port_forwarding(&home.port, true).unwrap();
            wait("lb1 to hear lb2", || {
                let state = home.state().unwrap();
                state.ready && state.vips[&VIP].owner == Some(other.address)
            });
            assert!(probe.next(A_WHILE).iter().all(|it| it == "lb2"));
            assert_eq!(probe.failed(), failed);
            assert!(other.has_vip() && !home.has_vip());
        },
    );
}

#[test]
fn dead_relays_change_nothing() {
    isolated("relay::dead_relays_change_nothing", || {
        let mut site = Site::new();
        let (home, mut other, mut relay) = site_with_a_relay(&mut site, |config| config);
        let probe = Probe::patient();
        probe.wait_for("lb1");
        // The process alone, while the other balancer lives.
        relay.kill_relay();
        let mut answers = probe.next(A_WHILE);
        // The other balancer too: what is left of the relay's server refuses, which shows that the network passes.
        other.signal("-KILL");
        answers.extend(probe.next(2 * A_WHILE));
        assert!(answers.iter().all(|it| it == "lb1"));
        assert_eq!(probe.failed(), 0);
        assert_eq!(home.role(), Some(VipRole::Active));
    });
}

#[test]
fn without_multicast_balancers_reach_each_other_one_by_one() {
    isolated(
        "relay::without_multicast_balancers_reach_each_other_one_by_one",
        || {
            let mut site = Site::new();
            let (mut home, mut other) = (site.server(1), site.server(2));
            let unicast = |server: &Server, priority| {
                let mut config = server.sealed_config(priority, &[]);
                config.udp.as_mut().unwrap().unicast = true;
                config
            };
            home.join(&unicast(&home, 250));
            home.wait_for_role(VipRole::Active);
            other.join(&unicast(&other, 240));
            other.wait_for_role(VipRole::Backup);
            let probe = Probe::patient();
            probe.wait_for("lb1");
            assert!(probe.next(A_WHILE).iter().all(|it| it == "lb1"));
            assert_eq!(other.state().unwrap().vips[&VIP].owner, Some(home.address));
            let mut config = unicast(&home, 250);
            config.vips[0].yields = 1;
            home.configure(&config);
            probe.wait_for("lb2");
            other.wait_for_role(VipRole::Active);
            assert_eq!(probe.failed(), 0);
        },
    );
}
