//! Empties machines: they are as they were before they became part of a site, packages aside.

use crate::args::Global;
use crate::machines::Machines;
use anyhow::{Context as _, bail};
use gaiola_control::api::machine::MachineSetup;
use gaiola_control::ssh::{Script, Ssh, SshError, quote};
use gaiola_model::SiteName;
use gaiola_model::inventory::Host;
use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A database may be large.
const LIMIT: Duration = Duration::from_secs(600);
const SCRIPT: &str = include_str!("purge/purge.sh");
/// Until another machine holds the authority, which it gets by itself.
const AUTHORITY_LIMIT: Duration = Duration::from_secs(30);
/// Until one says so: machines that are off are not waited for.
const AUTHORITY_ANSWER: Duration = Duration::from_secs(5);
const AUTHORITY_AGAIN: Duration = Duration::from_millis(500);

/// What became of machines that were to be emptied.
#[derive(Debug, Default)]
pub(crate) struct Emptied {
    /// Machines that are empty now, each with what was removed, in words.
    pub(crate) done: Vec<(Host, Vec<String>)>,
    /// Machines that are not, each with the reason.
    pub(crate) left: Vec<String>,
}

impl Emptied {
    /// One line a machine.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.done.iter().map(|(host, removed)| match &removed[..] {
            [] => format!("{host}: nothing was left"),
            removed => format!("{host}: removed {}", removed.join(", ")),
        })
    }
}

/// What may run on machines that are to be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// Servers of the site are ended.
    Ended,
    /// A machine whose servers run is left as it is: it is in use, whatever this computer believes.
    Left,
}

/// Empties machines, all at once. Nothing of the site runs on them that is still needed: the caller has seen to that.
pub(crate) async fn empty(site: &SiteName, machines: &Machines, running: Running) -> Emptied {
    let idle = if running == Running::Left {
        "yes"
    } else {
        "no"
    };
    let script = format!("site={}\nidle={idle}\n{SCRIPT}", quote(site.as_str()));
    let asked = machines.at_once(|ssh| {
        let script = Script::new("empty it", "exec sh -s").input(script.clone());
        let (site, script) = (site.clone(), script.within(LIMIT));
        async move { empty_one(&ssh, &site, &script).await }
    });
    let mut emptied = Emptied::default();
    for (host, result) in asked.await {
        match result {
            Ok(removed) => emptied.done.push((host, removed)),
            Err(error) => emptied.left.push(format!("{error:#}")),
        }
    }
    emptied
}

/// Another machine may answer to a name by now: what it says it is decides.
async fn empty_one(ssh: &Ssh, site: &SiteName, script: &Script) -> anyhow::Result<Vec<String>> {
    ssh.open().await?;
    let host = ssh.host();
    if let Some(own) = setup_on(ssh, site).await?.map(|setup| setup.host)
        && own != *host
    {
        bail!("{host}: this machine is {own} of {site}: nothing was removed");
    }
    let printed = ssh.run(script).await?;
    let removed = printed
        .lines()
        .filter_map(|line| line.strip_prefix("removed "));
    Ok(removed.map(String::from).collect())
}

/// Waits until a machine that stays holds the site's authority; one that leaves may have been the first to.
///
/// # Errors
/// Where none does: without it no machine could ever join the site.
pub(crate) async fn authority_stays(site: &SiteName, staying: &Machines) -> anyhow::Result<()> {
    let path = format!("/var/lib/gaiola/{site}/ca/ca-key.pem");
    let began = Instant::now();
    while began.elapsed() < AUTHORITY_LIMIT {
        let script = format!("if [ -e {} ]; then echo held; fi", quote(&path));
        let asked = staying.at_once(|ssh| {
            let script = Script::new("look for the authority", script.clone());
            async move { timeout(AUTHORITY_ANSWER, ssh.run(&script)).await }
        });
        let mut answers = asked.await.into_iter();
        if answers.any(|(_, said)| matches!(said, Ok(Ok(said)) if said.trim() == "held")) {
            return Ok(());
        }
        tokio::time::sleep(AUTHORITY_AGAIN).await;
    }
    bail!("no machine that stays holds the authority of {site} yet; run `gaiola up` again")
}

/// The machines of a site as those that answer know them: a file may name fewer by now.
pub(crate) async fn known(site: &SiteName, machines: &Machines) -> BTreeSet<Host> {
    let asked = machines.at_once(|ssh| {
        let site = site.clone();
        async move { setup_on(&ssh, &site).await }
    });
    let setups = asked.await.into_iter();
    let setups = setups.filter_map(|(_, setup)| setup.ok().flatten());
    let named = setups.flat_map(|setup| setup.machines);
    named.map(|machine| machine.host).collect()
}

/// What a machine knows of its part in the site; `None`: it has none.
async fn setup_on(ssh: &Ssh, site: &SiteName) -> Result<Option<MachineSetup>, SshError> {
    let path = format!("/var/lib/gaiola/{site}/machine.json");
    let script = format!("cat {} 2>/dev/null || true", quote(&path));
    let script = Script::new("read its part in the site", script);
    let text = ssh.run(&script).await?;
    Ok(serde_json::from_str(&text).ok())
}

/// Asks before data is removed.
///
/// # Errors
/// Where nobody can be asked, or the answer is no.
pub(crate) fn confirm(global: &Global, site: &SiteName, what: &str) -> anyhow::Result<()> {
    if global.yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!("this removes {what}; repeat it with --yes if you mean it");
    }
    eprint_line!("This removes {what}. Write the site's name, {site}, to go on:");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.context("cannot read the answer")?;
    if line.trim() != site.as_str() {
        bail!("nothing was removed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_script_is_one_that_a_plain_shell_reads() {
        let script = format!("site='shop'\nidle=no\n{SCRIPT}");
        let checked = Command::new("sh").args(["-n", "-c", &script]).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }

    #[test]
    fn what_was_removed_is_told_by_machine() {
        let host = |name: &str| Host(name.into());
        let emptied = Emptied {
            done: vec![
                (host("a"), vec!["/opt/gaiola".into(), "the user x".into()]),
                (host("b"), Vec::new()),
            ],
            left: Vec::new(),
        };
        let lines: Vec<String> = emptied.lines().collect();
        assert_eq!(
            lines,
            ["a: removed /opt/gaiola, the user x", "b: nothing was left"]
        );
    }
}
