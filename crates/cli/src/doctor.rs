//! `gaiola doctor`: looks at all machines at once, and changes nothing.

use crate::args::{Global, SiteFile};
use crate::file;
use crate::machines::{Machines, resolved};
use crate::output::{self, Exit};
use anyhow::bail;
use gaiola_agent::engine;
use gaiola_control::ssh::{Problem, Script, Ssh, SshError};
use gaiola_core::doctor::{self, ClockOffset, Examined, Expected, Facts, Finding};
use gaiola_model::Config;
use gaiola_model::inventory::Host;
use gaiola_store as store;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Prints the facts that [`Facts::parse`] reads.
const SCRIPT: &str = include_str!("doctor/facts.sh");
/// A machine that is busy answers late.
const LIMIT: Duration = Duration::from_secs(60);

/// `gaiola doctor`.
pub(crate) fn doctor(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let config = file::read(&of.file)?;
    if config.machines.is_none() {
        find_programs(&config)?;
        if !global.quiet {
            print_line!("the file names no machines; this one has the programs of a lab");
        }
        return Ok(Exit::Ok);
    }
    let (config, machines) = resolved(config)?;
    let runtime = crate::runtime::runtime()?;
    let examined = runtime.block_on(examine(&config, &machines));
    let findings = findings(&config, &examined, &[]);
    print(global, &findings)?;
    Ok(if doctor::is_ready(&findings) {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

/// What was found, judged for this site. `known`: the machines that the running site counts on.
pub(crate) fn findings(
    config: &Config,
    examined: &BTreeMap<Host, Examined>,
    known: &[Host],
) -> Vec<Finding> {
    let expected = Expected::of(config, std::env::consts::ARCH, known);
    doctor::judge(&expected, examined)
}

/// What the lab's servers need, which all run this machine's programs.
pub(crate) fn find_programs(config: &Config) -> anyhow::Result<()> {
    let mut missing: Vec<String> = Vec::new();
    missing.extend(
        store::etcd::find()
            .err()
            .map(|error| gaiola_os::chain(&error)),
    );
    if config.database.is_some() {
        missing.extend(
            engine::find_tools()
                .err()
                .map(|error| gaiola_os::chain(&error)),
        );
    }
    if missing.is_empty() {
        Ok(())
    } else {
        bail!("{}", missing.join("\n"))
    }
}

fn print(global: &Global, findings: &[Finding]) -> anyhow::Result<()> {
    if global.json {
        print_line!("{}", serde_json::to_string_pretty(findings)?);
    } else {
        output::print(&doctor::render(findings));
    }
    Ok(())
}

/// Asks every machine for its facts. The addresses of the configuration are filled in.
pub(crate) async fn examine(config: &Config, machines: &Machines) -> BTreeMap<Host, Examined> {
    let all = config.machines.iter().flat_map(|machines| machines.all());
    let addresses: BTreeMap<Host, _> = all
        .filter_map(|machine| Some((machine.host(), machine.address?)))
        .collect();
    let mut sshds: BTreeMap<Host, SocketAddr> = BTreeMap::new();
    for ssh in machines.iter() {
        let port = ssh.resolve().await.map_or(22, |(_, port)| port);
        let address = addresses.get(ssh.host());
        sshds.extend(address.map(|at| (ssh.host().clone(), SocketAddr::new(*at, port))));
    }
    let asked = machines.at_once(|ssh| {
        let others = sshds.iter().filter(|(host, _)| *host != ssh.host());
        let peers: Vec<String> = others.map(|(_, at)| at.to_string()).collect();
        async move { facts(&ssh, &peers).await }
    });
    let asked = asked.await.into_iter();
    asked.map(|(host, facts)| (host, answer(facts))).collect()
}

fn answer(facts: Result<Facts, SshError>) -> Examined {
    match facts {
        Ok(facts) => Examined::Facts(Box::new(facts)),
        Err(error) => Examined::NotAsked {
            why: error.problem.to_string(),
            remedy: error.remedy(),
            is_away: matches!(error.problem, Problem::Unreachable(_) | Problem::Timeout(_)),
        },
    }
}

async fn facts(ssh: &Ssh, peers: &[String]) -> Result<Facts, SshError> {
    ssh.open().await?;
    let clock = clock(ssh).await?;
    let script = format!("peers='{}'\n{SCRIPT}", peers.join(" "));
    let script = Script::new("look at it", script).within(LIMIT);
    let printed = ssh.run(&script).await?;
    Ok(Facts {
        clock,
        ..Facts::parse(&printed)
    })
}

/// Measured by a command of its own, over the open master: its round trip is short.
async fn clock(ssh: &Ssh) -> Result<Option<ClockOffset>, SshError> {
    let asked = now_ms();
    let script = Script::new("read its clock", "date +%s%3N");
    let there = ssh.run(&script).await?;
    let measured = |there| ClockOffset::measured(asked, there, now_ms());
    Ok(there.trim().parse().ok().map(measured))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The script runs on this machine, whatever it is.
    #[test]
    fn the_script_prints_facts_and_changes_nothing() {
        let script = format!("peers='127.0.0.1:1'\n{SCRIPT}");
        let ran = Command::new("sh").args(["-c", &script]).output().unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{errors}");
        assert_eq!(errors, "");
        let facts = Facts::parse(&String::from_utf8(ran.stdout).unwrap());
        assert_eq!(facts.architecture, std::env::consts::ARCH);
        assert!(facts.disk_kib.is_some() && facts.memory_kib.is_some());
        assert!(facts.glibc.is_some_and(|version| version >= (2, 17)));
        assert!(!facts.host_name.is_empty());
        // Whoever answers that nothing listens is reached.
        assert_eq!(facts.reaches, [([127, 0, 0, 1].into(), true)]);
    }
}
