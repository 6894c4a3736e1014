//! `gaiola up` on machines: looks at them, prepares them all at once, and then changes the site as in the lab.
//!
//! Every step may be repeated: one that is done already costs a look. Whatever fails leaves what ran before running.

mod identity;
mod leaving;
pub(crate) mod lock;
mod packages;
pub(crate) mod program;

use crate::args::{Global, Up};
use crate::change::{deploy, refuse, show};
use crate::connect::{Ping, SiteClient};
use crate::deploy::Local;
use crate::doctor::{examine, findings};
use crate::machines::{Machines, PROGRAM, resolved};
use crate::output::{self, Exit};
use crate::purge;
use anyhow::bail;
use gaiola_control::api::schema::Mismatch;
use gaiola_control::ssh::{Script, Ssh};
use gaiola_core::doctor::{self, Examined, Finding, Severity};
use gaiola_model::config::{BalancerTls, Machine};
use gaiola_model::inventory::Host;
use gaiola_model::schema::SCHEMA;
use gaiola_model::status::Status;
use gaiola_model::{Config, SiteName};
use leaving::Running;
use program::Program;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Until the machines' processes answer once they were started.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(300);

/// Brings a site up on its machines, or makes it what its file says now.
pub(crate) fn up(global: &Global, up: &Up, config: Config) -> anyhow::Result<Exit> {
    if up.front_door.is_some() || up.page.is_some() {
        bail!("--front-door and --page belong to the lab; machines serve the VIPs of the file");
    }
    let (config, machines) = resolved(config)?;
    let mut local = match Local::read(global, config, &up.of) {
        Ok(local) => local,
        Err(error) => return refuse(global, &error),
    };
    let runtime = crate::runtime::runtime()?;
    let config = local.config.clone();
    let install = Install {
        global,
        started: Instant::now(),
        config: &config,
    };
    let running = match install.running(&machines) {
        Ok(running) => running,
        Err(mismatch) => return refuse(global, &mismatch.into()),
    };
    let file = machines.clone();
    let mut examined = runtime.block_on(examine(&config, &machines));
    let found = findings(&config, &examined, &install.known(&running));
    if !install.is_ready(&found) {
        return refuse(
            global,
            &anyhow::anyhow!("the machines cannot carry the site yet"),
        );
    }
    let machines = machines.only(|host| matches!(examined.get(host), Some(Examined::Facts(_))));
    let placed: BTreeSet<Host> = running.placed().collect();
    let serving = machines.only(|host| running.is_up && placed.contains(host));
    if let Err(error) = runtime.block_on(install.is_of_this_version(&serving)) {
        return refuse(global, &error);
    }
    let mut lock = match runtime.block_on(lock::take(&machines, "gaiola up")) {
        Ok(lock) => lock,
        Err(error) => return refuse(global, &error),
    };
    lock.still_held()?;
    local.emptied = runtime.block_on(install.empty_back(&running, &machines))?;
    // What was seen there is there no more.
    examined.retain(|host, _| !local.emptied.contains(&host.0));
    runtime.block_on(install.prepare(&machines, &examined, &mut lock))?;
    let client = install.wait(&machines, &runtime)?;
    lock.still_held()?;
    let tls = config.speaks_tls();
    let exit = deploy(global, &client, local)?;
    if exit == Exit::Ok {
        lock.still_held()?;
        let empty = leaving::empty_gone(&config.site, &running, &client, &file);
        for line in client.runtime.block_on(empty)? {
            show(global, install.started, &line);
        }
    }
    if exit == Exit::Ok && !global.json && !global.quiet {
        print_line!("\n{} is up", client.site);
        for entry in entries(&client.get("/status")?, tls) {
            print_line!("  the site      {entry}");
        }
        print_line!("  its status    gaiola status  (its page: gaiola open)");
    }
    Ok(exit)
}

/// Where clients enter the site.
fn entries(status: &Status, tls: bool) -> Vec<String> {
    let https = BalancerTls::PORT;
    let doors = status.doors.iter();
    let served = doors.filter(|door| !tls || door.port() == https);
    let entry = |door: &SocketAddr| match (tls, door.port(), door.ip()) {
        (false, 80, IpAddr::V4(ip)) => format!("http://{ip}/"),
        (true, _, IpAddr::V4(ip)) => format!("https://{ip}/"),
        (true, ..) => format!("https://{door}/"),
        (false, ..) => format!("http://{door}/"),
    };
    served.map(entry).collect()
}

/// What a site answered, if it did; an error only where a newer program runs it. An older one is what an `up` may exchange.
fn understood<T>(answer: anyhow::Result<T>) -> Result<Option<T>, Mismatch> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.downcast::<Mismatch>() {
            Ok(Mismatch::SiteTooOld { .. }) | Err(_) => Ok(None),
            Ok(newer) => Err(newer),
        },
    }
}

/// An older program cannot read what a newer one has written.
const fn not_older(site: u64, command_line: u64) -> Result<(), Mismatch> {
    if site > command_line {
        return Err(Mismatch::WouldInstallOlder { site, command_line });
    }
    Ok(())
}

struct Install<'a> {
    global: &'a Global,
    started: Instant,
    config: &'a Config,
}

impl Install<'_> {
    /// The site as it runs.
    ///
    /// # Errors
    /// Where a newer program runs the site than this one may talk to: nothing may be installed over that.
    fn running(&self, machines: &Machines) -> Result<Running, Mismatch> {
        let running = SiteClient::on_machines(self.config.site.clone(), machines);
        let Some(client) = running.ok().flatten() else {
            return Ok(Running::default());
        };
        let status = understood(client.get::<Status>("/status"))?;
        not_older(client.schema().unwrap_or(SCHEMA), SCHEMA)?;
        let machines = client.get("/machines").unwrap_or_default();
        Ok(Running {
            is_up: client.ping() == Some(Ping::Up),
            machines,
            status,
        })
    }

    /// The machines that the running site counts on and can do without for a while, and those that it does without.
    fn known(&self, running: &Running) -> Vec<Host> {
        let spare = self.config.machines.iter().flat_map(|all| &all.spare);
        let placed = running.placed().chain(running.lost());
        placed.chain(spare.map(Machine::host)).collect()
    }

    /// Machines that were replaced and are back: they are new ones once they are empty.
    async fn empty_back(
        &self,
        running: &Running,
        machines: &Machines,
    ) -> anyhow::Result<Vec<String>> {
        let back = running.back(machines);
        if back.is_empty() {
            return Ok(Vec::new());
        }
        let staying = machines.only(|host| !back.contains(host));
        let authority = purge::authority_stays(&self.config.site, &staying).await?;
        let back = machines.only(|host| back.contains(host));
        let emptied = purge::empty(
            &self.config.site,
            &back,
            purge::Running::Left,
            Some(&authority),
        )
        .await;
        for line in emptied.lines() {
            let line = format!("{line}; it was replaced, and is a new machine now");
            show(self.global, self.started, &line);
        }
        for why in &emptied.left {
            show(self.global, self.started, &format!("not emptied: {why}"));
        }
        let done = emptied.done.into_iter();
        Ok(done.map(|(host, _)| host.0).collect())
    }

    /// Refuses to exchange the program below servers that run, all at once.
    async fn is_of_this_version(&self, serving: &Machines) -> anyhow::Result<()> {
        let own = Program::own()?;
        let mut others: Vec<String> = Vec::new();
        for (host, version) in serving.all_succeed(program::version_on).await? {
            if let Some(version) = version.filter(|version| version != own.version()) {
                others.push(format!("{host} runs gaiola {version}"));
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        bail!(
            "{}, and this is {}: exchange it first, one machine at a time, with: gaiola upgrade",
            others.join(", "),
            own.version()
        )
    }

    /// Shows what is to be known, and returns whether `up` can succeed.
    fn is_ready(&self, found: &[Finding]) -> bool {
        let ready = doctor::is_ready(found);
        let told: Vec<Finding> = found
            .iter()
            .filter(|it| it.severity > Severity::Fine)
            .cloned()
            .collect();
        if !(ready && self.global.quiet) {
            output::eprint(&doctor::render(&told));
        }
        ready
    }

    fn say(&self, host: &Host, text: &str) {
        show(self.global, self.started, &format!("{host}: {text}"));
    }

    /// Everything that a machine needs before its process can answer.
    async fn prepare(
        &self,
        machines: &Machines,
        examined: &BTreeMap<Host, Examined>,
        lock: &mut lock::Lock,
    ) -> anyhow::Result<()> {
        let program = Program::own()?;
        let mut changed: BTreeMap<Host, bool> = BTreeMap::new();
        let packages = machines.all_succeed(|ssh| {
            let script = packages::script(self.config, ssh.host());
            async move { packages::install(&ssh, &script).await }
        });
        for (host, installed) in packages.await? {
            if !installed.is_empty() {
                self.say(&host, &format!("installed {installed}"));
            }
        }
        lock.still_held()?;
        let sent = machines.all_succeed(|ssh| {
            let program = program.clone();
            async move { program.send(&ssh).await }
        });
        for (host, sent) in sent.await? {
            if sent {
                self.say(&host, &format!("has gaiola {}", program.version()));
            }
            changed.insert(host, sent);
        }
        lock.still_held()?;
        for host in identity::establish(self.config, machines, examined).await? {
            self.say(&host, "has a certificate of the site");
            changed.insert(host, true);
        }
        lock.still_held()?;
        let started = machines.all_succeed(|ssh| {
            let restart = changed.get(ssh.host()).copied().unwrap_or(false);
            let script = start_script(&self.config.site, restart);
            async move { ssh.run(&Script::new("start gaiola-machine", script)).await }
        });
        for (host, started) in started.await? {
            if started.trim() == "started" {
                self.say(&host, "gaiola-machine started");
            }
        }
        Ok(())
    }

    /// Until the site's processes answer.
    fn wait(
        &self,
        machines: &Machines,
        runtime: &tokio::runtime::Runtime,
    ) -> anyhow::Result<SiteClient> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let found = SiteClient::on_machines(self.config.site.clone(), machines)?;
            // A site that was brought down comes up with the change.
            if let Some(client) = found
                && matches!(client.ping(), Some(Ping::Up | Ping::Down))
            {
                return Ok(client);
            }
            if Instant::now() >= deadline {
                let why = runtime.block_on(machines.at_once(last_words));
                let why: Vec<String> = why.into_iter().map(|(_, words)| words).collect();
                bail!("gaiola-machine does not answer:\n{}", why.join("\n"));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Has the units written by the program that they name, and sees that the machine's process runs; prints `started` unless it did, with
/// these units and this program.
fn start_script(site: &SiteName, restart: bool) -> String {
    format!(
        "set -eu; units() {{ cat /etc/systemd/system/gaiola-*.service 2>/dev/null | sha256sum; }}; \
         before=$(units); {PROGRAM} machine units {site}; how=start; \
         if [ \"$(units)\" != \"$before\" ]; then systemctl daemon-reload; how=restart; fi; \
         if {restart}; then how=restart; fi; \
         systemctl enable --quiet gaiola-machine.service; \
         if [ $how = start ] && systemctl is-active --quiet gaiola-machine; then exit 0; fi; \
         systemctl $how gaiola-machine.service; echo started"
    )
}

async fn last_words(ssh: Ssh) -> String {
    let host = ssh.host().clone();
    let script = "systemctl is-active gaiola-machine || true; journalctl -u gaiola-machine -n 3 -o cat --no-pager";
    let said = ssh.run(&Script::new("read the journal", script)).await;
    said.map_or_else(
        |error| error.to_string(),
        |said| format!("{host}: {}", said.trim().replace('\n', "; ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_a_newer_program_runs_gets_no_older_one() {
        let newer = Mismatch::CommandLineTooOld {
            site: 9,
            command_line: 7,
        };
        assert_eq!(understood::<()>(Err(newer.into())), Err(newer));
        let older = Mismatch::SiteTooOld {
            site: 6,
            command_line: 7,
        };
        assert_eq!(understood::<()>(Err(older.into())), Ok(None));
        assert_eq!(not_older(7, 7), Ok(()));
        let why = not_older(8, 7).unwrap_err().to_string();
        assert!(why.contains("would take its place"), "{why}");
        let silent = anyhow::anyhow!("does not answer");
        assert_eq!(understood::<()>(Err(silent)), Ok(None));
        assert_eq!(understood(Ok(1)), Ok(Some(1)));
    }
}
