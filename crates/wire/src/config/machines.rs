//! `servers` as a list of machines in every tier, and `[machines]`. A file says how many servers or which, not both.

use super::value;
use crate::file::value::Wrong;
use crate::file::{At, Element, Mistakes, Section, checked, shown, text};
use gaiola_model::config::{MAX_SERVERS, Machine, Machines};
use gaiola_model::{ServerName, Tier};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// The kind of a table in a list of machines.
pub(super) const MACHINE: &str = "TIER.servers";
/// Most machines in one list.
const MOST: usize = MAX_SERVERS as usize;

/// The sections of the tiers that the file has, and `[machines]`.
pub(super) struct Sections<'a> {
    pub(super) tiers: [Option<Section<'a>>; 4],
    pub(super) machines: Option<Section<'a>>,
}

impl<'a> Sections<'a> {
    pub(super) fn of(root: &Section<'a>, mistakes: &mut Mistakes<'_>) -> Self {
        let of_tier = |tier: Tier| root.table(tier.section(), tier.section(), mistakes);
        Self {
            tiers: Tier::ALL.map(of_tier),
            machines: root.table("machines", "machines", mistakes),
        }
    }

    /// The section of a tier.
    pub(super) fn tier(&self, tier: Tier) -> Option<&Section<'a>> {
        self.tiers[tier as usize].as_ref()
    }

    fn present(&self) -> impl Iterator<Item = (Tier, &Section<'a>)> {
        let all = Tier::ALL.into_iter();
        all.filter_map(|tier| Some((tier, self.tier(tier)?)))
    }

    /// The first section that names its machines.
    fn naming(&self) -> Option<&Section<'a>> {
        let mut present = self.present().map(|(_, section)| section);
        present.find(|section| section.length("servers").is_some())
    }

    /// Whether the file names machines.
    pub(super) fn on_machines(&self) -> bool {
        self.machines.is_some() || self.naming().is_some()
    }
}

/// The machines of the site, numbered by their positions; `None`: the file says how many servers.
pub(super) fn machines(sections: &Sections<'_>, mistakes: &mut Mistakes<'_>) -> Option<Machines> {
    if !sections.on_machines() {
        return None;
    }
    every_tier_names_its_own(sections, mistakes);
    let mut servers: Vec<(ServerName, At<Machine>)> = Vec::new();
    let named = sections
        .present()
        .filter(|(_, section)| section.length("servers").is_some());
    for (tier, section) in named {
        let listed = list(section, "servers", "\"web-a\"", mistakes);
        let numbers = (1..).map(|number| ServerName::new(tier, number));
        servers.extend(numbers.zip(listed));
    }
    // The keys of [machines] are read here.
    let spare = sections.machines.as_ref().map_or_else(Vec::new, |section| {
        let spare = list(section, "spare", "\"m-9\"", mistakes);
        none_has_a_server(&spare, &servers, mistakes);
        spare
    });
    let section = sections.machines.as_ref();
    let firewall = section.and_then(|section| section.boolean("firewall", mistakes));
    let encrypt = section.and_then(|section| section.boolean("encrypt", mistakes));
    if encrypt == Some(true) {
        has_someone_to_encrypt(sections, mistakes);
    }
    let power = section.and_then(|section| text(section, "power", value::command, mistakes));
    let replace_after = section.and_then(|section| replace_after(section, mistakes));
    let all = servers.iter().map(|(_, machine)| machine).chain(&spare);
    let known = known(all, mistakes);
    let whole = |machine: At<Machine>| {
        known
            .get(&machine.value.ssh)
            .cloned()
            .unwrap_or(machine.value)
    };
    Some(Machines {
        servers: servers
            .into_iter()
            .map(|(name, on)| (name, whole(on)))
            .collect(),
        spare: spare.into_iter().map(whole).collect(),
        lost: Vec::new(),
        replace_after,
        firewall: firewall.unwrap_or(true),
        encrypt: encrypt.unwrap_or(false),
        power,
    })
}

/// Clients, who have no certificate of the site, must not be those who connect to the instances.
fn has_someone_to_encrypt(sections: &Sections<'_>, mistakes: &mut Mistakes<'_>) {
    let is_there = |tier| sections.tier(tier).is_some();
    if is_there(Tier::Balancer) || is_there(Tier::Web) {
        return;
    }
    let section = sections.machines.as_ref();
    let span = section.and_then(|section| section.value_span("encrypt"));
    let what = "`encrypt` is true, but clients connect to the instances themselves";
    let hint =
        "add [balancer] or [web], which then speak TLS with the instances, or leave `encrypt` out";
    mistakes.add(&span.unwrap_or_default(), what, hint);
}

/// How long a machine is gone until a spare one takes its place by itself; `None`: only an operator has it replaced.
fn replace_after(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Option<Duration> {
    let is_auto = text(section, "replace", value::replace, mistakes) == Some(true);
    let after = text(section, "replace_after", value::replace_after, mistakes);
    if let Some(span) = section.value_span("replace_after")
        && !section.has("replace")
    {
        let what = "`replace_after` does nothing without `replace`";
        mistakes.add(&span, what, "write replace = \"auto\" too, or leave it out");
    }
    is_auto.then(|| after.unwrap_or(Machines::REPLACE_AFTER))
}

fn every_tier_names_its_own(sections: &Sections<'_>, mistakes: &mut Mistakes<'_>) {
    let Some(naming) = sections.naming() else {
        if let Some(section) = &sections.machines {
            let what = "the file has [machines], but no tier names its machines";
            let hint =
                "write servers = [\"web-a\", \"web-b\"] in every tier, or leave [machines] out";
            mistakes.missing(section.span(), what, hint);
        }
        return;
    };
    let which = format!("[{}] names its machines", naming.name());
    let hint = "a file says how many servers or which, not both; name the machines: servers = [\"web-a\", \"web-b\"]";
    for (_, section) in sections.present() {
        let name = section.name();
        match (section.length("servers"), section.value_span("servers")) {
            (Some(0), Some(span)) => {
                let hint = format!(
                    "name its machines: servers = [\"web-a\", \"web-b\"], or leave [{name}] out"
                );
                mistakes.add(&span, "`servers` is empty", hint);
            }
            (Some(_), _) => {}
            (None, Some(span)) => {
                let what = format!("{which}, but [{name}] does not");
                mistakes.add(&span, what, hint);
            }
            (None, None) => {
                let what = format!("{which}, but [{name}] has no `servers`");
                mistakes.missing(section.span(), what, hint);
            }
        }
    }
}

/// The machines of one list; empty if the key is absent. One that is written twice is a mistake.
fn list(
    section: &Section<'_>,
    key: &'static str,
    example: &str,
    mistakes: &mut Mistakes<'_>,
) -> Vec<At<Machine>> {
    let length = section.length(key).unwrap_or_default();
    if length > MOST {
        let what = format!("`{key}` has {length} machines");
        let span = section.value_span(key).unwrap_or_default();
        mistakes.add(&span, what, format!("at most {MOST} are allowed"));
        return Vec::new();
    }
    let mut found: Vec<At<Machine>> = Vec::new();
    for element in section.listed(key, MACHINE, example, mistakes) {
        let Some(machine) = machine(key, element, mistakes) else {
            continue;
        };
        let ssh = &machine.value.ssh;
        if found.iter().any(|other| other.value.ssh == *ssh) {
            let what = format!("`{key}` has {} twice", shown(ssh));
            mistakes.add(&machine.span, what, "leave one of them out");
        } else {
            found.push(machine);
        }
    }
    found
}

/// A name, or a table with more.
fn machine(key: &str, element: Element<'_>, mistakes: &mut Mistakes<'_>) -> Option<At<Machine>> {
    match element {
        Element::Text(written) => Some(At {
            value: Machine::new(checked(key, &written, ssh_name, mistakes)?),
            span: written.span,
        }),
        Element::Table(section) => {
            section.need("ssh", "\"web-a\", what `ssh` takes", mistakes);
            let ssh = text(&section, "ssh", ssh_name, mistakes);
            let address = text(&section, "address", value::address, mistakes);
            let interface = text(&section, "interface", value::interface, mistakes);
            Some(At {
                value: Machine {
                    ssh: ssh?,
                    address,
                    interface,
                },
                span: section.span().clone(),
            })
        }
    }
}

fn none_has_a_server(
    spare: &[At<Machine>],
    servers: &[(ServerName, At<Machine>)],
    mistakes: &mut Mistakes<'_>,
) {
    for machine in spare {
        let ssh = &machine.value.ssh;
        let mut on_it = servers.iter().filter(|(_, on)| on.value.ssh == *ssh);
        if let Some((name, _)) = on_it.next() {
            let what = format!(
                "`spare` has {}, which [{}] names too",
                shown(ssh),
                name.tier
            );
            let hint = "a spare machine has no server: leave one of them out";
            mistakes.add(&machine.span, what, hint);
        }
    }
}

/// Every machine with all that is written of it anywhere. What is written twice must be the same, and no two may share an
/// address.
fn known<'a>(
    all: impl Iterator<Item = &'a At<Machine>>,
    mistakes: &mut Mistakes<'_>,
) -> BTreeMap<String, Machine> {
    let mut known: BTreeMap<String, Machine> = BTreeMap::new();
    for At { value, span } in all {
        if let Some(address) = value.address {
            let mut others = known.values();
            let other =
                others.find(|other| other.address == Some(address) && other.ssh != value.ssh);
            if let Some(other) = other {
                let what = format!("{} has the address of {}, {address}", value.ssh, other.ssh);
                let hint = "give each machine its own address, or write one machine with one name everywhere";
                mistakes.add(span, what, hint);
            }
        }
        let so_far = known.entry(value.ssh.clone());
        let so_far = so_far.or_insert_with(|| Machine::new(&value.ssh));
        same(
            &mut so_far.address,
            &value.address,
            (&value.ssh, "address"),
            span,
            mistakes,
        );
        same(
            &mut so_far.interface,
            &value.interface,
            (&value.ssh, "interface"),
            span,
            mistakes,
        );
    }
    known
}

/// Takes over what is written here, unless something else is written elsewhere.
fn same<T: Clone + PartialEq + std::fmt::Display>(
    so_far: &mut Option<T>,
    here: &Option<T>,
    (ssh, what): (&str, &str),
    span: &Range<usize>,
    mistakes: &mut Mistakes<'_>,
) {
    match (&so_far, here) {
        (Some(first), Some(here)) if first != here => {
            let what = format!("{ssh} has the {what} {here} here, but {first} in another place");
            mistakes.add(span, what, "write it in one of them only");
        }
        (None, Some(here)) => *so_far = Some(here.clone()),
        _ => {}
    }
}

/// What `ssh` takes as its first argument: a name, an address, an alias, each with or without `user@`.
pub(super) fn ssh_name(text: &str) -> Result<String, Wrong> {
    const LONGEST: usize = 255;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    let is_word =
        |word: &str| !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain);
    let (user, host) = text.split_once('@').unwrap_or(("user", text));
    if is_word(user) && is_word(host) && text.len() <= LONGEST {
        return Ok(text.to_owned());
    }
    let hint = "write what `ssh` takes, of letters, digits and . _ - : @ alone: \"web-a\", \"deploy@192.0.2.7\"; \
                for everything else make an alias in ~/.ssh/config";
    Err(("is not a name for `ssh`".into(), hint.into()))
}

/// A VIP that is a machine's own address.
pub(super) fn no_vip_is_a_machines(
    section: &Section<'_>,
    vips: &[IpAddr],
    machines: &Machines,
    mistakes: &mut Mistakes<'_>,
) {
    for machine in machines.all() {
        if let Some(vip) = vips.iter().find(|vip| machine.address == Some(**vip)) {
            let span = section.value_span("vips").unwrap_or_default();
            let what = format!("`vips` has {vip}, which is the address of {}", machine.ssh);
            mistakes.add(&span, what, "take an address that no machine has");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_argument_of_ssh_and_nothing_else() {
        for text in [
            "web-a",
            "lb-a.example.net",
            "deploy@web_b",
            "192.0.2.7",
            "2001:db8::7",
            "root@2001:db8::7",
        ] {
            assert_eq!(ssh_name(text), Ok(text.to_owned()));
        }
        let long = "a".repeat(256);
        for text in [
            "",
            " ",
            "web a",
            "-oProxyCommand=x",
            "me@-x",
            "@web",
            "me@",
            "a@b@c",
            "web;reboot",
            "$(x)",
            "web\n",
            "wéb",
            "a/b",
            "a'b",
            "a%h",
            long.as_str(),
        ] {
            assert!(ssh_name(text).is_err(), "{text}");
        }
    }
}
