//! A restart: of a machine by its systemd, in the lab of a server.

use crate::connect::SiteClient;
use anyhow::{Context as _, bail};
use gaiola_control::api::Harm;
use gaiola_control::ssh::{Script, Ssh};
use gaiola_model::ServerName;
use gaiola_net::client::Request;
use std::time::{Duration, Instant};

/// The longest until a machine is back: some check their memory and disks first.
const LIMIT: Duration = Duration::from_secs(900);
/// The longest that a machine which may be off is waited for.
const ASK_LIMIT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);
/// The longest until a server of the lab is off: as `down` waits.
const OFF_LIMIT: Duration = Duration::from_secs(120);

/// Restarts a machine, and waits until it is gone and back.
pub(super) async fn machine(ssh: &Ssh) -> anyhow::Result<()> {
    let before = boot(ssh).await.context("cannot ask for its boot")?;
    let order = Script::new("restart it", "systemctl --no-block reboot").within(ASK_LIMIT);
    // It may be gone before it has answered.
    let ordered = ssh.run(&order).await;
    let deadline = Instant::now() + LIMIT;
    loop {
        tokio::time::sleep(AGAIN).await;
        match boot(ssh).await {
            Ok(now) if now != before && !now.is_empty() => return Ok(()),
            // A connection that has outlived the machine answers nothing.
            Err(_) => ssh.disconnect().await,
            Ok(_) => {}
        }
        if Instant::now() >= deadline {
            ordered.context("it was not restarted")?;
            bail!(
                "it is not back {} s after it was restarted",
                LIMIT.as_secs()
            );
        }
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
