//! Whole sites in the lab: brought up, changed, broken and brought down by the built binary.

mod badluck;
mod balancer;
mod changes;
mod database;
mod failures;
mod faults;
mod full;
mod lifecycle;
mod limits;
mod maintenance;
mod open;
mod python;
mod refusals;
mod release;
mod scenarios;
mod takeover;
mod tls;
mod versions;
mod vips;
