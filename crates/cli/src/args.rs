//! The command line, as clap parses it. What is not implemented yet is not listed.

mod internal;
mod maintenance;

pub(crate) use internal::{Booted, Connect, Keeper, KeeperKind, Lab, Machine, OneOff, Pid1, Visit};
pub(crate) use maintenance::MaintenanceCommand;

use crate::candidates;
use clap::{Parser, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use gaiola_model::proxy_file::AccessLog;
use gaiola_model::secret::SecretName;
use gaiola_model::{ServerName, SiteName, Tier};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The orders of `proxy ctl`.
pub(crate) const CTL_HELP: &str = "\
Orders:
  show servers                              state, weight, sessions and check of each server
  show stat                                 totals of frontends, backends and servers
  show sessions                             clients' connections and their state
  show limits                               rate and concurrency limits
  set weight BACKEND/SERVER N               0 to 256
  drain BACKEND/SERVER                      no new sessions except those whose cookie names it
  ready BACKEND/SERVER                      takes traffic again
  maint BACKEND/SERVER                      no traffic and no checks
  shutdown sessions server BACKEND/SERVER   closes its sessions at once
  clear limit NAME [KEY]                    resets all counts, or those of an address, path or value
As in HAProxy: enable server B/S, disable server B/S, set server B/S state ready|drain|maint,
set server B/S weight N.";

/// From one server to a fault-tolerant infrastructure: balancers, web, app and database tiers from one file.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 file invalid, 4 degraded, 5 timeout, 7 another change in progress, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "gaiola", version, propagate_version = true)]
pub(crate) struct Args {
    /// Options that every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// The site's name, if there is no file.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) site: Option<SiteName>,
    /// Ask the site by way of this machine, as ssh takes its name; with --site no file is needed.
    #[arg(long, global = true, value_name = "HOST")]
    pub(crate) machine: Option<String>,
    /// Print JSON for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print less.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Do irreversible things without asking.
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// The longest to wait, such as 90s or 5m.
    #[arg(long, global = true, value_name = "SPAN", default_value = "5m", value_parser = span)]
    pub(crate) timeout: Duration,
    /// No colour.
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a first file: for machines, or for a lab on this computer.
    Init(Init),
    /// Check the file and report every mistake in it.
    Check(SiteFile),
    /// Show what `up` would change.
    Plan(SiteFile),
    /// Bring the site up, or apply changes in its file.
    Up(Up),
    /// Bring the site down; its data stays, unless --purge removes all of it.
    Down(Down),
    /// Show every server, who holds the VIPs and the primary, and what may still fail.
    Status(SiteFile),
    /// Show the status page, in the browser if there is one; of a site on machines until an interrupt.
    Open(Open),
    /// Show what happened.
    Events(Events),
    /// Change the size of tiers: `web=3`, `app=2x4` (servers x instances).
    Scale(Scale),
    /// Give the place of a machine that is lost for good to a spare one.
    Replace(Replace),
    /// Take a server out of traffic; no request is lost.
    Drain(Drain),
    /// Return a server to traffic.
    Undrain(Drain),
    /// Replace instances with new ones of the same release, one at a time; no request is lost.
    Restart(Restart),
    /// Put out the site's directory and file on a site that is up: as `up`, which founds the site too.
    Deploy(SiteFile),
    /// Go back to an earlier release: its contents, commands, variables, workers and crons.
    Rollback(Rollback),
    /// List the last releases: when, by whom, how each came up, and which one serves.
    Releases(SiteFile),
    /// Have all balancers answer 503 at once, except to the networks that are allowed, or end that.
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Set, list and remove secrets: values that variables of the file refer to as {secret.NAME}.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Cut a server's power, or switch it on.
    Power(Power),
    /// Run a command on every machine, one at a time: drained before, and whole again after it.
    Roll(Roll),
    /// Run this version of Gaiola on the site's machines, one at a time.
    Upgrade(SiteFile),
    /// Show what the processes wrote.
    Logs(Logs),
    /// Run a command on a server.
    Exec(Exec),
    /// Run a command once as the site's processes run: in the release that serves, with their environment, as their user.
    Run(Run),
    /// Rehearse a failure under load and measure what it costs.
    Drill(Drill),
    /// Look at the machines that the file names, and change nothing: whether `up` could succeed.
    Doctor(SiteFile),
    /// Print the completion script of a shell.
    Completion(Completion),
    /// Print the manual page gaiola(1).
    #[command(hide = true)]
    Man,
    /// Standard input and output as a connection to a site's control socket.
    #[command(hide = true)]
    Connect(Connect),
    /// The lab: every server as namespaces of this machine.
    #[command(hide = true)]
    Lab(Lab),
    /// The site's process on a machine, and what makes a machine part of a site.
    #[command(subcommand, hide = true)]
    Machine(Machine),
    /// A client of a drill, in the network of a process.
    #[command(hide = true)]
    Visit(Visit),
    /// What `run` runs on a server.
    #[command(hide = true)]
    OneOff(OneOff),
    /// Pid 1 of a lab server.
    #[command(hide = true)]
    Pid1(Pid1),
    /// The agent of a server.
    #[command(hide = true)]
    Agent(Booted),
    /// A keeper of a server.
    #[command(hide = true)]
    Keeper(Keeper),
    /// Run a standalone load balancer from a file of frontends, routes, backends and servers, or query a running one.
    Proxy(Proxy),
}

/// The file that describes the site.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SiteFile {
    /// The site's file.
    #[arg(short, long, default_value = "gaiola.toml", value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The file to write, which must not exist; its directory is the site's.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// The machines, as ssh takes their names; without any the file is for a lab on this computer.
    #[arg(long, value_name = "HOST,...", value_delimiter = ',', num_args = 1..)]
    pub(crate) machines: Option<Vec<String>>,
    /// Virtual addresses that clients use, on machines: addresses of the balancers' network that no host has.
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',', num_args = 1..)]
    pub(crate) vips: Vec<String>,
    /// The command that starts the site's process, which listens on $HOST:$PORT [default: `web` of the Procfile].
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) run: Option<String>,
    /// The command that runs once for each release [default: `release` of the Procfile].
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) release: Option<String>,
    /// The site needs no PostgreSQL.
    #[arg(long)]
    pub(crate) no_database: bool,
}

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// Leave the site running and return; `gaiola down` stops it.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The site's address on this machine; it cannot change while the site is up [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) front_door: Option<SocketAddr>,
    /// The status page's address on this machine; it cannot change either [default: 127.0.0.1:7070].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) page: Option<SocketAddr>,
}

/// Arguments of `down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// Then remove everything of the site, its data too: every machine is left as it was before, packages aside.
    #[arg(long)]
    pub(crate) purge: bool,
}

/// Arguments of `replace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Replace {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// The machine that is lost, or a server on it: all of its servers move.
    #[arg(value_name = "SERVER|MACHINE", add = ArgValueCandidates::new(candidates::replaceable))]
    pub(crate) what: String,
    /// The spare machine that takes its place [default: the first].
    #[arg(value_name = "SPARE", add = ArgValueCandidates::new(candidates::spare))]
    pub(crate) onto: Option<String>,
}

/// Arguments of `open`.
#[derive(Debug, clap::Args)]
pub(crate) struct Open {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// Print the address only.
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// The page's address on this computer, for a site on machines [default: 127.0.0.1:7070, or a free port if that is taken].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) page: Option<SocketAddr>,
}

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// Print new events as they happen.
    #[arg(long)]
    pub(crate) follow: bool,
    /// How many events to print, from the end.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) last: usize,
}

/// Arguments of `scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// What to scale: TIER=N counts servers, app=NxM servers and the instances on each, TIER=+MACHINE adds one on a
    /// spare machine.
    #[arg(required = true, value_name = "TIER=N", add = ArgValueCandidates::new(candidates::sizes))]
    pub(crate) to: Vec<String>,
}

/// Arguments of `drain` and `undrain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// The server, such as web2.
    #[arg(add = ArgValueCandidates::new(candidates::servers))]
    pub(crate) server: ServerName,
}

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// The release [default: the one before that is known to have served; see: gaiola releases].
    pub(crate) release: Option<u64>,
}

/// Arguments of `restart`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restart {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// `app`, or one application server, such as app1.
    #[arg(value_name = "app|SERVER", add = ArgValueCandidates::new(candidates::restarts))]
    pub(crate) what: String,
}

/// The commands of `secret`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret: its value is read from standard input, or typed and not shown. What uses it is replaced, one at a time.
    Set {
        /// The site's file.
        #[command(flatten)]
        of: SiteFile,
        /// Its name: letters, digits and `_`.
        name: SecretName,
    },
    /// List the secrets: names, who set them, what uses them. No values.
    List {
        /// The site's file.
        #[command(flatten)]
        of: SiteFile,
    },
    /// Remove a secret that nothing uses.
    Unset {
        /// The site's file.
        #[command(flatten)]
        of: SiteFile,
        /// Its name.
        name: SecretName,
    },
}

/// Arguments of `power`.
#[derive(Debug, clap::Args)]
pub(crate) struct Power {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// Cut the power at once, as if the plug were pulled, or switch it on.
    pub(crate) state: PowerState,
    /// The server, such as app1.
    #[arg(add = ArgValueCandidates::new(candidates::servers))]
    pub(crate) server: ServerName,
}

/// Whether a server has power.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum PowerState {
    /// Switch it on.
    On,
    /// Cut it.
    Off,
}

/// Arguments of `drill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Drill {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// `kill SERVER[/PROCESS]`, `power SERVER` (cable and processes), `stop SERVER`; for a span, while the server keeps running:
    /// `cut SERVER[,SERVER]` (from all others), `mute SERVER` (it receives but cannot send), `deaf SERVER` (it sends but cannot receive),
    /// `freeze SERVER[/PROCESS]`, `fill SERVER` (its disk, if no other server shares it);
    /// or `all`. SERVER may be `primary` or `standby`. PROCESS is one of proxy, keeper, agent, app, postgres, patroni, etcd.
    #[arg(required = true, num_args = 1..=2, value_name = "WHAT", add = ArgValueCandidates::new(candidates::drills))]
    pub(crate) what: Vec<String>,
    /// How long a fault lasts if the server keeps running.
    #[arg(long = "for", value_name = "SPAN", default_value = "30s", value_parser = span)]
    pub(crate) hold: Duration,
    /// With `all`: the faults that leave a server running, instead of every loss of a process or server.
    #[arg(long)]
    pub(crate) faults: bool,
}

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The site's file.
    #[arg(long, default_value = "gaiola.toml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print new lines as they are written.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// This tier's servers only.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::tiers))]
    pub(crate) tier: Option<Tier>,
    /// This server only.
    #[arg(short = 'n', long, add = ArgValueCandidates::new(candidates::servers))]
    pub(crate) server: Option<ServerName>,
    /// How many lines of each process, from the end.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) last: usize,
    /// Also show the output of Gaiola's own processes, etcd, Patroni and PostgreSQL.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// The server, such as db1.
    #[arg(add = ArgValueCandidates::new(candidates::servers))]
    pub(crate) server: ServerName,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// The application server that it runs on [default: the first that serves].
    #[arg(short = 'n', long, add = ArgValueCandidates::new(candidates::servers))]
    pub(crate) server: Option<ServerName>,
    /// The command and its arguments [default: a shell].
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// Arguments of `roll`.
#[derive(Debug, clap::Args)]
pub(crate) struct Roll {
    /// The site's file.
    #[command(flatten)]
    pub(crate) of: SiteFile,
    /// Only the machines of these tiers and servers, and these machines [default: all].
    #[arg(value_name = "TIER|SERVER|MACHINE", add = ArgValueCandidates::new(candidates::rolls))]
    pub(crate) what: Vec<String>,
    /// Restart each machine after the command.
    #[arg(long)]
    pub(crate) reboot: bool,
    /// The command and its arguments; it runs as root, without a terminal.
    #[arg(last = true, required_unless_present = "reboot")]
    pub(crate) command: Vec<String>,
}

/// Arguments of `completion`.
#[derive(Debug, clap::Args)]
pub(crate) struct Completion {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// Arguments of the data plane. Within a cluster the agent starts it, with the hidden ones.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["file", "control"])))]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Proxy {
    /// An operation on a running proxy.
    #[command(subcommand)]
    pub(crate) command: Option<ProxyCommand>,
    /// What to serve (docs/proxy.md); SIGHUP rereads it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Validate the file and exit.
    #[arg(short, long, requires = "file")]
    pub(crate) check: bool,
    /// The socket that accepts configurations.
    #[arg(long, hide = true, requires = "admin")]
    pub(crate) control: Option<PathBuf>,
    /// The address that serves metrics and health.
    #[arg(long, hide = true, conflicts_with = "file")]
    pub(crate) admin: Option<SocketAddr>,
    /// The VIP keeper's socket.
    #[arg(long, hide = true, conflicts_with = "file")]
    pub(crate) keeper: Option<PathBuf>,
    /// Where requests are logged.
    #[arg(long, hide = true, conflicts_with = "file")]
    pub(crate) access_log: Option<PathBuf>,
    /// The same with a target and a format, as JSON.
    #[arg(long, hide = true, conflicts_with_all = ["file", "access_log"], value_parser = access_log_as)]
    pub(crate) access_log_as: Option<AccessLog>,
    /// Take over from the process that answers on the control socket.
    #[arg(long, hide = true, requires = "control")]
    pub(crate) take_over: bool,
}

fn access_log_as(text: &str) -> Result<AccessLog, serde_json::Error> {
    serde_json::from_str(text)
}

/// Operations on a running proxy.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Query a running proxy, or change its servers until its next configuration.
    Ctl(Ctl),
}

/// Arguments of `proxy ctl`.
#[derive(Debug, clap::Args)]
#[command(after_help = CTL_HELP)]
pub(crate) struct Ctl {
    /// The proxy's control socket: `control` of its file, or proxy.sock in the run directory of a cluster's server: /run/gaiola
    /// in the lab, /run/gaiola/SERVER on a machine.
    #[arg(long, value_name = "PATH", env = "GAIOLA_PROXY_SOCKET")]
    pub(crate) socket: PathBuf,
    /// A query or a change, in HAProxy's terms.
    #[arg(required = true, value_name = "ORDER", allow_negative_numbers = true)]
    pub(crate) order: Vec<String>,
}

/// Why a span of time cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SpanError {
    #[error("{0:?} does not begin with a number")]
    NoNumber(String),
    #[error("{0:?} is not a unit of time; use ms, s, m or h")]
    Unit(String),
}

/// Reads `90s`, `5m`, `1h` or `500ms`.
fn span(text: &str) -> Result<Duration, SpanError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| SpanError::NoNumber(text.into()))?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        unit => Err(SpanError::Unit(unit.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    /// What the unit of the package runs.
    #[test]
    fn the_packaged_unit_runs_commands_that_there_are() {
        let unit = include_str!("../../../packaging/gaiola-proxy.service");
        let commands = unit.lines().filter_map(|line| {
            let (key, command) = line.split_once('=')?;
            let is_own = key.starts_with("Exec") && command.starts_with("/usr/bin/gaiola ");
            is_own.then_some(command)
        });
        let commands: Vec<_> = commands
            .map(|command| Args::try_parse_from(command.split(' ')).map(|args| args.command))
            .collect();
        assert_eq!(commands.len(), 2);
        for command in commands {
            assert!(matches!(command, Ok(Command::Proxy(_))), "{command:?}");
        }
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("5m"), Ok(Duration::from_secs(300)));
        assert!(span("five").is_err() && span("5d").is_err());
    }
}
