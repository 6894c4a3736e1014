//! systemd: the units of this machine's servers.

use crate::provider::processes;
use gaiola_model::{ServerName, SiteName, Tier};
use gaiola_os::process::signal;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// The longest that systemd may take to start a unit, or to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest that it may take to stop one: longer than the units' own limit.
const STOP_LIMIT: Duration = Duration::from_secs(75);
/// The longest that killed processes may take to be gone: one that waits for a disk ends no sooner.
const GONE_LIMIT: Duration = Duration::from_secs(20);
/// Between two checks whether they are gone.
const GONE_AGAIN: Duration = Duration::from_millis(50);
/// Where the kernel shows control groups: alone, and beside those of the first version.
const GROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Where the program stands that the units run.
const PROGRAM: &str = "/opt/gaiola/current/gaiola";

/// Why systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// It cannot be asked.
    #[error("cannot run systemctl")]
    Run(#[from] io::Error),
    /// It refused.
    #[error("systemctl {asked}: {answer}")]
    Refused {
        /// What was asked.
        asked: String,
        /// What it wrote.
        answer: String,
    },
    /// It did not answer.
    #[error("systemctl {asked} did not end within {} s", limit.as_secs())]
    Late {
        /// What was asked.
        asked: String,
        /// The limit.
        limit: Duration,
    },
    /// Processes of it outlive even a kill.
    #[error("processes of {unit} still run {} s after they were killed", limit.as_secs())]
    Outlived {
        /// The unit.
        unit: String,
        /// The limit.
        limit: Duration,
    },
}

/// The program that units name: a link to the version in use.
pub const fn program() -> &'static str {
    PROGRAM
}

/// The units of a machine of a site, each with its file's name and text.
pub fn files(site: &SiteName, servers: &Path) -> [(&'static str, String); 4] {
    let servers = servers.display();
    let boot = format!("ExecStartPre={PROGRAM} machine boot {site} %i\n");
    let common = "Restart=always\nRestartSec=100ms\nLimitNOFILE=262144\n";
    // Privileged processes on a machine are those that bind low ports and start others as their users; none of them loads modules,
    // sets the clock, or traces the kernel. A proxy leaves connections to a VIP that moves unanswered by a socket filter, which some
    // kernels allow administrators of the network alone.
    let bounds = "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID CAP_SYS_PTRACE CAP_SYS_RESOURCE\n";
    let keeper_bounds = "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_IPC_LOCK CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_SYS_ADMIN CAP_SYS_NICE CAP_SYS_PTRACE CAP_SYS_RESOURCE\n";
    let machine = format!(
        "[Unit]\nDescription=Gaiola: the servers of {site} on this machine\nAfter=network-online.target\nWants=network-online.target\nStartLimitIntervalSec=0\n\n\
         [Service]\nType=notify\nExecStart={PROGRAM} machine run {site}\nWatchdogSec=30\nTimeoutStopSec=10\n{common}\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    // What stands on one machine gets equal shares of its processors where these are scarce. The VIP keeper has a priority of its own,
    // which the first version of control groups does not leave to a group with a share.
    let share = "CPUWeight=100\n";
    let agent = format!(
        "[Unit]\nDescription=Gaiola: agent of %i\nAfter=network-online.target\nWants=network-online.target\nStartLimitIntervalSec=0\n\n\
         [Service]\n{boot}ExecStart={PROGRAM} agent --boot {servers}/%i\nStandardOutput=append:{servers}/%i/log/agent.log\nStandardError=inherit\n\
         KillMode=process\nTimeoutStopSec=40\nTasksMax=infinity\nMemoryAccounting=yes\n{share}LimitMEMLOCK=infinity\n{bounds}{common}\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    let keeper = |what: &str, order: &str, share: &str| {
        format!(
            "[Unit]\nDescription=Gaiola: {what} of %i\nAfter=network-online.target\nWants=network-online.target\n{order}=gaiola-agent@%i.service\nStartLimitIntervalSec=0\n\n\
             [Service]\n{boot}ExecStart={PROGRAM} keeper tier --boot {servers}/%i\nStandardOutput=append:{servers}/%i/log/keeper.log\nStandardError=inherit\n\
             TimeoutStopSec=45\nTasksMax=infinity\n{share}LimitMEMLOCK=infinity\n{keeper_bounds}{common}\n\
             [Install]\nWantedBy=multi-user.target\n"
        )
    };
    // systemd stops units in the reverse of the order in which it starts them, also where the machine shuts down. The agent moves
    // the VIPs to another balancer, and the keeper holds them until then.
    let vips = keeper("VIPs", "Before", "");
    // The store's member that the agent runs is needed until PostgreSQL has shut down.
    let database = keeper("database", "After", share);
    [
        ("gaiola-machine.service", machine),
        ("gaiola-agent@.service", agent),
        ("gaiola-keeper@.service", vips),
        ("gaiola-database@.service", database),
    ]
}

/// The units of a server, in the order in which they are stopped: as their files say, which hold where the machine shuts down.
pub(super) fn units_of(server: ServerName) -> Vec<String> {
    let unit = |kind: &str| format!("gaiola-{kind}@{server}.service");
    match server.tier {
        Tier::Balancer => vec![unit("agent"), unit("keeper")],
        Tier::Database => vec![unit("database"), unit("agent")],
        Tier::Web | Tier::App => vec![unit("agent")],
    }
}

/// Asks systemd.
pub(super) struct Units {
    systemctl: PathBuf,
    /// Where control groups are shown.
    groups: Vec<PathBuf>,
}

impl Default for Units {
    fn default() -> Self {
        Self {
            systemctl: "systemctl".into(),
            groups: GROUPS.map(PathBuf::from).into(),
        }
    }
}

impl Units {
    /// Starts a server's units, now and with the machine.
    pub(super) async fn start(&self, server: ServerName) -> Result<(), UnitError> {
        let units = units_of(server);
        let mut args = vec!["enable", "--now"];
        args.extend(units.iter().map(String::as_str));
        self.ask(&args, LIMIT).await.map(drop)
    }

    /// Stops a server's units one after another, and keeps them stopped when the machine starts again. Nothing of them runs then,
    /// also where an agent gave up and left processes behind.
    pub(super) async fn stop(&self, server: ServerName) -> Result<(), UnitError> {
        for unit in units_of(server) {
            self.ask(&["disable", "--now", &unit], STOP_LIMIT).await?;
            self.clear(&unit).await?;
        }
        Ok(())
    }

    /// Kills what a stopped unit has left, and waits until it is gone.
    async fn clear(&self, unit: &str) -> Result<(), UnitError> {
        let deadline = Instant::now() + GONE_LIMIT;
        // Those that the agent limits stand in groups beside the unit's.
        let limited = || processes::identities(&processes::of_units(&[unit.into()]));
        while self.has_processes(unit).await? || !limited().is_empty() {
            if Instant::now() >= deadline {
                let (unit, limit) = (unit.into(), GONE_LIMIT);
                return Err(UnitError::Outlived { unit, limit });
            }
            let kill = ["kill", "--kill-who=all", "--signal=KILL", unit];
            if let Err(error) = self.ask(&kill, LIMIT).await {
                // They may have ended by themselves, and the unit with them; the next check decides.
                tracing::debug!(unit, error = gaiola_os::chain(&error), "cannot kill");
            }
            for process in limited() {
                signal(process.pid, Signal::KILL);
            }
            sleep(GONE_AGAIN).await;
        }
        Ok(())
    }

    async fn has_processes(&self, unit: &str) -> Result<bool, UnitError> {
        let show = ["show", "--property=ControlGroup", "--value", unit];
        let group = self.ask(&show, LIMIT).await?;
        // A unit without processes has no group.
        let group = group.trim().trim_start_matches('/');
        if group.is_empty() {
            return Ok(false);
        }
        for root in &self.groups {
            match std::fs::read_to_string(root.join(group).join("cgroup.events")) {
                Ok(events) => return Ok(is_populated(&events)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Keeps a server's units stopped when the machine starts again.
    pub(super) async fn disable(&self, server: ServerName) -> Result<(), UnitError> {
        let units = units_of(server);
        let mut args = vec!["disable"];
        args.extend(units.iter().map(String::as_str));
        self.ask(&args, LIMIT).await.map(drop)
    }

    /// Those of these servers whose agent runs, is about to, or ends.
    pub(super) async fn running(
        &self,
        servers: &BTreeSet<ServerName>,
    ) -> Result<BTreeSet<ServerName>, UnitError> {
        if servers.is_empty() {
            return Ok(BTreeSet::new());
        }
        let units: Vec<String> = (servers.iter())
            .map(|server| format!("gaiola-agent@{server}.service"))
            .collect();
        let mut args = vec!["show", "--property=Id,ActiveState"];
        args.extend(units.iter().map(String::as_str));
        Ok(active(&self.ask(&args, LIMIT).await?))
    }

    async fn ask(&self, args: &[&str], limit: Duration) -> Result<String, UnitError> {
        let asked = args.join(" ");
        let mut command = Command::new(&self.systemctl);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        let Ok(output) = timeout(limit, command.output()).await else {
            return Err(UnitError::Late { asked, limit });
        };
        let output = output?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let answer = String::from_utf8_lossy(&output.stderr).trim().to_string();
        Err(UnitError::Refused { asked, answer })
    }
}

/// Whether a control group, or one below it, has a process, as its `cgroup.events` says.
fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

/// The servers whose agents `systemctl show` says to run: blocks of `NAME=VALUE`, one a unit.
fn active(shown: &str) -> BTreeSet<ServerName> {
    let server_of = |block: &str| {
        let value = |name: &str| {
            let mut lines = block.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        let runs = !matches!(value("ActiveState")?, "inactive" | "failed");
        let name = value("Id")?.strip_prefix("gaiola-agent@")?;
        let name = name.strip_suffix(".service")?;
        name.parse().ok().filter(|_| runs)
    };
    shown.split("\n\n").filter_map(server_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_on_while_its_agent_is_active() {
        let shown = "Id=gaiola-agent@web1.service\nActiveState=active\n\n\
                     ActiveState=activating\nId=gaiola-agent@app1.service\n\n\
                     Id=gaiola-agent@app2.service\nActiveState=failed\n\n\
                     Id=ssh.service\nActiveState=active\n";
        let on = ["web1", "app1"].map(|name| name.parse().unwrap());
        assert_eq!(active(shown), on.into());
        // It is being restarted.
        let ends = active("Id=gaiola-agent@web2.service\nActiveState=deactivating\n");
        assert_eq!(ends, ["web2".parse().unwrap()].into());
        assert_eq!(active(""), BTreeSet::new());
    }

    #[test]
    fn a_balancers_agent_stops_before_its_keeper_and_a_databases_after() {
        let units = |name: &str| units_of(name.parse().unwrap());
        let [agent, keeper] = ["gaiola-agent@lb1.service", "gaiola-keeper@lb1.service"];
        assert_eq!(units("lb1"), [agent, keeper]);
        let [database, agent] = ["gaiola-database@db1.service", "gaiola-agent@db1.service"];
        assert_eq!(units("db1"), [database, agent]);
        assert_eq!(units("web1"), ["gaiola-agent@web1.service"]);
        let files = files(&"shop".parse().unwrap(), Path::new("/servers"));
        let has = |name: &str, line: &str| {
            let file = files.iter().find(|(file, _)| *file == name);
            file.unwrap().1.lines().any(|found| found == line)
        };
        // What starts later is stopped sooner.
        assert!(has(
            "gaiola-keeper@.service",
            "Before=gaiola-agent@%i.service"
        ));
        assert!(has(
            "gaiola-database@.service",
            "After=gaiola-agent@%i.service"
        ));
    }

    #[test]
    fn units_name_the_site_and_survive_their_agent() {
        let site = "shop".parse().unwrap();
        let files = files(&site, Path::new("/var/lib/gaiola/shop/servers"));
        let text = |name: &str| {
            let found = files.iter().find(|(file, _)| *file == name);
            found.unwrap().1.clone()
        };
        let agent = text("gaiola-agent@.service");
        assert!(
            agent.contains("agent --boot /var/lib/gaiola/shop/servers/%i\n"),
            "{agent}"
        );
        assert!(agent.contains("KillMode=process\n") && agent.contains("Restart=always\n"));
        assert!(text("gaiola-machine.service").contains("machine run shop\n"));
        // Nothing else would keep PostgreSQL from outliving its keeper.
        assert!(!text("gaiola-keeper@.service").contains("KillMode"));
    }

    #[tokio::test]
    async fn a_server_is_stopped_once_what_its_agent_left_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let group = at.join("system.slice/unit");
        std::fs::create_dir_all(&group).unwrap();
        let events = group.join("cgroup.events");
        std::fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
        let systemctl = at.join("systemctl");
        let text = format!(
            "#!/bin/sh\necho \"$*\" >> {at}/asked\ncase $1 in show) echo /system.slice/unit;; kill) echo 'populated 0' > {events};; esac\n",
            at = at.display(),
            events = events.display()
        );
        std::fs::write(&systemctl, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&systemctl, mode).unwrap();
        let groups = vec![at.join("missing"), at.into()];
        let units = Units { systemctl, groups };
        units.stop("web1".parse().unwrap()).await.unwrap();
        let asked = std::fs::read_to_string(at.join("asked")).unwrap();
        let words = asked.lines().filter_map(|line| line.split(' ').next());
        let words: Vec<_> = words.collect();
        assert_eq!(words, ["disable", "show", "kill", "show"], "{asked}");
        assert!(
            asked.contains("--signal=KILL gaiola-agent@web1.service"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn what_systemd_refuses_is_reported_in_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let systemctl = folder.path().join("systemctl");
        std::fs::write(&systemctl, "#!/bin/sh\necho \"no unit $3\" >&2; exit 5\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&systemctl, mode).unwrap();
        let groups = Vec::new();
        let units = Units { systemctl, groups };
        let why = units.start("web1".parse().unwrap()).await.unwrap_err();
        assert_eq!(
            why.to_string(),
            "systemctl enable --now gaiola-agent@web1.service: no unit gaiola-agent@web1.service"
        );
    }
}
