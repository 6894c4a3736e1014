//! One VIP: its router, and its reported state.

use gaiola_core::vrrp::{Input, Output, Reason, Role, Router, Settings};
use gaiola_model::Time;
use gaiola_model::keeper::{KeeperConfig, KeeperVip, VipRole, VipState};
use gaiola_model::vrrp::Hello;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a VIP that could not be added is suspended.
const SUSPENSION: Duration = Duration::from_secs(1);

/// One VIP.
pub(super) struct Vip {
    router: Router,
    prefix: u8,
    /// The router's last input was that the data plane serves.
    passed_ready: bool,
    passed_cut_off: bool,
    suspended_until: Option<Time>,
    leaving: bool,
    yields: u64,
    holds_back: bool,
    since_ms: u64,
    reason: Reason,
    takeovers: BTreeMap<String, u64>,
}

impl Vip {
    /// A VIP that was not started yet. Yield requests made before count as done.
    ///
    /// `own`: by which address the other routers know this one.
    pub(super) fn new(config: &KeeperConfig, vip: &KeeperVip, own: IpAddr) -> Self {
        Self {
            router: Router::new(settings(config, vip, own)),
            prefix: vip.prefix,
            passed_ready: false,
            passed_cut_off: false,
            suspended_until: None,
            leaving: false,
            yields: vip.yields,
            holds_back: false,
            since_ms: milliseconds_since_1970(),
            reason: Reason::Started,
            takeovers: BTreeMap::new(),
        }
    }

    pub(super) fn virtual_address(&self) -> IpAddr {
        self.settings().vip
    }

    /// Length of the prefix that the address has, or will have.
    pub(super) fn prefix(&self) -> u8 {
        self.prefix
    }

    pub(super) fn settings(&self) -> &Settings {
        self.router.settings()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.router.is_stopped()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.router
            .next_deadline()
            .into_iter()
            .chain(self.suspended_until)
            .min()
    }

    /// Inputs for the router when its VIP's configuration changes.
    pub(super) fn reconfigure(&mut self, config: &KeeperConfig, vip: &KeeperVip) -> Vec<Input> {
        let mut inputs = Vec::new();
        if !matches!(self.router.role(), Role::Active) {
            self.prefix = vip.prefix;
        }
        let settings = settings(config, vip, self.settings().address);
        if settings != *self.settings() {
            inputs.push(Input::Configure(settings));
        }
        if vip.holds_back != self.holds_back {
            inputs.push(Input::HoldBack(vip.holds_back));
        }
        if vip.yields > self.yields {
            inputs.push(Input::Yield);
        }
        (self.holds_back, self.yields) = (vip.holds_back, vip.yields);
        inputs
    }

    /// Input for the router when its VIP is not wanted here any more.
    pub(super) fn leave(&mut self) -> Option<Input> {
        (!std::mem::replace(&mut self.leaving, true)).then_some(Input::Stop)
    }

    /// Input for the router when nobody hears this server, or somebody does again.
    pub(super) fn settle_contact(&mut self, cut_off: bool) -> Option<Input> {
        let passed = std::mem::replace(&mut self.passed_cut_off, cut_off);
        (passed != cut_off).then_some(Input::CutOff(cut_off))
    }

    /// Input for the router when the data plane's state changes.
    pub(super) fn settle(&mut self, now: Time, ready: bool) -> Option<Input> {
        if self.suspended_until.is_some_and(|until| now >= until) {
            self.suspended_until = None;
        }
        let ready = ready && self.suspended_until.is_none();
        if std::mem::replace(&mut self.passed_ready, ready) == ready {
            return None;
        }
        Some(if ready { Input::Ready } else { Input::NotReady })
    }

    /// The address could not be added: this server does not hold it for a while. The caller must inform the router.
    pub(super) fn suspend(&mut self, now: Time) {
        self.passed_ready = false;
        self.suspended_until = Some(now + SUSPENSION);
    }

    pub(super) fn step(&mut self, now: Time, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.router.step(now, input, &mut out);
        for output in &out {
            if let Output::Became(role, reason) = output {
                self.became(*role, *reason);
            }
        }
        out
    }

    /// The router's hello message.
    pub(super) fn hello(&self, now: Time) -> Hello {
        self.router.hello(now)
    }

    pub(super) fn state(&self, now: Time) -> VipState {
        let (state, owner) = match self.router.role() {
            Role::Initialize => (VipRole::Initialize, None),
            Role::Backup { active } => (VipRole::Backup, active),
            Role::Active => (VipRole::Active, Some(self.settings().address)),
        };
        VipState {
            state,
            owner,
            since_ms: self.since_ms,
            reason: self.reason.as_str().into(),
            yields: self.yields,
            is_yielding: self.router.is_yielding(),
            is_holding_back: self.router.is_holding_back(),
            standby: self.router.standby(now),
            settled: self.router.settled(now),
            takeovers: self.takeovers.clone(),
            claims: self.router.claims(),
        }
    }

    fn became(&mut self, role: Role, reason: Reason) {
        self.since_ms = milliseconds_since_1970();
        self.reason = reason;
        if role == Role::Active && reason != Reason::NobodyTookIt {
            *self.takeovers.entry(reason.as_str().into()).or_default() += 1;
        }
    }
}

fn settings(config: &KeeperConfig, vip: &KeeperVip, own: IpAddr) -> Settings {
    let mut settings = Settings::new(vip.vrid, vip.vip, own, vip.priority);
    settings.preempt = vip.preempt;
    settings.hellos = config.key.is_some();
    settings.interval = Duration::from_millis(config.interval_ms.into());
    settings
}

fn milliseconds_since_1970() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
