//! A machine is what a provider delivers.

use crate::{fails, said};
use gaiola_e2e::ended;
use gaiola_e2e::machines::{Image, Machines};
use std::collections::BTreeSet;
use std::process::Stdio;

const SANDBOX: &str = "systemd-run --quiet --wait --pipe -p DynamicUser=yes -p ProtectSystem=strict -p PrivateTmp=yes \
     -p SystemCallFilter=@system-service -p LoadCredential=key:/etc/hostname -p StateDirectory=sandboxed \
     sh -c 'cat $CREDENTIALS_DIRECTORY/key; touch /var/lib/sandboxed/file && ! touch /etc/file'";

#[test]
#[ignore = "make machines runs it"]
fn eight_machines_are_what_a_provider_delivers() {
    let Some(machines) = Machines::start("eight", 8, Image::Prepared) else {
        return;
    };
    let names = machines.names();
    assert_eq!(names.len(), 8);
    for name in &names {
        let state = machines.ssh(
            name,
            "systemctl is-system-running --wait; systemctl --failed",
        );
        assert!(state.stdout.starts_with("running\n"), "{name}: {state:#?}");
    }
    identities(&machines, &names);
    ways_in(&machines);
    for name in &names[1..] {
        said(machines.ssh("m1", &format!("ping -c 1 -W 2 {name}")));
    }
    units(&machines);
    prepared(&machines);
}

fn identities(machines: &Machines, names: &[String]) {
    let files = [
        "/etc/machine-id",
        "/etc/ssh/ssh_host_ed25519_key.pub",
        "/proc/sys/kernel/hostname",
    ];
    for file in files {
        let all = names
            .iter()
            .map(|name| said(machines.ssh(name, &format!("cat {file}"))));
        let all: BTreeSet<String> = all.collect();
        assert_eq!(all.len(), names.len(), "{file}: {all:#?}");
    }
}

fn ways_in(machines: &Machines) {
    assert_eq!(
        said(machines.ssh("ops@m2", "sudo -n id -u; id -u")),
        "0\n1000"
    );
    assert_eq!(
        said(machines.run(&["ssh", "-J", "m1", "m2", "hostname"])),
        "m2"
    );
    let version = ended(
        machines
            .gaiola(&["--version"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    assert!(said(version).starts_with("gaiola "));
    // Another host key than the known one is refused, as on real machines.
    machines.shell("m3", "rm /etc/ssh/ssh_host_ed25519_key && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && systemctl restart ssh");
    let refused = machines.ssh("m3", "true");
    assert!(
        refused.code == 255 && refused.stderr.contains("HOST IDENTIFICATION HAS CHANGED"),
        "{refused:#?}"
    );
}

fn units(machines: &Machines) {
    let unit = |options: &str| {
        machines.ssh(
            "m1",
            &format!("systemd-run --quiet --wait --pipe {options}"),
        )
    };
    said(unit("logger -t harness written by a unit"));
    assert_eq!(
        said(machines.ssh("m1", "journalctl --sync; journalctl -o cat -t harness")),
        "written by a unit"
    );
    said(unit(
        "-p MemoryMax=200M -p TasksMax=20 sh -c 'sleep 0.1 & wait'",
    ));
    fails(&unit("-p MemoryMax=20M -p MemorySwapMax=0 tail /dev/zero"));
    fails(&unit(
        "-p TasksMax=3 sh -c 'for i in 1 2 3 4 5 6; do sleep 1 & done; wait'",
    ));
    said(unit(
        "-p CPUSchedulingPolicy=rr -p CPUSchedulingPriority=1 true",
    ));
    assert_eq!(machines.ssh("m1", SANDBOX).expect(0, &[]).stdout, "m1\n");
    let nft = "nft add table inet harness && nft list tables && nft delete table inet harness";
    assert_eq!(said(machines.ssh("m1", nft)), "table inet harness");
}

fn prepared(machines: &Machines) {
    let services = "systemctl is-enabled postgresql etcd; systemctl is-active postgresql etcd; pg_lsclusters -h";
    let services = machines.ssh("m1", services).stdout;
    assert_eq!(services, "masked\nmasked\ninactive\ninactive\n");
    let version = said(machines.ssh(
        "m1",
        "/opt/gaiola/patroni/bin/patroni --version; etcd --version",
    ));
    assert!(
        version.starts_with("patroni 4") && version.contains("etcd Version: 3."),
        "{version}"
    );
}

#[test]
#[ignore = "make machines runs it"]
fn apt_installs_what_is_missing() {
    let Some(machines) = Machines::start("apt", 2, Image::Bare) else {
        return;
    };
    for name in machines.names() {
        fails(&machines.ssh(&name, "command -v etcd"));
        let install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq etcd-server && command -v etcd";
        let installed = said(machines.ssh(&name, install));
        assert!(installed.ends_with("/usr/bin/etcd"), "{installed}");
        // As Debian's package has it: a service that runs at once.
        assert_eq!(
            said(machines.ssh(&name, "systemctl is-active etcd")),
            "active"
        );
    }
}
