//! Releases and certificates that this machine's servers need and another machine has. Both are known by the digest of their contents,
//! which is checked of what comes and of what is here.

mod pace;

use crate::api::Digest;
use crate::archive::{PIECES, Pieces, described, on_a_thread};
use crate::change::prune_releases;
use crate::provider::machine::{Machine, PeerError};
use crate::release::Contents;
use crate::site::Site;
use crate::{certificates, release};
use gaiola_agent::state::Order;
use gaiola_core::machines::{self, OfferRefused};
use gaiola_model::placement::ReleaseNumber;
use gaiola_net::client::Stream;
use pace::{Pace, SILENCE};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::channel;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Longest time of one fetch, and of the wait for the one before it.
const LIMIT: Duration = Duration::from_secs(600);
/// The most bytes of an archive of a release: its files, their names, and the archive's own records.
const LARGEST_RELEASE: u64 = 4 << 30;
/// The most bytes of an archive of certificates.
const LARGEST_CERTIFICATES: u64 = 512 << 20;
/// Between two attempts to fetch what is missing.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two removals of what is old.
const PRUNE: Duration = Duration::from_secs(600);

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Offer(#[from] OfferRefused),
    #[error("another fetch or upload here has not ended")]
    Busy,
    #[error("what is here of it cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("what was sent is not kept")]
    NotKept(#[source] io::Error),
}

/// Fetches what is missing, and removes what is old, without end.
pub(super) async fn run(machine: Rc<Machine>, site: Rc<Site>) {
    let mut orders = site.order.subscribe();
    let mut prune_at = Instant::now() + PRUNE;
    loop {
        let order = orders.borrow_and_update().clone();
        let is_complete = match order {
            Some(order) => fetch_missing(&machine, &site, &order).await,
            None => true,
        };
        if is_complete && Instant::now() >= prune_at {
            prune_at = Instant::now() + PRUNE;
            prune_releases(&site);
        }
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if !is_complete => {}
            () = sleep_until(prune_at), if is_complete => {}
        }
    }
}

/// `true`: nothing is missing any more.
async fn fetch_missing(machine: &Machine, site: &Rc<Site>, order: &Order) -> bool {
    let (placement, host) = (&order.placement, machine.host());
    let mut is_complete = true;
    for (number, digest) in machines::releases_needed(placement, &host) {
        is_complete &= match digest.and_then(|digest| digest.parse().ok()) {
            Some(digest) => has_release(machine, site, number, &digest).await,
            // Of an earlier version: what is here counts, and what is not cannot be told from something else.
            None => site.state.release(number).is_dir(),
        };
    }
    if let Some(digest) = machines::certificates_needed(placement, &host)
        && let Ok(digest) = digest.parse()
        && !certificates::has(&site.state.certificates(), &digest)
    {
        is_complete &= fetch_certificates(machine, site, &digest).await;
    }
    is_complete
}

/// Whether a release is here by now.
async fn has_release(
    machine: &Machine,
    site: &Rc<Site>,
    number: ReleaseNumber,
    digest: &Digest,
) -> bool {
    match is_here(site, number, digest).await {
        Ok(true) => return true,
        Ok(false) => {}
        Err(error) => {
            let error = gaiola_os::chain(&error);
            tracing::warn!(%number, error, "a release is fetched again");
        }
    }
    for (host, address) in machine.others() {
        match release(machine, site, address, number, digest).await {
            Ok(()) => {
                tracing::info!(%number, %host, "fetched a release");
                return true;
            }
            Err(error) => {
                let error = gaiola_os::chain(&error);
                tracing::debug!(%number, %host, error, "cannot fetch a release from here");
            }
        }
    }
    tracing::warn!(%number, "no machine that answers has a release that is needed here");
    false
}

async fn fetch_certificates(machine: &Machine, site: &Rc<Site>, digest: &Digest) -> bool {
    for (host, address) in machine.others() {
        match certificates(machine, site, address, digest).await {
            Ok(()) => return true,
            Err(error) => {
                let error = gaiola_os::chain(&error);
                tracing::debug!(%host, error, "cannot fetch certificates from here");
            }
        }
    }
    tracing::warn!("no machine that answers has the certificates that are needed here");
    false
}

/// Fetches a release because another machine asks this one to.
pub(super) async fn offered_release(
    machine: &Machine,
    site: &Rc<Site>,
    from: IpAddr,
    number: ReleaseNumber,
    digest: &Digest,
) -> Result<(), FetchError> {
    let order = site.order.borrow().clone();
    let placement = order.as_ref().map(|order| &order.placement);
    let desired = site.view.borrow().desired.clone();
    let desired = desired.as_ref().map(|(_, desired)| &desired.release);
    machines::may_fetch(placement, desired, (number, digest.as_str()))?;
    release(machine, site, from, number, digest).await
}

/// Fetches a release from a machine, unless it is here. What is here under its number with other contents is replaced once the release
/// has come whole: the caller knows that nothing needs it.
async fn release(
    machine: &Machine,
    site: &Rc<Site>,
    from: IpAddr,
    number: ReleaseNumber,
    digest: &Digest,
) -> Result<(), FetchError> {
    let deadline = Instant::now() + LIMIT;
    let receiving = timeout_at(deadline, site.receiving.lock()).await;
    let _one_at_a_time = receiving.map_err(|_| FetchError::Busy)?;
    // The one before may have brought it.
    if is_here(site, number, digest).await? {
        return Ok(());
    }
    let path = format!("/releases/{number}/{digest}");
    let stream = machine.peers.stream(from, path).await?;
    let (releases, digest) = (site.state.releases(), digest.clone());
    let pace = Pace::new(LARGEST_RELEASE);
    let received = receive(stream, deadline, pace, move |pieces| {
        release::receive(pieces, &releases, &digest).map_err(described)
    });
    let received = received.await.map_err(FetchError::NotKept)?;
    let _held = site.pruning.lock().await;
    let kept = on_a_thread(move || received.keep_as(number).map_err(described));
    kept.await.map_err(FetchError::NotKept)
}

/// Whether a release with these contents is here.
async fn is_here(
    site: &Rc<Site>,
    number: ReleaseNumber,
    digest: &Digest,
) -> Result<bool, FetchError> {
    let _held = site.pruning.lock().await;
    let (releases, digest) = (site.state.releases(), digest.clone());
    let looked =
        on_a_thread(move || release::contents(&releases, number, &digest).map_err(described));
    let contents = looked.await.map_err(FetchError::Unreadable)?;
    Ok(contents == Contents::Expected)
}

/// Fetches the balancers' certificates from a machine, unless they are here.
pub(super) async fn certificates(
    machine: &Machine,
    site: &Rc<Site>,
    from: IpAddr,
    digest: &Digest,
) -> Result<(), FetchError> {
    let deadline = Instant::now() + LIMIT;
    let receiving = timeout_at(deadline, site.receiving.lock()).await;
    let _one_at_a_time = receiving.map_err(|_| FetchError::Busy)?;
    if certificates::has(&site.state.certificates(), digest) {
        return Ok(());
    }
    let path = format!("/certificates/{digest}");
    let stream = machine.peers.stream(from, path).await?;
    let (copies, digest) = (site.state.certificates(), digest.clone());
    let pace = Pace::new(LARGEST_CERTIFICATES);
    let received = receive(stream, deadline, pace, move |pieces| {
        certificates::receive(pieces, &copies, &digest).map_err(described)
    });
    received.await.map_err(FetchError::NotKept)
}

/// Runs `take` on a thread of its own with the stream, piece by piece. Where the stream is too long, too slow or too late it breaks off,
/// and `take` ends.
async fn receive<T: Send + 'static>(
    mut stream: Stream,
    deadline: Instant,
    mut pace: Pace,
    take: impl FnOnce(Pieces) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, pieces) = channel(PIECES);
    let taking = on_a_thread(move || take(Pieces::new(pieces)));
    let began = Instant::now();
    let feeding = async move {
        loop {
            let piece = match timeout_at(deadline, stream.next_piece(SILENCE)).await {
                Ok(Ok(Some(piece))) => {
                    let allowed = pace.take(began.elapsed(), piece.len() as u64);
                    allowed.map(|()| piece).map_err(described)
                }
                Ok(Ok(None)) => return,
                Ok(Err(error)) => Err(described(error)),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let is_last = piece.is_err();
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    };
    tokio::join!(taking, feeding).0
}
