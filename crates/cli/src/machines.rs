//! The machines of a site's file, by SSH.

use anyhow::{Context as _, bail};
use gaiola_control::ssh::{Multiplexer, Ssh};
use gaiola_model::Config;
use gaiola_model::config::Machine;
use gaiola_model::inventory::Host;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::task::JoinSet;

/// Where the program is on a machine: a link leads to the version in use.
pub(crate) const PROGRAM: &str = "/opt/gaiola/current/gaiola";

/// Connections to machines, in an order that the caller gave.
#[derive(Clone)]
pub(crate) struct Machines {
    all: Vec<Ssh>,
}

impl Machines {
    /// Connections to these machines. Nothing is opened.
    pub(crate) fn new(hosts: impl IntoIterator<Item = Host>) -> anyhow::Result<Self> {
        let multiplexer = Multiplexer::new().context("cannot make a directory for ssh")?;
        let all = hosts.into_iter().map(|host| Ssh::new(&multiplexer, host));
        Ok(Self { all: all.collect() })
    }

    /// The machines of a configuration; none in the lab.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Self> {
        let machines = config.machines.iter().flat_map(|machines| machines.all());
        Self::new(machines.map(Machine::host))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ssh> {
        self.all.iter()
    }

    /// The machine of this name.
    pub(crate) fn get(&self, host: &Host) -> Option<&Ssh> {
        self.all.iter().find(|ssh| ssh.host() == host)
    }

    /// The same without those that `keep` rejects.
    pub(crate) fn only(&self, keep: impl Fn(&Host) -> bool) -> Self {
        let all = self.all.iter().filter(|ssh| keep(ssh.host()));
        Self {
            all: all.cloned().collect(),
        }
    }

    /// Does the same on all machines at once; the results come in the machines' order.
    pub(crate) async fn at_once<T, F>(&self, work: impl Fn(Ssh) -> F) -> Vec<(Host, T)>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (place, ssh) in self.all.iter().enumerate() {
            let working = work(ssh.clone());
            tasks.spawn(async move { (place, working.await) });
        }
        let mut done: BTreeMap<usize, T> = BTreeMap::new();
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok((place, result)) => {
                    done.insert(place, result);
                }
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        let hosts = self.all.iter().map(|ssh| ssh.host().clone());
        hosts.zip(done.into_values()).collect()
    }

    /// As [`at_once`](Self::at_once), for work that may fail: every failure is reported, each on a line.
    pub(crate) async fn all_succeed<T, E, F>(
        &self,
        work: impl Fn(Ssh) -> F,
    ) -> anyhow::Result<Vec<(Host, T)>>
    where
        T: Send + 'static,
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (host, result) in self.at_once(work).await {
            match result {
                Ok(result) => done.push((host, result)),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        if failed.is_empty() {
            Ok(done)
        } else {
            bail!("{}", failed.join("\n"))
        }
    }
}

/// The configuration with the addresses of all machines, and connections to them; in the lab there are none.
pub(crate) fn resolved(mut config: Config) -> anyhow::Result<(Config, Machines)> {
    if config.machines.is_none() {
        // The lab needs no ssh, nor a directory for its connections.
        return Ok((config, Machines { all: Vec::new() }));
    }
    let machines = Machines::of(&config)?;
    let runtime = crate::runtime::runtime()?;
    runtime.block_on(resolve(&mut config, &machines))?;
    Ok((config, machines))
}

/// Fills in the addresses that the file leaves to ssh's configuration and the operator's resolver.
async fn resolve(config: &mut Config, machines: &Machines) -> anyhow::Result<()> {
    let Some(named) = config.machines.as_mut() else {
        return Ok(());
    };
    let lacking: Vec<Host> = named
        .all()
        .into_iter()
        .filter(|machine| machine.address.is_none())
        .map(Machine::host)
        .collect();
    let found = machines
        .only(|host| lacking.contains(host))
        .all_succeed(address_of)
        .await?;
    let found: BTreeMap<Host, IpAddr> = found.into_iter().collect();
    for machine in named.servers.values_mut().chain(&mut named.spare) {
        if machine.address.is_none() {
            machine.address = found.get(&machine.host()).copied();
        }
    }
    Ok(())
}

/// The address that a machine's name leads to: an IPv4 one where it has both.
async fn address_of(ssh: Ssh) -> Result<IpAddr, anyhow::Error> {
    let (name, port) = ssh.resolve().await?;
    let host = ssh.host();
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let found: Vec<IpAddr> = found
        .map_or_else(
            |error| {
                Err(anyhow::anyhow!(
                    "{host}: cannot find the address of {name} ({error})"
                ))
            },
            |found| Ok(found.map(|at| at.ip()).collect()),
        )
        .with_context(|| {
            format!(
                "{host}: name its address in the file: {{ ssh = \"{host}\", address = \"...\" }}"
            )
        })?;
    let v4 = found.iter().find(|address| address.is_ipv4());
    let address = v4.or(found.first()).copied();
    address.with_context(|| format!("{host}: {name} has no address; name one in the file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_machines() {
        let hosts = ["slow", "fast"].map(|name| Host(name.into()));
        let machines = Machines::new(hosts).unwrap();
        let runtime = crate::runtime::runtime().unwrap();
        let work = |ssh: Ssh| async move {
            if ssh.host().0 == "slow" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            ssh.host().0.clone()
        };
        let done = runtime.block_on(machines.at_once(work));
        let names: Vec<_> = done.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["slow", "fast"]);
    }
}
