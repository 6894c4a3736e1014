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
use std::time::Duration;

/// A database may be large.
const LIMIT: Duration = Duration::from_secs(600);
const SCRIPT: &str = include_str!("purge/purge.sh");
/// Until another machine holds the authority, which it gets by itself.
const AUTHORITY_TRIES: u32 = 20;
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

/// Empties machines, all at once. Nothing of the site runs on them that is still needed: the caller has seen to that.
pub(crate) async fn empty(site: &SiteName, machines: &Machines) -> Emptied {
    let script = format!("site={}\n{SCRIPT}", quote(site.as_str()));
    let asked = machines.at_once(|ssh| {
        let script = Script::new("empty it", "exec sh -s").input(script.clone());
        let script = script.within(LIMIT);
        async move { empty_one(&ssh, &script).await }
    });
    let mut emptied = Emptied::default();
    for (host, result) in asked.await {
        match result {
            Ok(removed) => emptied.done.push((host, removed)),
            Err(error) => emptied.left.push(error.to_string()),
        }
    }
    emptied
}

async fn empty_one(ssh: &Ssh, script: &Script) -> Result<Vec<String>, SshError> {
    ssh.open().await?;
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
    for _ in 0..AUTHORITY_TRIES {
        let script = format!("if [ -e {} ]; then echo held; fi", quote(&path));
        let asked = staying.at_once(|ssh| {
            let script = Script::new("look for the authority", script.clone());
            async move { ssh.run(&script).await }
        });
        let held =
            |said: &Result<String, SshError>| said.as_ref().is_ok_and(|it| it.trim() == "held");
        if asked.await.iter().any(|(_, said)| held(said)) {
            return Ok(());
        }
        tokio::time::sleep(AUTHORITY_AGAIN).await;
    }
    bail!("no machine that stays holds the authority of {site} yet; run `gaiola up` again")
}

/// The machines of a site as those that answer know them: a file may name fewer by now.
pub(crate) async fn known(site: &SiteName, machines: &Machines) -> BTreeSet<Host> {
    let path = format!("/var/lib/gaiola/{site}/machine.json");
    let script = format!("cat {} 2>/dev/null || true", quote(&path));
    let asked = machines.at_once(|ssh| {
        let script = Script::new("read its part in the site", script.clone());
        async move { ssh.run(&script).await.ok() }
    });
    let texts = asked.await.into_iter().filter_map(|(_, text)| text);
    let setups = texts.filter_map(|text| serde_json::from_str::<MachineSetup>(&text).ok());
    let named = setups.flat_map(|setup| setup.machines);
    named.map(|machine| machine.host).collect()
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
        let script = format!("site='shop'\n{SCRIPT}");
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
