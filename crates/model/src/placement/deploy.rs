//! What was put out: the last releases of a site, and how each came up.

use super::{Release, ReleaseNumber};
use crate::config::Config;
use serde::{Deserialize, Serialize};

/// A release that was put out, or a return to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// The release.
    pub release: Release,
    /// The change that it came with.
    pub generation: u64,
    /// When, in RFC 3339; empty: that is not known.
    #[serde(default)]
    pub at: String,
    /// Who did it: `root@laptop`; empty: that is not known.
    #[serde(default)]
    pub by: String,
    /// The release that it left, if it went back to an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_from: Option<ReleaseNumber>,
    /// The file that was applied with it.
    pub config: Config,
    /// How it ended; `None`: it has not, or nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<DeployEnd>,
}

/// How a release came up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployEnd {
    /// Why it was given up, or had not come up when its command ended; `None`: it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// From the change to its end, in milliseconds.
    pub took_ms: u64,
    /// Requests of clients meanwhile, as the site's outermost proxies counted them,
    pub requests: u64,
    /// and how many of them failed.
    pub failed: u64,
}
