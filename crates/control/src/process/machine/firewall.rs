//! Puts the table that keeps others from the site's inside into the kernel, and keeps it there.

use crate::provider::machine::{Machine, PORT};
use crate::site::Site;
use gaiola_core::firewall::{TABLE, removal, rules};
use std::io;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// Interval between two comparisons with what is wanted: machines come and go.
const EVERY: Duration = Duration::from_secs(1);
/// Interval between two looks whether it is still there: `nft flush ruleset` removes every table.
const LOOK: Duration = Duration::from_secs(30);
/// The longest that nft may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why the kernel does not have the table.
#[derive(Debug, thiserror::Error)]
enum FirewallError {
    #[error("cannot run nft; install the package nftables")]
    Run(#[from] io::Error),
    #[error("nft: {0}")]
    Refused(String),
    #[error("nft did not end within {} s", LIMIT.as_secs())]
    Late,
}

/// Keeps it, without end.
pub(super) async fn run(machine: Rc<Machine>, site: Rc<Site>) {
    let mut table = Table::default();
    loop {
        if let Some(wanted) = wanted(&machine, &site) {
            table.keep(wanted).await;
        }
        sleep(EVERY).await;
    }
}

/// The table as text; `None`: no placement is known yet, so what is there stays.
fn wanted(machine: &Machine, site: &Site) -> Option<String> {
    let order = site.order.borrow();
    let placement = &order.as_ref()?.placement;
    let machines = machine.prepared_addresses();
    Some(rules(placement, &machine.host(), &machines, &[PORT]))
}

#[derive(Default)]
struct Table {
    /// What the kernel was given last, and when it was seen there.
    given: Option<(String, Instant)>,
    reported: Option<String>,
}

impl Table {
    async fn keep(&mut self, wanted: String) {
        if !self.is_due(&wanted).await {
            return;
        }
        match nft(&["-f", "-"], &wanted).await {
            Ok(()) => {
                self.reported = None;
                self.given = Some((wanted, Instant::now()));
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn is_due(&mut self, wanted: &str) -> bool {
        let Some((given, seen)) = &mut self.given else {
            return true;
        };
        if given != wanted {
            return true;
        }
        if seen.elapsed() < LOOK || wanted == removal() {
            return false;
        }
        *seen = Instant::now();
        let is_there = nft(&["list", "table", "inet", TABLE], "").await.is_ok();
        if !is_there {
            tracing::warn!("the table inet {TABLE} of nftables is gone; it is put back");
        }
        !is_there
    }

    /// The same reason is logged once.
    fn failed(&mut self, error: &FirewallError) {
        self.given = None;
        let why = gaiola_os::chain(error);
        if self.reported.as_ref() != Some(&why) {
            tracing::error!(error = why, "others may connect to the site's inner ports");
            self.reported = Some(why);
        }
    }
}

async fn nft(args: &[&str], input: &str) -> Result<(), FirewallError> {
    let mut command = Command::new("nft");
    command.args(args).kill_on_drop(true);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = input.to_string();
    let stdin = child.stdin.take();
    let done = async move {
        if let Some(mut stdin) = stdin {
            // One that ends early says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(LIMIT, done)
        .await
        .map_err(|_| FirewallError::Late)??;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(FirewallError::Refused(said.trim().replace('\n', "; ")))
}
