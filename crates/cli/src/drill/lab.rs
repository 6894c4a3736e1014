//! Harm to a lab's servers: over its control socket, and through their processes.

use super::ask;
use crate::connect::SiteClient;
use anyhow::{Context as _, bail};
use gaiola_control::api::{Access, Enter, Harm};
use gaiola_control::provider::processes;
use gaiola_core::drill::{Process, Target};
use gaiola_model::ServerName;
use gaiola_net::client::Request;
use gaiola_os::process::{Identity, identify, signal};
use std::cell::RefCell;
use std::time::Duration;
use tokio::process::Command;

/// How long after its span the lab undoes a fault that is not undone yet.
const GRACE: Duration = Duration::from_secs(5);
/// Said of a server that is on a machine of its own.
const NOT_IN_THE_LAB: &str = "it is not in the lab";

/// A lab.
pub(super) struct Lab {
    hold: Duration,
    killed: RefCell<Vec<Identity>>,
}

impl Lab {
    pub(super) fn new(hold: Duration) -> Self {
        Self {
            hold,
            killed: RefCell::default(),
        }
    }

    pub(super) async fn harm(&self, client: &SiteClient, target: &Target) -> anyhow::Result<()> {
        match target {
            Target::Kill { server, process } => self.kill(client, *server, *process).await,
            Target::Power(server) => request(client, &Harm::CutPower(*server)).await,
            Target::Stop(server) => request(client, &Harm::ShutDown(*server)).await,
            held => {
                let for_ms = (self.hold + GRACE).as_millis();
                let begin = Harm::Begin {
                    target: held.clone(),
                    for_ms: u64::try_from(for_ms).unwrap_or(u64::MAX),
                };
                request(client, &begin).await
            }
        }
    }

    async fn kill(
        &self,
        client: &SiteClient,
        server: ServerName,
        process: Option<Process>,
    ) -> anyhow::Result<()> {
        let pid_1 = pid_1(client, server)
            .await?
            .with_context(|| format!("{server} is off already"))?;
        let victims = match process {
            None => vec![identify(pid_1)?],
            Some(process) => processes::victims(&processes::below(pid_1), process),
        };
        if victims.is_empty() {
            bail!("no such process runs on {server}");
        }
        for victim in &victims {
            signal(victim.pid, rustix::process::Signal::KILL);
        }
        *self.killed.borrow_mut() = victims;
        Ok(())
    }

    pub(super) async fn is_done(&self, client: &SiteClient, target: &Target) -> anyhow::Result<()> {
        match target {
            Target::Kill {
                process: Some(_), ..
            } => self.are_dead(),
            Target::Kill { server, .. } | Target::Power(server) | Target::Stop(server) => {
                match pid_1(client, *server).await? {
                    None => Ok(()),
                    Some(pid) => bail!("pid 1 of {server} still runs ({pid})"),
                }
            }
            held => {
                let faults: Vec<Target> = ask(client, Request::get("/faults")).await?;
                if faults.contains(held) {
                    Ok(())
                } else {
                    bail!("the fault is not in force")
                }
            }
        }
    }

    fn are_dead(&self) -> anyhow::Result<()> {
        let killed = self.killed.borrow();
        let alive = killed.iter().filter(|it| processes::is_alive(**it));
        match alive.count() {
            0 => Ok(()),
            alive => bail!("{alive} of the processes still run"),
        }
    }

    pub(super) async fn give_back(
        &self,
        client: &SiteClient,
        target: &Target,
    ) -> anyhow::Result<()> {
        match target {
            target if target.is_held() => request(client, &Harm::End(target.clone())).await,
            target if target.heals_itself() => Ok(()),
            target => {
                for server in target.servers() {
                    request(client, &Harm::PowerOn(server)).await?;
                }
                Ok(())
            }
        }
    }
}

/// Asks the site for a harm, or its end.
pub(super) async fn request(client: &SiteClient, harm: &Harm) -> anyhow::Result<()> {
    let body = serde_json::to_vec(harm)?;
    ask::<bool>(client, Request::post("/harm", body))
        .await
        .map(drop)
}

async fn pid_1(client: &SiteClient, server: ServerName) -> anyhow::Result<Option<u32>> {
    let access: Access = ask(client, Request::get(format!("/servers/{server}"))).await?;
    match access.enter {
        None => Ok(None),
        Some(Enter::Namespaces { pid, .. }) => Ok(Some(pid)),
        Some(Enter::Ssh { .. }) => bail!("{server}: {NOT_IN_THE_LAB}"),
    }
}

/// A command that runs this program in the network of a process; the caller appends arguments.
pub(super) fn visit(access: &Access) -> anyhow::Result<Command> {
    let enter = access.enter.as_ref().context("it is off")?;
    let Enter::Namespaces { pid, user } = enter else {
        bail!("{NOT_IN_THE_LAB}");
    };
    let mut command = Command::new("/proc/self/exe");
    command.args(["visit", &pid.to_string()]);
    if *user {
        command.arg("--rootless");
    }
    Ok(command)
}
