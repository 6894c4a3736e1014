//! Rules of nftables that cut a machine off, all but its ssh.
//!
//! They are hooked to the devices themselves, before anything else of the kernel: what a program sends is gone, and no call fails, as
//! with a pulled cable. ARP passes, since ssh needs it, but for VIPs: a machine that is cut off holds none. Loopback is no
//! device of these, so servers of one machine reach each other.

use std::fmt::Write as _;
use std::net::IpAddr;

/// The table that holds all rules of drills.
const TABLE: &str = "netdev gaiola_drill";

/// What does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// What the machine sends.
    pub(super) sent: bool,
    /// What it would receive.
    pub(super) received: bool,
}

/// What passes in spite of a cut, and where the rules are hooked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// The devices that have addresses.
    pub(super) devices: Vec<String>,
    /// The port of the machine's sshd.
    pub(super) ssh: Option<u16>,
    /// Other machines that are cut off together with this one.
    pub(super) together: Vec<IpAddr>,
    /// The site's VIPs.
    pub(super) vips: Vec<IpAddr>,
}

impl Network {
    /// Drops all that `dropped` says.
    pub(super) fn cut(&self, dropped: Dropped) -> String {
        let mut rules = removed();
        let _ = writeln!(rules, "table {TABLE} {{");
        if dropped.received {
            self.chain(&mut rules, "ingress", "drop");
        }
        if dropped.sent {
            self.chain(&mut rules, "egress", "drop");
        }
        rules + "}\n"
    }

    /// Lets everything pass, but no neighbour finds a VIP here.
    pub(super) fn without_vips(&self) -> String {
        let mut rules = removed();
        let _ = writeln!(rules, "table {TABLE} {{");
        self.chain(&mut rules, "egress", "accept");
        rules + "}\n"
    }

    fn chain(&self, rules: &mut String, hook: &str, policy: &str) {
        let devices: Vec<String> = self.devices.iter().map(|it| format!("\"{it}\"")).collect();
        let devices = devices.join(", ");
        let _ = writeln!(
            rules,
            "chain {hook} {{\ntype filter hook {hook} devices = {{ {devices} }} priority -300; policy {policy};"
        );
        for rule in self.passing(hook == "egress") {
            let _ = writeln!(rules, "{rule}");
        }
        rules.push_str("}\n");
    }

    fn passing(&self, sent: bool) -> Vec<String> {
        let (vip, other) = if sent {
            ("saddr", "daddr")
        } else {
            ("daddr", "saddr")
        };
        let mut rules = Vec::new();
        let (narrow, wide): (Vec<IpAddr>, Vec<IpAddr>) =
            self.vips.iter().partition(|address| address.is_ipv4());
        if !narrow.is_empty() {
            rules.push(format!("arp {vip} ip {{ {} }} drop", joined(&narrow)));
        }
        let message = if sent {
            "nd-neighbor-advert"
        } else {
            "nd-neighbor-solicit"
        };
        rules.extend(wide.into_iter().map(|vip| neighbours_of(vip, message)));
        rules.push("meta protocol arp accept".into());
        rules.push(
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept"
                .into(),
        );
        // A lease of the machine's address may have to be renewed.
        rules.push("udp sport { 67, 68 } udp dport { 67, 68 } accept".into());
        if let Some(port) = self.ssh {
            rules.push(format!("tcp sport {port} accept"));
            rules.push(format!("tcp dport {port} accept"));
        }
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
            self.together.iter().partition(|address| address.is_ipv4());
        if !v4.is_empty() {
            rules.push(format!("ip {other} {{ {} }} accept", joined(&v4)));
        }
        if !v6.is_empty() {
            rules.push(format!("ip6 {other} {{ {} }} accept", joined(&v6)));
        }
        rules
    }
}

/// Drops the messages of neighbour discovery that are about this address. The target is 16 bytes after the first 8; older versions of nft have no name for it.
fn neighbours_of(vip: IpAddr, message: &str) -> String {
    let bits = match vip {
        IpAddr::V4(vip) => vip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(vip) => vip.to_bits(),
    };
    format!("icmpv6 type {message} @th,64,128 0x{bits:032x} drop")
}

/// Removes every rule; no error where there is none.
pub(super) fn removed() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

fn joined(addresses: &[impl ToString]) -> String {
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// The port of the sshd by which a process was started, as its environment has it.
pub(super) fn ssh_port(environment: &[u8]) -> Option<u16> {
    let mut variables = environment.split(|byte| *byte == 0);
    let connection = variables.find_map(|it| it.strip_prefix(b"SSH_CONNECTION="))?;
    let connection = std::str::from_utf8(connection).ok()?;
    connection.split(' ').nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            devices: vec!["ens3".into(), "ens4".into()],
            ssh: Some(2222),
            together: vec![[10, 0, 0, 2].into()],
            vips: vec![[10, 0, 0, 100].into(), "2001:db8::100".parse().unwrap()],
        }
    }

    #[test]
    fn only_ssh_and_what_is_cut_off_together_passes_a_cut() {
        let both = Dropped {
            sent: true,
            received: true,
        };
        let rules = network().cut(both);
        assert_eq!(rules.matches("policy drop;").count(), 2);
        assert_eq!(rules.matches("{ \"ens3\", \"ens4\" }").count(), 2);
        for rule in [
            "tcp sport 2222 accept",
            "ip saddr { 10.0.0.2 } accept",
            "ip daddr { 10.0.0.2 } accept",
            "arp saddr ip { 10.0.0.100 } drop",
            "arp daddr ip { 10.0.0.100 } drop",
            "icmpv6 type nd-neighbor-advert @th,64,128 0x20010db8000000000000000000000100 drop",
            "icmpv6 type nd-neighbor-solicit @th,64,128 0x20010db8000000000000000000000100 drop",
        ] {
            assert!(rules.contains(rule), "{rule}: {rules}");
        }
        // A table of an earlier drill goes first.
        assert!(rules.starts_with("table netdev gaiola_drill\ndelete table netdev gaiola_drill\n"));
    }

    #[test]
    fn a_mute_machine_receives_and_a_deaf_one_sends() {
        let rules = |sent: bool| {
            let received = !sent;
            network().cut(Dropped { sent, received })
        };
        assert!(!rules(true).contains("ingress") && rules(true).contains("hook egress"));
        assert!(!rules(false).contains("egress") && rules(false).contains("hook ingress"));
    }

    #[test]
    fn a_killed_balancer_answers_for_no_vip_and_passes_the_rest() {
        let rules = network().without_vips();
        assert!(rules.contains("policy accept;") && !rules.contains("policy drop;"));
        assert!(rules.contains("arp saddr ip { 10.0.0.100 } drop"));
    }

    #[test]
    fn nothing_is_named_where_there_is_none() {
        let network = Network {
            together: Vec::new(),
            vips: Vec::new(),
            ..network()
        };
        let both = Dropped {
            sent: true,
            received: true,
        };
        assert!(!network.cut(both).contains("{  }"));
    }

    #[test]
    fn the_port_of_sshd_is_that_of_the_connection() {
        let environment = b"HOME=/root\0SSH_CONNECTION=10.0.0.9 51234 10.0.0.1 2222\0A=b\0";
        assert_eq!(ssh_port(environment), Some(2222));
        assert_eq!(ssh_port(b"HOME=/root\0"), None);
    }
}
