//! `gaiola scale`: its argument, and the resulting configuration.

use gaiola_model::Tier;
use gaiola_model::config::{Config, MAX_INSTANCES, MAX_SERVERS};
use std::fmt;
use std::str::FromStr;

/// The argument of `gaiola scale`: `web=3`, `app=3x2`.
///
/// ```
/// use gaiola_core::merge::{Scale, ScaleTo};
///
/// let scale: Scale = "app=3x2".parse().unwrap();
/// assert_eq!(scale.to, ScaleTo::ServersAndInstances { servers: 3, instances: 2 });
/// assert_eq!(scale.to_string(), "app=3x2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The tier.
    pub tier: Tier,
    /// Its new size.
    pub to: ScaleTo,
}

/// The new size of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// Why a tier cannot be scaled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// It is not of the form `TIER=N` or `app=NxM`.
    #[error(
        "cannot read {0:?}; write TIER=N with N from 1 to 99, such as web=3, or app=NxM with M instances on each server, such as app=3x2"
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
}

/// `config` with a tier scaled. Nothing else changes; [`refusals`](super::refusals) decides whether it needs a `--yes`.
pub fn scale(config: &Config, scale: &Scale) -> Result<Config, ScaleError> {
    let Scale { tier, to } = *scale;
    if config.servers(tier) == 0 {
        return Err(ScaleError::Absent(tier));
    }
    let mut scaled = config.clone();
    match to {
        ScaleTo::Servers(servers) => scaled.set_servers(tier, in_range(tier, "servers", servers)?),
        ScaleTo::ServersAndInstances { servers, instances } => {
            if tier != Tier::App {
                return Err(ScaleError::NoInstances(tier));
            }
            scaled.set_servers(tier, in_range(tier, "servers", servers)?);
            scaled.app.instances = in_range(tier, "instances", instances)?;
        }
    }
    Ok(scaled)
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
        let to = match to.split_once('x') {
            None => number(to).map(ScaleTo::Servers),
            Some((servers, instances)) => number(servers)
                .zip(number(instances))
                .map(|(servers, instances)| ScaleTo::ServersAndInstances { servers, instances }),
        };
        Ok(Self {
            tier,
            to: to.ok_or_else(unreadable)?,
        })
    }
}

/// Digits only, without a sign.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            ScaleTo::Servers(servers) => write!(f, "{}={servers}", self.tier),
            ScaleTo::ServersAndInstances { servers, instances } => {
                write!(f, "{}={servers}x{instances}", self.tier)
            }
        }
    }
}
