//! The types of Gaiola, shared by all other rooms.
//!
//! Nothing here makes decisions or does I/O. `wire` decodes bytes into these values, `core` decides on them, and the other
//! rooms carry the decisions out.

pub mod config;
pub mod content;
pub mod cron;
pub mod event;
pub mod exit;
pub mod http;
pub mod id;
pub mod inventory;
pub mod keeper;
pub mod metric;
pub mod placement;
pub mod proxy;
pub mod proxy_file;
pub mod resources;
mod revision;
pub mod schema;
pub mod secret;
pub mod status;
pub mod time;
pub mod vrrp;

pub use config::Config;
pub use event::Event;
pub use exit::Exit;
pub use id::{CronName, InstanceName, ServerName, SiteName, Tier, WorkerKind, WorkerName};
pub use inventory::Inventory;
pub use placement::{Desired, Observed, Placement};
pub use proxy::ProxyConfig;
pub use revision::Revision;
pub use time::{Time, UnixTime};
