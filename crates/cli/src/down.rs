//! `gaiola down`: stops a site, and with `--purge` removes all of it.

use crate::args::{Down, Global};
use crate::change::show;
use crate::connect::{Ping, Place, SiteClient, place};
use crate::machines::Machines;
use crate::output::Exit;
use crate::pending::Pending;
use crate::purge;
use anyhow::{Context as _, bail};
use gaiola_agent::state::State;
use gaiola_model::inventory::Host;
use std::time::{Duration, Instant};

/// How long the lab may take to stop every server.
pub(crate) const DOWN_LIMIT: Duration = Duration::from_secs(120);
/// The same for machines: three turns, each as long as another machine may take.
const MACHINES_DOWN_LIMIT: Duration = Duration::from_secs(480);

/// `gaiola down`.
pub(crate) fn down(global: &Global, down: &Down) -> anyhow::Result<Exit> {
    let mut place = place(global, &down.of.file)?;
    let mut authority = None;
    if down.purge {
        if global.machine.is_some() {
            bail!(
                "--purge removes the whole site, not one machine; leave --machine out, or take the machine out of the file and run: gaiola up"
            );
        }
        authority = know_all(&mut place)?;
        purge::confirm(global, &place.site, &all_of(&place))?;
    }
    let client = match &place.machines {
        Some(_) => SiteClient::at(&place)?,
        None => Some(SiteClient::of(place.site.clone())?),
    };
    let may_stop = |client: &SiteClient| matches!(client.ping(), Some(Ping::Up | Ping::GoingDown));
    let started = Instant::now();
    match client.filter(may_stop) {
        None if !global.quiet => eprint_line!("{} is not up", place.site),
        None => {}
        Some(client) => {
            stop(&client)?;
            // What is not reached now is told once it cannot be emptied either.
            if !down.purge {
                everywhere(&client)?;
            }
            say_down(global, &client, started, down.purge);
        }
    }
    if down.purge {
        return purge_all(global, &place, authority.as_ref(), started);
    }
    Ok(Exit::Ok)
}

/// What is removed, in words.
fn all_of(place: &Place) -> String {
    let site = &place.site;
    match &place.machines {
        None => format!("everything of {site}, its data and its releases"),
        Some(hosts) => {
            let hosts: Vec<&str> = hosts.iter().map(|host| host.0.as_str()).collect();
            let hosts = hosts.join(", ");
            format!("everything of {site} from {hosts}: its database, its releases, its keys")
        }
    }
}

fn everywhere(client: &SiteClient) -> anyhow::Result<()> {
    if let Some(left) = not_stopped(client)? {
        bail!(
            "{} is down, but not everywhere: what a machine that was not reached runs is stopped once it reaches another one\n{left}",
            client.site
        );
    }
    Ok(())
}

fn say_down(global: &Global, client: &SiteClient, started: Instant, purge: bool) {
    let stays = match client.machine() {
        _ if purge => String::new(),
        Some(_) => "; its data stays on its machines".into(),
        None => format!("; its data stays in {}", client.state.folder().display()),
    };
    show(global, started, &format!("{} is down{stays}", client.site));
}

/// Removes everything; says what was removed, and what was not.
fn purge_all(
    global: &Global,
    place: &Place,
    authority: Option<&purge::Authority>,
    started: Instant,
) -> anyhow::Result<Exit> {
    Pending::of(&place.site)?.forget(|_, _| true)?;
    let Some(hosts) = &place.machines else {
        let state = State::of(&place.site);
        let folder = state.folder();
        if folder.exists() {
            std::fs::remove_dir_all(folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
            show(global, started, &format!("removed {}", folder.display()));
        }
        return Ok(Exit::Ok);
    };
    let runtime = crate::runtime::runtime()?;
    let machines = Machines::new(hosts.clone())?;
    let emptied = purge::empty(&place.site, &machines, purge::Running::Ended, authority);
    let emptied = runtime.block_on(emptied);
    emptied
        .lines()
        .for_each(|line| show(global, started, &line));
    let note = State::last_machine(&place.site);
    if note.exists() {
        std::fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))?;
    }
    if emptied.left.is_empty() {
        return Ok(Exit::Ok);
    }
    bail!(
        "not every machine of {} is empty; run the same again once they answer:\n{}",
        place.site,
        emptied.left.join("\n")
    )
}

/// Adds the machines that those know which the caller knows: all that will be emptied. Returns the authority of the site that they are
/// part of.
fn know_all(place: &mut Place) -> anyhow::Result<Option<purge::Authority>> {
    let Some(hosts) = &mut place.machines else {
        return Ok(None);
    };
    let named = Machines::new(hosts.clone())?;
    let runtime = crate::runtime::runtime()?;
    // Before others are added: by a machine of another site its machines would be.
    runtime.block_on(purge::authority(&place.site, &named, purge::LOGIN_LIMIT))?;
    let known = runtime.block_on(purge::known(&place.site, &named));
    let new = known.into_iter().filter(|host| !hosts.contains(host));
    let new: Vec<Host> = new.collect();
    hosts.extend(new);
    let all = Machines::new(hosts.clone())?;
    runtime.block_on(purge::authority(&place.site, &all, purge::LOGIN_LIMIT))
}

/// The machines that could not be brought down, and why, a line each.
fn not_stopped(client: &SiteClient) -> anyhow::Result<Option<String>> {
    if client.machine().is_none() {
        return Ok(None);
    }
    let left: Vec<String> = client.get("/down")?;
    Ok((!left.is_empty()).then(|| left.join("\n")))
}

/// Brings the site down and waits for the end.
pub(crate) fn stop(client: &SiteClient) -> anyhow::Result<()> {
    let _: bool = client.post("/down", &())?;
    let limit = match client.machine() {
        Some(_) => MACHINES_DOWN_LIMIT,
        None => DOWN_LIMIT,
    };
    let deadline = Instant::now() + limit;
    let may_answer = || client.machine().is_some() || client.state.control_socket().exists();
    let is_up = || matches!(client.ping(), Some(Ping::Up | Ping::GoingDown));
    while may_answer() && is_up() {
        if Instant::now() >= deadline {
            let see = match client.machine() {
                Some(host) => format!("on {host}: journalctl -u gaiola-machine"),
                None => client.state.lab_log().display().to_string(),
            };
            bail!(
                "{} did not come down within {} s; see {see}",
                client.site,
                limit.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
