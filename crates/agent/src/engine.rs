//! The database tier: how Patroni and PostgreSQL are configured and queried.
//!
//! Patroni decides which server is the primary; nothing here promotes or demotes. [`install`] lays out what a database server
//! needs, `keeper::database` runs Patroni there, and [`Api`] calls its REST API.

mod api;
mod files;
mod order;
mod patroni;
mod sealing;
mod secrets;
mod site;
mod tools;

pub use api::{Api, ApiError, MemberRole, PatroniMember, Report};
pub use files::{InstallError, Installed, install};
pub use order::{EngineState, KeeperDatabase, KeeperReport, Leadership, Owner, TargetState};
pub use patroni::Settings;
pub use sealing::{keep_key, key_of};
pub use secrets::{Secret, Secrets};
pub use site::{SiteError, ensure_site};
pub use tools::{Tools, ToolsError, find_tools};
