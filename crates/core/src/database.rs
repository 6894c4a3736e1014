//! Decisions about a database server that Patroni, which decides who is primary, does not make.
//!
//! [`watchdog`] ends a PostgreSQL that must not or cannot continue; [`clone`] re-clones a standby that cannot follow;
//! [`give_way`] moves the primary role away from a server whose disk is full. None of them promotes a standby.

pub mod clone;
pub mod give_way;
pub mod watchdog;
