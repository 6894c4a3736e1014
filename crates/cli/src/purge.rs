//! Empties machines: they are as they were before they became part of a site, packages aside.

use crate::answer;
use crate::args::Global;
use crate::machines::Machines;
use anyhow::bail;
use gaiola_control::api::machine::MachineSetup;
use gaiola_control::ssh::{Script, Ssh, SshError, quote};
use gaiola_model::SiteName;
use gaiola_model::inventory::Host;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A database may be large.
const LIMIT: Duration = Duration::from_secs(600);
const SCRIPT: &str = include_str!("purge/purge.sh");
/// Until another machine holds the authority, which it gets by itself.
const AUTHORITY_LIMIT: Duration = Duration::from_secs(30);
/// Until every machine has let the operator in, who may be asked for a passphrase.
pub(crate) const LOGIN_LIMIT: Duration = Duration::from_secs(180);
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

/// What tells sites of one name apart: the SHA-256 sum of the certificate of the site's authority, as the machines of the site have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Authority(String);

/// Prints the sum of the authority's certificate, where the machine has one.
const SUM: &str = "for ca in pki/ca.pem ca/ca.pem; do \
     if [ -f \"$state/$ca\" ]; then sha256sum <\"$state/$ca\" | cut -d' ' -f1; break; fi; done";

impl Authority {
    /// What a machine said.
    fn parse(text: &str) -> Option<Self> {
        let sum = text.trim();
        let is_sum = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sum.then(|| Self(sum.to_owned()))
    }
}

/// The authority of the site that these machines are part of, of those that say so within `limit`; `None`: none of those that answer is part of one of this name.
///
/// # Errors
/// Where they are parts of several sites of this name.
pub(crate) async fn authority(
    site: &SiteName,
    machines: &Machines,
    limit: Duration,
) -> anyhow::Result<Option<Authority>> {
    let text = format!("state=/var/lib/gaiola/{}\n{SUM}", quote(site.as_str()));
    let asked = machines.at_once(|ssh| {
        let script = Script::new("read the authority of its site", text.clone());
        async move { timeout(limit, ssh.run(&script)).await }
    });
    let answers = asked.await.into_iter();
    let answers = answers.filter_map(|(host, said)| Some((host, said.ok()?.ok()?)));
    one_authority(site, answers)
}

fn one_authority(
    site: &SiteName,
    said: impl Iterator<Item = (Host, String)>,
) -> anyhow::Result<Option<Authority>> {
    let mut all: BTreeMap<Authority, Vec<String>> = BTreeMap::new();
    for (host, said) in said {
        if let Some(authority) = Authority::parse(&said) {
            all.entry(authority).or_default().push(host.0);
        }
    }
    if all.len() > 1 {
        let parts: Vec<String> = all.values().map(|hosts| hosts.join(", ")).collect();
        bail!(
            "these machines are parts of different sites that are all named {site}: {}; take those of the other site out of the file",
            parts.join(" / ")
        );
    }
    Ok(all.into_keys().next())
}

/// Empties machines, all at once. Nothing of the site runs on them that is still needed: the caller has seen to that. `of`: the site's
/// authority; a machine that has another one is part of another site, and left as it is.
pub(crate) async fn empty(
    site: &SiteName,
    machines: &Machines,
    running: Running,
    of: Option<&Authority>,
) -> Emptied {
    let idle = if running == Running::Left {
        "yes"
    } else {
        "no"
    };
    let script = script(site, idle, of);
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

fn script(site: &SiteName, idle: &str, of: Option<&Authority>) -> String {
    let of = of.map_or("", |of| of.0.as_str());
    let site = quote(site.as_str());
    format!(
        "site={site}\nidle={idle}\nauthority={of}\nstate=/var/lib/gaiola/$site\nown_authority() {{ {SUM}; }}\n{SCRIPT}"
    )
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

/// Waits until a machine that stays holds the site's authority; one that leaves may have been the first to. Returns which authority it is.
///
/// # Errors
/// Where none does, without which no machine could ever join the site; where those that stay have different ones.
pub(crate) async fn authority_stays(
    site: &SiteName,
    staying: &Machines,
) -> anyhow::Result<Authority> {
    let path = format!("/var/lib/gaiola/{site}/ca/ca-key.pem");
    let began = Instant::now();
    while began.elapsed() < AUTHORITY_LIMIT {
        let script = format!("if [ -e {} ]; then echo held; fi", quote(&path));
        let asked = staying.at_once(|ssh| {
            let script = Script::new("look for the authority", script.clone());
            async move { timeout(AUTHORITY_ANSWER, ssh.run(&script)).await }
        });
        let mut answers = asked.await.into_iter();
        if answers.any(|(_, said)| matches!(said, Ok(Ok(said)) if said.trim() == "held"))
            && let Some(authority) = authority(site, staying, AUTHORITY_ANSWER).await?
        {
            return Ok(authority);
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
    if !answer::is_possible() {
        bail!("this removes {what}; repeat it with --yes if you mean it");
    }
    let question = format!("This removes {what}. Write the site's name, {site}, to go on:");
    if answer::to(&question)?.as_deref() != Some(site.as_str()) {
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
        let script = script(&"shop".parse().unwrap(), "no", None);
        let checked = Command::new("sh").args(["-n", "-c", &script]).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }

    const ONE: &str = "0f343b0931126a20f133d67c2b018a3b4a0d1d8f9b3c2e5f6a7b8c9d0e1f2a3b";

    #[test]
    fn machines_of_two_sites_of_one_name_are_told_apart() {
        let site = "shop".parse().unwrap();
        let found = |said: &[(&str, &str)]| {
            let said = said.iter();
            let said = said.map(|(host, said)| (Host((*host).into()), (*said).into()));
            one_authority(&site, said)
        };
        let (one, two) = (format!("{ONE}\n"), ONE.replace('0', "1"));
        assert_eq!(found(&[("a", ""), ("b", "cannot")]).unwrap(), None);
        let same = found(&[("a", &one), ("b", ""), ("c", &one)]).unwrap();
        assert_eq!(same, Some(Authority(ONE.into())));
        let why = found(&[("a", &one), ("b", &two), ("c", &one)]).unwrap_err();
        assert!(why.to_string().contains("named shop: a, c / b;"), "{why}");
    }

    /// Runs the beginning of the script, up to where it looks at this machine's units.
    fn begin(state: &std::path::Path, of: Option<&Authority>) -> (bool, String) {
        let script = script(&"shop".parse().unwrap(), "no", of);
        let state = quote(state.to_str().unwrap());
        let script = script.replace("state=/var/lib/gaiola/$site\n", &format!("state={state}\n"));
        let (begins, _) = script.split_once("# A machine that left the site").unwrap();
        let script = format!("{begins}\necho would be emptied\n}}\nmain");
        let ended = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = [ended.stdout, ended.stderr].concat();
        (ended.status.success(), String::from_utf8(said).unwrap())
    }

    #[test]
    fn a_machine_of_another_site_of_the_same_name_is_not_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let other = Authority(ONE.into());
        // It was never prepared whole, or was emptied in part before.
        let (done, said) = begin(state, Some(&other));
        assert!(done && said.contains("would be emptied"), "{said}");
        std::fs::create_dir(state.join("pki")).unwrap();
        std::fs::write(state.join("pki/ca.pem"), "a certificate\n").unwrap();
        let (done, said) = begin(state, Some(&other));
        assert!(!done && said.contains("another site named shop"), "{said}");
        // Which site is meant is not known.
        assert!(!begin(state, None).0);
        let sum = Command::new("sha256sum")
            .arg(state.join("pki/ca.pem"))
            .output();
        let sum = String::from_utf8(sum.unwrap().stdout).unwrap();
        let own = Authority::parse(sum.split(' ').next().unwrap()).unwrap();
        let (done, said) = begin(state, Some(&own));
        assert!(done && said.contains("would be emptied"), "{said}");
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
