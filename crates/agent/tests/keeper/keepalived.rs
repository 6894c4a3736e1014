//! A real keepalived as the other router of a VIP.

use crate::namespace::isolated;
use crate::probe::Probe;
use crate::site::{Server, Site, VIP, WIDE_VIP, wait};
use gaiola_model::keeper::VipRole;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

struct Keepalived(Child);

impl Keepalived {
    fn start(server: &Server, priority: u8) -> Self {
        Self::of(server, priority, &format!("{VIP}/32"))
    }

    fn of(server: &Server, priority: u8, vip: &str) -> Self {
        let directory = &server.directory;
        let config = directory.join("keepalived.conf");
        let text = format!(
            "global_defs {{ vrrp_version 3 }}\n\
             vrrp_instance VI_1 {{\n\
               interface eth0\n state BACKUP\n virtual_router_id 1\n priority {priority}\n advert_int 0.1\n\
               virtual_ipaddress {{ {vip} dev eth0 }}\n\
             }}\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = server
            .inside("keepalived")
            .args(["--dont-fork", "--vrrp", "--log-console", "--use-file"])
            .arg(&config)
            .arg("--pid")
            .arg(directory.join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(directory.join("keepalived-vrrp.pid"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn terminate(mut self) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.0.wait().unwrap();
    }
}

fn with_keepalived(test: &str, run: impl FnOnce()) {
    let version = Command::new("keepalived").arg("--version").output();
    match version {
        Ok(_) => isolated(test, run),
        Err(_) => gaiola_os::skip::skipped(test, "keepalived is not installed"),
    }
}

#[test]
fn an_ipv6_vip_passes_to_keepalived_and_back() {
    with_keepalived(
        "keepalived::an_ipv6_vip_passes_to_keepalived_and_back",
        || {
            let mut site = Site::new();
            let (mut ours, theirs) = (site.server(1), site.server(2));
            ours.join(&Server::wide(ours.config(100)));
            ours.wait_for_role(VipRole::Active);
            let probe = Probe::wide();
            probe.wait_for("lb1");

            let vip = format!("{WIDE_VIP}/128");
            let keepalived = Keepalived::of(&theirs, 200, &vip);
            probe.wait_for("lb2");
            ours.wait_for_role(VipRole::Backup);
            assert_eq!(ours.wide_vip(), "");
            let owner = ours.state().unwrap().vips[&WIDE_VIP].owner;
            let is_link_local = |owner: IpAddr| match owner {
                IpAddr::V6(owner) => owner.is_unicast_link_local(),
                IpAddr::V4(_) => false,
            };
            assert!(owner.is_some_and(is_link_local), "{owner:?}");
            assert_eq!(ours.state().unwrap().rejected, [].into());

            // It ends and says so.
            let begin = Instant::now();
            keepalived.terminate();
            probe.wait_for("lb1");
            println!(
                "measured: outage, keepalived ends: {:?}",
                probe.outage(begin)
            );

            // A lower one hears us, and takes over when we let go.
            let lower = Keepalived::of(&theirs, 50, &vip);
            let running = theirs.directory.join("keepalived-vrrp.pid");
            wait("keepalived to run", || running.exists());
            assert!(probe.next(100).iter().all(|name| name == "lb1"));
            ours.stop_worker();
            probe.wait_for("lb2");
            lower.terminate();
        },
    );
}

#[test]
fn ownership_passes_to_keepalived_and_back() {
    with_keepalived(
        "keepalived::ownership_passes_to_keepalived_and_back",
        || {
            let mut site = Site::new();
            let (mut ours, theirs) = (site.server(1), site.server(2));
            ours.join(&ours.config(100));
            ours.wait_for_role(VipRole::Active);
            let probe = Probe::start();
            probe.wait_for("lb1");

            // It preempts with the higher priority.
            let begin = Instant::now();
            let keepalived = Keepalived::start(&theirs, 200);
            probe.wait_for("lb2");
            println!(
                "measured: outage, keepalived preempts: {:?}",
                probe.outage(begin)
            );
            ours.wait_for_role(VipRole::Backup);
            assert!(!ours.has_vip());
            assert_eq!(ours.state().unwrap().vips[&VIP].owner, Some(theirs.address));

            // It ends and says so.
            let begin = Instant::now();
            keepalived.terminate();
            probe.wait_for("lb1");
            println!(
                "measured: outage, keepalived ends: {:?}",
                probe.outage(begin)
            );
            ours.wait_for_role(VipRole::Active);

            // A lower one waits, and takes over when Gaiola lets go.
            let lower = Keepalived::start(&theirs, 50);
            let running = theirs.directory.join("keepalived-vrrp.pid");
            wait("keepalived to run", || running.exists());
            let begin = Instant::now();
            ours.stop_worker();
            probe.wait_for("lb2");
            println!(
                "measured: outage, handed to keepalived: {:?}",
                probe.outage(begin)
            );

            // Gaiola preempts it where it is configured to.
            let mut config = ours.config(100);
            config.vips[0].preempt = true;
            ours.configure(&config);
            let begin = Instant::now();
            ours.start_worker();
            probe.wait_for("lb1");
            println!(
                "measured: outage, Gaiola preempts: {:?}",
                probe.outage(begin)
            );
            wait("keepalived to remove the VIP", || !theirs.has_vip());
            lower.terminate();
        },
    );
}
