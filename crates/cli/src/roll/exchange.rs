//! Another version of Gaiola on a machine.
//!
//! Nothing that serves has to stop but PostgreSQL, with its keeper: the proxies take over from each other, the agents adopt what runs, and
//! a VIP's keeper becomes the new one in place.

use crate::install::program::{self, Program};
use crate::machines::{Machines, PROGRAM};
use anyhow::{Context as _, bail};
use gaiola_control::ssh::{Script, Ssh};
use gaiola_core::roll::{Turn, may_go_back};
use gaiola_model::inventory::Host;
use gaiola_model::{ServerName, SiteName, Tier};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest until every process of a machine is of the new version.
const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(300);

/// The program that takes the place of another one.
pub(super) struct Exchange {
    site: SiteName,
    program: Program,
    /// The schema that the programs before read.
    schema: u64,
    /// What each machine ran before.
    previous: BTreeMap<Host, String>,
}

impl Exchange {
    /// This program, in place of one that reads `schema` at most.
    pub(super) fn new(site: SiteName, schema: u64) -> anyhow::Result<Self> {
        Ok(Self {
            site,
            program: Program::own()?,
            schema,
            previous: BTreeMap::new(),
        })
    }

    pub(super) fn version(&self) -> &str {
        self.program.version()
    }

    /// The turns of the machines that do not run this version yet, all processes of it.
    pub(super) fn left(&mut self, turns: Vec<Turn>) -> anyhow::Result<Vec<Turn>> {
        let machines = Machines::new(turns.iter().map(|turn| turn.host.clone()))?;
        let runtime = crate::runtime::runtime()?;
        let versions = runtime.block_on(machines.all_succeed(program::version_on))?;
        self.previous = versions
            .into_iter()
            .filter_map(|(host, version)| Some((host, version?)))
            .collect();
        let mut left = Vec::new();
        for turn in turns {
            // A spare machine that nothing was installed on has nothing to exchange.
            if turn.servers.is_empty() && !self.previous.contains_key(&turn.host) {
                continue;
            }
            let is_this = self.previous.get(&turn.host).map(String::as_str) == Some(self.version());
            let ssh = machines.get(&turn.host).context("no machine")?;
            let older = runtime.block_on(self.older(ssh, &turn, self.version()));
            if !is_this || !older?.is_empty() {
                left.push(turn);
            }
        }
        Ok(left)
    }

    /// Sends the program to every machine, beside the one in use.
    pub(super) async fn send(&self, machines: Option<&Machines>) -> anyhow::Result<Vec<String>> {
        let Some(machines) = machines else {
            return Ok(Vec::new());
        };
        let sent = machines.all_succeed(|ssh| {
            let program = self.program.clone();
            async move { program.upload(&ssh).await }
        });
        let sent = sent.await?.into_iter().filter(|(_, sent)| *sent);
        let words = |(host, _)| format!("{host}: has gaiola {}", self.version());
        Ok(sent.map(words).collect())
    }

    /// Has a machine run this version.
    pub(super) async fn begin(&self, ssh: &Ssh, turn: &Turn) -> anyhow::Result<()> {
        self.switch(ssh, turn, self.version()).await
    }

    /// Has it run the version before again, where that can still read the site's documents; says which runs.
    pub(super) async fn end(
        &self,
        ssh: &Ssh,
        turn: &Turn,
        documents: u64,
    ) -> anyhow::Result<String> {
        let own = self.version();
        let Some(previous) = self.previous.get(ssh.host()).filter(|it| *it != own) else {
            return Ok(format!("keeps gaiola {own}: it had no other before"));
        };
        if !may_go_back(self.schema, documents) {
            return Ok(format!(
                "keeps gaiola {own}: the one before does not read the site's documents any more"
            ));
        }
        self.switch(ssh, turn, previous).await?;
        Ok(format!("runs gaiola {previous} again"))
    }

    async fn switch(&self, ssh: &Ssh, turn: &Turn, version: &str) -> anyhow::Result<()> {
        program::switch(ssh, version).await?;
        for script in scripts(&self.site, &turn.servers) {
            let script = Script::new("exchange its processes", script).within(LIMIT);
            ssh.run(&script).await?;
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            let older = self.older(ssh, turn, version).await?;
            if older.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} does not run gaiola {version}", older.join(", "));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What of a machine does not run this version.
    async fn older(&self, ssh: &Ssh, turn: &Turn, version: &str) -> anyhow::Result<Vec<String>> {
        let text = looking(&turn.servers, &program::path_of(version));
        let found = ssh.run(&Script::new("ask what it runs", text)).await?;
        Ok(found.lines().map(Into::into).collect())
    }

    /// Removes what no machine needs any more; the version before stays for whoever wants it back.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        let machines = Machines::new(self.previous.keys().cloned())?;
        let removed = machines.all_succeed(|ssh| {
            let previous = self.previous.get(ssh.host()).cloned().unwrap_or_default();
            let own = self.version().to_string();
            async move { program::keep_only(&ssh, &[&own, &previous]).await }
        });
        crate::runtime::runtime()?.block_on(removed).map(drop)
    }
}

/// The units of a machine whose processes are exchanged, each with how. An agent and a VIP's keeper make room for the new program on
/// SIGHUP without stopping anything; one of an earlier version is ended by it, which systemd takes for no failure.
fn units(servers: &[ServerName]) -> Vec<(String, bool)> {
    let mut units = vec![("gaiola-machine".to_string(), true)];
    for server in servers {
        units.push((format!("gaiola-agent@{server}"), false));
        match server.tier {
            Tier::Balancer => units.push((format!("gaiola-keeper@{server}"), false)),
            Tier::Database => units.push((format!("gaiola-database@{server}"), true)),
            Tier::Web | Tier::App => {}
        }
    }
    units
}

/// What is run on the machine, one after another.
fn scripts(site: &SiteName, servers: &[ServerName]) -> Vec<String> {
    let mut scripts = vec![format!("set -eu; {PROGRAM} machine units {site}")];
    for (unit, restarts) in units(servers) {
        scripts.push(if restarts {
            format!("systemctl restart {unit}.service")
        } else {
            format!("systemctl kill --kill-who=main --signal=HUP {unit}.service")
        });
    }
    scripts
}

/// Prints the units whose process is not this program, and the servers with proxies of which none is.
fn looking(servers: &[ServerName], path: &str) -> String {
    let names: Vec<String> = units(servers).into_iter().map(|(unit, _)| unit).collect();
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    format!(
        "for unit in {units}; do pid=$(systemctl show -p MainPID --value $unit.service); \
         [ \"$(readlink /proc/$pid/exe)\" = {path} ] || echo $unit; done; \
         for server in {servers}; do runs=; for of in $(grep -lzs \"[/]$server/proxy[.]sock\" /proc/[0-9]*/cmdline); do \
         [ \"$(readlink ${{of%cmdline}}exe)\" = {path} ] && runs=new || runs=${{runs:-old}}; [ $runs = old ] || break; done; \
         [ \"$runs\" != old ] || echo \"the proxy of $server\"; done",
        units = names.join(" "),
        servers = servers.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_process_and_the_databases_keeper_are_restarted() {
        let servers = ["lb1", "app1", "db1"].map(|name| name.parse().unwrap());
        let scripts = scripts(&"shop".parse().unwrap(), &servers);
        let restarts = scripts.iter().filter(|it| it.contains("restart"));
        let restarts: Vec<&String> = restarts.collect();
        assert_eq!(
            restarts,
            [
                "systemctl restart gaiola-machine.service",
                "systemctl restart gaiola-database@db1.service",
            ]
        );
        let hung = scripts.iter().filter(|it| it.contains("--signal=HUP"));
        assert_eq!(hung.count(), 4, "three agents and the VIPs' keeper");
    }

    #[test]
    fn what_runs_another_program_is_named() {
        let script = looking(&["web1".parse().unwrap()], "/opt/gaiola/1-a/gaiola");
        let ran = std::process::Command::new("sh")
            .args(["-c", &script])
            .output();
        let said = String::from_utf8(ran.unwrap().stdout).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines, ["gaiola-machine", "gaiola-agent@web1"]);
    }
}
