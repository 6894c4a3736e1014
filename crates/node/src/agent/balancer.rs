//! The agent's side of the VIPs: tells the keeper what it may hold, and hands a VIP over without losing a request.

use super::proxy::admit;
use crate::state::{Boot, Order, RUN, read_json, write_json};
use gaiola_core::topology;
use gaiola_model::keeper::{KeeperConfig, KeeperState, KeeperVip, VipRole};
use gaiola_model::proxy::Admission;
use gaiola_model::vrrp::{Priority, Vrid};
use gaiola_model::{Observed, Revision, ServerName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Clients are given this long to take their next connection elsewhere, before new ones are held back.
const CLOSING: Duration = Duration::from_secs(2);
/// New connections are held back for this long at most, until the last request in flight has ended.
const REFUSING: Duration = Duration::from_millis(700);
/// The longest until the keeper has let go.
const LETTING_GO: Duration = Duration::from_secs(2);
/// A home must have been well for this long before a VIP is handed back to it.
const HOME_IS_WELL: Duration = Duration::from_secs(2);
/// A VIP that nobody else took is offered again after this long.
const OFFER_AGAIN: Duration = Duration::from_secs(10);

/// The VIPs of one balancer.
pub(super) struct Balancer {
    boot: Boot,
    config: Option<KeeperConfig>,
    state: KeeperState,
    handing_over: Option<JoinHandle<()>>,
    home_well_since: BTreeMap<ServerName, Instant>,
    offered: BTreeMap<Ipv4Addr, Instant>,
}

fn config_file() -> PathBuf {
    Path::new(RUN).join("keeper.json")
}

fn state_file() -> PathBuf {
    Path::new(RUN).join("keeper-state.json")
}

impl Balancer {
    /// Takes up what an earlier agent has told the keeper.
    pub(super) fn new(boot: Boot) -> Self {
        Self {
            boot,
            config: read_json(&config_file()).ok(),
            state: KeeperState::default(),
            handing_over: None,
            home_well_since: BTreeMap::new(),
            offered: BTreeMap::new(),
        }
    }

    /// The keeper's state when it was last read.
    pub(super) fn state(&self) -> &KeeperState {
        &self.state
    }

    /// VIPs that this server holds.
    pub(super) fn held(&self) -> BTreeSet<Ipv4Addr> {
        let active = |(vip, state): (&Ipv4Addr, &gaiola_model::keeper::VipState)| {
            (state.state == VipRole::Active).then_some(*vip)
        };
        self.state.vips.iter().filter_map(active).collect()
    }

    /// Looks at the keeper, and moves it towards the order.
    pub(super) fn tick(
        &mut self,
        order: &Order,
        others: &BTreeMap<ServerName, (Revision, Rc<Observed>)>,
    ) {
        if let Ok(state) = read_json(&state_file()) {
            self.state = state;
        }
        if self
            .handing_over
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        self.handing_over = None;
        let wanted = self.wanted(order);
        let leaving = self.leaving(&wanted, order, others);
        if leaving.is_empty() {
            self.tell(wanted);
        } else {
            self.hand_over(leaving);
        }
    }

    fn wanted(&self, order: &Order) -> KeeperConfig {
        let routers = topology::vip_priorities(&order.placement, self.boot.server);
        let vips = routers.iter().filter_map(|router| {
            Some(KeeperVip {
                vip: router.vip,
                vrid: Vrid::new(router.vrid)?,
                priority: Priority(router.priority),
                preempt: false,
                yields: self.yields(router.vip),
            })
        });
        KeeperConfig {
            interface: "eth0".into(),
            address: self.boot.address,
            key: self.boot.keeper_key.clone(),
            interval_ms: 100,
            vips: vips.collect(),
            maintenance: false,
        }
    }

    fn yields(&self, vip: Ipv4Addr) -> u64 {
        let told = self
            .config
            .iter()
            .flat_map(|config| &config.vips)
            .find(|told| told.vip == vip);
        told.map_or(0, |told| told.yields)
    }

    /// VIPs that are to be let go: those that this server is to hold no more, and those whose home is well again.
    fn leaving(
        &mut self,
        wanted: &KeeperConfig,
        order: &Order,
        others: &BTreeMap<ServerName, (Revision, Rc<Observed>)>,
    ) -> Vec<Ipv4Addr> {
        let now = Instant::now();
        self.see_homes(order, others, now);
        let held = self.held();
        self.offered
            .retain(|vip, at| held.contains(vip) && now - *at < OFFER_AGAIN);
        let may_stay = |vip: &Ipv4Addr| wanted.vips.iter().any(|wanted| wanted.vip == *vip);
        let goes_home = |vip: &Ipv4Addr| {
            let home = order.placement.vips.get(vip);
            home.is_some_and(|home| {
                self.home_well_since
                    .get(home)
                    .is_some_and(|since| now - *since >= HOME_IS_WELL)
            })
        };
        held.into_iter()
            .filter(|vip| !self.offered.contains_key(vip))
            .filter(|vip| !may_stay(vip) || goes_home(vip))
            .collect()
    }

    fn see_homes(
        &mut self,
        order: &Order,
        others: &BTreeMap<ServerName, (Revision, Rc<Observed>)>,
        now: Instant,
    ) {
        let is_well = |home: &&ServerName| {
            **home != self.boot.server
                && topology::serves(&order.placement, **home)
                && others.get(*home).is_some_and(|(_, observed)| {
                    observed.proxy.is_some() && observed.troubles.is_empty()
                })
        };
        let well: BTreeSet<ServerName> = order
            .placement
            .vips
            .values()
            .filter(is_well)
            .copied()
            .collect();
        self.home_well_since.retain(|home, _| well.contains(home));
        for home in well {
            self.home_well_since.entry(home).or_insert(now);
        }
    }

    fn tell(&mut self, config: KeeperConfig) {
        if self.config.as_ref() == Some(&config) {
            return;
        }
        match write_json(&config_file(), &config) {
            Ok(()) => self.config = Some(config),
            Err(error) => tracing::error!("cannot tell the keeper: {error}"),
        }
    }

    /// Starts to hand VIPs over, one after another.
    fn hand_over(&mut self, vips: Vec<Ipv4Addr>) {
        let Some(mut config) = self.config.clone() else {
            return;
        };
        let now = Instant::now();
        self.offered.extend(vips.iter().map(|vip| (*vip, now)));
        for told in config
            .vips
            .iter_mut()
            .filter(|told| vips.contains(&told.vip))
        {
            told.yields += 1;
        }
        self.config = Some(config.clone());
        self.handing_over = Some(tokio::task::spawn_local(async move {
            hand_over(&vips, &config).await
        }));
    }

    /// Hands over all that this server holds; before it stops.
    pub(super) async fn leave(&mut self) {
        if let Some(task) = self.handing_over.take() {
            let _ = task.await;
        }
        let held: Vec<Ipv4Addr> = self.held().into_iter().collect();
        if held.is_empty() {
            return;
        }
        self.hand_over(held);
        if let Some(task) = self.handing_over.take() {
            let _ = task.await;
        }
    }
}

/// Clients are sent elsewhere with their next response, then new connections are held back (their client asks again)
/// until the last request has ended, and only then the address moves.
async fn hand_over(vips: &[Ipv4Addr], config: &KeeperConfig) {
    tracing::info!("handing over {vips:?}");
    admit_all(vips, Admission::Close, Duration::ZERO).await;
    sleep(CLOSING).await;
    admit_all(vips, Admission::Refuse, REFUSING).await;
    if let Err(error) = write_json(&config_file(), config) {
        tracing::error!("cannot tell the keeper: {error}");
    }
    let deadline = Instant::now() + LETTING_GO;
    while Instant::now() < deadline && holds_any(vips) {
        sleep(Duration::from_millis(10)).await;
    }
    // Where nobody else took it, it is ours again and is served on.
    admit_all(vips, Admission::Accept, Duration::ZERO).await;
}

async fn admit_all(vips: &[Ipv4Addr], admission: Admission, wait: Duration) {
    let mut asked = tokio::task::JoinSet::new();
    for vip in vips.iter().copied() {
        asked.spawn_local(async move { (vip, admit(vip, admission, wait).await) });
    }
    while let Some(Ok((vip, result))) = asked.join_next().await {
        match result {
            Ok(0) => {}
            Ok(left) if admission == Admission::Refuse => {
                tracing::warn!("{vip} moves with {left} connections still open")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("the proxy did not take {admission:?} for {vip}: {error}"),
        }
    }
}

fn holds_any(vips: &[Ipv4Addr]) -> bool {
    let state: KeeperState = read_json(&state_file()).unwrap_or_default();
    vips.iter().any(|vip| {
        state
            .vips
            .get(vip)
            .is_some_and(|vip| vip.state == VipRole::Active)
    })
}
