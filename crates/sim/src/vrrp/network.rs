//! Packets between routers, and to the neighbours: lost, delayed, duplicated and cut in one direction.

use super::{Event, Sabotage, Sim, address_of, ms, us, vrid};
use crate::violation::{Rule, Violation};
use gaiola_core::vrrp::Input;
use gaiola_model::vrrp::{Advertisement, Message, Priority};
use gaiola_wire::vrrp::{self as wire, Checksum, Datagram, Endpoints, Key};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

impl Sim {
    /// Takes a packet from another node, or a relay's datagram.
    pub(super) fn hear(&mut self, n: usize, from: usize, payload: &[u8]) -> Result<(), Violation> {
        if self.relay_at(from).is_none() {
            return self.hear_message(n, self.nodes[from].address, payload);
        }
        match Datagram::decode(payload) {
            Some(Datagram::Pong(ping)) => {
                let node = &mut self.nodes[n];
                let shown = node.clock.shows(self.world.now());
                node.contact.answered(shown, ping);
                Ok(())
            }
            Some(Datagram::Relayed { from, message }) => self.hear_message(n, from.into(), message),
            other => Err(Rule::Readable.broken(format!("a relay sent {other:?}"))),
        }
    }

    fn hear_message(&mut self, n: usize, source: IpAddr, payload: &[u8]) -> Result<(), Violation> {
        let endpoints = Endpoints {
            source: ipv4(source),
            destination: wire::GROUP,
        };
        let received = wire::decode(payload, endpoints, wire::TTL, self.key.as_ref())
            .map_err(|error| Rule::Readable.broken(format!("an advertisement is {error}")))?;
        let message = received.message;
        let stale = received
            .stamp
            .is_some_and(|stamp| !self.nodes[n].freshness.is_new(source, &message, stamp));
        if stale {
            return Ok(());
        }
        let vip = usize::from(message.vrid().get()) - 1;
        let from = source;
        let input = match message {
            Message::Advertisement(advert) => Input::Heard { from, advert },
            Message::Hello(hello) => {
                let node = &mut self.nodes[n];
                if hello.hears(node.address) {
                    let shown = node.clock.shows(self.world.now());
                    node.contact.is_heard(shown);
                }
                Input::HeardHello { from, hello }
            }
        };
        self.pass(n, vip, input)
    }

    pub(super) fn advertise(
        &mut self,
        n: usize,
        vip: usize,
        priority: Priority,
        interval: Duration,
    ) {
        let advert = Advertisement {
            vrid: vrid(vip),
            priority,
            interval,
            vips: vec![address_of(vip)],
        };
        self.say(n, &Message::Advertisement(advert));
    }

    pub(super) fn say(&mut self, n: usize, message: &Message) {
        let node = &mut self.nodes[n];
        let endpoints = Endpoints {
            source: ipv4(node.address),
            destination: wire::GROUP,
        };
        let another = Key::from_hex(&"a5".repeat(16)).expect("a key");
        let key = match self.sabotage {
            Some(Sabotage::AnotherKey) if n == 0 => self.key.as_ref().map(|_| &another),
            _ => self.key.as_ref(),
        };
        let seal = key.map(|key| (key, node.freshness.stamp()));
        let payload = wire::encode(message, endpoints, Checksum::default(), seal);
        for to in (0..self.plan.nodes).filter(|&to| to != n) {
            let payload = payload.clone();
            let packet = Event::Packet {
                to,
                from: n,
                payload,
            };
            self.send(n, to, packet);
        }
        self.send_to_relays(n, &Datagram::Message(&payload));
    }

    pub(super) fn announce(&mut self, n: usize, vip: usize) {
        self.send(n, self.plan.nodes, Event::Announced { node: n, vip });
    }

    /// Sends a packet over a network that may lose, delay or duplicate it.
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Event) {
        let is_deaf = self.deaf.get(to).is_some_and(|deaf| *deaf);
        if is_deaf || self.cut[from][to] || self.world.chance(self.loss) {
            return;
        }
        let copies = if self.faulty && self.world.chance(30) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let slow = self.faulty && self.world.chance(20);
            let delay = if slow {
                ms(10)..ms(150)
            } else {
                us(50)..us(1500)
            };
            let delay = self.world.span(delay);
            self.world.after(delay, packet.clone());
        }
    }
}

/// The simulation's routers have IPv4 addresses, and so have its VIPs.
pub(super) fn ipv4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} is no address of the simulation"),
    }
}
