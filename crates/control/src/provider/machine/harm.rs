//! A drill's harm to this machine and its servers, and its end: what `gaiola machine harm` and `gaiola machine undo` do.
//!
//! Before anything is harmed a timer of systemd is set that undoes it, whatever becomes of the operator. `/run/gaiola/drill.json`
//! holds what is in force; a reboot undoes everything.

mod network;
mod programs;

use super::units::units_of;
use super::{MachineError, boot, known_order, read_setup};
use crate::provider::freeze::{FreezeError, freeze, thaw};
use crate::provider::processes;
use gaiola_agent::state::{State, read_json};
use gaiola_core::drill::{MachineHarm, Process, Target};
use gaiola_core::machines;
use gaiola_model::{ServerName, SiteName, Tier};
use gaiola_os::netlink::{Netlink, NetlinkError};
use gaiola_os::process::{Identity, signal};
use network::{Dropped, Network, ssh_port};
use programs::{MACHINE, arm, disarm, nft, start, stay_down};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is in force.
const ACTIVE: &str = "/run/gaiola/drill.json";
/// Held while something is done or undone.
const LOCK: &str = "/run/gaiola/drill.lock";
/// The longest that killed processes may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(20);
/// Between two checks.
const POLL: Duration = Duration::from_millis(20);

/// Why a harm was not done, or not undone.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// One at a time.
    #[error(
        "{0} is in force on this machine; it ends by itself, or with: gaiola machine undo SITE"
    )]
    InForce(Target),
    /// The server stands elsewhere.
    #[error("{0} does not stand on this machine")]
    Elsewhere(ServerName),
    /// Nothing is known of the site.
    #[error("this machine knows no placement of the site")]
    NoOrder,
    /// Not a harm that is done on the machine.
    #[error("{0} is not done on the machine")]
    NotHere(Target),
    /// There is nothing to kill.
    #[error("no such process runs there")]
    NoProcess,
    /// They outlive it.
    #[error("{0} killed processes still run")]
    Outlived(usize),
    /// A cut would end ssh too.
    #[error(
        "cannot find the port of sshd, which a cut must leave open: this was not started by ssh"
    )]
    NoSsh,
    /// Processes do not stop.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// The machine's part in the site.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Its addresses.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A file of ours.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program of the machine cannot be run.
    #[error("cannot run {program}; install the package {package}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It failed.
    #[error("{program}: {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its last words.
        said: String,
    },
}

/// What is in force on this machine.
#[derive(Debug, Serialize, Deserialize)]
struct Active {
    harm: MachineHarm,
    /// The servers of this machine that are harmed.
    servers: BTreeSet<ServerName>,
    /// Whether rules of the network belong to it.
    has_rules: bool,
}

impl Active {
    /// The harm as it is done to a machine with these servers, in a site with VIPs or without.
    fn new(
        harm: MachineHarm,
        here: &BTreeSet<ServerName>,
        has_vips: bool,
    ) -> Result<Self, DrillError> {
        Ok(Self {
            servers: hit(&harm.target, here)?,
            has_rules: match harm.target {
                Target::Kill {
                    server,
                    process: None,
                } => server.tier == Tier::Balancer && has_vips,
                Target::Power(_) | Target::Cut(_) | Target::Mute(_) | Target::Deaf(_) => true,
                _ => false,
            },
            harm,
        })
    }

    fn read() -> Option<Self> {
        read_json(Path::new(ACTIVE)).ok()
    }

    fn write(&self) -> Result<(), DrillError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        write(Path::new(ACTIVE), &text)
    }

    /// The units that are harmed.
    fn units(&self) -> Vec<String> {
        self.servers.iter().copied().flat_map(units_of).collect()
    }

    /// The units that are killed and stay down; none where nothing is killed.
    fn killed(&self) -> Vec<String> {
        let mut units = self.units();
        match self.harm.target {
            Target::Kill { process: None, .. } => {}
            Target::Power(_) => units.push(MACHINE.into()),
            _ => units.clear(),
        }
        units
    }
}

/// The harm in force on this machine.
pub fn in_force() -> Option<Target> {
    Active::read().map(|active| active.harm.target)
}

/// Servers of this machine that a drill has stopped, and starts again.
pub(super) fn stopped() -> BTreeSet<ServerName> {
    let active = Active::read().filter(|active| !active.killed().is_empty());
    active.map_or_else(BTreeSet::new, |active| active.servers)
}

/// Does a harm. What is not over at once ends with [`undo`], and by itself.
///
/// # Errors
/// Where it could not be done. What was done of it is undone then.
pub async fn begin(site: &SiteName, harm: MachineHarm) -> Result<(), DrillError> {
    let _alone = lock()?;
    if let Some(active) = Active::read() {
        return Err(DrillError::InForce(active.harm.target));
    }
    let state = State::of(site);
    let order = known_order(&state)?.ok_or(DrillError::NoOrder)?;
    let here = machines::servers_on(&order.placement, &read_setup(&state)?.host);
    let vips: Vec<IpAddr> = order.placement.vips.keys().copied().collect();
    let mut active = Active::new(harm, &here, !vips.is_empty())?;
    if let Target::Kill {
        process: Some(process),
        ..
    } = active.harm.target
    {
        return kill_process(&active.units(), process).await;
    }
    active.write()?;
    let done = match arm(site, active.harm.for_s) {
        Ok(()) => do_harm(&state, &mut active, vips).await,
        Err(error) => Err(error),
    };
    if done.is_err() {
        // What it was undone for is reported; the timer tries again where this fails.
        let _ = end(&active);
    }
    done
}

/// Undoes the harm that is in force; no error where there is none.
///
/// # Errors
/// Where a part of it could not be undone. The rest is, and the timer tries again.
pub fn undo() -> Result<(), DrillError> {
    let _alone = lock()?;
    Active::read().map_or(Ok(()), |active| end(&active))
}

/// The servers of this machine that a target hits.
fn hit(target: &Target, here: &BTreeSet<ServerName>) -> Result<BTreeSet<ServerName>, DrillError> {
    let named = target.servers().into_iter();
    let named: BTreeSet<ServerName> = named.filter(|server| here.contains(server)).collect();
    if named.is_empty() {
        return Err(DrillError::Elsewhere(target.servers()[0]));
    }
    Ok(match target {
        Target::Kill { .. } | Target::Freeze { .. } => named,
        _ => here.clone(),
    })
}

async fn do_harm(state: &State, active: &mut Active, vips: Vec<IpAddr>) -> Result<(), DrillError> {
    let units = active.killed();
    stay_down(&units)?;
    if active.has_rules
        && let Err(error) = set_rules(&active.harm, vips)
    {
        // None was set, and where none can be set none can be removed.
        active.has_rules = false;
        active.write()?;
        return Err(error);
    }
    match &active.harm.target {
        Target::Kill { process: None, .. } | Target::Power(_) => {
            kill_all(&units).await?;
            end_boots(state, &active.servers)
        }
        Target::Freeze { process, .. } => {
            let units = active.units();
            freeze(|| processes::of_units(&units), *process).await?;
            Ok(())
        }
        Target::Cut(_) | Target::Mute(_) | Target::Deaf(_) => Ok(()),
        Target::Kill { .. } | Target::Stop(_) | Target::Fill(_) => {
            Err(DrillError::NotHere(active.harm.target.clone()))
        }
    }
}

/// Every step is tried. What was in force is forgotten once all have succeeded.
fn end(active: &Active) -> Result<(), DrillError> {
    let mut ended = Ok(());
    if active.has_rules {
        ended = nft(&network::removed());
    }
    if let Target::Freeze { .. } = active.harm.target {
        thaw(&processes::identities(&processes::of_units(
            &active.units(),
        )));
    }
    ended = ended.and(start(&active.killed()));
    if ended.is_ok() {
        remove(Path::new(ACTIVE))?;
        disarm();
    }
    ended
}

async fn kill_process(units: &[String], process: Process) -> Result<(), DrillError> {
    let victims = processes::victims(&processes::of_units(units), process);
    if victims.is_empty() {
        return Err(DrillError::NoProcess);
    }
    for victim in &victims {
        signal(victim.pid, Signal::KILL);
    }
    until_gone(|| victims.clone()).await
}

/// Kills every process of these units, also those that are born meanwhile.
async fn kill_all(units: &[String]) -> Result<(), DrillError> {
    until_gone(|| {
        let found = processes::identities(&processes::of_units(units));
        for victim in &found {
            signal(victim.pid, Signal::KILL);
        }
        found
    })
    .await
}

async fn until_gone(victims: impl Fn() -> Vec<Identity>) -> Result<(), DrillError> {
    let ends = Instant::now() + GONE_LIMIT;
    loop {
        let victims = victims().into_iter();
        match victims.filter(|it| processes::is_alive(*it)).count() {
            0 => return Ok(()),
            alive if Instant::now() > ends => return Err(DrillError::Outlived(alive)),
            _ => sleep(POLL).await,
        }
    }
}

/// A server of which nothing runs has no boot: the next start begins one, as after a reboot.
fn end_boots(state: &State, servers: &BTreeSet<ServerName>) -> Result<(), DrillError> {
    for server in servers {
        let run = state.directories_on_machine(*server).run;
        boot::end(&run).map_err(|source| DrillError::File { path: run, source })?;
    }
    Ok(())
}

fn set_rules(harm: &MachineHarm, vips: Vec<IpAddr>) -> Result<(), DrillError> {
    let network = Network {
        devices: devices()?,
        ssh: port_of_sshd(),
        together: harm.together.clone(),
        vips,
    };
    let (sent, received) = match harm.target {
        Target::Mute(_) => (true, false),
        Target::Deaf(_) => (false, true),
        Target::Kill { .. } => return nft(&network.without_vips()),
        _ => (true, true),
    };
    if network.ssh.is_none() {
        return Err(DrillError::NoSsh);
    }
    nft(&network.cut(Dropped { sent, received }))
}

/// The devices that have an address but loopback. What lies below one of them has none, and carries the same packets.
fn devices() -> Result<Vec<String>, DrillError> {
    let mut netlink = Netlink::open()?;
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found = Vec::new();
    for name in names.filter(|name| name != "lo") {
        let addresses = netlink.addresses(&name)?;
        if addresses.iter().any(|it| !is_link_local(it.ip)) {
            found.push(name);
        }
    }
    Ok(found)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// By the environment of this process and those above it: `sudo` takes it from its own children.
fn port_of_sshd() -> Option<u16> {
    let mut pid = std::process::id();
    while pid > 1 {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if let Some(port) = ssh_port(&environment) {
            return Some(port);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields = stat.rsplit(')').next()?;
        pid = fields.split_ascii_whitespace().nth(1)?.parse().ok()?;
    }
    None
}

fn lock() -> Result<fs::File, DrillError> {
    let path = Path::new(LOCK);
    let failed = |source| DrillError::File {
        path: path.into(),
        source,
    };
    fs::create_dir_all("/run/gaiola").map_err(failed)?;
    let file = fs::File::create(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

fn write(path: &Path, text: &[u8]) -> Result<(), DrillError> {
    fs::write(path, text).map_err(|source| DrillError::File {
        path: path.into(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), DrillError> {
    super::remove_file(path.into()).map_err(|source| DrillError::File {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(target: &str, has_vips: bool) -> Active {
        let here = ["lb1", "db1", "app2"].map(|name| name.parse().unwrap());
        let harm = MachineHarm {
            target: target.parse().unwrap(),
            together: Vec::new(),
            for_s: 40,
        };
        Active::new(harm, &here.into(), has_vips).unwrap()
    }

    fn active(target: &str) -> Active {
        with(target, true)
    }

    #[test]
    fn what_is_done_to_a_machine_hits_all_of_its_servers() {
        for target in ["power db1", "cut db1,db2", "mute app2", "deaf lb1"] {
            assert_eq!(active(target).servers.len(), 3, "{target}");
        }
        let frozen = active("freeze db1/patroni");
        assert_eq!(frozen.servers, ["db1".parse().unwrap()].into());
        let elsewhere = hit(&"kill db2".parse().unwrap(), &frozen.servers).unwrap_err();
        assert_eq!(elsewhere.to_string(), "db2 does not stand on this machine");
    }

    #[test]
    fn only_what_is_killed_is_kept_down_and_started_again() {
        let keeper_first = ["gaiola-database@db1.service", "gaiola-agent@db1.service"];
        assert_eq!(active("kill db1").killed(), keeper_first);
        let all = active("power db1").killed();
        assert_eq!(all.len(), 6, "{all:?}");
        assert_eq!(all[5], MACHINE);
        for target in ["cut db1", "freeze db1"] {
            assert_eq!(active(target).killed(), [""; 0], "{target}");
        }
    }

    #[test]
    fn rules_are_set_for_cuts_and_for_a_balancer_that_is_killed() {
        let rules = |target| active(target).has_rules;
        assert!(
            ["power db1", "cut db1", "mute db1", "deaf db1", "kill lb1"].map(rules) == [true; 5]
        );
        assert!(["kill db1", "freeze lb1"].map(rules) == [false; 2]);
        assert!(!with("kill lb1", false).has_rules);
    }
}
