use crate::namespace::isolated;
use crate::site::wait;
use gaiola_node::os::netlink::{Lifetime, Netlink};
use std::net::{IpAddr, Ipv4Addr};
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
