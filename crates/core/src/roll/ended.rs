//! How a command that rolls over machines ended, in words.

use crate::words::all_of;
use gaiola_model::inventory::Host;
use std::fmt;

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Machines whose turn is over, and that are whole.
    pub done: Vec<Host>,
    /// The machine at which it stopped.
    pub failed: Option<Failed>,
    /// Machines that had no turn.
    pub left: Vec<Host>,
    /// What to type to go on, without the machines.
    pub again: String,
    /// What follows the machines there; `None`: it names none.
    pub then: Option<String>,
}

/// The machine at which it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The machine.
    pub host: Host,
    /// Why.
    pub why: String,
    /// Whether it is still set aside.
    pub aside: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(failed) = &self.failed else {
            return match self.done.as_slice() {
                [] => f.write_str("nothing to do"),
                done => write!(f, "done: {}", all_of(done)),
            };
        };
        let Failed { host, why, aside } = failed;
        write!(f, "stopped at {host}: {why}")?;
        f.write_str(if *aside {
            "; it stays set aside, and the site goes on without it"
        } else {
            "; it takes traffic again"
        })?;
        let (done, left) = (in_words(&self.done), in_words(&self.left));
        write!(f, "\n  done: {done}\n  not begun: {left}")?;
        let machines: Vec<&str> = std::iter::once(host)
            .chain(&self.left)
            .map(|host| host.0.as_str())
            .collect();
        let then = self.then.as_ref();
        let named = then.map(|then| format!(" {}{then}", machines.join(" ")));
        write!(
            f,
            "\n  once the reason is gone, go on with: {}{}",
            self.again,
            named.unwrap_or_default()
        )
    }
}

fn in_words(hosts: &[Host]) -> String {
    if hosts.is_empty() {
        "none".into()
    } else {
        all_of(hosts)
    }
}
