//! A whole site: every agent may become the conductor, sees the store by a watch that may lag, and reaches it by a network
//! that delays, reorders and loses messages. The store is slow, hangs, or is gone for a while.

use super::members::{Members, MembersSight};
use super::network::{Basis, Call, Flight, Leg, Purpose, Reply, Request};
use super::operator::Operator;
use super::sabotage::Sabotage;
use super::session::Session;
use super::{TICK, World};
use crate::store::{Expected, Item, Key, Store, Value, Write};
use crate::violation::{Rule, Violation};
use gaiola_model::{Observed, Placement, Revision, ServerName, Time};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What a site has that a single conductor without a network does not need.
pub(super) struct Site {
    pub(super) store: Store,
    pub(super) sessions: BTreeMap<ServerName, Session>,
    flights: Vec<Flight>,
    calls: u64,
    pub(super) members: Members,
    /// Whether more than half of the members that vote are alive.
    has_quorum: bool,
    /// Answers take long until then.
    pub(super) slow_until: Time,
    /// Requests are carried out only then.
    pub(super) hung_until: Time,
    /// An agent's watch delivers nothing until then.
    pub(super) stalled_until: BTreeMap<ServerName, Time>,
    pub(super) operator: Operator,
    /// The generation that the operator has written.
    written: Option<u64>,
    /// The term of the last write of a conductor.
    last_term: Revision,
    pub(super) sabotage: Option<Sabotage>,
}

impl Site {
    pub(super) fn new(placement: &Placement, sabotage: Option<Sabotage>) -> Self {
        let mut store = Store::default();
        let first = Write {
            key: Key::Placement,
            expected: Expected::Absent,
            within: None,
            silent: Vec::new(),
            value: Value::Placement(Rc::new(placement.clone())),
            lease: None,
        };
        store.write(Time::ZERO, &first).expect("an empty store");
        Self {
            store,
            sessions: BTreeMap::new(),
            flights: Vec::new(),
            calls: 0,
            members: Members::founders(&placement.store),
            has_quorum: true,
            slow_until: Time::ZERO,
            hung_until: Time::ZERO,
            stalled_until: BTreeMap::new(),
            operator: Operator::default(),
            written: None,
            last_term: Revision(0),
            sabotage,
        }
    }

    pub(super) fn session(&mut self, server: ServerName, now: Time) -> &mut Session {
        let sessions = self.sessions.entry(server);
        sessions.or_insert_with(|| Session::new(server, now))
    }

    /// The servers whose agents believe to conduct.
    pub(super) fn conductors(&self) -> impl Iterator<Item = ServerName> {
        let sessions = self.sessions.values();
        sessions
            .filter(|session| session.conducts())
            .map(|session| session.server)
    }

    pub(super) fn written(&self) -> Option<u64> {
        self.written
    }

    /// Whether the store answers nobody.
    pub(super) fn is_hung(&self, now: Time) -> bool {
        now < self.hung_until || !self.has_quorum
    }

    /// Whether a server's agent has this order from the store itself.
    fn is_confirmed(&self, server: ServerName, known: Revision) -> bool {
        let seen = self.sessions.get(&server);
        let seen = seen.and_then(|session| session.view.placement.as_ref());
        seen.is_some_and(|(at, _)| *at == known)
    }

    /// Each session, and who conducts, in words.
    pub(super) fn in_words(&self) -> String {
        let sessions = self.sessions.values().map(Session::in_words);
        let holder = self.store.get(Key::Conductor);
        let holder = holder.map(|item| (&item.value, item.created, item.lease));
        let words: Vec<String> = sessions.collect();
        format!("the conductor's key: {holder:?}\n{}", words.join("\n"))
    }

    fn reports(&self) -> BTreeMap<ServerName, Observed> {
        let report = |(_, item): (&Key, &Item)| match &item.value {
            Value::Observed(observed) => Some((observed.server, (**observed).clone())),
            _ => None,
        };
        self.store.items().filter_map(report).collect()
    }

    fn put(&mut self, now: Time, key: Key, value: Value) {
        let write = Write {
            key,
            expected: Expected::Anything,
            within: None,
            silent: Vec::new(),
            value,
            lease: None,
        };
        let written = self.store.write(now, &write);
        written.expect("nothing is expected");
    }
}

impl World {
    /// One tick of the store, the network, and every agent's session.
    pub(super) fn move_site(&mut self, site: &mut Site) -> Result<(), Violation> {
        let now = self.now;
        self.see_members(site);
        if !site.is_hung(now) {
            site.store.expire(now);
        }
        self.operate(site);
        self.deliver(site)?;
        self.see_reports(site);
        let servers: Vec<ServerName> = self.machines.keys().copied().collect();
        site.sessions.retain(|server, _| servers.contains(server));
        for server in servers {
            self.move_session(site, server)?;
        }
        self.follow(site)
    }

    /// Whether the store has a quorum. One that has it again elects a leader, which extends every lease.
    fn see_members(&self, site: &mut Site) {
        let members = &site.members;
        let has_quorum = members.has_quorum(&self.living_members(members));
        if has_quorum && !site.has_quorum {
            site.store.extend_leases(self.now);
        }
        site.has_quorum = has_quorum;
    }

    /// The operator writes what is desired, and the lab which boots are over, as soon as the store answers.
    fn operate(&mut self, site: &mut Site) {
        let now = self.now;
        if now < self.store_dark_until || site.is_hung(now) {
            return;
        }
        if site.written != Some(self.desired.generation) {
            site.written = Some(self.desired.generation);
            let desired = Rc::new(self.desired.clone());
            site.put(now, Key::Desired, Value::Desired(desired));
        }
        for (server, boot) in std::mem::take(&mut self.ended_boots) {
            site.put(now, Key::Over(server), Value::Over(boot));
        }
    }

    /// What arrives now, in any order.
    fn deliver(&mut self, site: &mut Site) -> Result<(), Violation> {
        let now = self.now;
        let is_hung = site.is_hung(now);
        let arrives = |flight: &Flight| {
            let waits = is_hung && matches!(flight.leg, Leg::There(_));
            flight.arrives <= now && !waits
        };
        let (mut arrived, later): (Vec<_>, Vec<_>) = std::mem::take(&mut site.flights)
            .into_iter()
            .partition(arrives);
        site.flights = later;
        self.rng.shuffle(&mut arrived);
        for flight in arrived {
            let Flight {
                agent,
                call,
                attempt,
                leg,
                ..
            } = flight;
            match leg {
                Leg::There(request) => {
                    let reply = self.serve(site, agent, attempt, request)?;
                    self.send(site, agent, call, attempt, Leg::Back(reply));
                }
                Leg::Back(reply) => {
                    let Some(session) = site.sessions.get_mut(&agent) else {
                        continue;
                    };
                    let mut calls = session.calls.iter();
                    let found = calls.position(|held| (held.id, held.attempt) == (call, attempt));
                    if let Some(found) = found {
                        let call = session.calls.remove(found);
                        let is_lost = site.sabotage == Some(Sabotage::ForgetsElection)
                            && call.purpose == Purpose::Campaign;
                        if !is_lost {
                            session.answered(now, &call, reply);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends a message, which may be lost and takes its time.
    fn send(&mut self, site: &mut Site, agent: ServerName, call: u64, attempt: u32, leg: Leg) {
        let now = self.now;
        let cut = self
            .machines
            .get(&agent)
            .is_none_or(|machine| now < machine.cut_off_until);
        if cut || now < self.store_dark_until {
            return;
        }
        let ticks = match (now < site.slow_until, self.is_troubled()) {
            (true, _) => self.rng.u32(0..12),
            (false, true) if self.rng.u8(..8) == 0 => self.rng.u32(0..30),
            _ => self.rng.u32(0..2),
        };
        site.flights.push(Flight {
            arrives: now + TICK * ticks,
            agent,
            call,
            attempt,
            leg,
        });
    }

    /// The store carries a request out.
    fn serve(
        &mut self,
        site: &mut Site,
        agent: ServerName,
        attempt: u32,
        request: Request,
    ) -> Result<Reply, Violation> {
        let now = self.now;
        Ok(match request {
            Request::Ask => Reply::Done,
            Request::Grant => Reply::Granted(site.store.grant(now)),
            Request::KeepAlive(lease) => Reply::Renewed(site.store.keep_alive(now, lease)),
            Request::Write(write) => Reply::Written(write_once(site, now, attempt, &write)),
            Request::Place(write, basis) => {
                let before = site.store.log().len();
                let holder = site.store.get(Key::Conductor).cloned();
                let written = write_once(site, now, attempt, &write);
                if site.store.log().len() > before {
                    check_conductor(site, agent, &write, holder)?;
                    let at = *written.as_ref().expect("it was written");
                    self.place(site, at, &write, &basis)?;
                }
                Reply::Written(written)
            }
            Request::Members(step) => {
                self.change_members(&mut site.members, step)?;
                Reply::Done
            }
        })
    }

    /// A conductor's placement is stored: judged by what that conductor knew, and by what is so.
    fn place(
        &mut self,
        site: &Site,
        at: Revision,
        write: &Write,
        basis: &Basis,
    ) -> Result<(), Violation> {
        let Value::Placement(placement) = &write.value else {
            return Ok(());
        };
        self.check_removed_members(&site.members, placement)?;
        let desired = std::mem::replace(&mut self.desired, (*basis.desired).clone());
        let facts = std::mem::replace(&mut self.facts, basis.facts.clone());
        let checked = self.check_step(placement);
        (self.desired, self.facts) = (desired, facts);
        checked?;
        self.stored(at, Rc::clone(placement));
        Ok(())
    }

    /// Which servers the store knows to be alive.
    fn see_reports(&mut self, site: &Site) {
        let now = self.now;
        for (server, machine) in &mut self.machines {
            let report = site.store.get(Key::Observed(*server));
            let report = report.map(|item| (item.modified, &item.value));
            machine.see_report(now, report);
        }
        if !self.is_troubled() {
            self.observe(site);
        }
    }

    /// What somebody who reads the store now knows of the site.
    fn observe(&mut self, site: &Site) {
        let placement = Rc::clone(&self.store.placement);
        let at = self.store.at;
        self.facts.store_members = placement.store.iter().copied().collect();
        self.facts.observe(self.now, &placement, at, site.reports());
    }

    /// One turn of an agent's tasks that speak with the store.
    fn move_session(&mut self, site: &mut Site, server: ServerName) -> Result<(), Violation> {
        let now = self.now;
        let machine = &self.machines[&server];
        if !machine.has_agent(now) {
            site.sessions.remove(&server);
            return Ok(());
        }
        if machine.frozen_with.is_some() {
            return Ok(());
        }
        let stalled = site
            .stalled_until
            .get(&server)
            .is_some_and(|until| now < *until);
        let cut = now < self.store_dark_until.max(machine.cut_off_until) || site.is_hung(now);
        let known = machine.known;
        let mut observed = machine.observe(server, now);
        if let Some(order) = self.held(known) {
            let confirmed = site.is_confirmed(server, known);
            site.members
                .keep(server, (order, confirmed), site.sabotage)?;
        }
        observed.store_data = Some(site.members.has_log(server));
        let observed = (known > Revision(0)).then_some(observed);
        let is_new = !site.sessions.contains_key(&server);
        let lag = self.watch_lag(site, is_new);
        site.session(server, now);
        let Site {
            store, sessions, ..
        } = site;
        let session = sessions.get_mut(&server).expect("it was just made");
        if !stalled && !cut {
            session.watch(
                store,
                Time::from_start(now.since_start().saturating_sub(lag)),
            );
        }
        let failed = session.calls.extract_if(.., |call| call.has_failed(now));
        let failed: Vec<Purpose> = failed.map(|call| call.purpose).collect();
        failed
            .into_iter()
            .for_each(|purpose| session.failed(now, purpose));
        let mut sends: Vec<(u64, u32, Request)> = Vec::new();
        for call in &mut session.calls {
            if call.repeats(now) {
                sends.push((call.id, call.attempt, call.request.clone()));
            }
        }
        let mut next = session.next_calls(now, observed, site.sabotage);
        next.extend(self.conduct_in(site, server)?);
        for (purpose, request) in next {
            site.calls += 1;
            let call = Call::new(site.calls, purpose, request.clone(), now);
            sends.push((call.id, call.attempt, request));
            site.session(server, now).calls.push(call);
        }
        for (call, attempt, request) in sends {
            self.send(site, server, call, attempt, Leg::There(request));
        }
        Ok(())
    }

    /// How far a watch lags behind.
    pub(super) fn watch_lag(&mut self, site: &Site, is_first: bool) -> Duration {
        match self.now < site.slow_until {
            // No agent relies on a first listing that is newer than its disk.
            _ if is_first && self.is_troubled() => TICK * self.rng.u32(0..120),
            true => TICK * self.rng.u32(0..12),
            false => TICK * self.rng.u32(0..3),
        }
    }

    /// A conductor's turn: a placement, or a step of the store's members.
    fn conduct_in(
        &mut self,
        site: &mut Site,
        server: ServerName,
    ) -> Result<Option<(Purpose, Request)>, Violation> {
        let (now, sabotage) = (self.now, site.sabotage);
        let is_idle = sabotage == Some(Sabotage::Idle) && !self.is_troubled();
        let Some(session) = site.sessions.get_mut(&server) else {
            return Ok(None);
        };
        if session.is_writing() || is_idle || self.rng.u8(..10) > 7 {
            return Ok(None);
        }
        if sabotage == Some(Sabotage::Unfenced) {
            session.usurp(now);
        }
        let living = self.living_members(&site.members);
        let sight = MembersSight {
            list: &site.members.list,
            living: &living,
        };
        let call = session.conduct(now, sight, sabotage);
        if let Some((_, Request::Members(step))) = &call
            && let Some(decision) = session.decides_on()
        {
            self.check_member_step(&site.members, *step, &decision)?;
            self.note(format!("{server}: {step:?}"));
        }
        Ok(call)
    }
}

/// A write that is sent again is recognised where an earlier attempt was carried out.
fn write_once(
    site: &mut Site,
    now: Time,
    attempt: u32,
    write: &Write,
) -> Result<Revision, crate::store::Refused> {
    site.store.write(now, write).or_else(|refused| {
        let held = site.store.get(write.key);
        let held = held.filter(|held| held.value == write.value && held.lease == write.lease);
        held.filter(|_| attempt > 1)
            .map(|held| held.modified)
            .ok_or(refused)
    })
}

/// Only the holder of the conductor's key writes, and no earlier one after a later one.
fn check_conductor(
    site: &mut Site,
    agent: ServerName,
    write: &Write,
    holder: Option<Item>,
) -> Result<(), Violation> {
    let holds = holder.as_ref().is_some_and(|held| {
        held.value == Value::Conductor(agent) && write.within == Some(held.created)
    });
    let term = write.within.unwrap_or_default();
    if !holds || term < site.last_term {
        let how = format!("{agent} writes in the term {term}, while {holder:?} holds the key");
        return Err(Rule::OneConductor.broken(how));
    }
    site.last_term = term;
    Ok(())
}
