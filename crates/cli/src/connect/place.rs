//! Which site is meant, and which of its machines answers.

use super::Ping;
use crate::args::Global;
use crate::file;
use crate::machines::{Machines, PROGRAM};
use crate::relay::NOT_UP;
use anyhow::{Context as _, bail};
use gaiola_agent::state::State;
use gaiola_control::ssh::{Problem, Ssh, SshError};
use gaiola_model::SiteName;
use gaiola_model::config::Machine;
use gaiola_model::inventory::Host;
use gaiola_net::client::{Client, ClientError, Request, Target};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// Another machine is asked too once one has not answered for this long.
const PATIENCE: Duration = Duration::from_millis(700);
/// Timeout of the first request, over an open connection.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// What a shell ends with where there is no such program.
const NO_PROGRAM: i32 = 127;

/// Where a site is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) site: SiteName,
    /// `None`: in the lab of this machine.
    pub(crate) machines: Option<Vec<Host>>,
}

/// The site that is meant: that of `--site` (on `--machine`), the file's, or the only one there is here.
pub(crate) fn place(global: &Global, file: &Path) -> anyhow::Result<Place> {
    let config = || {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        file::load_alone(file, &text)
    };
    let named = global.machine.clone().map(|host| vec![Host(host)]);
    let config = match &global.site {
        Some(site) => {
            // A file that is at hand says where its site is; whatever else it says is not asked for.
            let here = file.exists().then(config).and_then(Result::ok);
            let here = here.filter(|config| config.site == *site);
            let machines = here.and_then(|config| config.machines);
            let machines = machines.map(|all| all.all().into_iter().map(Machine::host).collect());
            return Ok(Place {
                site: site.clone(),
                machines: named.or(machines),
            });
        }
        None if file.exists() => config()?,
        None => return only_site(named, file),
    };
    let machines = config.machines.as_ref();
    let machines = machines.map(|all| all.all().into_iter().map(Machine::host).collect());
    Ok(Place {
        site: config.site,
        machines: named.or(machines),
    })
}

fn only_site(machines: Option<Vec<Host>>, file: &Path) -> anyhow::Result<Place> {
    let file = file.display();
    if let Some([host]) = machines.as_deref() {
        bail!("there is no {file} here; name the site on {host} with --site");
    }
    match State::sites().as_slice() {
        [only] => Ok(Place {
            site: only.clone(),
            machines: None,
        }),
        [] => bail!(
            "there is no {file} here; name the site's file with -f, or a site on machines with --site NAME --machine HOST"
        ),
        several => {
            let names: Vec<&str> = several.iter().map(SiteName::as_str).collect();
            bail!(
                "there is no {file} here; name the site's file with -f, or one of these with --site: {}",
                names.join(", ")
            )
        }
    }
}

/// Why a machine does not lead to its site.
enum NoAnswer {
    /// It could be asked, and no process of the site runs there.
    NotUp,
    /// It could not be asked.
    Failed(String),
}

/// The first machine that answers for the site; `None`: none of those that could be asked has it up.
///
/// The one that answered last is asked first, and another one whenever there was no answer for a while: a machine that is off
/// delays nobody for long.
pub(super) async fn first_that_answers(
    client: &Client,
    site: &SiteName,
    machines: &Machines,
) -> anyhow::Result<Option<(Host, Target)>> {
    let mut waiting = in_order(machines, last_answered(site)).into_iter();
    let (mut asked, mut failed) = (JoinSet::new(), Vec::new());
    let (mut is_down, mut brought_down) = (false, None);
    loop {
        let next = waiting.next();
        let is_last = next.is_none();
        if let Some(ssh) = next {
            let (client, site) = (client.clone(), site.clone());
            asked.spawn(async move { ask(client, ssh, site).await });
        }
        let patience = if is_last { Duration::MAX } else { PATIENCE };
        match tokio::time::timeout(patience, asked.join_next()).await {
            Ok(Some(Ok(Ok((Ping::Up, found))))) => {
                note(site, &found.0);
                return Ok(Some(found));
            }
            Ok(Some(Ok(Ok((_, found))))) => brought_down = Some(found),
            Ok(Some(Ok(Err(NoAnswer::NotUp)))) => is_down = true,
            Ok(Some(Ok(Err(NoAnswer::Failed(why))))) => failed.push(why),
            Ok(Some(Err(panicked))) => std::panic::resume_unwind(panicked.into_panic()),
            Ok(None) if is_last => break,
            Ok(None) | Err(_) => {}
        }
    }
    if is_down || brought_down.is_some() {
        return Ok(brought_down);
    }
    bail!("no machine of {site} answers:\n{}", failed.join("\n"))
}

fn in_order(machines: &Machines, first: Option<Host>) -> Vec<Ssh> {
    let mut all: Vec<Ssh> = machines.iter().cloned().collect();
    all.sort_by_key(|ssh| first.as_ref() != Some(ssh.host()));
    all
}

async fn ask(client: Client, ssh: Ssh, site: SiteName) -> Result<(Ping, (Host, Target)), NoAnswer> {
    let failed = |error: SshError| NoAnswer::Failed(error.to_string());
    let host = ssh.host().clone();
    let remote = format!("{PROGRAM} connect {site}");
    let target = Target::Process {
        arguments: ssh.arguments_as_root(&remote).await.map_err(failed)?,
        name: host.to_string(),
    };
    let ping = Request::get("/ping");
    match client.request(&target, &ping, PING_LIMIT).await {
        Ok(answer) => Ok((Ping::of(&answer), (host, target))),
        Err(error) => Err(no_answer(&host, &error)),
    }
}

fn no_answer(host: &Host, error: &ClientError) -> NoAnswer {
    let Some(ended) = error.process_ended() else {
        return NoAnswer::Failed(format!("{host}: {error}"));
    };
    match (ended.code, Problem::of(ended.code, &ended.said)) {
        (Some(code), _) if code == i32::from(NOT_UP) || code == NO_PROGRAM => NoAnswer::NotUp,
        // `sudo` ends with 1 where there is no such program.
        (Some(1), None) if ended.said.contains("command not found") => NoAnswer::NotUp,
        (_, Some(problem)) => {
            let (host, step) = (host.clone(), "ask for the site".into());
            NoAnswer::Failed(
                SshError {
                    host,
                    step,
                    problem,
                }
                .to_string(),
            )
        }
        (_, None) => NoAnswer::Failed(format!("{host}: {ended}")),
    }
}

/// A hint, no more: it may be stale, or of somebody else's site of this name.
fn last_answered(site: &SiteName) -> Option<Host> {
    let noted = std::fs::read_to_string(State::last_machine(site)).ok()?;
    Some(Host(noted.trim().into()))
}

/// Where it cannot be noted, the machines are asked in the order of the file.
fn note(site: &SiteName, host: &Host) {
    let path = State::last_machine(site);
    if last_answered(site).as_ref() != Some(host)
        && let Some(folder) = path.parent()
    {
        let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, &host.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser as _;

    fn global(words: &[&str]) -> Global {
        let words = [&["gaiola", "status"], words].concat();
        Args::parse_from(words).global
    }

    #[test]
    fn a_site_on_a_machine_needs_no_file() {
        let file = Path::new("/nonexistent/gaiola.toml");
        let named = place(&global(&["--site", "shop", "--machine", "web-a"]), file).unwrap();
        assert_eq!(named.machines, Some(vec![Host("web-a".into())]));
        assert_eq!(named.site.as_str(), "shop");
        let lab = place(&global(&["--site", "shop"]), file).unwrap();
        assert_eq!(lab.machines, None);
        let nameless = place(&global(&["--machine", "web-a"]), file).unwrap_err();
        assert!(
            nameless
                .to_string()
                .ends_with("name the site on web-a with --site")
        );
    }

    #[test]
    fn the_machine_that_answered_last_is_asked_first() {
        let hosts = ["a", "b", "c"].map(|name| Host(name.into()));
        let machines = Machines::new(hosts).unwrap();
        let order = |first: Option<&str>| {
            let first = first.map(|name| Host(name.into()));
            let order = in_order(&machines, first).into_iter();
            order.map(|ssh| ssh.host().0.clone()).collect::<String>()
        };
        assert_eq!(order(Some("c")), "cab");
        assert_eq!(order(Some("gone")), "abc");
        assert_eq!(order(None), "abc");
    }
}
