//! A machine's part in the site: its key is made there, and the site's authority, on one of the machines, signs it.

use crate::machines::{Machines, PROGRAM};
use anyhow::{Context as _, bail};
use gaiola_control::api::machine::{
    Authority, MachineAddress, MachineSetup, Prepared, Signed, SigningRequest,
};
use gaiola_control::ssh::{Script, Ssh};
use gaiola_core::doctor::Examined;
use gaiola_core::rollout;
use gaiola_model::inventory::Host;
use gaiola_model::{Config, SiteName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Makes the machines part of the site; returns those that got a new certificate. The addresses of the configuration are filled in.
pub(super) async fn establish(
    config: &Config,
    machines: &Machines,
    examined: &BTreeMap<Host, Examined>,
) -> anyhow::Result<Vec<Host>> {
    let setups = setups(config)?;
    // Before any machine becomes part of a new site: an attempt that fails later leaves an authority, not a site without one.
    let mut authority = match signer(&config.site, examined)? {
        Signer::New => Some(make_authority(config, machines).await?),
        Signer::Held => None,
    };
    let prepared = machines.all_succeed(|ssh| {
        let setup = setups.get(ssh.host()).cloned();
        async move {
            let setup = setup.context("it is not in the file")?;
            let step = "become part of the site";
            order::<_, Prepared>(&ssh, step, "prepare", &setup).await
        }
    });
    let mut signed = Vec::new();
    for (host, prepared) in prepared.await? {
        let Some(request) = prepared.request else {
            continue;
        };
        let with = match authority {
            Some(with) => with,
            None => holder(&config.site, machines, examined)?,
        };
        let ssh = machines.get(&host).context("a machine vanished")?;
        let address = setups.get(&host).context("a machine vanished")?.address;
        let asked = SigningRequest {
            host: host.clone(),
            address,
            request,
        };
        sign(&config.site, with, ssh, &asked).await?;
        authority = Some(with);
        signed.push(host);
    }
    Ok(signed)
}

fn setups(config: &Config) -> anyhow::Result<BTreeMap<Host, MachineSetup>> {
    let all = config.machines.iter().flat_map(|machines| machines.all());
    let mut machines = Vec::new();
    for machine in all {
        let host = machine.host();
        let address = machine.address;
        let address = address.with_context(|| format!("{host} has no address"))?;
        machines.push(MachineAddress { host, address });
    }
    let setup = |machine: &MachineAddress| {
        let setup = MachineSetup {
            site: config.site.clone(),
            host: machine.host.clone(),
            address: machine.address,
            machines: machines.clone(),
        };
        (machine.host.clone(), setup)
    };
    Ok(machines.iter().map(setup).collect())
}

/// Where the certificates of machines are signed.
#[derive(Debug, PartialEq, Eq)]
enum Signer {
    /// The site is new: its authority is made.
    New,
    /// A machine of the site holds it.
    Held,
}

/// Whether the site has an authority. A second one would divide it: where any machine was part of the site before, none is made.
fn signer(site: &SiteName, examined: &BTreeMap<Host, Examined>) -> anyhow::Result<Signer> {
    let site = site.as_str();
    if examined.values().any(|machine| holds(machine, site)) {
        return Ok(Signer::Held);
    }
    let is_part = |examined: &Examined| match examined {
        Examined::Facts(facts) => facts.sites.iter().any(|part| part == site),
        Examined::NotAsked { .. } => false,
    };
    let parts = examined.iter().filter(|(_, machine)| is_part(machine));
    let parts: Vec<&str> = parts.map(|(host, _)| host.0.as_str()).collect();
    if !parts.is_empty() {
        bail!(
            "no machine that answers holds the authority of {site}, which {} joined before: switch on a machine with a member of its store, then run up again",
            parts.join(", ")
        );
    }
    Ok(Signer::New)
}

fn holds(examined: &Examined, site: &str) -> bool {
    match examined {
        Examined::Facts(facts) => facts.authorities.iter().any(|held| held == site),
        Examined::NotAsked { .. } => false,
    }
}

/// The machine that signs: one that holds the authority.
fn holder<'a>(
    site: &SiteName,
    machines: &'a Machines,
    examined: &BTreeMap<Host, Examined>,
) -> anyhow::Result<&'a Ssh> {
    let holds = |ssh: &&Ssh| {
        let examined = examined.get(ssh.host());
        examined.is_some_and(|examined| holds(examined, site.as_str()))
    };
    let held = machines.iter().find(holds);
    held.with_context(|| format!("no machine that answers holds the authority of {site}"))
}

/// Makes the authority of a new site, on the first machine of its store, which then signs.
async fn make_authority<'a>(config: &Config, machines: &'a Machines) -> anyhow::Result<&'a Ssh> {
    let site = &config.site;
    let first = founder(config).context("the file names no machines")?;
    let ssh = machines.get(&first);
    let ssh = ssh.with_context(|| {
        format!("{first} makes the authority of {site}, and it does not answer")
    })?;
    let command = format!("authority {site}");
    order::<_, Authority>(ssh, "make the authority", &command, &()).await?;
    Ok(ssh)
}

/// The machine of the first member of the store.
fn founder(config: &Config) -> Option<Host> {
    let machines = config.machines.as_ref()?;
    let mut members = rollout::store_members(config).into_iter();
    let of_store = members.find_map(|member| machines.servers.get(&member));
    let first = of_store.or_else(|| machines.servers.values().next());
    first.map(|machine| machine.host())
}

async fn sign(
    site: &SiteName,
    authority: &Ssh,
    ssh: &Ssh,
    asked: &SigningRequest,
) -> anyhow::Result<()> {
    let step = format!("sign the certificate of {}", asked.host);
    let signed: Signed = order(authority, &step, &format!("sign {site}"), asked).await?;
    let command = format!("{PROGRAM} machine accept {site}");
    let script = Script::new("take its certificate", command);
    let script = script.input(serde_json::to_vec(&signed)?);
    ssh.run(&script).await?;
    Ok(())
}

/// Runs an order of `gaiola machine`: one document in, one line out.
async fn order<Q: Serialize, A: DeserializeOwned>(
    ssh: &Ssh,
    step: &str,
    order: &str,
    question: &Q,
) -> anyhow::Result<A> {
    let script = Script::new(step, format!("{PROGRAM} machine {order}"));
    let printed = ssh
        .run(&script.input(serde_json::to_vec(question)?))
        .await?;
    serde_json::from_str(printed.trim()).with_context(|| {
        let host = ssh.host();
        format!("{host}: cannot {step}: the program there answered with something else")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_core::doctor::Facts;
    use gaiola_model::config::{App, Machine, Machines as Named};

    #[test]
    fn a_site_that_a_machine_is_part_of_gets_no_second_authority() {
        let site: SiteName = "shop".parse().unwrap();
        let machine = |name: &str, sites: &[&str], authorities: &[&str]| {
            let all = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            let facts = Facts {
                sites: all(sites),
                authorities: all(authorities),
                ..Facts::default()
            };
            (Host(name.into()), Examined::Facts(Box::new(facts)))
        };
        let fresh = machine("a", &[], &[]);
        let other = machine("b", &["blog"], &["blog"]);
        let new = BTreeMap::from([fresh.clone(), other]);
        assert_eq!(signer(&site, &new).unwrap(), Signer::New);
        let part = machine("b", &["shop"], &[]);
        let lost = BTreeMap::from([fresh.clone(), part.clone()]);
        let why = signer(&site, &lost).unwrap_err().to_string();
        assert!(why.contains("which b joined before"), "{why}");
        let holder = machine("c", &[], &["shop"]);
        let held = BTreeMap::from([fresh, part, holder]);
        assert_eq!(signer(&site, &held).unwrap(), Signer::Held);
    }

    #[test]
    fn every_machine_knows_all_of_them_once() {
        let mut config = Config::new("shop".parse().unwrap(), App::new("run"));
        let machine = |name: &str, last| Machine {
            address: Some([10, 0, 0, last].into()),
            ..Machine::new(name)
        };
        let servers = [("app1", machine("a", 1)), ("db1", machine("a", 1))];
        let servers = servers.map(|(name, machine)| (name.parse().unwrap(), machine));
        config.machines = Some(Named {
            servers: servers.into(),
            spare: vec![machine("b", 2)],
            power: None,
        });
        let setups = setups(&config).unwrap();
        let b = &setups[&Host("b".into())];
        assert_eq!((b.address, b.machines.len()), ([10, 0, 0, 2].into(), 2));
        assert_eq!(founder(&config), Some(Host("a".into())));
        if let Some(machines) = &mut config.machines {
            machines.spare[0].address = None;
        }
        assert_eq!(
            super::setups(&config).unwrap_err().to_string(),
            "b has no address"
        );
    }
}
