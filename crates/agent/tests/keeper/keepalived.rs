//! A real keepalived as the other router of a VIP.

use crate::namespace::isolated;
use crate::probe::Probe;
use crate::site::{Server, Site, VIP, wait};
use gaiola_model::keeper::VipRole;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

struct Keepalived(Child);

impl Keepalived {
    fn start(server: &Server, priority: u8) -> Self {
        let directory = &server.directory;
        let config = directory.join("keepalived.conf");
        let text = format!(
            "global_defs {{ vrrp_version 3 }}\n\
             vrrp_instance VI_1 {{\n\
               interface eth0\n state BACKUP\n virtual_router_id 1\n priority {priority}\n advert_int 0.1\n\
               virtual_ipaddress {{ {VIP}/32 dev eth0 }}\n\
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

#[test]
fn ownership_passes_to_keepalived_and_back() {
    if Command::new("keepalived")
        .arg("--version")
        .output()
        .is_err()
    {
        gaiola_os::skip::skipped(
            "keepalived::ownership_passes_to_keepalived_and_back",
            "keepalived is not installed",
        );
        return;
    }
    isolated(
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
