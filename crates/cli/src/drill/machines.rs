//! Harm to machines, over SSH: each machine does it itself and undoes it by a timer, whatever becomes of this process.

use super::ask;
use super::lab::request;
use super::power::Power;
use crate::connect::SiteClient;
use crate::machines::{Machines, PROGRAM};
use anyhow::{Context as _, bail};
use gaiola_control::api::machine::DatabaseAccess;
use gaiola_control::api::{Access, Harm};
use gaiola_control::ssh::{Script, Ssh};
use gaiola_core::drill::{MachineHarm, MachineHarms, Target};
use gaiola_model::inventory::{Host, Location};
use gaiola_model::status::Status;
use gaiola_model::{ServerName, SiteName};
use gaiola_net::client::Request;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long a machine that is off may keep a check whether it is waiting.
const OFF_LIMIT: Duration = Duration::from_secs(3);
/// Until the site's address has answered this computer.
const REACH_LIMIT: Duration = Duration::from_secs(5);

/// The machines of a site, and what one drill does to them.
pub(super) struct OnMachines {
    site: SiteName,
    machines: Machines,
    harms: MachineHarms,
    power: Option<Power>,
    /// Whether instances listen on the loopback alone.
    pub(super) encrypted: bool,
    database: OnceCell<DatabaseAccess>,
}

/// Where each server stands.
pub(super) fn locations(status: &Status) -> BTreeMap<ServerName, Location> {
    let servers = status.servers.iter();
    servers
        .map(|server| (server.name, server.location.clone()))
        .collect()
}

impl OnMachines {
    pub(super) fn new(
        site: &SiteName,
        servers: &BTreeMap<ServerName, Location>,
        harms: MachineHarms,
        power: Option<Power>,
        encrypted: bool,
    ) -> anyhow::Result<Self> {
        let hosts = servers.values().map(|location| location.host.clone());
        let hosts: std::collections::BTreeSet<Host> = hosts.collect();
        Ok(Self {
            site: site.clone(),
            machines: Machines::new(hosts)?,
            harms,
            power,
            encrypted,
            database: OnceCell::new(),
        })
    }

    /// A client of the site by a machine that is not harmed, where there is one.
    pub(super) fn watcher(&self) -> anyhow::Result<SiteClient> {
        let harmed = &self.harms.machines;
        let calm = self.machines.only(|host| !harmed.contains_key(host));
        let calm = if calm.iter().next().is_some() {
            calm
        } else {
            self.machines.clone()
        };
        let client = SiteClient::on_machines(self.site.clone(), &calm)?;
        client.context("the site is not up on a machine that the drill does not harm")
    }

    /// How it is done, and what else it hits.
    pub(super) fn notes(&self) -> Vec<String> {
        self.harms.notes.clone()
    }

    pub(super) async fn harm(&self, client: &SiteClient, target: &Target) -> anyhow::Result<()> {
        match (target, &self.power) {
            (Target::Stop(server), _) => request(client, &Harm::ShutDown(*server)).await,
            (Target::Power(_), Some(power)) => self.switch(power, false).await,
            _ => self.begin().await,
        }
    }

    async fn begin(&self) -> anyhow::Result<()> {
        let command = format!("{PROGRAM} machine harm {}", self.site);
        let orders = self.harms.machines.iter();
        let orders: BTreeMap<Host, Vec<u8>> = orders
            .map(|(host, harm)| Ok((host.clone(), serde_json::to_vec(harm)?)))
            .collect::<anyhow::Result<_>>()?;
        let begin = |ssh: Ssh| {
            let order = orders.get(ssh.host()).cloned().unwrap_or_default();
            let script = Script::new("do the harm", &command).input(order);
            async move { ssh.run(&script).await }
        };
        self.harmed().all_succeed(begin).await.map(drop)
    }

    fn harmed(&self) -> Machines {
        let harmed = &self.harms.machines;
        self.machines.only(|host| harmed.contains_key(host))
    }

    async fn switch(&self, power: &Power, on: bool) -> anyhow::Result<()> {
        for host in self.harms.machines.keys() {
            power.switch(host, on).await?;
        }
        Ok(())
    }

    pub(super) async fn is_done(&self, client: &SiteClient, target: &Target) -> anyhow::Result<()> {
        match (target, &self.power) {
            // The machine has waited until they were gone.
            (
                Target::Kill {
                    process: Some(_), ..
                },
                _,
            ) => Ok(()),
            (Target::Stop(server), _) => is_off(client, *server).await,
            (Target::Power(_), Some(_)) => self.are_silent().await,
            _ => self.are_harmed().await,
        }
    }

    async fn are_silent(&self) -> anyhow::Result<()> {
        let answers = |ssh: Ssh| async move {
            let script = Script::new("reach it", "true").within(OFF_LIMIT);
            ssh.run(&script).await.is_ok()
        };
        for (host, answers) in self.harmed().at_once(answers).await {
            if answers {
                bail!("{host} is still on");
            }
        }
        Ok(())
    }

    async fn are_harmed(&self) -> anyhow::Result<()> {
        let command = format!("{PROGRAM} machine harmed");
        let harmed = |ssh: Ssh| {
            let script = Script::new("ask what is in force", &command);
            async move { ssh.run(&script).await }
        };
        for (host, said) in self.harmed().all_succeed(harmed).await? {
            let in_force: Option<Target> = serde_json::from_str(&said)?;
            let ordered: Option<&MachineHarm> = self.harms.machines.get(&host);
            if in_force.as_ref() != ordered.map(|harm| &harm.target) {
                bail!("the harm is not in force on {host}");
            }
        }
        Ok(())
    }

    pub(super) async fn give_back(
        &self,
        client: &SiteClient,
        target: &Target,
    ) -> anyhow::Result<()> {
        match (target, &self.power) {
            (
                Target::Kill {
                    process: Some(_), ..
                },
                _,
            ) => Ok(()),
            (Target::Stop(server), _) => request(client, &Harm::PowerOn(*server)).await,
            (Target::Power(_), Some(power)) => self.switch(power, true).await,
            _ => {
                let command = format!("{PROGRAM} machine undo {}", self.site);
                let undo = |ssh: Ssh| {
                    let script = Script::new("undo the harm", &command);
                    async move { ssh.run(&script).await }
                };
                self.harmed().all_succeed(undo).await.map(drop)
            }
        }
    }

    /// A command of this program on a machine, as root.
    async fn on(&self, host: &Host, arguments: &str) -> anyhow::Result<Command> {
        let ssh = self.machine(host)?;
        let remote = format!("{PROGRAM} {arguments}");
        let words = ssh.arguments_as_root(&remote).await?;
        let (program, words) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(words);
        Ok(command)
    }

    fn machine(&self, host: &Host) -> anyhow::Result<&Ssh> {
        let machine = self.machines.get(host);
        machine.with_context(|| format!("{host} has become a machine of the site meanwhile"))
    }

    /// A command that carries out a witness's task on a machine.
    pub(super) async fn visit(&self, host: &Host) -> anyhow::Result<Command> {
        self.on(host, "visit").await
    }

    /// A command that asks the database on a machine.
    pub(super) async fn query(&self, host: &Host) -> anyhow::Result<Command> {
        self.on(host, "machine query").await
    }

    /// How clients enter the database on its machines.
    pub(super) async fn database(&self, host: &Host) -> anyhow::Result<&DatabaseAccess> {
        let read = || async {
            let command = format!("{PROGRAM} machine database {}", self.site);
            let script = Script::new("find out how to enter the database", command);
            let said = self.machine(host)?.run(&script).await?;
            serde_json::from_str(&said).context("cannot decode what the machine answered")
        };
        self.database.get_or_try_init(read).await
    }

    /// The address that clients use: the site's, or one of another machine where it is that of a harmed one.
    pub(super) fn door(
        &self,
        entry: SocketAddr,
        status: &Status,
        servers: &BTreeMap<ServerName, Location>,
    ) -> SocketAddr {
        let is_harmed = |door: &SocketAddr| {
            servers
                .values()
                .any(|at| at.address == door.ip() && self.harms.machines.contains_key(&at.host))
        };
        let mut doors = std::iter::once(&entry).chain(&status.doors);
        let calm = doors.find(|door| door.port() == entry.port() && !is_harmed(door));
        calm.copied().unwrap_or(entry)
    }
}

/// A drill's clients run on this computer.
pub(super) async fn reach(door: SocketAddr) -> anyhow::Result<()> {
    let connected = timeout(REACH_LIMIT, TcpStream::connect(door)).await;
    let connected = connected.unwrap_or_else(|late| Err(late.into()));
    connected.map(drop).with_context(|| {
        format!(
            "the clients of a drill run on this computer, and it does not reach the site's address {door}: run gaiola drill on one that does"
        )
    })
}

async fn is_off(client: &SiteClient, server: ServerName) -> anyhow::Result<()> {
    let access: Access = ask(client, Request::get(format!("/servers/{server}"))).await?;
    match access.enter {
        None => Ok(()),
        Some(_) => bail!("{server} is still on"),
    }
}
