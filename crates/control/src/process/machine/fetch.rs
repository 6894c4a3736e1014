//! Releases and certificates that this machine's servers need and another machine has.

use crate::api::Digest;
use crate::archive::{PIECES, Pieces, described, on_a_thread};
use crate::change::prune_releases;
use crate::provider::machine::{Machine, PeerError};
use crate::site::Site;
use crate::{certificates, release};
use gaiola_agent::state::Order;
use gaiola_core::machines;
use gaiola_model::placement::ReleaseNumber;
use gaiola_net::client::Stream;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::channel;
use tokio::time::{Instant, sleep, sleep_until};

/// The header with a release's digest.
pub(super) const DIGEST: &str = "gaiola-digest";
/// A stream of which nothing comes for this long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two attempts to fetch what is missing.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two removals of what is old.
const PRUNE: Duration = Duration::from_secs(600);

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the machine did not say which digest release {0} has")]
    NoDigest(ReleaseNumber),
    #[error("release {number} has the digest {found} there, and not {expected}")]
    OtherContents {
        number: ReleaseNumber,
        expected: Digest,
        found: Digest,
    },
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
    for number in machines::releases_needed(placement, &host) {
        if !site.state.release(number).is_dir() {
            is_complete &= fetch_release(machine, site, number).await;
        }
    }
    if let Some(digest) = machines::certificates_needed(placement, &host)
        && let Ok(digest) = digest.parse()
        && !certificates::has(&site.state.certificates(), &digest)
    {
        is_complete &= fetch_certificates(machine, site, &digest).await;
    }
    is_complete
}

async fn fetch_release(machine: &Machine, site: &Rc<Site>, number: ReleaseNumber) -> bool {
    for (host, address) in machine.others() {
        match release(machine, site, address, number, None).await {
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

/// Fetches a release from a machine, unless it is here. `expected`: its digest, where the machine that asks knows it.
pub(super) async fn release(
    machine: &Machine,
    site: &Rc<Site>,
    from: IpAddr,
    number: ReleaseNumber,
    expected: Option<&Digest>,
) -> Result<(), FetchError> {
    if is_held(site, number, expected).await? {
        return Ok(());
    }
    let _one_at_a_time = site.receiving.lock().await;
    let stream = machine.peers.stream(from, format!("/releases/{number}"));
    let stream = stream.await?;
    let digest = stream.headers.get(DIGEST);
    let digest = digest.and_then(|digest| digest.to_str().ok()?.parse::<Digest>().ok());
    let found = digest.ok_or(FetchError::NoDigest(number))?;
    if let Some(expected) = expected.filter(|expected| **expected != found) {
        let expected = expected.clone();
        return Err(FetchError::OtherContents {
            number,
            expected,
            found,
        });
    }
    let releases = site.state.releases();
    let received = receive(stream, move |pieces| {
        release::receive(pieces, &releases, &found).map_err(described)
    });
    let received = received.await.map_err(FetchError::NotKept)?;
    let _held = site.pruning.lock().await;
    let kept = on_a_thread(move || received.keep_as(number).map_err(described));
    kept.await.map_err(FetchError::NotKept)
}

/// Whether a release is here. One of other contents, which an `up` that failed has left and which was never desired, is removed.
async fn is_held(
    site: &Rc<Site>,
    number: ReleaseNumber,
    expected: Option<&Digest>,
) -> Result<bool, FetchError> {
    let desired = site.view.borrow().desired.clone();
    let was_desired = desired.is_some_and(|(_, desired)| number <= desired.release.number);
    let is_there = site.state.release(number).is_dir();
    let Some(expected) = expected.filter(|_| is_there && !was_desired).cloned() else {
        return Ok(is_there);
    };
    let _held = site.pruning.lock().await;
    let releases = site.state.releases();
    let checked = on_a_thread(move || {
        let scan = release::scan_release(&releases, number).map_err(described)?;
        let is_same = scan.digest == expected;
        if !is_same {
            release::discard(&releases, number).map_err(described)?;
        }
        Ok(is_same)
    });
    checked.await.map_err(FetchError::NotKept)
}

/// Fetches the balancers' certificates from a machine, unless they are here.
pub(super) async fn certificates(
    machine: &Machine,
    site: &Rc<Site>,
    from: IpAddr,
    digest: &Digest,
) -> Result<(), FetchError> {
    if certificates::has(&site.state.certificates(), digest) {
        return Ok(());
    }
    let _one_at_a_time = site.receiving.lock().await;
    let stream = machine
        .peers
        .stream(from, format!("/certificates/{digest}"));
    let stream = stream.await?;
    let (copies, digest) = (site.state.certificates(), digest.clone());
    let received = receive(stream, move |pieces| {
        certificates::receive(pieces, &copies, &digest).map_err(described)
    });
    received.await.map_err(FetchError::NotKept)
}

/// Runs `take` on a thread of its own with the stream, piece by piece.
async fn receive<T: Send + 'static>(
    mut stream: Stream,
    take: impl FnOnce(Pieces) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, pieces) = channel(PIECES);
    let taking = on_a_thread(move || take(Pieces::new(pieces)));
    let feeding = async move {
        loop {
            let piece = match stream.next_piece(SILENCE).await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => return,
                Err(error) => Err(described(error)),
            };
            let is_last = piece.is_err();
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    };
    tokio::join!(taking, feeding).0
}
