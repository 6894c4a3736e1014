//! Carries out the hand-over of one VIP, which [`core::vrrp::hand_over`](gaiola_core::vrrp::hand_over) decides.

use super::keeper_file::KeeperFile;
use crate::proxy::admit;
use gaiola_core::vrrp::hand_over::{HandOver, Heir, KeeperView, Output, REFUSING, SERVE};
use gaiola_model::Time;
use gaiola_model::keeper::VipRole;
use gaiola_model::proxy::Admission;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Hands the VIP over if its heir takes it; either way the VIP is served when this ends.
pub(super) async fn hand_over(vip: IpAddr, heir: Heir, keeper: KeeperFile) {
    tracing::info!(%vip, "handing over a VIP");
    let began = Instant::now();
    let mut out = Vec::new();
    let mut hand_over = HandOver::begin(Time::ZERO, heir, &mut out);
    loop {
        for output in out.drain(..) {
            carry_out(vip, output, &keeper).await;
        }
        if hand_over.has_ended() {
            return;
        }
        sleep(hand_over.poll_interval()).await;
        let now = Time::from_start(began.elapsed());
        hand_over.step(now, seen(vip, &keeper), &mut out);
    }
}

/// Answers new connections again, and then those that were held back.
pub(super) async fn serve_on(vip: IpAddr, keeper: KeeperFile) {
    for output in SERVE {
        carry_out(vip, output, &keeper).await;
    }
}

async fn carry_out(vip: IpAddr, output: Output, keeper: &KeeperFile) {
    match output {
        Output::Close => set_admission(vip, keeper, Admission::Close, Duration::ZERO).await,
        Output::Refuse => set_admission(vip, keeper, Admission::Refuse, REFUSING).await,
        Output::Accept => set_admission(vip, keeper, Admission::Accept, Duration::ZERO).await,
        Output::HoldBack(holds_back) => {
            keeper.change(vip, |entry| entry.holds_back = holds_back);
        }
        Output::Yield => keeper.change(vip, |entry| entry.yields += 1),
        Output::Stays(reason) => {
            tracing::warn!(%vip, reason = reason.in_words(), "a VIP is not handed over")
        }
    }
}

/// What the keeper reports of the VIP.
fn seen(vip: IpAddr, keeper: &KeeperFile) -> Option<KeeperView> {
    let state = keeper.state_of(vip)?;
    let asked = keeper.configured(vip).map(|entry| entry.yields);
    Some(KeeperView {
        holds: state.state == VipRole::Active,
        standby: state.standby,
        is_holding_back: state.is_holding_back,
        is_yielding: state.is_yielding || asked != Some(state.yields),
    })
}

async fn set_admission(vip: IpAddr, keeper: &KeeperFile, admission: Admission, wait: Duration) {
    match admit(keeper.proxy(), vip, admission, wait).await {
        Ok(left) if left > 0 && admission == Admission::Refuse => {
            tracing::warn!(%vip, connections = left, "a VIP moves with connections still open");
        }
        Ok(_) => {}
        Err(error) => {
            let error = gaiola_os::chain(&error);
            tracing::warn!(%vip, ?admission, error, "the proxy did not change its admission");
        }
    }
}
