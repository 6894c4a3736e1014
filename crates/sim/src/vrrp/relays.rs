//! The site's other servers, which answer balancers and forward their messages, like `agent::relay`.

use super::network::ipv4;
use super::{Event, Sabotage, Sim, ms};
use crate::violation::Violation;
use gaiola_model::Time;
use gaiola_wire::vrrp::Datagram;
use std::time::Duration;

/// A kernel refuses datagrams of one sender no more often.
const REFUSES_EVERY: Duration = ms(1000);

/// One relay.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) state: State,
    /// When its kernel last refused a datagram of each node.
    refused: Vec<Option<Time>>,
}

/// What becomes of a datagram that reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is answered or forwarded.
    Runs,
    /// Only the server's kernel is there.
    Refuses,
    /// The server is off.
    Off,
}

impl Relay {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            state: State::Runs,
            refused: vec![None; nodes],
        }
    }
}

impl Sim {
    /// A relay's place in the network.
    pub(super) fn place_of_relay(&self, relay: usize) -> usize {
        self.plan.nodes + 1 + relay
    }

    /// The relay at a place of the network.
    pub(super) fn relay_at(&self, place: usize) -> Option<usize> {
        place.checked_sub(self.plan.nodes + 1)
    }

    /// A datagram arrives at a relay.
    pub(super) fn relay(&mut self, relay: usize, from: usize, bytes: &[u8]) {
        let now = self.world.now();
        let place = self.place_of_relay(relay);
        let it = &mut self.relays[relay];
        match it.state {
            State::Off => {}
            State::Refuses => {
                let last = it.refused[from];
                if last.is_none_or(|last| now - last >= REFUSES_EVERY) {
                    it.refused[from] = Some(now);
                    self.send(place, from, Event::Refused(from));
                }
            }
            State::Runs => self.answer_or_forward(place, from, bytes),
        }
    }

    fn answer_or_forward(&mut self, place: usize, from: usize, bytes: &[u8]) {
        match Datagram::decode(bytes) {
            Some(Datagram::Ping(ping)) => {
                let pong = Datagram::Pong(ping).encode();
                self.send_datagram(place, from, pong);
            }
            Some(Datagram::Message(message)) if self.sabotage != Some(Sabotage::RelaysNothing) => {
                let from_address = self.nodes[from].address;
                let relayed = Datagram::Relayed {
                    from: ipv4(from_address),
                    message,
                };
                let relayed = relayed.encode();
                for to in (0..self.plan.nodes).filter(|&to| to != from) {
                    self.send_datagram(place, to, relayed.clone());
                }
            }
            _ => {}
        }
    }

    pub(super) fn send_datagram(&mut self, from: usize, to: usize, payload: Vec<u8>) {
        self.send(from, to, Event::Packet { to, from, payload });
    }

    /// Sends something to every relay.
    pub(super) fn send_to_relays(&mut self, n: usize, datagram: &Datagram<'_>) {
        for relay in 0..self.plan.relays {
            let place = self.place_of_relay(relay);
            self.send_datagram(n, place, datagram.encode());
        }
    }

    /// Pings the relays if that is due, and tells the routers whether anybody hears this node.
    pub(super) fn keep_contact(&mut self, n: usize) -> Result<(), Violation> {
        let now = self.world.now();
        let node = &mut self.nodes[n];
        let shown = node.clock.shows(now);
        let ping = node.contact.ping(shown);
        let cut_off = node.contact.is_cut_off(shown);
        if let Some(ping) = ping {
            self.send_to_relays(n, &Datagram::Ping(ping));
        }
        if self.sabotage == Some(Sabotage::HoldsWhenCutOff) {
            return Ok(());
        }
        for vip in 0..self.plan.vips {
            if let Some(input) = self.nodes[n].settle_contact(vip, cut_off) {
                self.pass(n, vip, input)?;
            }
        }
        Ok(())
    }
}
