//! A limit on the connections of a status or control socket.
//!
//! Silent clients block nobody: at the limit, the connection that has been idle for longest is closed to admit a new one. Where
//! clients of several addresses connect, each address gets a part of the places only.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;

/// Connections up to a limit.
pub struct ConnectionLimit {
    most: usize,
    /// The most of one address.
    each: usize,
    inside: RefCell<Vec<Rc<Slot>>>,
    /// A connection has closed or become idle.
    changed: Notify,
}

/// State of one connection.
#[derive(Default)]
struct Slot {
    /// `None`: it is being served, or was asked to close.
    quiet_since: Cell<Option<Instant>>,
    /// Whether it was asked to close and has not closed yet.
    leaves: Cell<bool>,
    leave: Notify,
    /// `None`: connections are not told apart by address.
    source: Option<IpAddr>,
}

/// A connection that counts as open until this is dropped.
pub struct Permit {
    slot: Rc<Slot>,
    limit: Rc<ConnectionLimit>,
}

impl ConnectionLimit {
    /// Sets the limit.
    pub fn new(most: usize) -> Rc<Self> {
        Self::shared(most, most)
    }

    /// Sets the limit, and the part of it that one address may have.
    pub fn shared(most: usize, each: usize) -> Rc<Self> {
        Rc::new(Self {
            most,
            each,
            inside: RefCell::default(),
            changed: Notify::new(),
        })
    }

    /// Admits a connection, which starts idle. Waits only while all open connections are being served.
    pub async fn enter(self: &Rc<Self>) -> Permit {
        self.admit(None).await
    }

    /// As [`enter`](Self::enter), for a connection from this address. Also waits while all connections of that address are being served
    /// and it has its part.
    pub async fn enter_from(self: &Rc<Self>, source: IpAddr) -> Permit {
        self.admit(Some(network_of(source))).await
    }

    async fn admit(self: &Rc<Self>, source: Option<IpAddr>) -> Permit {
        while self.is_full(source) {
            self.changed.notified().await;
        }
        let slot = Rc::new(Slot {
            quiet_since: Cell::new(Some(Instant::now())),
            source,
            ..Slot::default()
        });
        self.inside.borrow_mut().push(Rc::clone(&slot));
        // Another one that waits may have a place as well, or another connection to dismiss.
        self.changed.notify_one();
        Permit {
            slot,
            limit: Rc::clone(self),
        }
    }

    /// Whether there is no place for a connection; then the quietest of those that keep it out is asked to close.
    fn is_full(&self, source: Option<IpAddr>) -> bool {
        let inside = self.inside.borrow();
        let is_own = |slot: &&Rc<Slot>| source.is_some() && slot.source == source;
        if inside.iter().filter(is_own).count() >= self.each {
            dismiss_quietest(inside.iter().filter(is_own));
            true
        } else if inside.len() >= self.most {
            dismiss_quietest(inside.iter());
            true
        } else {
            false
        }
    }
}

fn dismiss_quietest<'a>(slots: impl Iterator<Item = &'a Rc<Slot>> + Clone) {
    if slots.clone().any(|slot| slot.leaves.get()) {
        return;
    }
    let quiet = slots.filter_map(|slot| Some((slot.quiet_since.get()?, slot)));
    if let Some((_, slot)) = quiet.min_by_key(|(since, _)| *since) {
        slot.quiet_since.set(None);
        slot.leaves.set(true);
        slot.leave.notify_one();
    }
}

/// One client has a whole /64 of IPv6 addresses.
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        address @ IpAddr::V4(_) => address,
    }
}

impl Permit {
    /// Marks it as being served.
    pub fn work(&self) {
        self.slot.quiet_since.set(None);
        self.slot.leaves.set(false);
    }

    /// Marks it as idle: the next move is the client's.
    pub fn rest(&self) {
        self.slot.quiet_since.set(Some(Instant::now()));
        self.limit.changed.notify_one();
    }

    /// Returns when it should close for another one: not if it has become busy meanwhile.
    pub async fn dismissed(&self) {
        loop {
            self.slot.leave.notified().await;
            if self.slot.leaves.get() {
                return;
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inside = self.limit.inside.borrow_mut();
        inside.retain(|slot| !Rc::ptr_eq(slot, &self.slot));
        self.limit.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context).is_ready()
    }

    #[tokio::test]
    async fn the_quietest_leaves_for_the_one_that_comes() {
        let limit = ConnectionLimit::new(3);
        let busy = limit.enter().await;
        let quiet = limit.enter().await;
        let later = limit.enter().await;
        busy.work();
        quiet.rest();
        later.rest();
        let mut entering = pin!(limit.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        assert!(is_ready(quiet.dismissed()));
        assert!(!is_ready(busy.dismissed()) && !is_ready(later.dismissed()));
        drop(quiet);
        assert!(entering.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn one_address_gets_its_part_and_displaces_its_own_connections_only() {
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let limit = ConnectionLimit::shared(3, 2);
        let theirs = limit.enter_from(other).await;
        let first = limit.enter_from(one).await;
        let second = limit.enter_from(one).await;
        let mut entering = pin!(limit.enter_from(one));
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        // The other address' is the quietest of all, and stays.
        assert!(!is_ready(theirs.dismissed()) && !is_ready(second.dismissed()));
        assert!(is_ready(first.dismissed()));
        drop(first);
        assert!(entering.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn the_addresses_of_one_network_of_version_6_count_as_one() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = network_of(address("2001:db8::1"));
        assert_eq!(one, network_of(address("2001:db8::ffff:1")));
        assert_ne!(one, network_of(address("2001:db8:0:1::1")));
        let mapped = network_of(address("::ffff:192.0.2.1"));
        assert_eq!(mapped, address("192.0.2.1"));
    }

    #[tokio::test]
    async fn one_that_became_busy_is_not_dismissed_any_more() {
        let limit = ConnectionLimit::new(1);
        let permit = limit.enter().await;
        let mut entering = pin!(limit.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        permit.work();
        assert!(!is_ready(permit.dismissed()));
    }

    #[tokio::test]
    async fn all_that_wait_are_admitted_as_places_become_free() {
        let limit = ConnectionLimit::new(2);
        let open = [limit.enter().await, limit.enter().await];
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = [Box::pin(limit.enter()), Box::pin(limit.enter())];
        for one in &mut waiting {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        drop(open);
        let admitted = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            let [first, second] = waiting;
            tokio::join!(first, second)
        });
        assert!(admitted.await.is_ok());
    }

    #[tokio::test]
    async fn one_waits_while_something_is_done_for_all() {
        let limit = ConnectionLimit::new(1);
        let permit = limit.enter().await;
        permit.work();
        let mut entering = pin!(limit.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        permit.rest();
        assert!(entering.as_mut().poll(&mut context).is_pending());
        assert!(is_ready(permit.dismissed()));
    }
}
