//! The VIP keeper and what it stands on, in network namespaces of its own: real links, real packets, a real keepalived.
//!
//! What is measured is printed (`cargo nextest run --no-capture`); what is asserted is where things end.

mod keepalived;
mod keeper;
mod namespace;
mod netlink;
mod probe;
mod relay;
mod site;
mod wide;
