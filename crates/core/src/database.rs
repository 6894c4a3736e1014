//! What is decided about a database server beside Patroni, which decides who is the primary.
//!
//! [`watchdog`] ends a PostgreSQL that must not or cannot go on; [`clone`] gives a standby that cannot follow its data anew;
//! [`give_way`] moves the primary's role away from a server whose disk is full. None of them promotes anybody.

pub mod clone;
pub mod give_way;
pub mod watchdog;
