//! IPv6 VIPs.

use crate::namespace::isolated;
use crate::probe::Probe;
use crate::site::{Server, Site, WIDE_VIP, wait};
use gaiola_model::keeper::{KeeperConfig, VipRole};
use std::time::Instant;

/// So many answers of the probe take some two seconds: six times what a Backup waits.
const A_WHILE: usize = 200;

fn config(server: &Server, priority: u8, relays: &[&Server]) -> KeeperConfig {
    Server::wide(server.sealed_config(priority, relays))
}

/// lb1, which is home to the VIP and holds it, and lb2. They know each other by their IPv4 addresses.
fn pair(site: &mut Site, relays: &[&Server]) -> (Server, Server) {
    let (mut home, mut other) = (site.server(1), site.server(2));
    home.join(&config(&home, 250, relays));
    home.wait_for_role(VipRole::Active);
    other.join(&config(&other, 240, relays));
    other.wait_for_role(VipRole::Backup);
    wait("lb1 to know that lb2 stands by", || {
        let state = home.state().unwrap();
        state.vips[&WIDE_VIP].standby == Some(other.address)
    });
    (home, other)
}

#[test]
fn an_ipv6_vip_moves_when_it_is_yielded_and_when_its_holder_dies() {
    isolated(
        "wide::an_ipv6_vip_moves_when_it_is_yielded_and_when_its_holder_dies",
        || {
            let mut site = Site::new();
            let (home, mut other) = pair(&mut site, &[]);
            let probe = Probe::wide();
            probe.wait_for("lb1");
            let mut yielding = config(&home, 250, &[]);
            yielding.vips[0].yields = 1;
            let begin = Instant::now();
            home.configure(&yielding);
            probe.wait_for("lb2");
            println!("measured: outage, yielded: {:?}", probe.outage(begin));
            other.wait_for_role(VipRole::Active);
            home.wait_for_role(VipRole::Backup);
            assert_eq!(home.wide_vip(), "");

            let begin = Instant::now();
            other.stop_worker();
            probe.wait_for("lb1");
            println!(
                "measured: outage, data plane gone: {:?}",
                probe.outage(begin)
            );
            other.wait_for_role(VipRole::Initialize);
            assert_eq!(other.wide_vip(), "");
            assert_eq!(home.state().unwrap().rejected, [].into());
        },
    );
}

#[test]
fn an_ipv6_vip_is_there_at_once_is_no_source_and_brings_no_route() {
    isolated(
        "wide::an_ipv6_vip_is_there_at_once_is_no_source_and_brings_no_route",
        || {
            let mut site = Site::new();
            let mut home = site.server(1);
            let mut config = config(&home, 250, &[]);
            config.vips[0].prefix = 64;
            let routes = |server: &Server| {
                let listed = server.inside("ip").args(["-6", "route"]).output().unwrap();
                String::from_utf8_lossy(&listed.stdout).into_owned()
            };
            let before = routes(&home);
            home.join(&config);
            home.wait_for_role(VipRole::Active);
            let listed = home.inside("ip").args(["-6", "-o", "address"]).output();
            let listed = String::from_utf8_lossy(&listed.unwrap().stdout).into_owned();
            let mut lines = listed.lines();
            let vip = lines.find(|line| line.contains(&format!("{WIDE_VIP}/64")));
            let vip = vip.expect("the VIP is there");
            for flag in ["deprecated", "nodad", "noprefixroute"] {
                assert!(vip.contains(flag), "{vip}");
            }
            assert!(!vip.contains("tentative"), "{vip}");
            let source = home
                .inside("ip")
                .args(["-6", "route", "get", "fd0a:4d::1"])
                .output();
            let source = String::from_utf8_lossy(&source.unwrap().stdout).into_owned();
            assert!(source.contains("src fd0a:4d::1:1"), "{source}");
            assert_eq!(routes(&home), before);
            // Killed, it cannot remove the address: the kernel does, and the server keeps its own route.
            home.signal("-KILL");
            wait("the VIP to expire", || {
                let listed = home.inside("ip").args(["-6", "-o", "address"]).output();
                !String::from_utf8_lossy(&listed.unwrap().stdout).contains(&format!("{WIDE_VIP}/"))
            });
            assert_eq!(routes(&home), before);
        },
    );
}

#[test]
fn a_cut_between_the_balancers_moves_no_ipv6_vip_where_a_server_relays() {
    isolated(
        "wide::a_cut_between_the_balancers_moves_no_ipv6_vip_where_a_server_relays",
        || {
            let mut site = Site::new();
            let mut relay = site.server(11);
            relay.start_relay();
            let (home, other) = pair(&mut site, &[&relay]);
            let probe = Probe::patient_wide();
            probe.wait_for("lb1");
            for balancer in [&home, &other] {
                site.net.set_port_isolated(&balancer.port, true).unwrap();
            }
            let answers = probe.next(A_WHILE);
            assert!(answers.iter().all(|it| it == "lb1"));
            assert_eq!((other.role(), probe.failed()), (Some(VipRole::Backup), 0));
            assert_eq!(other.wide_vip(), "");
        },
    );
}

#[test]
fn an_ipv6_vip_beside_one_of_ipv4_touches_nothing() {
    isolated(
        "wide::an_ipv6_vip_beside_one_of_ipv4_touches_nothing",
        || {
            let mut site = Site::new();
            let mut home = site.server(1);
            let narrow = home.sealed_config(250, &[]);
            home.join(&narrow);
            home.wait_for_role(VipRole::Active);
            let vip = narrow.vips[0].vip;
            let since = home.state().unwrap().vips[&vip].since_ms;
            let mut both = narrow.clone();
            let mut wide = config(&home, 250, &[]).vips.remove(0);
            wide.vrid = gaiola_model::vrrp::Vrid::new(2).unwrap();
            both.vips.push(wide);
            home.configure(&both);
            wait("both to be held", || {
                let vips = home.state().unwrap().vips;
                vips.len() == 2 && vips.values().all(|it| it.state == VipRole::Active)
            });
            assert_eq!(home.state().unwrap().vips[&vip].since_ms, since);
            assert_ne!(home.wide_vip(), "");
            home.configure(&narrow);
            wait("the IPv6 VIP to leave", || home.wide_vip().is_empty());
            assert_eq!(home.state().unwrap().vips[&vip].since_ms, since);
        },
    );
}
