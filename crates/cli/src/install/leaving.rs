//! Machines that are not part of a site any more, or not yet again: they are emptied.

use crate::connect::SiteClient;
use crate::machines::Machines;
use crate::purge::{self, Emptied};
use gaiola_model::SiteName;
use gaiola_model::config::{Machine, Machines as Named};
use gaiola_model::inventory::Host;
use gaiola_model::status::Status;
use gaiola_net::client::Request;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a machine that was replaced is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A site that runs, as it was before this `up`.
#[derive(Default)]
pub(super) struct Running {
    /// Whether it is up, and not being brought down.
    pub(super) is_up: bool,
    /// Its machines; `None`: not known.
    pub(super) machines: Option<Named>,
    /// What it is like.
    pub(super) status: Option<Status>,
}

impl Running {
    /// The machines that have servers.
    pub(super) fn placed(&self) -> impl Iterator<Item = Host> {
        let servers = self.status.iter().flat_map(|status| &status.servers);
        servers.map(|server| server.location.host.clone())
    }

    /// Machines that gave their place to another one.
    pub(super) fn lost(&self) -> impl Iterator<Item = Host> {
        let lost = self.machines.iter().flat_map(|machines| &machines.lost);
        lost.map(Machine::host)
    }

    /// The machines of the file that were replaced, and may be emptied: none of their servers is placed any more, and where the site
    /// has a database another machine has it.
    pub(super) fn back(&self, machines: &Machines) -> Vec<Host> {
        // A machine that has just started, or that is cut off, does not know which servers there are.
        let known = self.status.as_ref().filter(|it| !it.servers.is_empty());
        let Some(status) = known.filter(|it| it.generation.desired == it.generation.placed) else {
            return Vec::new();
        };
        let has_database =
            (status.servers.iter()).any(|server| server.name.tier == gaiola_model::Tier::Database);
        if has_database && status.primary.is_none() {
            return Vec::new();
        }
        let placed: BTreeSet<Host> = self.placed().collect();
        let back = self.lost().filter(|host| machines.get(host).is_some());
        back.filter(|host| !placed.contains(host)).collect()
    }

    /// The machines that were part of the site and that the file does not name any more.
    fn gone(&self, file: &Machines) -> BTreeSet<Host> {
        let named = self.machines.iter().flat_map(Named::all);
        let all = named.map(Machine::host);
        all.filter(|host| file.get(host).is_none()).collect()
    }

    /// The machines that were replaced before, and that the file does not name.
    fn replaced(&self, file: &Machines) -> BTreeSet<Host> {
        let all = self.lost();
        all.filter(|host| file.get(host).is_none()).collect()
    }
}

/// Empties the machines that were part of the site and that the file does not name any more, once no server is placed on them; and those
/// that were replaced, where they are back. Returns a line for each.
pub(super) async fn empty_gone(
    site: &SiteName,
    running: &Running,
    client: &SiteClient,
    file: &Machines,
) -> anyhow::Result<Vec<String>> {
    let (mut gone, mut replaced) = (running.gone(file), running.replaced(file));
    if gone.is_empty() && replaced.is_empty() {
        return Ok(Vec::new());
    }
    let now: Status = client.ask(&Request::get("/status")).await?;
    if now.servers.is_empty() {
        return Ok(Vec::new());
    }
    for server in &now.servers {
        gone.remove(&server.location.host);
        replaced.remove(&server.location.host);
    }
    let gone = Machines::new(gone)?;
    let replaced = that_answer(&Machines::new(replaced)?).await;
    if gone.iter().chain(replaced.iter()).next().is_none() {
        return Ok(Vec::new());
    }
    let of = Some(purge::authority_stays(site, file).await?);
    let mut emptied = purge::empty(site, &gone, purge::Running::Left, of.as_ref()).await;
    let mut back = purge::empty(site, &replaced, purge::Running::Left, of.as_ref()).await;
    // It stays known as one that was replaced, and is looked at by every `up`.
    back.done.retain(|(_, removed)| !removed.is_empty());
    emptied.done.append(&mut back.done);
    emptied.left.append(&mut back.left);
    Ok(in_words(&emptied))
}

/// Those that answer at once: most machines that were replaced never come back.
async fn that_answer(machines: &Machines) -> Machines {
    let asked = machines.at_once(|ssh| async move {
        let opened = tokio::time::timeout(PATIENCE, ssh.open()).await;
        opened.is_ok_and(|opened| opened.is_ok())
    });
    let answers = asked.await.into_iter().filter(|(_, answers)| *answers);
    let answers: BTreeSet<Host> = answers.map(|(host, _)| host).collect();
    machines.only(|host| answers.contains(host))
}

fn in_words(emptied: &Emptied) -> Vec<String> {
    let done = emptied
        .lines()
        .map(|line| format!("{line}; it is no machine of the site"));
    let left = emptied.left.iter().map(|why| {
        format!(
            "{why}; it is no machine of the site, and what it has stays there until it is emptied"
        )
    });
    done.chain(left).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_the_file_names_no_more_is_gone() {
        let machine = |name: &str| Machine::new(name);
        let running = Running {
            machines: Some(Named {
                servers: [("app1".parse().unwrap(), machine("a"))].into(),
                spare: vec![machine("m")],
                lost: vec![machine("x")],
                ..Named::default()
            }),
            status: None,
            is_up: true,
        };
        let file = |names: &[&str]| {
            let hosts = names.iter().map(|name| Host((*name).into()));
            Machines::new(hosts).unwrap()
        };
        let gone = |names: &[&str]| -> Vec<String> {
            let gone = running.gone(&file(names)).into_iter();
            gone.map(|host| host.0).collect()
        };
        assert_eq!(gone(&["a", "m", "x", "new"]), [""; 0]);
        assert_eq!(gone(&["a"]), ["m"]);
        assert_eq!(running.replaced(&file(&["a"])), [Host("x".into())].into());
        assert_eq!(running.replaced(&file(&["a", "x"])), [].into());
        // Nothing is known of what runs: nothing is emptied.
        assert_eq!(running.back(&file(&["a", "x"])), []);
    }
}
