//! Hands one VIP over: no request that a client has begun fails, and no new connection stays unanswered.
//!
//! 1. Responses carry `Connection: close` for a while, so that few connections are open when the address moves.
//! 2. From then on the keeper captures incoming SYNs, and the proxy leaves them unanswered until its last request in flight
//!    has ended.
//! 3. The keeper releases the VIP, but keeps serving until it hears the next holder; then it forwards the captured SYNs.
//!
//! Before each step the heir must stand by for the VIP. If it does not, this balancer keeps serving.

use super::keeper_file::KeeperFile;
use crate::proxy::admit;
use gaiola_model::keeper::VipState;
use gaiola_model::proxy::Admission;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long clients get to open their next connection elsewhere before new ones are held back.
const CLOSING: Duration = Duration::from_secs(2);
/// The longest that new connections are held back while the last requests in flight end.
const REFUSING: Duration = Duration::from_millis(700);
/// Timeout for the keeper to begin capturing SYNs.
const KEEPING: Duration = Duration::from_millis(500);
/// Timeout for the keeper to release the VIP, or to find that no balancer takes it.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Poll interval for the keeper's state while clients wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Poll interval while no client waits.
const LOOK_SOMETIMES: Duration = Duration::from_millis(50);

/// The balancer that should take a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heir {
    /// Any balancer that stands by.
    Anyone,
    /// This balancer, the VIP's home: where it no longer stands by, the VIP stays rather than move twice.
    Home(Ipv4Addr),
}

impl Heir {
    /// Why a VIP that was to go to this heir stays, in words.
    fn is_missing(self) -> &'static str {
        match self {
            Self::Anyone => "nobody stands by for it any more",
            Self::Home(_) => "its home no longer stands by",
        }
    }
}

/// Hands the VIP over if its heir takes it; either way the VIP is served when this ends.
pub(super) async fn hand_over(vip: Ipv4Addr, heir: Heir, keeper: KeeperFile) {
    tracing::info!("handing over {vip}");
    tell_proxy(vip, &keeper, Admission::Close, Duration::ZERO).await;
    if is_stood_by_for(vip, heir, &keeper, CLOSING).await {
        keeper.change(vip, |told| told.holds_back = true);
        if reaches(vip, &keeper, KEEPING, |state| state.is_holding_back).await {
            tell_proxy(vip, &keeper, Admission::Refuse, REFUSING).await;
            let_go(vip, heir, &keeper).await;
        }
    }
    serve_on(vip, keeper).await;
}

/// Answers new connections again, and then those that were held back.
pub(super) async fn serve_on(vip: Ipv4Addr, keeper: KeeperFile) {
    tell_proxy(vip, &keeper, Admission::Accept, Duration::ZERO).await;
    keeper.change(vip, |told| told.holds_back = false);
}

/// Returns as soon as it is known which balancer holds the VIP.
async fn let_go(vip: Ipv4Addr, heir: Heir, keeper: &KeeperFile) {
    if !has_standby(vip, heir, keeper) {
        tracing::warn!("{vip} stays: {}", heir.is_missing());
        return;
    }
    let asked = keeper.change(vip, |told| told.yields += 1);
    let answered = |state: &VipState| Some(state.yields) == asked && !state.is_yielding;
    reaches(vip, keeper, LETTING_GO, answered).await;
}

/// Whether the heir stands by for the VIP during the whole span.
async fn is_stood_by_for(vip: Ipv4Addr, heir: Heir, keeper: &KeeperFile, span: Duration) -> bool {
    let deadline = Instant::now() + span;
    while Instant::now() < deadline {
        if !has_standby(vip, heir, keeper) {
            tracing::warn!("{vip} stays: {}", heir.is_missing());
            return false;
        }
        sleep(LOOK_SOMETIMES).await;
    }
    true
}

/// Waits until the keeper's state of the VIP meets the condition; `false` on timeout.
async fn reaches(
    vip: Ipv4Addr,
    keeper: &KeeperFile,
    limit: Duration,
    is: impl Fn(&VipState) -> bool,
) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if keeper.state_of(vip).is_some_and(|state| is(&state)) {
            return true;
        }
        sleep(LOOK_AGAIN).await;
    }
    tracing::warn!("the keeper does not report on {vip}");
    false
}

fn has_standby(vip: Ipv4Addr, heir: Heir, keeper: &KeeperFile) -> bool {
    let standby = keeper.state_of(vip).and_then(|state| state.standby);
    standby.is_some_and(|standby| heir == Heir::Anyone || heir == Heir::Home(standby))
}

async fn tell_proxy(vip: Ipv4Addr, keeper: &KeeperFile, admission: Admission, wait: Duration) {
    match admit(keeper.proxy(), vip, admission, wait).await {
        Ok(left) if left > 0 && admission == Admission::Refuse => {
            tracing::warn!("{vip} moves with {left} connections still open");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!("the proxy did not take {admission:?} for {vip}: {error}"),
    }
}
