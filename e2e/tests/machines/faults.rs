//! Power, cables, and a cloud's network.

use crate::{fails, said};
use gaiola_e2e::machines::{Image, Machines};

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id; cat /proc/1/stat | cut -d ' ' -f 22";
const COUNT: &str = "cd / && su postgres -c \"psql -Atc 'select count(*) from kept'\"";

#[test]
#[ignore = "make machines runs it"]
fn what_was_committed_survives_a_power_cut_and_a_reboot() {
    let Some(machines) = Machines::start("power", 2, Image::Prepared) else {
        return;
    };
    let create = "pg_createcluster 15 main && systemctl start postgresql@15-main && cd / && \
                  su postgres -c \"psql -c 'create table kept as select 1'\"";
    said(machines.ssh("m1", create));
    let identity = said(machines.ssh("m1", "cat /etc/machine-id"));

    machines.crash("m1");
    fails(&machines.ssh("m2", "ping -c 1 -W 1 m1"));
    assert_eq!(machines.rack().leader("m1"), None);
    machines.on("m1");
    said(machines.ssh("m1", "systemctl start postgresql@15-main"));
    assert_eq!(said(machines.ssh("m1", COUNT)), "1");

    let before = said(machines.ssh("m1", BOOT_ID));
    machines.reboot("m1");
    assert_ne!(said(machines.ssh("m1", BOOT_ID)), before);
    restarts_from_inside(&machines);

    machines.off("m1");
    assert_eq!(machines.rack().leader("m1"), None);
    machines.on("m1");
    assert_eq!(said(machines.ssh("m1", "cat /etc/machine-id")), identity);
    // The journal of the last boot ends in order.
    let stopped = machines.ssh("m1", "journalctl --quiet --boot=-1 -o cat -n 1");
    stopped.expect(0, &["Journal stopped"]);
}

fn restarts_from_inside(machines: &Machines) {
    let before = machines.rack().leader("m1");
    machines.ssh("m1", "systemctl reboot");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while machines
        .rack()
        .leader("m1")
        .is_none_or(|now| Some(now) == before)
        || machines.ssh("m1", "true").code != 0
    {
        assert!(
            std::time::Instant::now() < deadline,
            "m1 does not come back"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
#[ignore = "make machines runs it"]
fn a_pulled_cable_cuts_a_machine_off_and_leaves_it_running() {
    let Some(machines) = Machines::start("cable", 2, Image::Bare) else {
        return;
    };
    said(machines.ssh("m2", "ping -c 1 -W 2 m1"));
    machines.cable("m1", false);
    fails(&machines.ssh("m2", "ping -c 1 -W 1 m1"));
    let carrier = machines.shell(
        "m1",
        "cat /sys/class/net/host0/carrier; systemctl is-active ssh",
    );
    assert_eq!(said(carrier), "0\nactive");
    machines.cable("m1", true);
    said(machines.ssh("m2", "ping -c 1 -W 5 m1"));
}

#[test]
#[ignore = "make machines runs it"]
fn a_clouds_network_carries_no_foreign_address_and_no_multicast() {
    let Some(machines) = Machines::start("cloud", 3, Image::Bare) else {
        return;
    };
    said(machines.ssh("m1", "ip address add 10.78.0.100/24 dev host0"));
    let reaches_vip = || machines.ssh("m3", "ip neigh flush dev host0; ping -c 1 -W 1 10.78.0.100");
    let multicasts = |address: &str| multicasts(&machines, address);
    said(reaches_vip());
    assert_eq!(
        (multicasts("224.0.0.18"), multicasts("239.1.2.3")),
        (true, true)
    );
    machines.cloud(true);
    for _ in 0..2 {
        fails(&reaches_vip());
        said(machines.ssh("m3", "ping -c 1 -W 2 m1; ping -c 1 -W 2 m2"));
        assert_eq!(
            (multicasts("224.0.0.18"), multicasts("239.1.2.3")),
            (false, false)
        );
        // The rules hold for a machine that has restarted too.
        machines.reboot("m1");
        said(machines.ssh("m1", "ip address add 10.78.0.100/24 dev host0"));
    }
    machines.cloud(false);
    said(reaches_vip());
    assert!(multicasts("224.0.0.18"));
}

/// Whether m2 receives what m1 sends to that address: the counter of its interface moves by as much at least.
fn multicasts(machines: &Machines, address: &str) -> bool {
    let received = || -> u64 {
        let count = said(machines.shell("m2", "cat /sys/class/net/host0/statistics/rx_packets"));
        count.parse().expect("a counter is a number")
    };
    let before = received();
    machines.shell("m1", &format!("ping -c 50 -i 0.002 -W 1 -q {address}"));
    received() - before >= 50
}
