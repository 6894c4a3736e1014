//! The state machine of one VIP on one server.

mod advert;
mod cut_off;
mod hello;

use super::peers::Peers;
use super::timers::Timers;
use super::{HOLDING_BACK, Input, Output, REFRESH_INTERVAL, RESUME_WITHIN, Reason, Role, Settings};
use gaiola_model::Time;
use gaiola_model::vrrp::Priority;
use hello::Greeting;
use std::net::IpAddr;
use std::time::Duration;

/// One virtual router: decides for one VIP on one server.
///
/// ```
/// use gaiola_core::vrrp::{Input, Output, Router, Settings};
/// use gaiola_model::Time;
/// use gaiola_model::vrrp::{Priority, Vrid};
///
/// let settings = Settings::new(
///     Vrid::new(1).unwrap(), [10, 77, 0, 100].into(), [10, 77, 1, 1].into(), Priority(200),
/// );
/// let mut router = Router::new(settings);
/// let mut out = Vec::new();
/// router.step(Time::ZERO, Input::Start { held: false }, &mut out);
/// router.step(Time::ZERO, Input::Ready, &mut out);
/// let silence = router.next_deadline().unwrap();
/// assert_eq!(silence.since_start().as_micros(), 321_875);
/// out.clear();
/// router.step(silence, Input::Deadline, &mut out);
/// assert_eq!(
///     out[..3],
///     [Output::AddAddress, Output::Announce, Output::Advertise(Priority(200))],
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Router {
    settings: Settings,
    state: State,
    peers: Peers,
    greeting: Option<Greeting>,
    /// SYNs are queued until this time at the latest; `None`: they are not queued.
    holding_back_until: Option<Time>,
    /// Nobody hears this server: it takes no VIP.
    cut_off: bool,
    claims: u64,
    contested_at: Option<Time>,
}

#[derive(Clone, Debug)]
enum State {
    Initialize,
    /// A holder that may have been replaced: the address may still be in place, but is not advertised.
    Resuming {
        ready: bool,
        listen_until: Time,
        give_up_at: Time,
    },
    Backup {
        active: Option<IpAddr>,
        /// The Active router's interval, or our own while no advertisement is heard.
        interval: Duration,
        take_over_at: Time,
        /// Why it will then take over: silence, or a release.
        because: Reason,
        /// Until then a lower Active router is left alone, even with preemption.
        patient_until: Time,
    },
    Active(Timers),
    /// Still holding, after announcing the release.
    Yielding {
        timers: Timers,
        until: Time,
        stopping: bool,
    },
    Stopped,
}

impl Router {
    /// A router before its first input, which is [`Input::Start`].
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Initialize,
            peers: Peers::default(),
            greeting: None,
            holding_back_until: None,
            cut_off: false,
            claims: 0,
            contested_at: None,
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its role for its VIP.
    pub fn role(&self) -> Role {
        match &self.state {
            State::Initialize | State::Resuming { .. } | State::Stopped => Role::Initialize,
            State::Backup { active, .. } => Role::Backup { active: *active },
            State::Active(_) | State::Yielding { .. } => Role::Active,
        }
    }

    /// Whether [`Input::Stop`] has been carried out: the process may end.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// The router that would take the VIP if it were released now: it is heard, ready, and hears us.
    pub fn standby(&self, now: Time) -> Option<IpAddr> {
        self.peers.standby(now)
    }

    /// The higher router that has stood by for long enough that the VIP may go back to it.
    pub fn settled(&self, now: Time) -> Option<IpAddr> {
        self.peers.settled_above(now, self.settings.priority)
    }

    /// Whether the VIP is being handed over: the release was announced, and nobody has taken it yet.
    pub fn is_yielding(&self) -> bool {
        matches!(self.state, State::Yielding { .. })
    }

    /// How often it took the VIP, or kept it against another holder. Whatever moves the address elsewhere must then be done
    /// again: the other one has done it too.
    pub fn claims(&self) -> u64 {
        self.claims
    }

    /// Whether SYNs are queued.
    pub fn is_holding_back(&self) -> bool {
        self.holding_back_until.is_some()
    }

    /// When to call [`step`](Self::step) with [`Input::Deadline`] if nothing else happens first. Packets that arrived
    /// before that moment must be passed in before it.
    pub fn next_deadline(&self) -> Option<Time> {
        let hello = self.greeting.map(|greeting| greeting.next);
        let others = [self.state_deadline(), hello, self.holding_back_until];
        others.into_iter().flatten().min()
    }

    fn state_deadline(&self) -> Option<Time> {
        match &self.state {
            State::Initialize | State::Stopped => None,
            State::Resuming {
                ready,
                listen_until,
                give_up_at,
            } => Some(if *ready { *listen_until } else { *give_up_at }),
            State::Backup { .. } if self.cut_off => None,
            State::Backup { take_over_at, .. } => Some(*take_over_at),
            State::Active(timers) => Some(timers.next()),
            State::Yielding { timers, until, .. } => Some(timers.next().min(*until)),
        }
    }

    /// Takes one event and returns at once; the shell carries out what was appended to `out`.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.notice_lateness(now, out);
        self.change(now, input, out);
        self.hold_back_no_longer(now, out);
        self.say_hello(now, out);
    }

    fn change(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        let state = std::mem::replace(&mut self.state, State::Stopped);
        self.state = match (state, input) {
            (State::Stopped, _) => State::Stopped,
            (state, Input::Configure(settings)) => self.configure(now, state, settings, out),
            (State::Initialize, Input::Start { held: true }) => State::Resuming {
                ready: false,
                listen_until: now + self.settings.listen(),
                give_up_at: now + RESUME_WITHIN,
            },
            (state, Input::Start { .. }) => {
                out.push(Output::RemoveAddress);
                state
            }
            (state, Input::Ready) => self.ready(now, state, out),
            (state, Input::NotReady) => self.not_ready(state, out),
            (state, Input::CutOff(cut_off)) => self.be_cut_off(now, state, cut_off, out),
            (state, Input::Heard { from, advert }) if self.concerns(from, &advert) => {
                self.heard(now, state, from, &advert, out)
            }
            (state, Input::Heard { .. }) => state,
            (state, Input::HeardHello { from, hello }) => {
                let is_news = self.heard_hello(now, from, &hello);
                match state {
                    // A router that was not heard may have held the VIP meanwhile.
                    State::Active(timers) if is_news => {
                        out.push(Output::Announce);
                        State::Active(timers.announced_anew(now))
                    }
                    state => state,
                }
            }
            (state @ (State::Active(_) | State::Yielding { .. }), Input::HoldBack(true)) => {
                out.push(Output::HoldBack);
                self.holding_back_until = Some(now + HOLDING_BACK);
                state
            }
            (state, Input::HoldBack(begins)) => {
                if !begins && self.is_holding_back() {
                    self.holding_back_until = Some(now);
                }
                state
            }
            (state, Input::Deadline) => self.deadline(now, state, out),
            (State::Active(timers), Input::Yield) if self.may_yield(now) => {
                self.let_go(now, timers, false, out)
            }
            (state, Input::Yield) => state,
            (State::Active(timers), Input::Exchange) => {
                out.push(Output::RefreshAddress);
                // Twice: one may be lost.
                out.extend([Output::AskForPatience(self.settings.priority); 2]);
                State::Active(timers.advertised(now, self.settings.interval))
            }
            (state, Input::Exchange) => state,
            (State::Active(timers), Input::Stop) => self.let_go(now, timers, true, out),
            (State::Yielding { timers, until, .. }, Input::Stop) => State::Yielding {
                timers,
                until,
                stopping: true,
            },
            (State::Resuming { .. }, Input::Stop) => {
                self.give_up(out);
                stop(out)
            }
            (_, Input::Stop) => {
                out.push(Output::RemoveAddress);
                stop(out)
            }
        };
    }

    /// Without hellos no router knows whether another would take the VIP, and it is offered on trust.
    fn may_yield(&self, now: Time) -> bool {
        !self.settings.hellos || self.standby(now).is_some()
    }

    fn hold_back_no_longer(&mut self, now: Time, out: &mut Vec<Output>) {
        let holds = matches!(self.state, State::Active(_) | State::Yielding { .. });
        if (self.holding_back_until).is_some_and(|until| !holds || now >= until) {
            self.holding_back_until = None;
            out.push(Output::PassOn);
        }
    }

    /// A process that slept for longer than the others wait no longer knows who holds the VIP, so it first reads what
    /// arrived meanwhile.
    fn notice_lateness(&mut self, now: Time, out: &mut Vec<Output>) {
        let interval = self.settings.interval;
        let listen_until = now + self.settings.listen();
        let late_holder = match &mut self.state {
            State::Active(timers) => now >= timers.advertise_at + interval * 2,
            State::Yielding {
                until, stopping, ..
            } => !*stopping && now >= *until + interval,
            State::Backup {
                take_over_at: due, ..
            }
            | State::Resuming {
                ready: true,
                listen_until: due,
                ..
            } => {
                if now >= *due + interval {
                    *due = listen_until;
                }
                false
            }
            _ => false,
        };
        if late_holder {
            out.push(Output::Became(Role::Initialize, Reason::Late));
            self.state = State::Resuming {
                ready: true,
                listen_until,
                give_up_at: listen_until,
            };
        }
    }

    fn configure(
        &mut self,
        now: Time,
        state: State,
        settings: Settings,
        out: &mut Vec<Output>,
    ) -> State {
        let same = |of: &Settings| (of.vrid, of.vip, of.address);
        assert_eq!(same(&self.settings), same(&settings), "another router");
        self.settings = settings;
        match state {
            // Publishes the new priority and interval at once.
            State::Active(timers) => {
                out.push(Output::Advertise(self.settings.priority));
                State::Active(timers.advertised(now, self.settings.interval))
            }
            state => state,
        }
    }

    fn ready(&self, now: Time, state: State, out: &mut Vec<Output>) -> State {
        match state {
            State::Initialize => {
                out.push(Output::Became(Role::Backup { active: None }, Reason::Ready));
                self.backup(now, None, self.settings.interval)
            }
            State::Resuming {
                listen_until,
                give_up_at,
                ..
            } => State::Resuming {
                ready: true,
                listen_until: listen_until.max(now),
                give_up_at,
            },
            state => state,
        }
    }

    fn not_ready(&self, state: State, out: &mut Vec<Output>) -> State {
        match state {
            State::Initialize => return State::Initialize,
            State::Backup { .. } => {}
            State::Resuming { .. } => self.give_up(out),
            // Nothing answers behind the address: it is removed first, without waiting for the next holder.
            State::Active(_) | State::Yielding { .. } => {
                out.push(Output::RemoveAddress);
                out.push(Output::Advertise(Priority::RELEASE));
            }
            State::Stopped => return State::Stopped,
        }
        if matches!(state, State::Yielding { stopping: true, .. }) {
            return stop(out);
        }
        out.push(Output::Became(Role::Initialize, Reason::NotReady));
        State::Initialize
    }

    fn deadline(&mut self, now: Time, state: State, out: &mut Vec<Output>) -> State {
        match state {
            State::Resuming {
                ready: true,
                listen_until,
                ..
            } if now >= listen_until => self.take_over(now, Reason::Resumed, out),
            State::Resuming {
                ready: false,
                give_up_at,
                ..
            } if now >= give_up_at => {
                self.give_up(out);
                State::Initialize
            }
            State::Backup {
                active,
                take_over_at,
                because,
                ..
            } if now >= take_over_at && !self.cut_off => {
                let silent = active.filter(|_| because == Reason::Silence);
                silent.inspect(|silent| self.peers.lost(now, *silent));
                self.take_over(now, because, out)
            }
            State::Active(timers) => {
                State::Active(self.keep(now, timers, self.settings.priority, out))
            }
            State::Yielding {
                until, stopping, ..
            } if now >= until => {
                if stopping {
                    out.push(Output::RemoveAddress);
                    return stop(out);
                }
                self.peers.nobody_took_it(now);
                self.take_over(now, Reason::NobodyTookIt, out)
            }
            State::Yielding {
                timers,
                until,
                stopping,
            } => State::Yielding {
                timers: self.keep(now, timers, Priority::RELEASE, out),
                until,
                stopping,
            },
            state => state,
        }
    }

    /// Does not resume: whoever waits for it, as it may have asked, waits no longer.
    pub(super) fn give_up(&self, out: &mut Vec<Output>) {
        out.push(Output::RemoveAddress);
        out.push(Output::Advertise(Priority::RELEASE));
    }

    fn take_over(&mut self, now: Time, reason: Reason, out: &mut Vec<Output>) -> State {
        self.claims += 1;
        out.push(Output::AddAddress);
        // The neighbours are informed before a yielding holder hears of it and removes the address.
        out.push(Output::Announce);
        if let Some(greeting) = &mut self.greeting {
            // Another holder, if there is one after all, first sees whether we hear it.
            greeting.next = now + self.settings.interval;
            out.push(Output::SayHello);
        }
        out.push(Output::Advertise(self.settings.priority));
        out.push(Output::Became(Role::Active, reason));
        State::Active(Timers::new(now, self.settings.interval))
    }

    /// Does whatever is due while the address is held.
    fn keep(&self, now: Time, timers: Timers, priority: Priority, out: &mut Vec<Output>) -> Timers {
        let mut timers = timers;
        if now >= timers.refresh_at {
            out.push(Output::RefreshAddress);
            timers.refresh_at = now + REFRESH_INTERVAL;
        }
        if now >= timers.advertise_at {
            out.push(Output::Advertise(priority));
            timers = timers.advertised(now, self.settings.interval);
        }
        if now >= timers.announce_at {
            out.push(Output::Announce);
            timers = timers.announced(now);
        }
        timers
    }

    /// Announces the release. A Backup waits for its skew after the last such advertisement, at most one interval, so
    /// the release is repeated only after more than that.
    fn let_go(&self, now: Time, timers: Timers, stopping: bool, out: &mut Vec<Output>) -> State {
        let interval = self.settings.interval;
        out.push(Output::Advertise(Priority::RELEASE));
        State::Yielding {
            timers: timers.advertised(now, interval * 3 / 2),
            until: now + interval * 3,
            stopping,
        }
    }

    fn backup(&self, now: Time, active: Option<IpAddr>, interval: Duration) -> State {
        State::Backup {
            active,
            interval,
            take_over_at: now + self.settings.active_down_interval(interval),
            because: Reason::Silence,
            patient_until: now,
        }
    }
}

impl State {
    fn patient(mut self, until: Time) -> Self {
        if let Self::Backup { patient_until, .. } = &mut self {
            *patient_until = until;
        }
        self
    }
}

fn stop(out: &mut Vec<Output>) -> State {
    out.push(Output::Became(Role::Initialize, Reason::Stopped));
    State::Stopped
}

#[cfg(test)]
mod tests;
