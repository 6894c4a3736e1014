//! A restart: of a machine by its systemd, in the lab of a server.

use crate::connect::SiteClient;
use anyhow::{Context as _, bail};
use gaiola_control::api::Harm;
use gaiola_control::ssh::{Problem, Script, Ssh, SshError};
use gaiola_model::ServerName;
use gaiola_net::client::Request;
use std::time::{Duration, Instant};

/// The longest until a machine is back: some check their memory and disks first.
const LIMIT: Duration = Duration::from_secs(900);
/// The longest until a machine that was told to restart begins to: systemd says at once that it is stopping.
const DOWN_LIMIT: Duration = Duration::from_secs(90);
/// The longest until systemd has taken the order, or has refused it.
const ORDER_LIMIT: Duration = Duration::from_secs(30);
/// What keeps a machine from shutting down, a line each.
const INHIBITORS: &str = "systemd-inhibit --list --no-pager --no-legend 2>/dev/null | grep -w shutdown | grep -w block || true";
/// The longest that a machine which may be off is waited for.
const ASK_LIMIT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);
/// The longest until a server of the lab is off: as `down` waits.
const OFF_LIMIT: Duration = Duration::from_secs(120);

/// Restarts a machine, and waits until it is gone and back.
pub(super) async fn machine(ssh: &Ssh) -> anyhow::Result<()> {
    let before = boot(ssh).await.context("cannot ask for its boot")?;
    let order = Script::new("restart it", order()).within(ORDER_LIMIT);
    let ordered = ssh.run(&order).await;
    if let Err(refused) = &ordered
        && is_refused(refused)
    {
        return Err(Refused(refused.to_string()).into());
    }
    let mut restart = Restart::ordered(before, Instant::now());
    loop {
        tokio::time::sleep(AGAIN).await;
        let now = boot(ssh).await;
        if now.is_err() {
            // A connection that has outlived the machine answers nothing.
            ssh.disconnect().await;
        }
        match restart.step(Instant::now(), now.ok().as_deref()) {
            Progress::Waits => {}
            Progress::Back => return Ok(()),
            Progress::StaysUp => {
                let why = inhibitors(ssh).await;
                let why = why.unwrap_or_else(|error| error.to_string());
                ordered.context("it was not restarted")?;
                bail!(
                    "it was told to restart and is still up after {} s, with the boot that it had: {}; see there: systemctl list-jobs",
                    DOWN_LIMIT.as_secs(),
                    if why.is_empty() {
                        "nothing inhibits it"
                    } else {
                        &why
                    }
                );
            }
            Progress::Late => {
                ordered.context("it was not restarted")?;
                bail!(
                    "it is not back {} s after it was restarted",
                    LIMIT.as_secs()
                );
            }
        }
    }
}

/// Where it is refused, what inhibits it is said too.
fn order() -> String {
    format!("systemctl --no-block reboot && exit 0; code=$?; {{ {INHIBITORS}; }} >&2; exit $code")
}

/// The machine does not restart, and goes on as before.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Whether a restart that failed like this has not begun.
pub(super) fn was_refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some()
}

/// Whether the machine itself refused; otherwise it may have restarted before it could answer.
fn is_refused(error: &SshError) -> bool {
    match error.problem {
        // `ssh` ends with 255 where the connection broke.
        Problem::Failed {
            code: Some(code), ..
        } => code != 255,
        _ => false,
    }
}

async fn inhibitors(ssh: &Ssh) -> anyhow::Result<String> {
    let script = Script::new("ask what inhibits it", INHIBITORS).within(ASK_LIMIT);
    let said = ssh.run(&script).await?;
    Ok(said.trim().replace('\n', "; "))
}

/// A machine that was told to restart.
struct Restart {
    before: String,
    deadline: Instant,
    /// Since when it has answered as if nothing had been said, without a pause.
    up_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waits,
    Back,
    StaysUp,
    Late,
}

impl Restart {
    fn ordered(before: String, now: Instant) -> Self {
        Self {
            before,
            deadline: now + LIMIT,
            up_since: Some(now),
        }
    }

    /// `boot`: what it answered; empty while it shuts down, `None`: nothing.
    fn step(&mut self, now: Instant, boot: Option<&str>) -> Progress {
        match boot {
            Some(boot) if boot == self.before => {
                let since = *self.up_since.get_or_insert(now);
                if now - since >= DOWN_LIMIT {
                    return Progress::StaysUp;
                }
            }
            Some(boot) if !boot.is_empty() => return Progress::Back,
            _ => self.up_since = None,
        }
        if now >= self.deadline {
            return Progress::Late;
        }
        Progress::Waits
    }
}

/// A number that is another one after every restart; none while the machine shuts down.
async fn boot(ssh: &Ssh) -> anyhow::Result<String> {
    let text =
        "[ \"$(systemctl is-system-running)\" = stopping ] || cat /proc/sys/kernel/random/boot_id";
    let script = Script::new("ask for its boot", text).within(ASK_LIMIT);
    Ok(ssh.run(&script).await?.trim().into())
}

/// Switches servers of the lab off and on.
pub(super) async fn in_lab(client: &SiteClient, servers: &[ServerName]) -> anyhow::Result<()> {
    for server in servers {
        for harm in [Harm::ShutDown(*server), Harm::PowerOn(*server)] {
            let request = Request::post("/harm", serde_json::to_vec(&harm)?);
            let answer = client.send(&request, OFF_LIMIT).await?;
            if answer.status != 200 {
                bail!("{}", answer.text().trim());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::inventory::Host;

    fn restart() -> (Restart, Instant) {
        let now = Instant::now();
        (Restart::ordered("one".into(), now), now)
    }

    #[test]
    fn a_machine_is_back_with_another_boot() {
        let (mut restart, now) = restart();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(restart.step(at(1), Some("one")), Progress::Waits);
        assert_eq!(restart.step(at(2), Some("")), Progress::Waits);
        assert_eq!(restart.step(at(600), None), Progress::Waits);
        assert_eq!(restart.step(at(601), Some("two")), Progress::Back);
    }

    #[test]
    fn a_machine_that_does_not_go_down_or_does_not_come_back_is_not_waited_for_without_end() {
        let (mut stays, now) = restart();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(stays.step(at(89), Some("one")), Progress::Waits);
        assert_eq!(stays.step(at(90), Some("one")), Progress::StaysUp);
        // The count begins anew where it was gone meanwhile.
        let (mut gone, _) = restart();
        assert_eq!(gone.step(at(60), None), Progress::Waits);
        assert_eq!(gone.step(at(100), Some("one")), Progress::Waits);
        assert_eq!(gone.step(at(190), Some("one")), Progress::StaysUp);
        let (mut late, now) = restart();
        assert_eq!(late.step(now + LIMIT, None), Progress::Late);
    }

    #[test]
    fn an_order_that_the_machine_refused_is_told_from_one_that_it_could_not_answer() {
        let error = |problem| SshError {
            host: Host("m1".into()),
            step: "restart it".into(),
            problem,
        };
        let ended = |code| {
            let said = "Operation inhibited by \"apt\"".into();
            error(Problem::Failed { code, said })
        };
        assert!(is_refused(&ended(Some(1))));
        assert!(!is_refused(&ended(Some(255))) && !is_refused(&ended(None)));
        assert!(!is_refused(&error(Problem::Timeout(ORDER_LIMIT))));
        assert!(was_refused(&Refused("no".into()).into()));
        assert!(!was_refused(&anyhow::anyhow!("no")));
    }
}
