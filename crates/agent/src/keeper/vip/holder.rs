//! All VIPs of one server: feeds each router its inputs, and carries out its decisions.

mod vip;

use super::beats::{NotServing, Verdict};
use super::config_file::ConfigFile;
use super::network::Network;
use super::voice::Voice;
use gaiola_core::vrrp::{Input, Output};
use gaiola_model::Time;
use gaiola_model::keeper::{KeeperConfig, KeeperState, KeeperVip};
use gaiola_model::schema::SCHEMA;
use gaiola_model::vrrp::{Advertisement, Message, Priority, Vrid};
use gaiola_wire::vrrp::Received;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use vip::Vip;

/// Interval between two attempts to open the interface.
const OPEN_INTERVAL: Duration = Duration::from_millis(200);

/// The most packets read in one turn; the rest waits for the next turn, after deadlines were met.
const MOST_PACKETS: usize = 256;

/// Why no VIP may be held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("there is no keeper.json yet")]
    NoConfiguration,
    /// The interface cannot be opened, or is gone.
    #[error("{0}")]
    Interface(String),
    #[error("{0} is down or has no carrier")]
    NotRunning(String),
    #[error("maintenance")]
    Maintenance,
    #[error("nobody hears this balancer: neither another one nor a relay")]
    CutOff,
    #[error(transparent)]
    NotServing(#[from] NotServing),
}

/// The VIPs of this server.
pub(super) struct Holder {
    config: Option<KeeperConfig>,
    voice: Voice,
    cut_off: bool,
    network: Option<Network>,
    open_at: Time,
    vips: BTreeMap<Vrid, Vip>,
    rejected: BTreeMap<String, u64>,
    /// Whether VIPs may be held here.
    readiness: Result<(), Trouble>,
    stopping: bool,
}

impl Holder {
    /// A holder without VIPs.
    pub(super) fn new(voice: Voice) -> Self {
        Self {
            config: None,
            voice,
            cut_off: false,
            network: None,
            open_at: Time::ZERO,
            vips: BTreeMap::new(),
            rejected: BTreeMap::new(),
            readiness: Err(Trouble::NoConfiguration),
            stopping: false,
        }
    }

    /// Applies a new configuration. VIPs that it does not change are not touched.
    pub(super) fn configure(&mut self, now: Time, config: KeeperConfig) {
        let moved = self
            .network
            .as_ref()
            .is_some_and(|network| !network.is(&config.interface, config.address));
        if moved {
            for vrid in self.vrids() {
                self.feed(now, vrid, Input::NotReady);
            }
            self.vips.clear();
            self.network = None;
        }
        self.open_at = now;
        self.voice.configure(now, &config);
        self.config = Some(config);
    }

    /// Checks every source of input; `is_heard`: one of the [`descriptors`](Self::descriptors) was readable. Before a deadline is met messages
    /// are read in any case, since this process may have slept in between.
    pub(super) fn attend(&mut self, now: Time, alive: Verdict, is_heard: bool, stopping: bool) {
        self.stopping = stopping;
        self.open(now);
        let is_due = self.next_deadline(now).is_some_and(|due| due <= now);
        if is_heard || is_due || self.voice.is_cut_off(now) {
            self.refresh();
            self.voice.hear_relays(now);
            self.hear(now);
        }
        self.voice.keep_contact(now);
        self.cut_off = self.voice.is_cut_off(now);
        self.reconcile(now);
        let readiness = self.check(alive);
        if let (Ok(()), Err(trouble)) = (&self.readiness, &readiness) {
            tracing::warn!(%trouble, "no VIP can be held here");
        }
        self.readiness = readiness;
        self.settle(now);
        for vrid in self.vrids() {
            let due = |vip: &Vip| vip.next_deadline().is_some_and(|due| due <= now);
            if self.vips.get(&vrid).is_some_and(due) {
                self.feed(now, vrid, Input::Deadline);
            }
        }
    }

    /// Another program is about to take this process's place: the other balancers are asked to wait for it.
    pub(super) fn be_exchanged(&mut self, now: Time) {
        for vrid in self.vrids() {
            self.feed(now, vrid, Input::Exchange);
        }
    }

    /// Whether every VIP has been handed over after `stopping`.
    pub(super) fn is_released(&self) -> bool {
        self.vips.is_empty()
    }

    /// When to call `attend` if nothing else happens first.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        let open = (self.config.is_some() && self.network.is_none()).then_some(self.open_at);
        let vips = self.vips.values().filter_map(Vip::next_deadline);
        let voice = self.voice.next_deadline(now);
        vips.chain(open).chain(voice).min()
    }

    /// Adds the descriptors to poll.
    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<BorrowedFd<'a>>) {
        if let Some(network) = &self.network {
            network.descriptors(all);
            // Without a network nobody reads them.
            self.voice.descriptors(all);
        }
    }

    /// The state to report.
    pub(super) fn state(&self, now: Time, file: &ConfigFile) -> KeeperState {
        KeeperState {
            schema: self.config.as_ref().map_or(SCHEMA, |config| config.schema),
            reads: SCHEMA,
            pid: std::process::id(),
            ready: self.trouble().is_none(),
            reason: self.trouble().map(|trouble| trouble.to_string()),
            config_problem: file.problem().map(ToString::to_string),
            vips: self
                .vips
                .values()
                .map(|vip| (vip.virtual_address(), vip.state(now)))
                .collect(),
            rejected: self.rejected.clone(),
        }
    }

    /// Why no VIP is held here, or would be.
    fn trouble(&self) -> Option<&Trouble> {
        let cut_off = self.cut_off.then_some(&Trouble::CutOff);
        self.readiness.as_ref().err().or(cut_off)
    }

    fn open(&mut self, now: Time) {
        let Some(config) = &self.config else { return };
        let mut vips = config.vips.iter().map(|vip| vip.vip);
        let is_wide = config.address.is_ipv6() || vips.any(|vip| vip.is_ipv6());
        if let Some(network) = &mut self.network {
            network.widen(now, is_wide);
            return;
        }
        if now < self.open_at {
            return;
        }
        self.open_at = now + OPEN_INTERVAL;
        match Network::open(&config.interface, config.address) {
            Ok(mut network) => {
                network.widen(now, is_wide);
                self.network = Some(network);
            }
            Err(error) => self.readiness = Err(Trouble::Interface(error.to_string())),
        }
    }

    /// Reads the interface again if it has changed.
    fn refresh(&mut self) {
        let Some(network) = &mut self.network else {
            return;
        };
        if let Err(error) = network.refresh() {
            tracing::warn!(%error, "the interface is gone");
            self.network = None;
            self.readiness = Err(Trouble::Interface(error.to_string()));
        }
    }

    fn hear(&mut self, now: Time) {
        for _ in 0..MOST_PACKETS {
            let Some(network) = &self.network else { return };
            match self.voice.hear(network) {
                None => return,
                Some(Ok((from, received))) => self.heard(now, from, received),
                Some(Err(rejected)) => self.count_rejected(&rejected.to_string()),
            }
        }
    }

    fn heard(&mut self, now: Time, from: IpAddr, received: Received) {
        let Received { message, stamp } = received;
        let vrid = message.vrid();
        if !self.vips.contains_key(&vrid) {
            return;
        }
        match self.voice.is_new(from, &message, stamp) {
            Ok(true) => {}
            Ok(false) => return,
            Err(reason) => return self.count_rejected(reason),
        }
        let input = match message {
            Message::Advertisement(advert) => Input::Heard { from, advert },
            Message::Hello(hello) => {
                self.voice.note_hello(now, &hello);
                Input::HeardHello { from, hello }
            }
        };
        self.feed(now, vrid, input);
    }

    fn count_rejected(&mut self, reason: &str) {
        *self.rejected.entry(reason.into()).or_default() += 1;
    }

    /// Makes the routers those of the configuration: new ones start, others are handed over and then removed.
    fn reconcile(&mut self, now: Time) {
        let (Some(config), Some(network)) = (&self.config, &mut self.network) else {
            if self.stopping {
                self.vips.clear();
            }
            return;
        };
        let wanted = if self.stopping { &[][..] } else { &config.vips };
        let mut inputs = Vec::new();
        for (&vrid, vip) in &mut self.vips {
            let address = vip.settings().address;
            let found = wanted.iter().find(|it| it.vrid == vrid);
            let own = found.and_then(|it| router_address(config, it, network));
            match found {
                // With another address of its own it is another router.
                Some(it)
                    if it.vip == vip.virtual_address() && own.is_none_or(|own| own == address) =>
                {
                    let changes = vip.reconfigure(config, it);
                    inputs.extend(changes.into_iter().map(|input| (vrid, input)));
                }
                _ => inputs.extend(vip.leave().map(|input| (vrid, input))),
            }
        }
        for it in wanted {
            let Some(own) = router_address(config, it, network) else {
                continue;
            };
            self.vips.entry(it.vrid).or_insert_with(|| {
                let held = network.holds(it.vip, it.prefix);
                inputs.push((it.vrid, Input::Start { held }));
                Vip::new(config, it, own)
            });
        }
        for (vrid, input) in inputs {
            self.feed(now, vrid, input);
        }
        self.vips.retain(|_, vip| !vip.is_stopped());
    }

    /// Whether VIPs may be held. Without an interface the reason stays that for which it could not be opened.
    fn check(&self, alive: Verdict) -> Result<(), Trouble> {
        let (Some(config), Some(network)) = (&self.config, &self.network) else {
            return self.readiness.clone();
        };
        if config.maintenance {
            return Err(Trouble::Maintenance);
        }
        if !network.is_running() {
            return Err(Trouble::NotRunning(config.interface.clone()));
        }
        Ok(alive?)
    }

    /// Informs each router whether the data plane serves, and whether anybody hears this server, if that has changed.
    fn settle(&mut self, now: Time) {
        let ready = self.readiness.is_ok();
        for vrid in self.vrids() {
            let vip = self.vips.get_mut(&vrid);
            let inputs = vip.map(|vip| [vip.settle_contact(self.cut_off), vip.settle(now, ready)]);
            for input in inputs.into_iter().flatten().flatten() {
                self.feed(now, vrid, input);
            }
        }
    }

    /// Feeds an input to a router and carries out its outputs, in order.
    fn feed(&mut self, now: Time, vrid: Vrid, input: Input) {
        let Some(vip) = self.vips.get_mut(&vrid) else {
            return;
        };
        let mut failed = false;
        for output in vip.step(now, input) {
            let Some(network) = &mut self.network else {
                continue;
            };
            failed |= !carry_out(now, network, vip, output, &mut self.voice);
        }
        if failed {
            vip.suspend(now);
            self.feed(now, vrid, Input::NotReady);
        }
    }

    fn vrids(&self) -> Vec<Vrid> {
        self.vips.keys().copied().collect()
    }
}

/// By which address other routers of a VIP know this one: over IPv6 without a key by its link-local one; `None`: it has none yet.
fn router_address(config: &KeeperConfig, vip: &KeeperVip, network: &Network) -> Option<IpAddr> {
    let is_wide = vip.vip.is_ipv6() || config.address.is_ipv6();
    match config.key {
        _ if is_wide && !network.is_wide() => None,
        None if is_wide => network.link_local(),
        _ => Some(config.address),
    }
}

/// `false`: the address could not be added.
fn carry_out(
    now: Time,
    network: &mut Network,
    vip: &Vip,
    output: Output,
    voice: &mut Voice,
) -> bool {
    let address = vip.virtual_address();
    match output {
        Output::AddAddress | Output::RefreshAddress => {
            let added = match output {
                Output::AddAddress => network.take(address, vip.prefix()),
                _ => network.add(address, vip.prefix()),
            };
            if let Err(error) = added {
                let reason = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, reason, vip = %address, "the VIP cannot be held here");
                return false;
            }
        }
        Output::RemoveAddress => {
            if let Err(error) = network.remove(address, vip.prefix()) {
                tracing::error!(%error, vip = %address, "the VIP leaves when its lifetime ends");
            }
        }
        Output::Advertise(priority) => {
            let interval = vip.settings().interval;
            advertise(network, vip, priority, interval, voice);
        }
        Output::AskForPatience(priority) => {
            let interval = vip.settings().exchange_interval();
            advertise(network, vip, priority, interval, voice);
        }
        Output::Announce => network.announce(address),
        Output::SayHello => {
            let hello = Message::Hello(vip.hello(now));
            voice.say(network, &hello, address.is_ipv6());
        }
        Output::HoldBack => network.hold_back(address),
        Output::PassOn => network.pass_on(address),
        Output::Became(role, reason) => {
            tracing::info!(vip = %address, ?role, reason = reason.as_str(), "VIP");
        }
    }
    true
}

fn advertise(
    network: &Network,
    vip: &Vip,
    priority: Priority,
    interval: Duration,
    voice: &mut Voice,
) {
    let address = vip.virtual_address();
    let advert = Advertisement {
        vrid: vip.settings().vrid,
        priority,
        interval,
        vips: vec![address],
    };
    voice.say(network, &Message::Advertisement(advert), address.is_ipv6());
}
