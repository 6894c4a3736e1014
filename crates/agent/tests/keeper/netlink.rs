use crate::namespace::isolated;
use crate::site::wait;
use gaiola_os::namespace::join_network;
use gaiola_os::netlink::{Lifetime, Netlink};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));

#[test]
fn links_addresses_and_routes_are_made_and_removed() {
    isolated(
        "netlink::links_addresses_and_routes_are_made_and_removed",
        || {
            let mut net = Netlink::open().unwrap();
            net.create_bridge("br0").unwrap();
            net.create_veth_to_pid("port1", "eth0", std::process::id())
                .unwrap();
            net.set_master("port1", "br0").unwrap();
            for link in ["br0", "port1", "eth0"] {
                net.set_up(link).unwrap();
            }
            wait("a carrier", || net.link("port1").unwrap().running);
            net.set_port_forwarding("port1", false).unwrap();
            net.set_port_forwarding("port1", true).unwrap();

            let own = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1));
            net.add_address("eth0", own, 16, Lifetime::Forever).unwrap();
            net.add_address("eth0", own, 16, Lifetime::Forever).unwrap();
            net.add_default_route(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)))
                .unwrap();
            let held = net.addresses("eth0").unwrap();
            assert!(
                held.iter()
                    .any(|it| it.ip == own && it.prefix == 16 && !it.expires)
            );

            assert!(net.remove_address("eth0", own, 16).unwrap());
            assert!(!net.remove_address("eth0", own, 16).unwrap());
            net.set_down("eth0").unwrap();
            net.delete_link("port1").unwrap();
            assert!(!net.link_exists("eth0").unwrap());
            assert!(net.link_exists("br0").unwrap());
        },
    );
}

/// Whether a datagram that is sent to `to` arrives there within a moment.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    let (mut buffer, address) = ([0; 8], to.local_addr().unwrap());
    from.send_to(b"hello", address).unwrap();
    to.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    to.recv(&mut buffer).is_ok()
}

#[test]
fn a_link_drops_what_leaves_by_it_and_still_hears() {
    isolated(
        "netlink::a_link_drops_what_leaves_by_it_and_still_hears",
        || {
            let mut net = Netlink::open().unwrap();
            let mut unshare = Command::new("unshare");
            // It dies with the PID namespace that this test is in.
            let other = unshare
                .args(["--net", "--", "sleep", "600"])
                .spawn()
                .unwrap()
                .id();
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            let entered = || std::fs::read_link(format!("/proc/{other}/ns/net"));
            wait("a namespace of its own", || {
                entered().is_ok_and(|it| it != own)
            });
            net.create_veth_to_pid("here", "there", other).unwrap();
            let mut inside = Netlink::open_in(other).unwrap();
            let [ours, theirs] = [1, 2].map(|last| IpAddr::from([10, 77, 9, last]));
            net.add_address("here", ours, 24, Lifetime::Forever)
                .unwrap();
            inside
                .add_address("there", theirs, 24, Lifetime::Forever)
                .unwrap();
            net.set_up("here").unwrap();
            inside.set_up("there").unwrap();
            wait("a carrier", || net.link("here").unwrap().running);
            let near = UdpSocket::bind((ours, 7)).unwrap();
            let far = std::thread::spawn(move || {
                join_network(other, false).unwrap();
                UdpSocket::bind((theirs, 7)).unwrap()
            });
            let far = far.join().unwrap();
            let both = || (arrives(&near, &far), arrives(&far, &near));
            wait("the neighbours know each other", || both() == (true, true));
            inside.drop_outgoing("there").unwrap();
            assert_eq!(both(), (true, false), "mute");
            inside.pass_outgoing("there").unwrap();
            net.drop_outgoing("here").unwrap();
            assert_eq!(both(), (false, true), "deaf");
            net.pass_outgoing("here").unwrap();
            net.pass_outgoing("here").unwrap();
            assert_eq!(both(), (true, true));
        },
    );
}

#[test]
fn an_address_with_a_lifetime_leaves_by_itself() {
    isolated(
        "netlink::an_address_with_a_lifetime_leaves_by_itself",
        || {
            let mut net = Netlink::open().unwrap();
            net.set_up("lo").unwrap();
            let lifetime = Lifetime::Only(Duration::from_secs(1));
            net.add_address("lo", ADDRESS, 32, lifetime).unwrap();
            let held = |net: &mut Netlink| {
                net.addresses("lo")
                    .unwrap()
                    .iter()
                    .any(|it| it.ip == ADDRESS && it.expires)
            };
            assert!(held(&mut net));
            let limit = Instant::now() + Duration::from_secs(10);
            while held(&mut net) {
                assert!(Instant::now() < limit, "the kernel kept {ADDRESS}");
                std::thread::sleep(Duration::from_millis(10));
            }
        },
    );
}

#[test]
fn an_error_says_what_was_tried() {
    isolated("netlink::an_error_says_what_was_tried", || {
        let mut net = Netlink::open().unwrap();
        let error = net.set_up("nowhere").unwrap_err();
        assert_eq!(error.to_string(), "cannot set nowhere up");
        let error = net.create_veth_to_pid("a", "b", u32::MAX).unwrap_err();
        assert!(error.to_string().contains("process 4294967295"), "{error}");
    });
}
