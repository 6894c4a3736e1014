//! `gaiola scale`: its argument, and the resulting configuration.

use super::machines;
use gaiola_model::config::{Config, MAX_INSTANCES, MAX_SERVERS};
use gaiola_model::{Placement, Tier};
use std::fmt;
use std::str::FromStr;

/// The argument of `gaiola scale`: `web=3`, `app=3x2`, on machines also `web=+m-9`.
///
/// ```
/// use gaiola_core::merge::{Scale, ScaleTo};
///
/// let scale: Scale = "app=3x2".parse().unwrap();
/// assert_eq!(scale.to, ScaleTo::ServersAndInstances { servers: 3, instances: 2 });
/// assert_eq!(scale.to_string(), "app=3x2");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The tier.
    pub tier: Tier,
    /// Its new size.
    pub to: ScaleTo,
}

/// The new size of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScaleTo {
    /// This many servers; the instances on each stay.
    Servers(u16),
    /// App tier only: servers, and instances on each.
    ServersAndInstances {
        /// Servers of the tier.
        servers: u16,
        /// Instances on each.
        instances: u16,
    },
    /// One server more, on this spare machine.
    Onto(String),
}

/// Why a tier cannot be scaled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// It is not of the form `TIER=N` or `app=NxM`.
    #[error(
        "cannot read {0:?}; write TIER=N with N from 1 to 99, such as web=3, app=NxM with M instances on each server, \
         such as app=3x2, or TIER=+MACHINE with a spare machine, such as web=+m-9"
    )]
    Unreadable(String),
    /// There is no such tier.
    #[error(
        "cannot scale {0:?}, which is not a tier; the tiers are balancer, web, app and database"
    )]
    NoSuchTier(String),
    /// The file leaves the tier out.
    #[error(
        "cannot scale {0}: the site has no [{0}]; add it to the file first, then run `gaiola up`"
    )]
    Absent(Tier),
    /// Only the app tier has instances.
    #[error("cannot scale {0} to NxM: only app has instances; write {0}=N")]
    NoInstances(Tier),
    /// Outside the allowed range.
    #[error("cannot scale {tier} to {count} {what}; it is from 1 to {most}")]
    OutOfRange {
        /// The tier.
        tier: Tier,
        /// `servers` or `instances`.
        what: &'static str,
        /// The requested number.
        count: u16,
        /// The maximum.
        most: u16,
    },
    /// There are not as many spare machines.
    #[error(
        "cannot scale {tier} to {servers} servers: that takes {needed} more {}, and {spare} {} spare; \
         add some to `spare` of [machines] in the file and run `gaiola up` first",
        if *needed == 1 { "machine" } else { "machines" },
        if *spare == 1 { "is" } else { "are" }
    )]
    TooFewSpare {
        /// The tier.
        tier: Tier,
        /// The requested number of servers.
        servers: u16,
        /// How many machines that takes.
        needed: usize,
        /// How many are spare.
        spare: usize,
    },
    /// It is not a spare machine.
    #[error(
        "cannot add {host} to {tier}: the spare machines are {}; \
         add it to `spare` of [machines] in the file and run `gaiola up` first",
        if spare.is_empty() { "none".into() } else { spare.join(", ") }
    )]
    NotSpare {
        /// The tier.
        tier: Tier,
        /// The requested machine.
        host: String,
        /// The spare machines.
        spare: Vec<String>,
    },
    /// The provider has servers of its own.
    #[error("cannot add {host} to {tier}: the lab provides the servers; write {tier}=N")]
    NoMachines {
        /// The tier.
        tier: Tier,
        /// The requested machine.
        host: String,
    },
}

/// `config` with a tier scaled where `placed` stands. Nothing else changes; [`refusals`](super::refusals) decides whether
/// it needs a `--yes`.
pub fn scale(
    config: &Config,
    scale: &Scale,
    placed: Option<&Placement>,
) -> Result<Config, ScaleError> {
    let tier = scale.tier;
    if config.servers(tier) == 0 {
        return Err(ScaleError::Absent(tier));
    }
    let mut scaled = config.clone();
    match &scale.to {
        ScaleTo::Servers(servers) => set_size(&mut scaled, tier, *servers, placed)?,
        ScaleTo::ServersAndInstances { servers, instances } => {
            if tier != Tier::App {
                return Err(ScaleError::NoInstances(tier));
            }
            set_size(&mut scaled, tier, *servers, placed)?;
            scaled.app.instances = in_range(tier, "instances", *instances)?;
        }
        ScaleTo::Onto(host) => {
            let host = host.clone();
            let Some(machines) = scaled.machines.clone() else {
                return Err(ScaleError::NoMachines { tier, host });
            };
            in_range(tier, "servers", config.servers(tier).saturating_add(1))?;
            scaled.set_machines(machines::with_spare(machines, tier, &host, placed)?);
        }
    }
    Ok(scaled)
}

/// The only way to another number of servers: on machines each has one.
fn set_size(
    config: &mut Config,
    tier: Tier,
    servers: u16,
    placed: Option<&Placement>,
) -> Result<(), ScaleError> {
    let servers = in_range(tier, "servers", servers)?;
    match config.machines.clone() {
        None => config.set_servers(tier, servers),
        Some(machines) => {
            config.set_machines(machines::sized(machines, tier, servers, placed)?);
        }
    }
    Ok(())
}

fn in_range(tier: Tier, what: &'static str, count: u16) -> Result<u16, ScaleError> {
    let most = if what == "instances" {
        MAX_INSTANCES
    } else {
        MAX_SERVERS
    };
    if (1..=most).contains(&count) {
        return Ok(count);
    }
    Err(ScaleError::OutOfRange {
        tier,
        what,
        count,
        most,
    })
}

impl FromStr for Scale {
    type Err = ScaleError;

    fn from_str(text: &str) -> Result<Self, ScaleError> {
        let unreadable = || ScaleError::Unreadable(text.into());
        let (tier, to) = text.split_once('=').ok_or_else(unreadable)?;
        let tier = tier
            .parse()
            .map_err(|_| ScaleError::NoSuchTier(tier.into()))?;
        let to = match (to.strip_prefix('+'), to.split_once('x')) {
            (Some(machine), _) => is_name(machine).then(|| ScaleTo::Onto(machine.into())),
            (None, None) => number(to).map(ScaleTo::Servers),
            (None, Some((servers, instances))) => number(servers)
                .zip(number(instances))
                .map(|(servers, instances)| ScaleTo::ServersAndInstances { servers, instances }),
        };
        Ok(Self {
            tier,
            to: to.ok_or_else(unreadable)?,
        })
    }
}

/// Whether this may be a machine's name: one more server, `+1`, is not.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Digits only, without a sign.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            ScaleTo::Onto(machine) => write!(f, "{}=+{machine}", self.tier),
            ScaleTo::Servers(servers) => write!(f, "{}={servers}", self.tier),
            ScaleTo::ServersAndInstances { servers, instances } => {
                write!(f, "{}={servers}x{instances}", self.tier)
            }
        }
    }
}
