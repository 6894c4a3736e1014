//! What the file is to say, from what the operator asked for and what is in the directory. Every mistake is found at once.

use super::name;
use super::placement::{Placement, Wanted};
use super::procfile::Procfile;
use gaiola_model::WorkerKind;
use gaiola_model::config::MAX_SERVERS;
use gaiola_wire::config::rules;
use std::fmt;
use std::net::IpAddr;

/// What the operator asked for, as written, and what the directory has.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// The name of the directory.
    pub(super) directory: String,
    /// The site's name; `None`: from the directory's.
    pub(super) site: Option<String>,
    /// The machines; `None`: the lab.
    pub(super) machines: Option<Vec<String>>,
    pub(super) vips: Vec<String>,
    /// The commands that the operator named.
    pub(super) run: Option<String>,
    pub(super) release: Option<String>,
    pub(super) without_database: bool,
    pub(super) procfile: Procfile,
    /// Directories of public files that there are.
    pub(super) roots: Vec<String>,
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) what: String,
    pub(super) hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.hint)
    }
}

/// What the file is to say. All values are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) site: String,
    /// `None`: the lab.
    pub(super) placement: Option<Placement>,
    pub(super) vips: Vec<String>,
    pub(super) run: String,
    pub(super) release: Option<String>,
    /// The directory of public files; `None`: no web tier.
    pub(super) root: Option<String>,
    pub(super) database: bool,
    /// Workers: the other processes of the `Procfile`, and their commands.
    pub(super) workers: Vec<(WorkerKind, String)>,
    /// The names of those that no worker can be.
    pub(super) left_out: Vec<String>,
}

/// The root of a web tier that a machine is named for, where there is no directory yet.
const ROOT: &str = "public";

impl Draft {
    /// Checks the wishes.
    ///
    /// # Errors
    /// Every mistake in them.
    pub(super) fn of(wishes: &Wishes) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let site = site(wishes, &mut mistakes);
        let run = run(wishes, &mut mistakes);
        let release = wishes.release.as_ref().or(wishes.procfile.release.as_ref());
        release.into_iter().for_each(|release| {
            check("release", release, rules::command, &mut mistakes);
        });
        mistakes.extend(machine_mistakes(
            wishes.machines.as_deref().unwrap_or_default(),
        ));
        if wishes.machines.as_ref().is_some_and(Vec::is_empty) {
            add(
                &mut mistakes,
                "--machines names none",
                "leave it out for a lab on this computer",
            );
        }
        mistakes.extend(vip_mistakes(wishes.machines.as_deref(), &wishes.vips));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let wanted = Wanted {
            web: !wishes.roots.is_empty(),
            database: !wishes.without_database,
        };
        let machines = wishes.machines.as_ref();
        let placement = machines.map(|machines| Placement::of(machines, wanted));
        let (workers, left_out) = workers(&wishes.procfile);
        let found = wishes.roots.first().cloned();
        let named = placement.as_ref().is_some_and(Placement::has_web);
        Ok(Self {
            site,
            vips: wishes.vips.clone(),
            run,
            release: release.cloned(),
            root: found.or_else(|| named.then(|| ROOT.into())),
            database: wanted.database,
            placement,
            workers,
            left_out,
        })
    }
}

/// `Mail_Out` is the worker `mail-out`; a name of another form, or one that another process has by then, is left out, and so is
/// a command that the file cannot have.
fn workers(procfile: &Procfile) -> (Vec<(WorkerKind, String)>, Vec<String>) {
    let (mut workers, mut left_out) = (Vec::<(WorkerKind, String)>::new(), Vec::new());
    for (name, command) in &procfile.others {
        let kind = name.to_ascii_lowercase().replace('_', "-").parse().ok();
        let is_new = |kind: &WorkerKind| workers.iter().all(|(known, _)| known != kind);
        match kind.filter(is_new) {
            Some(kind) if rules::command(command).is_ok() => workers.push((kind, command.clone())),
            _ => left_out.push(name.clone()),
        }
    }
    (workers, left_out)
}

fn add(mistakes: &mut Vec<Mistake>, what: impl Into<String>, hint: impl Into<String>) {
    let (what, hint) = (what.into(), hint.into());
    mistakes.push(Mistake { what, hint });
}

/// Adds a mistake if the value breaks the rule.
fn check<T>(
    of: &str,
    value: &str,
    rule: fn(&str) -> Result<T, rules::Wrong>,
    mistakes: &mut Vec<Mistake>,
) -> Option<T> {
    match rule(value) {
        Ok(value) => Some(value),
        Err((what, hint)) => {
            add(mistakes, format!("{of} {value:?} {what}"), hint);
            None
        }
    }
}

fn site(wishes: &Wishes, mistakes: &mut Vec<Mistake>) -> String {
    let Some(site) = &wishes.site else {
        return name::of_directory(&wishes.directory);
    };
    check("site", site, rules::site, mistakes);
    site.clone()
}

fn run(wishes: &Wishes, mistakes: &mut Vec<Mistake>) -> String {
    let Some(run) = wishes.run.as_ref().or(wishes.procfile.web.as_ref()) else {
        let hint = "name the command that starts the site: --run 'bin/server --port $PORT'; or write a line \
                    `web: COMMAND` into a Procfile";
        add(mistakes, "there is no command", hint);
        return String::new();
    };
    check("command", run, rules::command, mistakes);
    run.clone()
}

/// What is wrong with these machines.
pub(super) fn machine_mistakes(machines: &[String]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let most = usize::from(MAX_SERVERS);
    if machines.len() > most {
        let what = format!("there are {} machines", machines.len());
        add(&mut mistakes, what, format!("name at most {most}"));
    }
    for (place, machine) in machines.iter().enumerate() {
        let before = &machines[..place];
        if before.contains(machine) {
            // One message for each machine, however often it is named.
            if before.iter().filter(|other| *other == machine).count() == 1 {
                add(
                    &mut mistakes,
                    format!("machine {machine:?} is named more than once"),
                    "name it once; a machine can have servers of several tiers",
                );
            }
            continue;
        }
        check("machine", machine, rules::machine, &mut mistakes);
        let same = before.iter().find(|other| host(other) == host(machine));
        if let Some(same) = same {
            let what = format!("{same:?} and {machine:?} are one machine");
            add(&mut mistakes, what, "name it once, with one user");
        }
    }
    mistakes
}

/// A machine's name without the user.
fn host(machine: &str) -> &str {
    machine.rsplit('@').next().unwrap_or(machine)
}

/// What is wrong with these virtual addresses of a site on machines, or in the lab.
pub(super) fn vip_mistakes(machines: Option<&[String]>, vips: &[String]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let Some(machines) = machines else {
        if !vips.is_empty() {
            let hint = "leave --vips out: in the lab every balancer brings an address of its own";
            add(&mut mistakes, "virtual addresses are for machines", hint);
        }
        return mistakes;
    };
    let mut seen: Vec<IpAddr> = Vec::new();
    for written in vips {
        let Some(vip) = check("virtual address", written, rules::vip, &mut mistakes) else {
            continue;
        };
        let mut machines = machines.iter();
        let of = machines.find(|name| host(name).parse() == Ok(vip));
        if seen.contains(&vip) {
            let what = format!("virtual address {vip} is named more than once");
            add(&mut mistakes, what, "name it once");
        } else if let Some(of) = of {
            let what = format!("virtual address {vip} is the machine {of}");
            add(&mut mistakes, what, "take an address that no machine has");
        }
        seen.push(vip);
    }
    mistakes
}
