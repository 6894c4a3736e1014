//! Runs the operator's `vip_command` for the VIPs that this balancer holds, as
//! [`core::vrrp::command`](gaiola_core::vrrp::command) decides.

use gaiola_core::vrrp::command::{COMMAND_LIMIT, Input, Output, VipCommand};
use gaiola_model::Time;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Ticks further apart than this: this process, or the whole server, did not run in between.
const SLEPT: Duration = Duration::from_secs(2);

/// Most that is read of what a command writes to standard error; it is stopped by a closed pipe then.
const MOST_READ: u64 = 64 * 1024;

/// Most characters of its last line that are shown.
const MOST_SHOWN: usize = 200;

/// What each command gets in its environment, beside the VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// PATH.
    pub(super) path: String,
    /// This server's name.
    pub(super) server: String,
    /// Its own address.
    pub(super) address: String,
    /// The interface of its VIPs.
    pub(super) interface: String,
}

/// The commands of all VIPs.
pub(super) struct Commands {
    around: Surroundings,
    began: Instant,
    /// The last tick.
    ticked: Option<Instant>,
    each: BTreeMap<IpAddr, Call>,
}

#[derive(Default)]
struct Call {
    decision: VipCommand,
    running: Option<Running>,
    /// How it failed last.
    failed: Option<String>,
}

struct Running {
    ended: JoinHandle<Result<(), String>>,
    /// Kills it when it is dropped.
    kill: Option<oneshot::Sender<()>>,
}

impl Commands {
    pub(super) fn new(around: Surroundings) -> Self {
        Self {
            around,
            began: Instant::now(),
            ticked: None,
            each: BTreeMap::new(),
        }
    }

    /// Runs and kills what must be. `held`: the VIPs that this server holds, each with its claims. To be called a few times a
    /// second.
    pub(super) async fn tick(&mut self, command: Option<&str>, held: &BTreeMap<IpAddr, u64>) {
        let slept = self.ticked.replace(Instant::now());
        if slept.is_some_and(|at| at.elapsed() > SLEPT) {
            // What the keeper reports may be from before that: it is read again first.
            return;
        }
        for vip in held.keys() {
            self.each.entry(*vip).or_default();
        }
        for (vip, call) in &mut self.each {
            let claims = held.get(vip).copied().filter(|_| command.is_some());
            let now = Time::from_start(self.began.elapsed());
            let mut out = Vec::new();
            call.reap(now, *vip, &mut out).await;
            for input in [Input::Held(claims), Input::Deadline] {
                call.decision.step(now, input, &mut out);
            }
            for output in out {
                match output {
                    Output::Kill => call.kill(),
                    Output::Run => call.run(*vip, command.unwrap_or_default(), &self.around),
                }
            }
        }
        self.each
            .retain(|vip, call| held.contains_key(vip) || call.running.is_some());
    }

    /// Kills every command, and waits for their ends.
    pub(super) async fn end(&mut self) {
        for running in std::mem::take(&mut self.each)
            .into_values()
            .filter_map(|call| call.running)
        {
            drop(running.kill);
            // However it ended.
            let _ = running.ended.await;
        }
    }

    /// What is wrong, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        self.each.iter().find_map(|(vip, call)| {
            let failures = call.decision.failures();
            let why = call.failed.as_ref().filter(|_| failures > 0)?;
            let times = if failures == 1 { "" } else { " again" };
            Some(format!(
                "vip_command failed{times} for {vip}: {why}; clients may be led to another balancer"
            ))
        })
    }
}

impl Call {
    /// Notes the end of the command that ran.
    async fn reap(&mut self, now: Time, vip: IpAddr, out: &mut Vec<Output>) {
        let Some(running) = self.running.take_if(|running| running.ended.is_finished()) else {
            return;
        };
        let ended = running.ended.await;
        let result = ended.unwrap_or_else(|error| Err(error.to_string()));
        match &result {
            Ok(()) => tracing::info!(%vip, "vip_command succeeded"),
            Err(why) => tracing::warn!(%vip, why, "vip_command failed"),
        }
        let ok = result.is_ok();
        self.failed = result.err();
        self.decision.step(now, Input::Ended { ok }, out);
    }

    fn kill(&mut self) {
        if let Some(running) = &mut self.running {
            running.kill = None;
        }
    }

    fn run(&mut self, vip: IpAddr, command: &str, around: &Surroundings) {
        tracing::info!(%vip, command, "runs vip_command");
        // The limit holds also where this agent ends before the command.
        let mut shell = Command::new("timeout");
        let limit = COMMAND_LIMIT.as_secs().to_string();
        shell
            .args(["--signal=KILL", &limit, "/bin/sh", "-c", command])
            .current_dir("/")
            .env_clear()
            .env("PATH", &around.path)
            .env("GAIOLA_VIP", vip.to_string())
            .env("GAIOLA_ACTION", "take")
            .env("GAIOLA_SERVER", &around.server)
            .env("GAIOLA_ADDRESS", &around.address)
            .env("GAIOLA_INTERFACE", &around.interface)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // So that whatever it starts is killed with it.
            .process_group(0);
        let (kill, killed) = oneshot::channel();
        let child = shell.spawn();
        let ended = tokio::task::spawn_local(async move {
            let child =
                child.map_err(|error| format!("cannot run timeout and /bin/sh: {error}"))?;
            follow(child, killed).await
        });
        let kill = Some(kill);
        self.running = Some(Running { ended, kill });
    }
}

/// Waits for the end of a command, and kills it on request.
async fn follow(mut child: Child, killed: oneshot::Receiver<()>) -> Result<(), String> {
    let group = child.id();
    let stderr = child.stderr.take();
    let mut said = Vec::new();
    let ends = async {
        if let Some(stderr) = stderr {
            let _ = stderr.take(MOST_READ).read_to_end(&mut said).await;
        }
        child.wait().await
    };
    let status = tokio::select! {
        status = ends => status,
        _ = killed => {
            kill_group(group);
            let _ = child.wait().await;
            return Err(format!("took longer than {} s", COMMAND_LIMIT.as_secs()));
        }
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}{}", last_line(&said))),
        Err(error) => Err(error.to_string()),
    }
}

fn kill_group(leader: Option<u32>) {
    let leader = leader.and_then(|pid| i32::try_from(pid).ok());
    if let Some(group) = leader.and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The last line that was written, if any, after a colon.
fn last_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    let shown = |line: &str| line.trim().chars().take(MOST_SHOWN).collect::<String>();
    last.map_or_else(String::new, |line| format!(": {}", shown(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::path::Path;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));

    fn commands() -> Commands {
        Commands::new(Surroundings {
            path: "/usr/bin:/bin".into(),
            server: "lb1".into(),
            address: "10.77.1.1".into(),
            interface: "eth0".into(),
        })
    }

    /// Ticks until something is so.
    async fn until(
        commands: &mut Commands,
        command: &str,
        held: &BTreeMap<IpAddr, u64>,
        is_so: impl Fn(&Commands) -> bool,
    ) {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            commands.tick(Some(command), held).await;
            if is_so(commands) {
                return;
            }
            assert!(Instant::now() < limit, "it never came to be so");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn held(claims: u64) -> BTreeMap<IpAddr, u64> {
        [(VIP, claims)].into()
    }

    fn idle(commands: &Commands) -> bool {
        commands.each.values().all(|call| call.running.is_none())
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_vip_that_is_taken_runs_the_command_with_its_address() {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let out = directory.path().join("out");
            let command = format!(
                "echo $GAIOLA_ACTION $GAIOLA_VIP $GAIOLA_SERVER $GAIOLA_ADDRESS $GAIOLA_INTERFACE >> {}",
                out.display()
            );
            let mut commands = commands();
            commands.tick(Some(&command), &BTreeMap::new()).await;
            commands.tick(None, &held(1)).await;
            assert!(idle(&commands));
            until(&mut commands, &command, &held(1), |it| {
                idle(it) && !read(&out).is_empty()
            })
            .await;
            assert_eq!(read(&out), "take 10.77.0.100 lb1 10.77.1.1 eth0\n");
            assert_eq!(commands.trouble(), None);
        });
    }

    #[test]
    fn a_failure_is_reported_until_it_is_over() {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let good = directory.path().join("good");
            let command = format!(
                "test -e {} || {{ echo no such thing >&2; exit 3; }}",
                good.display()
            );
            let mut commands = commands();
            until(&mut commands, &command, &held(1), |it| {
                it.trouble().is_some()
            })
            .await;
            let trouble = commands.trouble().unwrap();
            assert!(
                trouble.starts_with(
                    "vip_command failed for 10.77.0.100: exit status: 3: no such thing"
                ),
                "{trouble}"
            );
            std::fs::write(&good, "").unwrap();
            until(&mut commands, &command, &held(1), |it| {
                it.trouble().is_none()
            })
            .await;
        });
    }

    #[test]
    fn the_command_of_a_vip_that_is_lost_is_killed_with_all_it_started() {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let out = directory.path().join("out");
            let command = format!(
                "sh -c 'echo $$ > {}; sleep 1000; true'; true",
                out.display()
            );
            let mut commands = commands();
            until(&mut commands, &command, &held(1), |_| {
                !read(&out).is_empty()
            })
            .await;
            let pid = read(&out).trim().to_owned();
            until(&mut commands, &command, &BTreeMap::new(), idle).await;
            let state = || read(Path::new(&format!("/proc/{pid}/stat")));
            let is_dead = |stat: String| stat.is_empty() || stat.contains(") Z ");
            until(&mut commands, &command, &BTreeMap::new(), |_| {
                is_dead(state())
            })
            .await;
            assert!(commands.each.is_empty());
        });
    }
}
