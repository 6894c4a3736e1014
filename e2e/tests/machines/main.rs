//! The harness of real Debian machines keeps its promises. `make machines` runs this; it needs root, and an image takes minutes
//! to build, so `make test` leaves it out.

mod cloud;
mod drill;
mod eight;
mod encrypt;
mod ends;
mod faults;
mod guests;
mod limits;
mod luck;
mod replace;
mod roll;
mod scenarios;
mod split;

use gaiola_e2e::Ran;

/// A command that must end well, and what it printed.
#[track_caller]
fn said(ran: Ran) -> String {
    ran.expect(0, &[]).stdout.trim().to_string()
}

/// A command that must fail.
#[track_caller]
fn fails(ran: &Ran) {
    assert_ne!(ran.code, 0, "{ran:#?}");
}
