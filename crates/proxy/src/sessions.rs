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
pub(super) struct Sessions(Rc<RefCell<Vec<Rc<Session>>>>);

/// A connection's entry in the list, which drop removes.
pub(super) struct Entered {
    session: Rc<Session>,
    all: Sessions,
}

/// The recorded state of one connection.
pub(super) struct Session {
    /// Its index in the list.
    index: Cell<usize>,
    client: Cell<SocketAddr>,
    /// Where it was accepted; finds its frontend.
    bind: Rc<Address>,
    opened: Instant,
    requests: Cell<u64>,
    doing: RefCell<Doing>,
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
enum Doing {
    /// Nothing has been requested yet.
    Opening(Instant),
    Idle,
    Request(Instant),
    Queue(Instant, Rc<dyn Named>),
    Server(Instant, Rc<dyn Named>),
    Tunnel(Instant, Rc<dyn Named>),
}

/// Tracks a request or TCP session on its way to a server.
#[derive(Default)]
pub(super) struct Way {
    ahead: Cell<Ahead>,
    session: Option<Rc<Session>>,
}

impl Sessions {
    /// Adds an accepted connection.
    pub(super) fn enter(&self, client: SocketAddr, bind: &Rc<Address>) -> Entered {
        let mut all = self.0.borrow_mut();
        let opened = Instant::now();
        let session = Rc::new(Session {
            index: Cell::new(all.len()),
            client: Cell::new(client),
            bind: Rc::clone(bind),
            opened,
            requests: Cell::new(0),
            doing: RefCell::new(Doing::Opening(opened)),
            idle: RefCell::default(),
        });
        all.push(Rc::clone(&session));
        Entered {
            session,
            all: self.clone(),
        }
    }

    /// The number of connections, and the first `most` of them by rank.
    pub(super) fn show(&self, most: usize, frontend: FrontendOf<'_>) -> (u64, Vec<Shown>) {
        let all = self.0.borrow();
        let mut chosen: Vec<_> = all.iter().collect();
        if let Some(last) = most.checked_sub(1).filter(|last| *last < chosen.len()) {
            chosen.select_nth_unstable_by_key(last, |session| session.rank());
        }
        chosen.truncate(most);
        chosen.sort_unstable_by_key(|session| session.rank());
        let shown = chosen.iter().map(|session| Shown {
            rank: session.rank(),
            stat: session.stat(frontend),
        });
        (all.len() as u64, shown.collect())
    }

    /// Closes the connections of this bind that have been idle longest, one per granted `wish`.
    pub(super) fn close_idle(&self, bind: &Rc<Address>, wish: impl Fn() -> bool) {
        let all = self.0.borrow();
        let idle = all.iter().filter(|session| Rc::ptr_eq(&session.bind, bind));
        let mut idle: Vec<_> = idle
            .filter_map(|session| Some((session.idle_since()?, session)))
            .collect();
        let mut some = 0;
        while some < idle.len() && wish() {
            some += 1;
        }
        if some > 0 {
            idle.select_nth_unstable_by_key(some - 1, |(since, _)| *since);
        }
        idle[..some].iter().for_each(|(_, session)| session.close());
    }

    /// Clients with a request or session in progress, and where they connected.
    pub(super) fn busy(&self) -> Vec<(SocketAddr, Rc<Address>)> {
        let all = self.0.borrow();
        let busy = all.iter().filter(|session| {
            let doing = session.doing.borrow();
            !matches!(*doing, Doing::Idle | Doing::Opening(_))
        });
        busy.map(|session| (session.client.get(), Rc::clone(&session.bind)))
            .collect()
    }
}

impl Deref for Entered {
    type Target = Rc<Session>;

    fn deref(&self) -> &Rc<Session> {
        &self.session
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        let index = self.session.index.get();
        all.swap_remove(index);
        if let Some(moved) = all.get(index) {
            moved.index.set(index);
        }
    }
}

impl Session {
    /// Sets the client address from its PROXY header.
    pub(super) fn is_of(&self, client: SocketAddr) {
        self.client.set(client);
    }

    /// No request is in progress.
    pub(super) fn rest(&self) {
        self.doing.replace(Doing::Idle);
    }

    /// A request or TCP session began at `begun`.
    pub(super) fn begin(&self, begun: Instant) {
        self.requests.set(self.requests.get() + 1);
        self.doing.replace(Doing::Request(begun));
    }

    /// Bytes are copied in both directions from now on.
    pub(super) fn tunnel(&self) {
        let mut doing = self.doing.borrow_mut();
        if let Doing::Server(since, server) = &*doing {
            *doing = Doing::Tunnel(*since, Rc::clone(server));
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

    fn change(&self, next: impl FnOnce(Instant) -> Doing) {
        let mut doing = self.doing.borrow_mut();
        let since = doing.since().unwrap_or(self.opened);
        *doing = next(since);
    }

    fn rank(&self) -> Rank {
        let since = self.doing.borrow().since();
        (since.is_none(), since.unwrap_or(self.opened))
    }

    fn stat(&self, frontend: FrontendOf<'_>) -> SessionStat {
        let doing = self.doing.borrow();
        let (backend, server) = match &*doing {
            Doing::Opening(_) | Doing::Idle | Doing::Request(_) => ("", ""),
            Doing::Queue(_, at) | Doing::Server(_, at) | Doing::Tunnel(_, at) => at.names(),
        };
        let frontend = frontend(&self.bind);
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        SessionStat {
            client: self.client.get(),
            frontend,
            backend: some(backend),
            server: some(server),
            state: match &*doing {
                Doing::Opening(_) => SessionState::Opening,
                Doing::Idle => SessionState::Idle,
                Doing::Request(_) => SessionState::Request,
                Doing::Queue(..) => SessionState::Queue,
                Doing::Server(..) => SessionState::Server,
                Doing::Tunnel(..) => SessionState::Tunnel,
            },
            busy_ms: doing.since().map(|since| millis(since.elapsed())),
            age_ms: millis(self.opened.elapsed()),
            requests: self.requests.get(),
        }
    }
}

impl Doing {
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

impl Way {
    /// For the next request on this connection.
    pub(super) fn of(session: &Rc<Session>) -> Self {
        Self {
            ahead: Cell::default(),
            session: Some(Rc::clone(session)),
        }
    }

    /// How many were queued ahead of it when it last joined a queue.
    pub(super) fn ahead(&self) -> Ahead {
        self.ahead.get()
    }

    /// It joins the backend's queue behind `ahead` others.
    pub(super) fn wait(&self, backend: Rc<dyn Named>, ahead: Ahead) {
        self.ahead.set(ahead);
        if let Some(session) = &self.session {
            session.change(|since| Doing::Queue(since, backend));
        }
    }

    /// It was assigned a server.
    pub(super) fn lead_to(&self, server: Rc<dyn Named>) {
        if let Some(session) = &self.session {
            session.change(|since| Doing::Server(since, server));
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
    fn those_that_take_longest_are_shown_first_and_no_more_than_are_wanted() {
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
        let wishes = Cell::new(2);
        let wish = || wishes.replace(wishes.get().max(1) - 1) > 0;
        sessions.close_idle(&bind, wish);
        let closed = entered.each_ref().map(|session| session.is_to_close());
        assert_eq!(closed, [false, false, true, true, false]);
        sessions.close_idle(&bind, || true);
        assert!(entered[0].is_to_close() && !entered[4].is_to_close());
        entered[0].unpark();
        assert!(!entered[0].is_to_close());
    }

    #[test]
    fn whoever_has_left_is_shown_no_more() {
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
