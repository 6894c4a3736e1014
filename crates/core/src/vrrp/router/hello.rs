//! Hellos: which routers are heard, and which of them hear this one.

use super::{Router, State};
use crate::vrrp::Output;
use gaiola_model::Time;
use gaiola_model::vrrp::{Hello, Priority};
use std::net::IpAddr;

/// This router sends hellos.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub(super) since: Time,
    pub(super) next: Time,
}

impl Router {
    /// This router's hello.
    pub fn hello(&self, now: Time) -> Hello {
        let priority = match self.state {
            State::Stopped => Priority::RELEASE,
            _ => self.settings.priority,
        };
        Hello {
            vrid: self.settings.vrid,
            priority,
            interval: self.settings.interval,
            stands_by: matches!(self.state, State::Backup { .. }) && !self.cut_off,
            hears: self.peers.all(now),
        }
    }

    pub(super) fn say_hello(&mut self, now: Time, out: &mut Vec<Output>) {
        let speaks = matches!(
            self.state,
            State::Backup { .. } | State::Active(_) | State::Yielding { .. }
        );
        if !speaks || !self.settings.hellos {
            let spoke = self.greeting.take().is_some();
            if spoke && self.is_stopped() {
                // A last hello: a router that leaves cleanly is not lost.
                out.push(Output::SayHello);
            }
            return;
        }
        let greeting = self.greeting.get_or_insert(Greeting {
            since: now,
            next: now,
        });
        if now >= greeting.next {
            greeting.next = now + self.settings.interval;
            out.push(Output::SayHello);
        }
    }

    /// Answers a router heard for the first time, or again, with a hello at once; `true`: this one was.
    pub(super) fn heard_hello(&mut self, now: Time, from: IpAddr, hello: &Hello) -> bool {
        let own = self.settings.address;
        let is_news = from != own && self.peers.heard(now, own, from, hello);
        if let Some(greeting) = self.greeting.as_mut().filter(|_| is_news) {
            greeting.next = now;
        }
        is_news
    }

    /// Whether another router reports that it does not hear us although we send hellos.
    pub(super) fn is_deaf(&self, now: Time, from: IpAddr) -> bool {
        self.greeting.is_some() && self.peers.deaf_since(now, from).is_some()
    }

    /// Whether it has reported that for so long that our hellos must have reached it.
    pub(super) fn stays_deaf(&self, now: Time, from: IpAddr) -> bool {
        let deaf = self.peers.deaf_since(now, from);
        let spoken = self.greeting.map(|greeting| greeting.since);
        let since = deaf.zip(spoken).map(|(deaf, spoken)| deaf.max(spoken));
        since.is_some_and(|since| now - since >= self.settings.interval * 2)
    }
}
