//! The agent's side of the VIPs: configures the VIP keeper, and hands a VIP over without losing a request.

mod command;
mod hand_over;
mod keeper_file;

use crate::state::{Boot, Order};
use command::{Commands, Surroundings};
use gaiola_core::topology;
use gaiola_core::vrrp::hand_over::{self as decide, Heir, Held, OFFER_AGAIN};
use gaiola_model::keeper::{KeeperConfig, KeeperState, KeeperUdp, KeeperVip, VipRole};
use gaiola_model::vrrp::{Priority, Vrid};
use gaiola_model::{Observed, Revision, ServerName};
use hand_over::{hand_over, serve_on};
use keeper_file::KeeperFile;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The VIPs of one balancer.
pub(super) struct Balancer {
    boot: Boot,
    keeper: KeeperFile,
    state: KeeperState,
    handing_over: JoinSet<()>,
    offered: BTreeMap<IpAddr, Instant>,
    commands: Commands,
    /// An earlier agent may have ended in the middle of a hand-over.
    may_have_left_one_closed: bool,
}

impl Balancer {
    /// Adopts the configuration that an earlier agent wrote for the keeper.
    pub(super) fn new(boot: Boot) -> Self {
        Self {
            keeper: KeeperFile::read(boot.run()),
            commands: Commands::new(Surroundings {
                path: boot.path.clone(),
                server: boot.server.to_string(),
                address: boot.location.address.to_string(),
                interface: boot.interface.clone(),
            }),
            boot,
            state: KeeperState::default(),
            handing_over: JoinSet::new(),
            offered: BTreeMap::new(),
            may_have_left_one_closed: true,
        }
    }

    /// The keeper's state when it was last read.
    pub(super) fn state(&self) -> &KeeperState {
        &self.state
    }

    /// The newest schema that the keeper reads; `None` before its first report.
    pub(super) fn keeper_reads(&self) -> Option<u64> {
        let has_reported = self.state.pid != 0;
        has_reported.then(|| self.state.reads.max(self.state.schema))
    }

    /// VIPs that this server holds.
    pub(super) fn held(&self) -> BTreeSet<IpAddr> {
        let active = |(vip, state): (&IpAddr, &gaiola_model::keeper::VipState)| {
            (state.state == VipRole::Active).then_some(*vip)
        };
        self.state.vips.iter().filter_map(active).collect()
    }

    /// Reads the keeper's state, and moves the keeper towards the order.
    pub(super) fn tick(
        &mut self,
        order: &Order,
        others: &BTreeMap<ServerName, (Revision, Rc<Observed>)>,
    ) {
        if let Some(state) = self.keeper.state() {
            self.state = state;
        }
        while self.handing_over.try_join_next().is_some() {}
        if !self.handing_over.is_empty() {
            return;
        }
        if std::mem::take(&mut self.may_have_left_one_closed) {
            for vip in self.state.vips.keys() {
                self.handing_over
                    .spawn_local(serve_on(*vip, self.keeper.clone()));
            }
            return;
        }
        let leaving = self.leaving(order, others);
        if leaving.is_empty() {
            self.keeper.write(self.wanted(order));
        } else {
            self.hand_over(leaving);
        }
    }

    /// The VIPs this server should hold by the order, and those it holds until another balancer takes them.
    fn wanted(&self, order: &Order) -> KeeperConfig {
        let routers = topology::vip_priorities(&order.placement, self.boot.server);
        let vips = routers.iter().filter_map(|router| {
            let vip = router.vip;
            let last = self.keeper.configured(vip);
            Some(KeeperVip {
                vip,
                vrid: Vrid::new(router.vrid)?,
                prefix: prefix_of(vip, order),
                priority: Priority(router.priority),
                preempt: false,
                yields: last.as_ref().map_or(0, |last| last.yields),
                holds_back: last.is_some_and(|last| last.holds_back),
            })
        });
        let mut vips: Vec<KeeperVip> = vips.collect();
        let must_go = self.must_go(order).into_iter();
        vips.extend(must_go.filter_map(|vip| self.keeper.configured(vip)));
        KeeperConfig {
            schema: order.placement.schema,
            interface: self.boot.interface.clone(),
            address: self.boot.location.address,
            key: self.boot.keeper_key.clone(),
            interval_ms: 100,
            vips,
            maintenance: false,
            udp: self.udp(order),
        }
    }

    /// How the keepers reach each other by UDP. Nobody knows whether a network between machines passes multicast.
    fn udp(&self, order: &Order) -> Option<KeeperUdp> {
        let ways = topology::keeper_ways(&order.placement, self.boot.server)?;
        Some(KeeperUdp {
            port: ways.port,
            balancers: ways.balancers,
            has_heir: ways.has_heir,
            relays: ways.relays,
            unicast: order.placement.config.machines.is_some(),
        })
    }

    /// Runs the operator's command for each VIP that was taken.
    pub(super) async fn run_commands(&mut self, order: &Order) {
        let balancer = order.placement.config.balancer.as_ref();
        let command = balancer.and_then(|balancer| balancer.vip_command.as_deref());
        let states = self.state.vips.iter();
        let active = states.filter(|(_, state)| state.state == VipRole::Active);
        // What a keeper that has ended reported last holds no more.
        let runs = Path::new("/proc").join(self.state.pid.to_string()).exists();
        let active = active.filter(|_| runs);
        let held = active.map(|(vip, state)| (*vip, state.claims)).collect();
        self.commands.tick(command, &held).await;
    }

    /// Ends every command: this server holds nothing any more.
    pub(super) async fn end_commands(&mut self) {
        self.commands.end().await;
    }

    /// What is wrong with the operator's command.
    pub(super) fn command_trouble(&self) -> Option<String> {
        self.commands.trouble()
    }

    /// VIPs of the site that are held here and belong elsewhere, for example because this balancer is drained.
    fn must_go(&self, order: &Order) -> Vec<IpAddr> {
        let routers = topology::vip_priorities(&order.placement, self.boot.server);
        let may_stay = |vip: &IpAddr| routers.iter().any(|router| router.vip == *vip);
        let held = self.held().into_iter();
        let is_ours = |vip: &IpAddr| order.placement.vips.contains_key(vip);
        held.filter(|vip| is_ours(vip) && !may_stay(vip)).collect()
    }

    /// VIPs to release now, each with its heir: those that must go, where any balancer stands by for them, and those whose home
    /// is healthy again.
    fn leaving(
        &mut self,
        order: &Order,
        others: &BTreeMap<ServerName, (Revision, Rc<Observed>)>,
    ) -> Vec<(IpAddr, Heir)> {
        let now = Instant::now();
        let held = self.held();
        self.offered
            .retain(|vip, at| held.contains(vip) && now - *at < OFFER_AGAIN);
        let must_go = self.must_go(order);
        let heir = |vip: IpAddr| {
            let state = self.state.vips.get(&vip)?;
            let held = Held {
                must_go: must_go.contains(&vip),
                home: self.home_of(vip, order, others),
                standby: state.standby,
                settled: state.settled,
            };
            Some((vip, decide::heir(&held)?))
        };
        held.into_iter()
            .filter(|vip| !self.offered.contains_key(vip))
            .filter_map(heir)
            .collect()
    }

    fn has_standby(&self, vip: IpAddr) -> bool {
        let state = self.state.vips.get(&vip);
        state.is_some_and(|state| state.standby.is_some())
    }

    /// The address of a VIP's home, if that is another balancer that serves and is well.
    fn home_of(
        &self,
        vip: IpAddr,
        order: &Order,
        others: &BTreeMap<ServerName, (Revision, Rc<Observed>)>,
    ) -> Option<IpAddr> {
        let home = order.placement.vips.get(&vip).copied()?;
        let (_, observed) = others.get(&home)?;
        let is_well = observed.proxy.is_some() && observed.troubles.is_empty();
        let serves = topology::serves(&order.placement, home);
        let location = topology::location(&order.placement, home)?;
        (home != self.boot.server && serves && is_well).then_some(location.address)
    }

    fn hand_over(&mut self, vips: impl IntoIterator<Item = (IpAddr, Heir)>) {
        for (vip, heir) in vips {
            self.offered.insert(vip, Instant::now());
            self.handing_over
                .spawn_local(hand_over(vip, heir, self.keeper.clone()));
        }
    }

    /// Before the server stops, hands over every held VIP that another balancer would take.
    pub(super) async fn leave(&mut self) {
        while self.handing_over.join_next().await.is_some() {}
        self.state = self.keeper.state().unwrap_or_default();
        let held = self.held().into_iter();
        let leaving = held.filter(|vip| self.has_standby(*vip));
        let leaving: Vec<_> = leaving.map(|vip| (vip, Heir::Anyone)).collect();
        self.hand_over(leaving);
        while self.handing_over.join_next().await.is_some() {}
    }
}

/// The prefix length that a VIP was written with.
fn prefix_of(vip: IpAddr, order: &Order) -> u8 {
    let balancer = order.placement.config.balancer.as_ref();
    let written = balancer.and_then(|balancer| balancer.prefixes.get(&vip));
    written.copied().unwrap_or(match vip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    })
}
