use crate::namespace::isolated;
use crate::probe::Probe;
use crate::site::{Server, Site, VIP, wait};
use gaiola_model::keeper::VipRole;
use std::time::{Duration, Instant};

const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// lb1, which is home to the VIP and holds it, and lb2.
fn pair(site: &mut Site) -> (Server, Server) {
    let (mut home, mut other) = (site.server(1), site.server(2));
    home.join(&home.config(250));
    home.wait_for_role(VipRole::Active);
    other.join(&other.config(240));
    other.wait_for_role(VipRole::Backup);
    (home, other)
}

fn report(what: &str, span: Duration) {
    println!("measured: {what}: {} ms", span.as_millis());
}

fn owner_count(servers: [&Server; 2]) -> usize {
    servers.into_iter().filter(|it| it.has_vip()).count()
}

#[test]
fn a_dead_data_plane_gives_the_vip_away_at_once() {
    isolated(
        "keeper::a_dead_data_plane_gives_the_vip_away_at_once",
        || {
            let mut site = Site::new();
            let (mut home, other) = pair(&mut site);
            let probe = Probe::start();
            probe.wait_for("lb1");
            let begin = Instant::now();
            home.stop_worker();
            probe.wait_for("lb2");
            report("outage, data plane gone", probe.outage(begin));
            other.wait_for_role(VipRole::Active);
            home.wait_for_role(VipRole::Initialize);
            assert!(!home.has_vip());
            assert!(!home.state().unwrap().ready);

            // It comes back, and takes nothing from whoever stands in for it.
            home.start_worker();
            home.wait_for_role(VipRole::Backup);
            probe.wait_for("lb2");
            assert_eq!(owner_count([&home, &other]), 1);
        },
    );
}

#[test]
fn a_yielded_vip_moves_without_a_gap() {
    isolated("keeper::a_yielded_vip_moves_without_a_gap", || {
        let mut site = Site::new();
        let (home, other) = pair(&mut site);
        let probe = Probe::start();
        probe.wait_for("lb1");
        let mut config = home.config(250);
        config.vips[0].yields = 1;
        let begin = Instant::now();
        home.configure(&config);
        probe.wait_for("lb2");
        report("outage, yielded", probe.outage(begin));
        other.wait_for_role(VipRole::Active);
        home.wait_for_role(VipRole::Backup);
        assert!(!home.has_vip());
        assert_eq!(home.state().unwrap().vips[&VIP].yields, 1);

        let mut config = other.config(240);
        config.vips[0].yields = 1;
        let begin = Instant::now();
        other.configure(&config);
        probe.wait_for("lb1");
        report("outage, yielded back to its home", probe.outage(begin));
        assert!(
            home.state().unwrap().vips[&VIP]
                .takeovers
                .contains_key("released")
        );
    });
}

#[test]
fn a_terminated_keeper_hands_over_before_it_ends() {
    isolated(
        "keeper::a_terminated_keeper_hands_over_before_it_ends",
        || {
            let mut site = Site::new();
            let (mut home, other) = pair(&mut site);
            let probe = Probe::start();
            probe.wait_for("lb1");
            let begin = Instant::now();
            home.signal("-TERM");
            assert!(home.keeper().wait().unwrap().success());
            probe.wait_for("lb2");
            report("outage, keeper terminated", probe.outage(begin));
            other.wait_for_role(VipRole::Active);
            assert!(!home.has_vip());
        },
    );
}

#[test]
fn a_killed_keeper_loses_the_vip_and_another_takes_it() {
    isolated(
        "keeper::a_killed_keeper_loses_the_vip_and_another_takes_it",
        || {
            let mut site = Site::new();
            let (mut home, other) = pair(&mut site);
            let probe = Probe::start();
            probe.wait_for("lb1");
            let begin = Instant::now();
            home.signal("-KILL");
            other.wait_for_role(VipRole::Active);
            report("taken over after a kill", begin.elapsed());
            wait("the kernel to drop the VIP", || !home.has_vip());
            report("the killed keeper's VIP is gone", begin.elapsed());
            probe.wait_for("lb2");
            report("outage, keeper killed", probe.outage(begin));
        },
    );
}

#[test]
fn a_restarted_keeper_goes_on_where_it_was() {
    isolated("keeper::a_restarted_keeper_goes_on_where_it_was", || {
        let mut site = Site::new();
        let (mut home, other) = pair(&mut site);
        let probe = Probe::start();
        probe.wait_for("lb1");
        let begin = Instant::now();
        home.signal("-KILL");
        home.start_keeper();
        wait("the restarted keeper", || {
            home.state()
                .is_some_and(|it| it.vips.get(&VIP).is_some_and(|vip| vip.reason == "resumed"))
                || other.role() == Some(VipRole::Active)
        });
        // On a machine that is too slow for that, the other one takes it: one owner all the same.
        let server = match home.role() {
            Some(VipRole::Active) => "lb1",
            _ => "lb2",
        };
        probe.wait_for(server);
        report(
            &format!("outage, keeper killed and restarted, now on {server}"),
            probe.outage(begin),
        );
        wait("one owner", || owner_count([&home, &other]) == 1);
    });
}

#[test]
fn a_stopped_keeper_loses_the_vip_and_takes_nothing_when_it_goes_on() {
    isolated(
        "keeper::a_stopped_keeper_loses_the_vip_and_takes_nothing_when_it_goes_on",
        || {
            let mut site = Site::new();
            let (mut home, other) = pair(&mut site);
            let probe = Probe::start();
            probe.wait_for("lb1");
            let begin = Instant::now();
            home.signal("-STOP");
            other.wait_for_role(VipRole::Active);
            wait("the kernel to drop the VIP", || !home.has_vip());
            report("the stopped keeper's VIP is gone", begin.elapsed());
            probe.wait_for("lb2");
            report("outage, keeper stopped", probe.outage(begin));
            home.signal("-CONT");
            home.wait_for_role(VipRole::Backup);
            probe.wait_for("lb2");
            assert_eq!(other.role(), Some(VipRole::Active));
            assert!(!home.has_vip());
        },
    );
}

#[test]
fn a_pulled_cable_moves_the_vip_and_its_return_takes_nothing() {
    isolated(
        "keeper::a_pulled_cable_moves_the_vip_and_its_return_takes_nothing",
        || {
            let mut site = Site::new();
            let (home, other) = pair(&mut site);
            let probe = Probe::start();
            probe.wait_for("lb1");
            let begin = Instant::now();
            site.net.set_down(&home.port).unwrap();
            probe.wait_for("lb2");
            report("outage, cable pulled", probe.outage(begin));
            home.wait_for_role(VipRole::Initialize);
            site.net.set_up(&home.port).unwrap();
            home.wait_for_role(VipRole::Backup);
            probe.wait_for("lb2");
            assert_eq!(owner_count([&home, &other]), 1);
        },
    );
}

#[test]
fn after_a_partition_one_owner_is_left() {
    isolated("keeper::after_a_partition_one_owner_is_left", || {
        let mut site = Site::new();
        let (home, other) = pair(&mut site);
        let probe = Probe::start();
        probe.wait_for("lb1");
        let begin = Instant::now();
        site.net.set_port_forwarding(&home.port, false).unwrap();
        probe.wait_for("lb2");
        report("outage, partitioned", probe.outage(begin));
        assert_eq!(home.role(), Some(VipRole::Active));
        let begin = Instant::now();
        site.net.set_port_forwarding(&home.port, true).unwrap();
        probe.wait_for("lb1");
        report("outage, healed", probe.outage(begin));
        other.wait_for_role(VipRole::Backup);
        assert!(home.has_vip() && !other.has_vip());
    });
}

#[test]
fn with_a_key_a_forged_advertisement_is_ignored() {
    isolated(
        "keeper::with_a_key_a_forged_advertisement_is_ignored",
        || {
            let mut site = Site::new();
            let (mut home, mut forger) = (site.server(1), site.server(2));
            let mut config = home.config(100);
            config.key = Some(KEY.into());
            home.join(&config);
            home.wait_for_role(VipRole::Active);
            // A keeper without the key speaks as anybody on the network could.
            forger.join(&forger.config(250));
            forger.wait_for_role(VipRole::Backup);
            let probe = Probe::start();
            probe.wait_for("lb1");
            drop(probe);
            forger.stop_worker();

            // Deaf to the owner it becomes Active, and shouts with priority 250.
            let mut config = forger.config(250);
            config.key = Some(KEY.replace('0', "1"));
            forger.configure(&config);
            forger.start_worker();
            forger.wait_for_role(VipRole::Active);
            wait("the forged ones to be counted", || {
                let state = home.state().unwrap();
                state.rejected.get("wrong seal").is_some_and(|n| *n > 10)
            });
            assert_eq!(home.role(), Some(VipRole::Active));
            assert!(home.has_vip());
        },
    );
}

#[test]
fn a_vip_has_the_prefix_of_its_configuration_while_it_is_held() {
    isolated(
        "keeper::a_vip_has_the_prefix_of_its_configuration_while_it_is_held",
        || {
            let mut site = Site::new();
            let mut home = site.server(1);
            let mut config = home.config(200);
            config.vips[0].prefix = 24;
            home.join(&config);
            home.wait_for_role(VipRole::Active);
            assert!(home.has_vip_with(24) && !home.has_vip());
            home.signal("-KILL");
            home.start_keeper();
            let pid = home.keeper().id();
            wait("the restarted keeper", || {
                home.state().unwrap().pid == pid && home.role() == Some(VipRole::Active)
            });
            assert!(home.has_vip_with(24));
            config.maintenance = true;
            home.configure(&config);
            home.wait_for_role(VipRole::Initialize);
            assert!(!home.has_vip_with(24));
        },
    );
}

#[test]
fn a_changed_configuration_leaves_other_vips_alone() {
    isolated(
        "keeper::a_changed_configuration_leaves_other_vips_alone",
        || {
            let mut site = Site::new();
            let mut home = site.server(1);
            let config = home.config(200);
            home.join(&config);
            home.wait_for_role(VipRole::Active);
            let since = home.state().unwrap().vips[&VIP].since_ms;

            let mut two = config.clone();
            let mut second = two.vips[0].clone();
            second.vip = [10, 77, 0, 101].into();
            second.vrid = gaiola_model::vrrp::Vrid::new(2).unwrap();
            two.vips.push(second.clone());
            home.configure(&two);
            let second_role = |home: &Server| Some(home.state()?.vips.get(&second.vip)?.state);
            wait("the second VIP", || {
                second_role(&home) == Some(VipRole::Active)
            });
            home.configure(&config);
            wait("the second VIP to leave", || second_role(&home).is_none());
            assert_eq!(home.state().unwrap().vips[&VIP].since_ms, since);

            let mut maintenance = config.clone();
            maintenance.maintenance = true;
            home.configure(&maintenance);
            home.wait_for_role(VipRole::Initialize);
            assert!(!home.has_vip());
            assert_eq!(home.state().unwrap().reason.as_deref(), Some("maintenance"));
        },
    );
}
