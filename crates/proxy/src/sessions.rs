//! What each client connection is doing, for session listings. The connection's task records its state as it changes,
//! and the worker reads the records only when asked: nothing else pays for it.

use super::clock::Instant;
use super::orders::Ahead;
use gaiola_model::proxy::{Address, SessionStat, SessionState};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

/// All connections of a worker, unordered.
#[derive(Clone, Default)]
pub(super) struct Sessions(Rc<RefCell<Vec<Rc<Activity>>>>);

/// A connection's entry in the list, which drop removes.
pub(super) struct Listed {
    activity: Rc<Activity>,
    all: Sessions,
}

/// The recorded state of one connection.
pub(super) struct Activity {
    /// Its index in the list.
    index: Cell<usize>,
    client: Cell<SocketAddr>,
    /// Where it was accepted; finds its frontend.
    bind: Rc<Address>,
    opened: Instant,
    requests: Cell<u64>,
    state: RefCell<State>,
    idle: RefCell<Option<Parked>>,
}

/// A connection that waits for its next request.
struct Parked {
    since: Instant,
    /// `None`: it was asked to close.
    waker: Option<Waker>,
}

/// A connection as listed.
pub(super) struct Shown {
    /// Sort key: busy connections first, then idle ones, each longest first.
    pub(super) rank: Rank,
    pub(super) stat: SessionStat,
}

/// Whether it is idle; since when it is busy, or for an idle one, open.
pub(super) type Rank = (bool, Instant);

/// What a request waits for, or is served by.
pub(super) trait Named {
    /// Names of the backend and the server; the latter is empty for the backend as a whole.
    fn names(&self) -> (&str, &str);
}

/// The name of the frontend that a bind belongs to.
type FrontendOf<'a> = &'a dyn Fn(&Rc<Address>) -> Option<String>;

/// The current state, and since when.
enum State {
    /// Nothing has been requested yet.
    Opening(Instant),
    Idle,
    Request(Instant),
    Queue(Instant, Rc<dyn Named>),
    Server(Instant, Rc<dyn Named>),
    Tunnel(Instant, Rc<dyn Named>),
}

/// Records how far a request or TCP session has come on its way to a server.
#[derive(Default)]
pub(super) struct Tracker {
    ahead: Cell<Ahead>,
    activity: Option<Rc<Activity>>,
}

impl Sessions {
    /// Adds an accepted connection.
    pub(super) fn enter(&self, client: SocketAddr, bind: &Rc<Address>) -> Listed {
        let mut all = self.0.borrow_mut();
        let opened = Instant::now();
        let activity = Rc::new(Activity {
            index: Cell::new(all.len()),
            client: Cell::new(client),
            bind: Rc::clone(bind),
            opened,
            requests: Cell::new(0),
            state: RefCell::new(State::Opening(opened)),
            idle: RefCell::default(),
        });
        all.push(Rc::clone(&activity));
        Listed {
            activity,
            all: self.clone(),
        }
    }

    /// The number of connections, and the first `most` of them by rank.
    pub(super) fn show(&self, most: usize, frontend: FrontendOf<'_>) -> (u64, Vec<Shown>) {
        let all = self.0.borrow();
        let mut chosen: Vec<_> = all.iter().collect();
        if let Some(last) = most.checked_sub(1).filter(|last| *last < chosen.len()) {
            chosen.select_nth_unstable_by_key(last, |activity| activity.rank());
        }
        chosen.truncate(most);
        chosen.sort_unstable_by_key(|activity| activity.rank());
        let shown = chosen.iter().map(|activity| Shown {
            rank: activity.rank(),
            stat: activity.stat(frontend),
        });
        (all.len() as u64, shown.collect())
    }

    /// Closes the connections of this bind that have been idle longest, while `is_next_asked`.
    pub(super) fn close_idle(&self, bind: &Rc<Address>, is_next_asked: impl Fn() -> bool) {
        let all = self.0.borrow();
        let idle = all
            .iter()
            .filter(|activity| Rc::ptr_eq(&activity.bind, bind));
        let mut idle: Vec<_> = idle
            .filter_map(|activity| Some((activity.idle_since()?, activity)))
            .collect();
        let mut some = 0;
        while some < idle.len() && is_next_asked() {
            some += 1;
        }
        if some > 0 {
            idle.select_nth_unstable_by_key(some - 1, |(since, _)| *since);
        }
        idle[..some]
            .iter()
            .for_each(|(_, activity)| activity.close());
    }

    /// Clients with a request or session in progress, and where they connected.
    pub(super) fn busy(&self) -> Vec<(SocketAddr, Rc<Address>)> {
        let all = self.0.borrow();
        let busy = all.iter().filter(|activity| {
            let state = activity.state.borrow();
            !matches!(*state, State::Idle | State::Opening(_))
        });
        busy.map(|activity| (activity.client.get(), Rc::clone(&activity.bind)))
            .collect()
    }
}

impl Deref for Listed {
    type Target = Rc<Activity>;

    fn deref(&self) -> &Rc<Activity> {
        &self.activity
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        let index = self.activity.index.get();
        all.swap_remove(index);
        if let Some(moved) = all.get(index) {
            moved.index.set(index);
        }
    }
}

impl Activity {
    /// Sets the client address from its PROXY header.
    pub(super) fn is_of(&self, client: SocketAddr) {
        self.client.set(client);
    }

    /// No request is in progress.
    pub(super) fn rest(&self) {
        self.state.replace(State::Idle);
    }

    /// A request or TCP session began at `begun`.
    pub(super) fn begin(&self, begun: Instant) {
        self.requests.set(self.requests.get() + 1);
        self.state.replace(State::Request(begun));
    }

    /// Bytes are copied in both directions from now on.
    pub(super) fn tunnel(&self) {
        let mut state = self.state.borrow_mut();
        if let State::Server(since, server) = &*state {
            *state = State::Tunnel(*since, Rc::clone(server));
        }
    }

    /// Idle since then; `waker` wakes it if it should close.
    pub(super) fn park(&self, since: Instant, waker: &Waker) {
        let mut idle = self.idle.borrow_mut();
        match &mut *idle {
            Some(parked) => {
                if let Some(known) = &mut parked.waker {
                    known.clone_from(waker);
                }
            }
            None => {
                let waker = Some(waker.clone());
                *idle = Some(Parked { since, waker });
            }
        }
    }

    /// No longer idle.
    pub(super) fn unpark(&self) {
        self.idle.take();
    }

    /// Whether it was asked to close.
    pub(super) fn is_to_close(&self) -> bool {
        matches!(&*self.idle.borrow(), Some(Parked { waker: None, .. }))
    }

    fn idle_since(&self) -> Option<Instant> {
        let idle = self.idle.borrow();
        let parked = idle.as_ref().filter(|parked| parked.waker.is_some())?;
        Some(parked.since)
    }

    fn close(&self) {
        let mut idle = self.idle.borrow_mut();
        let waker = idle.as_mut().and_then(|parked| parked.waker.take());
        waker.into_iter().for_each(Waker::wake);
    }

    fn change(&self, next: impl FnOnce(Instant) -> State) {
        let mut state = self.state.borrow_mut();
        let since = state.since().unwrap_or(self.opened);
        *state = next(since);
    }

    fn rank(&self) -> Rank {
        let since = self.state.borrow().since();
        (since.is_none(), since.unwrap_or(self.opened))
    }

    fn stat(&self, frontend: FrontendOf<'_>) -> SessionStat {
        let state = self.state.borrow();
        let (backend, server) = match &*state {
            State::Opening(_) | State::Idle | State::Request(_) => ("", ""),
            State::Queue(_, at) | State::Server(_, at) | State::Tunnel(_, at) => at.names(),
        };
        let frontend = frontend(&self.bind);
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        SessionStat {
            client: self.client.get(),
            frontend,
            backend: some(backend),
            server: some(server),
            state: match &*state {
                State::Opening(_) => SessionState::Opening,
                State::Idle => SessionState::Idle,
                State::Request(_) => SessionState::Request,
                State::Queue(..) => SessionState::Queue,
                State::Server(..) => SessionState::Server,
                State::Tunnel(..) => SessionState::Tunnel,
            },
            busy_ms: state.since().map(|since| millis(since.elapsed())),
            age_ms: millis(self.opened.elapsed()),
            requests: self.requests.get(),
        }
    }
}

impl State {
    /// Since when it is busy.
    const fn since(&self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Opening(since)
            | Self::Request(since)
            | Self::Queue(since, _)
            | Self::Server(since, _)
            | Self::Tunnel(since, _) => Some(*since),
        }
    }
}

impl Tracker {
    /// For the next request on this connection.
    pub(super) fn of(activity: &Rc<Activity>) -> Self {
        Self {
            ahead: Cell::default(),
            activity: Some(Rc::clone(activity)),
        }
    }

    /// How many were queued ahead of it when it last joined a queue.
    pub(super) fn ahead(&self) -> Ahead {
        self.ahead.get()
    }

    /// It joins the backend's queue behind `ahead` others.
    pub(super) fn wait(&self, backend: Rc<dyn Named>, ahead: Ahead) {
        self.ahead.set(ahead);
        if let Some(activity) = &self.activity {
            activity.change(|since| State::Queue(since, backend));
        }
    }

    /// It was assigned a server.
    pub(super) fn lead_to(&self, server: Rc<dyn Named>) {
        if let Some(activity) = &self.activity {
            activity.change(|since| State::Server(since, server));
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sessions: &Sessions, most: usize) -> (u64, Vec<u16>) {
        let (total, shown) = sessions.show(most, &|_| None);
        (
            total,
            shown.iter().map(|it| it.stat.client.port()).collect(),
        )
    }

    #[test]
    fn the_longest_busy_are_shown_first_up_to_the_number_wanted() {
        let sessions = Sessions::default();
        let bind = Rc::new(Address::from(([127, 0, 0, 1], 80)));
        let enter = |port| sessions.enter(([192, 0, 2, 1], port).into(), &bind);
        let entered: Vec<_> = (0..4).map(enter).collect();
        let begun = Instant::now();
        entered[0].rest();
        for (port, after) in [(1, 3), (2, 2), (3, 1)] {
            entered[port].begin(begun + Duration::from_millis(after));
        }
        assert_eq!(shown(&sessions, 9), (4, vec![3, 2, 1, 0]));
        assert_eq!(shown(&sessions, 2), (4, vec![3, 2]));
        assert_eq!(shown(&sessions, 0), (4, vec![]));
        entered[3].rest();
        assert_eq!(shown(&sessions, 1), (4, vec![2]));
    }

    #[test]
    fn those_that_were_idle_for_longest_close_for_others() {
        let sessions = Sessions::default();
        let bind = Rc::new(Address::from(([127, 0, 0, 1], 80)));
        let other = Rc::new(Address::clone(&bind));
        let at = |bind| sessions.enter(([192, 0, 2, 1], 1).into(), bind);
        let entered = [at(&bind), at(&other), at(&bind), at(&bind), at(&bind)];
        let since = Instant::now();
        for (index, after) in [(0, 3), (1, 0), (2, 1), (3, 2)] {
            entered[index].park(since + Duration::from_millis(after), Waker::noop());
        }
        let requests = Cell::new(2);
        let is_asked = || requests.replace(requests.get().max(1) - 1) > 0;
        sessions.close_idle(&bind, is_asked);
        let closed = entered.each_ref().map(|activity| activity.is_to_close());
        assert_eq!(closed, [false, false, true, true, false]);
        sessions.close_idle(&bind, || true);
        assert!(entered[0].is_to_close() && !entered[4].is_to_close());
        entered[0].unpark();
        assert!(!entered[0].is_to_close());
    }

    #[test]
    fn a_client_that_has_left_is_not_shown() {
        let sessions = Sessions::default();
        let bind = Rc::new(Address::from(([127, 0, 0, 1], 80)));
        let enter = |port| sessions.enter(([192, 0, 2, 1], port).into(), &bind);
        let mut entered: Vec<_> = (0..4).map(enter).collect();
        for leaver in [1, 0, 1] {
            drop(entered.remove(leaver));
        }
        assert_eq!(shown(&sessions, 9), (1, vec![2]));
        entered.push(enter(7));
        entered.remove(0);
        assert_eq!(shown(&sessions, 9), (1, vec![7]));
    }
}
