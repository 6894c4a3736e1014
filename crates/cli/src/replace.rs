//! `gaiola replace`: a machine that is lost for good gives its place to a spare one.

use crate::args::{Global, Replace};
use crate::change::{change, show};
use crate::connect::{SiteClient, place};
use crate::machines::Machines as Connections;
use crate::output::Exit;
use crate::purge::{self, Running};
use anyhow::{Context as _, bail};
use gaiola_control::api::Change;
use gaiola_model::ServerName;
use gaiola_model::config::{Machine, Machines};
use gaiola_model::inventory::Host;
use gaiola_model::status::Status;
use gaiola_net::client::Request;
use std::collections::BTreeSet;
use std::time::Instant;

pub(crate) fn replace(global: &Global, replace: &Replace) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &replace.of.file)?;
    let before: Option<Machines> = client.get("/machines")?;
    let lost = before
        .as_ref()
        .and_then(|all| machine_of(all, &replace.what));
    let client = past(global, replace, lost.as_ref(), client)?;
    let asked = Change::Replace {
        what: replace.what.clone(),
        onto: replace.onto.clone(),
        yes: global.yes,
    };
    let started = Instant::now();
    let exit = change(global, &client, asked)?;
    let after: Option<Machines> = client.get("/machines").unwrap_or_default();
    if let (Exit::Ok, Some(lost), Some(before), Some(after)) = (exit, &lost, before, after) {
        for line in what_is_left(&client, lost, &after) {
            show(global, started, &line);
        }
        if !global.quiet && !global.json {
            told(lost, &before, &after);
        }
    }
    Ok(exit)
}

/// The machine of a server, or of this name.
fn machine_of(machines: &Machines, what: &str) -> Option<Host> {
    let server: Option<ServerName> = what.parse().ok();
    let on = server.and_then(|server| machines.servers.get(&server));
    Some(on.or_else(|| machines.find(what))?.host())
}

/// A way to the site that does not lead through the machine that leaves.
fn past(
    global: &Global,
    replace: &Replace,
    lost: Option<&Host>,
    client: SiteClient,
) -> anyhow::Result<SiteClient> {
    let (Some(lost), Some(through)) = (lost, client.machine()) else {
        return Ok(client);
    };
    if lost != through {
        return Ok(client);
    }
    let place = place(global, &replace.of.file)?;
    let hosts = place.machines.unwrap_or_default();
    let others = hosts.into_iter().filter(|host| host != lost);
    let other = SiteClient::on_machines(place.site, &Connections::new(others)?);
    let why = || format!("{lost} is to leave, and no other machine of the site answers");
    other.with_context(why)?.with_context(why)
}

/// Empties the machine that left, if it answers.
fn what_is_left(client: &SiteClient, lost: &Host, after: &Machines) -> Vec<String> {
    let staying = after.servers.values().map(Machine::host);
    let staying: BTreeSet<Host> = staying.filter(|host| host != lost).collect();
    let emptied = client.runtime.block_on(async {
        let machines = Connections::new([lost.clone()])?;
        let staying = Connections::new(staying)?;
        let authority = purge::authority_stays(&client.site, &staying).await?;
        // Another operator may have made it part of the site again.
        let now: Option<Machines> = client.ask(&Request::get("/machines")).await?;
        let status: Status = client.ask(&Request::get("/status")).await?;
        let mut placed = status.servers.iter();
        let is_in_use = placed.any(|server| server.location.host == *lost);
        if !now.is_some_and(|all| all.is_lost(lost)) || status.servers.is_empty() || is_in_use {
            bail!("it may be in use");
        }
        anyhow::Ok(purge::empty(&client.site, &machines, Running::Left, Some(&authority)).await)
    });
    match emptied {
        Ok(emptied) if emptied.left.is_empty() => emptied.lines().collect(),
        Ok(emptied) => vec![format!(
            "{}; the site accepts it no more, and if it comes back it stops by itself",
            emptied.left.join("; ")
        )],
        Err(error) => vec![format!("{lost} was not emptied: {error:#}")],
    }
}

/// What the operator's file should say now.
fn told(lost: &Host, before: &Machines, after: &Machines) {
    let servers = before.servers.iter().filter(|(_, on)| on.host() == *lost);
    let taken = servers.filter_map(|(name, _)| after.servers.get(name));
    let taken: BTreeSet<&str> = taken.map(|machine| machine.ssh.as_str()).collect();
    for new in taken {
        print_line!(
            "\nwrite \"{new}\" in place of \"{lost}\" in the file, and take it out of `spare`"
        );
    }
}
