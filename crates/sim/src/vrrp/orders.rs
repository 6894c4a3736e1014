//! The operator drains balancers and brings them back, and each agent learns of it in its own time.

use super::{Plan, address_of, server_of};
use gaiola_core::rollout;
use gaiola_core::topology;
use gaiola_model::config::{App, Balancer, Config};
use gaiola_model::placement::{Phase, Release, ReleaseNumber};
use gaiola_model::vrrp::Priority;
use gaiola_model::{Desired, Inventory, Placement};

/// Everything that was ordered so far.
pub(super) struct Orders {
    placement: Placement,
    given: Vec<Order>,
}

/// One order: what `core::topology` makes of a placement.
struct Order {
    drained: Vec<bool>,
    /// Each balancer's priority for each VIP; `None`: it is not to hold it.
    priorities: Vec<Vec<Option<Priority>>>,
    homes: Vec<usize>,
}

impl Orders {
    /// Every balancer serves.
    pub(super) fn new(plan: &Plan) -> Self {
        let servers = u16::try_from(plan.nodes).expect("few nodes");
        let vips = (0..plan.vips).map(address_of);
        let mut config = Config::new("sim".parse().expect("a site's name"), App::new("run"));
        config.balancer = Some(Balancer {
            servers,
            vips: Some(vips.collect()),
            listen: vec![80],
            ..Balancer::default()
        });
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::numbered(&config, [10, 77]);
        let placement = rollout::first(&Desired::first(config, release, inventory), "sim".into());
        let mut orders = Self {
            placement,
            given: Vec::new(),
        };
        orders.give(plan);
        orders
    }

    /// The last order's number.
    pub(super) fn last(&self) -> usize {
        self.given.len() - 1
    }

    /// Drains a balancer, or brings it back.
    pub(super) fn drain(&mut self, n: usize, drained: bool, plan: &Plan) {
        let placed = self.placement.servers.get_mut(&server_of(n));
        let phase = if drained { Phase::Drain } else { Phase::Serve };
        placed.expect("it is placed").phase = phase;
        self.placement.vips = topology::homes(&self.placement);
        self.give(plan);
    }

    fn give(&mut self, plan: &Plan) {
        let placement = &self.placement;
        let priorities = |n: usize| {
            let routers = topology::vip_priorities(placement, server_of(n));
            let of = |vip: usize| {
                let router = routers.iter().find(|it| it.vip == address_of(vip));
                router.map(|router| Priority(router.priority))
            };
            (0..plan.vips).map(of).collect()
        };
        let home = |vip: usize| {
            let home = placement.vips[&address_of(vip)];
            (0..plan.nodes).find(|n| server_of(*n) == home)
        };
        let homes = (0..plan.vips).map(|vip| home(vip).expect("a balancer"));
        let serves = |n: usize| topology::serves(placement, server_of(n));
        self.given.push(Order {
            drained: (0..plan.nodes).map(|n| !serves(n)).collect(),
            priorities: (0..plan.nodes).map(priorities).collect(),
            homes: homes.collect(),
        });
    }

    pub(super) fn is_drained(&self, order: usize, n: usize) -> bool {
        self.given[order].drained[n]
    }

    pub(super) fn priority(&self, order: usize, n: usize, vip: usize) -> Option<Priority> {
        self.given[order].priorities[n][vip]
    }

    pub(super) fn home(&self, order: usize, vip: usize) -> usize {
        self.given[order].homes[vip]
    }
}
