//! Commands that query the running site, or change it.

use crate::args::{Drain, Events, Global, Power, PowerState, Restart, Scale, SiteFile};
use crate::change::change;
use crate::connect::{SiteClient, place};
use crate::deploy::Local;
use crate::file::read;
use crate::machines::resolved;
use crate::operator;
use crate::output::{self, Exit};
use crate::secret;
use anyhow::bail;
use gaiola_control::api::{Change, ChangeRequest, Harm, Planned};
use gaiola_core::status;
use gaiola_model::Config;
use gaiola_model::event::Event;
use gaiola_model::status::Status;
use gaiola_net::client::Request;
use std::time::Duration;

/// `gaiola check`.
pub(crate) fn check(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let config = secret::checked(global, of, read(&of.file)?)?;
    let local = Local::read(global, config, of)?;
    let (config, left_out) = (&local.config, local.left_out());
    if global.json {
        print_line!("{}", serde_json::to_string_pretty(&without_values(config))?);
    } else if !global.quiet {
        print_line!(
            "{}: valid; site {}, {}",
            of.file.display(),
            config.site,
            size(config)
        );
        left_out.iter().for_each(|words| print_line!("{words}"));
    }
    Ok(Exit::Ok)
}

/// The configuration, with the names of its variables alone: a value may be nobody's business.
fn without_values(config: &Config) -> Config {
    let mut shown = config.clone();
    for env in [&mut shown.env, &mut shown.app.env] {
        env.values_mut().for_each(|value| *value = "***".into());
    }
    if let Some(balancer) = &mut shown.balancer {
        balancer.proxy = std::mem::take(&mut balancer.proxy).without_secrets();
    }
    shown
        .app
        .check
        .headers
        .values_mut()
        .for_each(|value| *value = "***".into());
    shown
}

/// `8 servers`, `8 servers on 3 machines, 1 spare`.
pub(crate) fn size(config: &Config) -> String {
    let servers = config.server_names().count();
    let servers = format!("{servers} servers");
    let Some(machines) = &config.machines else {
        return servers;
    };
    let spare = machines.spare.len();
    match machines.all().len() - spare {
        1 => format!("{servers} on 1 machine, {spare} spare"),
        count => format!("{servers} on {count} machines, {spare} spare"),
    }
}

/// `gaiola plan`.
pub(crate) fn plan(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let (config, _) = resolved(secret::checked(global, of, read(&of.file)?)?)?;
    let client = SiteClient::at(&place(global, &of.file)?)?;
    let Some(client) = client.filter(SiteClient::is_running) else {
        print_line!("{} is not up; `gaiola up` would switch on:", config.site);
        for server in config.server_names() {
            let machines = config.machines.as_ref();
            match machines.and_then(|machines| machines.servers.get(&server)) {
                Some(machine) => print_line!("  {server} on {}", machine.ssh),
                None => print_line!("  {server}"),
            }
        }
        if config.app.release.is_some() {
            print_line!(
                "and run the release command if the directory's contents are a new release"
            );
        }
        return Ok(Exit::Ok);
    };
    let planned = match Local::read(global, config, of) {
        Ok(local) => plan_of(&client, &local)?,
        Err(error) => Planned {
            refusals: vec![format!("{error:#}")],
            ..Planned::default()
        },
    };
    if global.json {
        print_line!("{}", serde_json::to_string_pretty(&planned)?);
        return Ok(Exit::Ok);
    }
    if planned.changes.is_empty() && planned.refusals.is_empty() {
        print_line!("nothing would change");
    }
    planned
        .changes
        .iter()
        .for_each(|change| print_line!("{change}"));
    planned
        .kept
        .iter()
        .for_each(|kept| print_line!("kept: {kept}"));
    planned
        .refusals
        .iter()
        .for_each(|refusal| print_line!("refused: {refusal}"));
    Ok(Exit::Ok)
}

fn plan_of(client: &SiteClient, local: &Local) -> anyhow::Result<Planned> {
    let asked = ChangeRequest {
        by: operator::name(),
        change: local.planned(),
        timeout_ms: 0,
    };
    let mut planned: Planned = client.post("/plan", &asked)?;
    let set = local.pending().map(|name| {
        format!("secret {name}: what waits here is set: where it is another value, instances that use it are replaced")
    });
    planned.changes.extend(set);
    Ok(planned)
}

/// `gaiola status`.
pub(crate) fn status(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let status: Status = SiteClient::find(global, &of.file)?.get("/status")?;
    print_status(global, &status)?;
    Ok(if status.healthy {
        Exit::Ok
    } else {
        Exit::Degraded
    })
}

/// Prints the site's state for people, or for programs.
pub(crate) fn print_status(global: &Global, status: &Status) -> anyhow::Result<()> {
    if global.json {
        print_line!("{}", serde_json::to_string_pretty(status)?);
    } else {
        output::print(&status::render(status, output::color(global.no_color)));
    }
    Ok(())
}

/// `gaiola events`.
pub(crate) fn events(global: &Global, events: &Events) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &events.of.file)?;
    let path = format!("/events?last={}&follow={}", events.last, events.follow);
    client.runtime.block_on(async {
        let limit = Duration::from_secs(30);
        let mut stream = client.stream(&Request::get(path), limit).await?;
        if stream.status != 200 {
            bail!(
                "the site did not return its events (status {})",
                stream.status
            );
        }
        let no_limit = Duration::from_secs(365 * 86_400);
        while let Some(line) = stream.next_line(no_limit).await? {
            print_event(global, &line)?;
            if output::is_closed() {
                break;
            }
        }
        Ok(Exit::Ok)
    })
}

fn print_event(global: &Global, line: &[u8]) -> anyhow::Result<()> {
    // An empty line is a keep-alive.
    if line.is_empty() {
        return Ok(());
    }
    if global.json {
        print_line!("{}", String::from_utf8_lossy(line));
    } else {
        let event: Event = serde_json::from_slice(line)?;
        print_line!("{event}");
    }
    Ok(())
}

/// `gaiola scale`.
pub(crate) fn scale(global: &Global, scale: Scale) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &scale.of.file)?;
    change(
        global,
        &client,
        Change::Scale {
            to: scale.to,
            yes: global.yes,
        },
    )
}

/// `gaiola drain`.
pub(crate) fn drain(global: &Global, drain: &Drain) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &drain.of.file)?;
    change(global, &client, Change::Drain(drain.server))
}

/// `gaiola undrain`.
pub(crate) fn undrain(global: &Global, drain: &Drain) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &drain.of.file)?;
    change(global, &client, Change::Undrain(drain.server))
}

/// `gaiola restart`.
pub(crate) fn restart(global: &Global, restart: Restart) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &restart.of.file)?;
    change(global, &client, Change::Restart(restart.what))
}

/// `gaiola power`.
pub(crate) fn power(global: &Global, power: &Power) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &power.of.file)?;
    let server = power.server;
    let harm = match power.state {
        PowerState::Off => Harm::CutPower(server),
        PowerState::On => Harm::PowerOn(server),
    };
    let status: Status = client.get("/status")?;
    if !status.servers.iter().any(|placed| placed.name == server) {
        eprint_line!(
            "gaiola: there is no server {server}; see which there are with: gaiola status"
        );
        return Ok(Exit::Usage);
    }
    let _: bool = client.post("/harm", &harm)?;
    if !global.quiet && !global.json {
        match power.state {
            PowerState::Off => {
                print_line!("{server} is off; switch it on with: gaiola power on {server}");
            }
            PowerState::On => print_line!("{server} is switched on"),
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::{App, Machine, Machines};

    #[test]
    fn a_file_that_is_valid_is_told_by_its_size() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        assert_eq!(size(&config), "2 servers");
        let names = ["app1", "app2"].map(|name| name.parse().unwrap());
        let on = |ssh: [&str; 2]| std::iter::zip(names, ssh.map(Machine::new)).collect();
        config.set_machines(Machines {
            servers: on(["a", "a"]),
            spare: vec![Machine::new("m")],
            ..Machines::default()
        });
        assert_eq!(size(&config), "2 servers on 1 machine, 1 spare");
        config.set_machines(Machines {
            servers: on(["a", "b"]),
            spare: Vec::new(),
            ..Machines::default()
        });
        assert_eq!(size(&config), "2 servers on 2 machines, 0 spare");
    }
}
