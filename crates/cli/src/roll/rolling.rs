//! One machine after another: set aside, worked on, whole again, taken back.

use super::exchange::Exchange;
use super::{RunningSite, command, interruption, not_agreed, reboot, store};
use crate::answer;
use crate::args::Global;
use crate::change::{follow, refuse, show};
use crate::deploy::Busy;
use crate::install::lock;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::Change;
use gaiola_control::ssh::Ssh;
use gaiola_core::roll::{Before, Ended, Failed, Stage, Turn, Whole, missing};
use gaiola_model::Time;
use gaiola_model::placement::Aside;
use gaiola_model::status::Status;
use gaiola_net::client::Request;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

const POLL: Duration = Duration::from_millis(500);
/// For how long nothing may be missing: a process that has ended is missed once it has not answered for two and a half seconds.
const CALM: Duration = Duration::from_secs(4);
/// The same where nothing has ended.
const SHORT_CALM: Duration = Duration::from_secs(1);
/// The longest until a machine that failed is whole, so that it can be taken back.
const RECOVERY: Duration = Duration::from_secs(60);
/// Between two attempts to take the lock of a machine that has restarted.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
const LOCK_ATTEMPTS: u32 = 10;

/// What is to be done.
pub(super) struct Plan {
    /// The command, for whoever finds a machine set aside or locked.
    pub(super) doing: &'static str,
    /// The command line to go on with: what comes before the machines,
    pub(super) again: String,
    /// and after them; `None`: it names none.
    pub(super) then: Option<String>,
    pub(super) turns: Vec<Turn>,
    /// How the site is before it begins.
    pub(super) status: Status,
}

/// What is done at each machine's turn.
pub(super) enum Work {
    /// A command, or a restart, or both.
    Command { words: Vec<String>, reboot: bool },
    /// Another version of Gaiola.
    Exchange(Exchange),
}

/// Agrees with the operator that the site may be interrupted, where it is.
pub(super) fn agree(global: &Global, turns: &[Turn]) -> anyhow::Result<()> {
    let Some(why) = interruption(turns).filter(|_| !global.yes) else {
        return Ok(());
    };
    if !answer::is_possible() {
        return not_agreed(&why);
    }
    match answer::to(&format!("{why}\nGo on? [y/N]"))?.as_deref() {
        Some("y" | "yes") => Ok(()),
        _ => not_agreed(&why),
    }
}

/// Turns of a site that is locked for them.
pub(super) struct Rolling<'a> {
    global: &'a Global,
    started: Instant,
    site: RunningSite,
    plan: Plan,
    before: Before,
    locks: Vec<lock::Lock>,
    /// Whether something was done to the machine whose turn it is.
    begun: bool,
    /// Whether it may be set aside: it was asked for, and the site has not refused.
    asked: bool,
    /// Whether a command or a restart that began there may still be under way.
    under_way: bool,
}

/// What a failed turn has left.
struct Stopped {
    exit: Exit,
    why: String,
    aside: bool,
}

impl<'a> Rolling<'a> {
    /// Connects to the machines, and locks them.
    pub(super) fn start(
        global: &'a Global,
        mut site: RunningSite,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        site.connect(&plan.status)?;
        Ok(Self {
            global,
            started: Instant::now(),
            before: Before::of(&plan.status),
            site,
            plan,
            locks: Vec::new(),
            begun: false,
            asked: false,
            under_way: false,
        })
    }

    /// Gives each machine its turn, and says how it ended.
    pub(super) fn run(mut self, work: &Work) -> anyhow::Result<Exit> {
        // The client's connections live on its own runtime: on another one no answer would be read.
        let idle = crate::runtime::runtime()?;
        let runtime = std::mem::replace(&mut self.site.client.runtime, idle);
        match runtime.block_on(self.site.lock(self.plan.doing)) {
            Ok(lock) => self.locks.extend(lock),
            Err(error) if error.downcast_ref::<Busy>().is_some() => {
                return refuse(self.global, &error);
            }
            Err(error) => return Err(error),
        }
        let (exit, ended) = runtime.block_on(self.all(work))?;
        if self.global.json {
            print_line!("{:#}", as_json(&ended));
        } else if exit == Exit::Ok && !self.global.quiet {
            show(self.global, self.started, &ended.to_string());
        } else if exit != Exit::Ok {
            eprint_line!("gaiola: {ended}");
        }
        Ok(exit)
    }

    async fn all(&mut self, work: &Work) -> anyhow::Result<(Exit, Ended)> {
        let mut interrupted = Interrupts::new()?;
        let mut ended = Ended {
            again: self.plan.again.clone(),
            then: self.plan.then.clone(),
            ..Ended::default()
        };
        let turns = std::mem::take(&mut self.plan.turns);
        if let Work::Exchange(exchange) = work {
            self.say_all(&exchange.send(self.site.machines.as_ref()).await?);
        }
        for (place, turn) in turns.iter().enumerate() {
            match self.turn(turn, work, &mut interrupted).await {
                Ok(()) => ended.done.push(turn.host.clone()),
                Err(stopped) => {
                    let left = turns.iter().skip(place + 1);
                    ended.left = left.map(|turn| turn.host.clone()).collect();
                    ended.failed = Some(Failed {
                        host: turn.host.clone(),
                        why: stopped.why,
                        aside: stopped.aside,
                    });
                    return Ok((stopped.exit, ended));
                }
            }
        }
        Ok((Exit::Ok, ended))
    }

    async fn turn(
        &mut self,
        turn: &Turn,
        work: &Work,
        interrupted: &mut Interrupts,
    ) -> Result<(), Stopped> {
        let done = tokio::select! {
            done = self.try_turn(turn, work) => done,
            () = interrupted.recv() => Err((Exit::Interrupted, "interrupted".into())),
        };
        let Err((exit, why)) = done else {
            return Ok(());
        };
        self.say(turn, &format!("stops: {why}"));
        let recovered = tokio::select! {
            recovered = self.recover(turn, work) => recovered,
            () = interrupted.recv() => Err(anyhow::anyhow!("interrupted")),
        };
        let aside = recovered.is_err();
        let why = match recovered {
            Ok(()) => why,
            Err(error) => format!("{why}; it could not be taken back: {error:#}"),
        };
        Err(Stopped { exit, why, aside })
    }

    async fn try_turn(&mut self, turn: &Turn, work: &Work) -> Result<(), (Exit, String)> {
        let failed = |error: anyhow::Error| (Exit::Failed, format!("{error:#}"));
        (self.begun, self.asked, self.under_way) = (false, false, false);
        self.holds_lock().map_err(failed)?;
        self.avoid(turn).await.map_err(failed)?;
        self.may_begin(turn).await?;
        let is_set_aside = !turn.drain.is_empty() || matches!(work, Work::Command { .. });
        if is_set_aside && !turn.servers.is_empty() {
            self.set_aside(turn).await.map_err(failed)?;
        }
        self.holds_lock().map_err(failed)?;
        self.begun = true;
        let calm = match work {
            Work::Command { words, reboot } => {
                self.under_way = true;
                self.command(turn, words).await?;
                if *reboot {
                    self.holds_lock().map_err(failed)?;
                    self.under_way = true;
                    let restarted = self.reboot(turn).await;
                    self.under_way = restarted.as_ref().is_err_and(|e| !reboot::was_refused(e));
                    restarted.map_err(failed)?;
                }
                self.under_way = false;
                if *reboot { CALM } else { SHORT_CALM }
            }
            Work::Exchange(exchange) => {
                let ssh = self.ssh(turn).map_err(failed)?;
                exchange.begin(&ssh, turn).await.map_err(failed)?;
                self.say(turn, &format!("runs gaiola {}", exchange.version()));
                CALM
            }
        };
        let limit = self.global.timeout;
        let late = |why| (Exit::Timeout, why);
        self.whole(turn, Stage::Aside, calm, limit)
            .await
            .map_err(late)?;
        self.holds_lock().map_err(failed)?;
        self.take_back(turn).await.map_err(failed)?;
        let whole = self.whole(turn, Stage::Back, SHORT_CALM, limit);
        whole.await.map_err(late)?;
        self.say(turn, "is whole");
        Ok(())
    }

    /// Returns a machine to traffic after its turn has failed: where nothing was done to it, or it is whole; with the version before,
    /// where that was exchanged.
    async fn recover(&mut self, turn: &Turn, work: &Work) -> anyhow::Result<()> {
        if self.holds_lock().is_err() {
            if !self.begun && !self.asked {
                return Ok(());
            }
            bail!("the lock is lost, and another operator may work on it");
        }
        if !self.begun {
            return self.take_back(turn).await;
        }
        if self.under_way {
            bail!("what began there may still be under way");
        }
        if let Work::Exchange(exchange) = work {
            // What is not known may be newer than the version before reads.
            let documents = self.status().await.map(|status| status.documents);
            let ssh = self.ssh(turn)?;
            let back = exchange.end(&ssh, turn, documents.unwrap_or(u64::MAX));
            let back = back.await?;
            self.say(turn, &back);
        }
        let whole = self.whole(turn, Stage::Aside, CALM, RECOVERY).await;
        whole.map_err(|why| anyhow::anyhow!(why))?;
        self.take_back(turn).await
    }

    async fn set_aside(&mut self, turn: &Turn) -> anyhow::Result<()> {
        let names: Vec<String> = turn.drain.iter().map(ToString::to_string).collect();
        self.say(
            turn,
            &match names.as_slice() {
                [] => "is set aside".to_string(),
                names => format!("is set aside: {}", names.join(", ")),
            },
        );
        let aside = Aside {
            host: turn.host.clone(),
            servers: turn.drain.clone(),
            by: lock::owner(self.plan.doing),
        };
        self.asked = true;
        self.change(Change::SetAside(aside)).await
    }

    /// Where it was asked for, the site may still be about to set it aside, whatever its status says: it carries out one change after
    /// another.
    async fn take_back(&mut self, turn: &Turn) -> anyhow::Result<()> {
        let aside = self.status().await?.aside;
        let is_another = |aside: &Aside| aside.host != turn.host;
        if aside.as_ref().is_some_and(is_another) || (aside.is_none() && !self.asked) {
            return Ok(());
        }
        self.say(turn, "is taken back");
        let began = Instant::now();
        loop {
            match self.change(Change::TakeBack).await {
                Err(_) if began.elapsed() < RECOVERY => tokio::time::sleep(POLL).await,
                ended => return ended,
            }
        }
    }

    /// Much may have happened since the operator was asked, and the program was sent.
    async fn may_begin(&mut self, turn: &Turn) -> Result<(), (Exit, String)> {
        let failed = |error: anyhow::Error| (Exit::Failed, format!("{error:#}"));
        let status = self.status().await.map_err(failed)?;
        if let Some(other) = status.aside.filter(|aside| aside.host != turn.host) {
            let why = format!("{} is set aside by {}", other.host, other.by);
            return Err((Exit::ChangeUnderWay, why));
        }
        let kept = store::can_do_without(&self.site.client, turn).await;
        kept.map_err(|error| (Exit::Degraded, format!("{error:#}")))
    }

    /// Whether no other command can have begun meanwhile: where this computer slept, the lock was let go.
    fn holds_lock(&mut self) -> anyhow::Result<()> {
        lock::still_held(&mut self.locks)
    }

    async fn change(&mut self, change: Change) -> anyhow::Result<()> {
        // The state of every server after every change is no news here.
        let sparing = Global {
            quiet: !self.global.verbose,
            ..self.global.clone()
        };
        let outcome = follow(&sparing, &self.site.client, change, self.started).await?;
        if outcome.exit != Exit::Ok {
            bail!("{}", outcome.message);
        }
        Ok(())
    }

    async fn command(&mut self, turn: &Turn, words: &[String]) -> Result<(), (Exit, String)> {
        if words.is_empty() {
            return Ok(());
        }
        let failed = |error: anyhow::Error| (Exit::Failed, format!("{error:#}"));
        let command = match &self.site.machines {
            Some(_) => {
                let ssh = self.ssh(turn).map_err(failed)?;
                command::over_ssh(&ssh, words).await.map_err(failed)?
            }
            None => command::in_lab(&self.site.client.site, &turn.host, words).map_err(failed)?,
        };
        let ran = command::run(command, &turn.host, self.global.json).await;
        // `ssh` ends with 255 where it lost the machine; any other end is the command's own.
        self.under_way = ran.as_ref().is_err_and(command::may_be_under_way);
        ran.map_err(failed)
    }

    async fn reboot(&mut self, turn: &Turn) -> anyhow::Result<()> {
        self.say(turn, "restarts");
        match &self.site.machines {
            Some(machines) => {
                let ssh = self.ssh(turn)?;
                reboot::machine(&ssh).await?;
                if machines.iter().nth(1).is_some() {
                    lock::still_held(&mut self.locks)?;
                }
                let alone = machines.only(|host| *host == turn.host);
                self.locks.push(lock_again(&alone, self.plan.doing).await?);
            }
            None => reboot::in_lab(&self.site.client, &turn.servers).await?,
        }
        self.say(turn, "is back");
        Ok(())
    }

    /// Waits until nothing is missing; the error says what is.
    async fn whole(
        &mut self,
        turn: &Turn,
        stage: Stage,
        calm: Duration,
        limit: Duration,
    ) -> Result<(), String> {
        let began = Instant::now();
        let mut whole = Whole::new(calm);
        loop {
            let missing = match self.status().await {
                Ok(status) => {
                    let mut missing = missing(&status, turn, stage, &self.before);
                    missing.extend(store::missing(&self.site.client).await);
                    missing
                }
                Err(error) => vec![format!("the site's status: {error:#}")],
            };
            if whole.step(Time::from_start(began.elapsed()), &missing) {
                return Ok(());
            }
            if began.elapsed() >= limit && !missing.is_empty() {
                return Err(format!(
                    "it is not whole after {} s: {}",
                    limit.as_secs(),
                    missing.join("; ")
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn status(&mut self) -> anyhow::Result<Status> {
        let request = Request::get("/status");
        match (self.site.client.ask(&request).await, &self.site.machines) {
            (Err(_), Some(machines)) => {
                self.site.client.ask_by(machines).await?;
                self.site.client.ask(&request).await
            }
            (answer, _) => answer,
        }
    }

    /// Asks a machine for the site that has no turn now, where there is one.
    async fn avoid(&mut self, turn: &Turn) -> anyhow::Result<()> {
        let Some(machines) = &self.site.machines else {
            return Ok(());
        };
        let serves = |host: &gaiola_model::inventory::Host| {
            let mut servers = self.plan.status.servers.iter();
            *host != turn.host && servers.any(|server| server.location.host == *host)
        };
        let others = machines.only(serves);
        if others.iter().next().is_none() {
            return Ok(());
        }
        self.site.client.ask_by(&others).await
    }

    fn ssh(&self, turn: &Turn) -> anyhow::Result<Ssh> {
        let machines = self.site.machines.as_ref();
        let found = machines.and_then(|machines| machines.get(&turn.host));
        found
            .cloned()
            .with_context(|| format!("{} is no machine", turn.host))
    }

    fn say(&self, turn: &Turn, text: &str) {
        show(self.global, self.started, &format!("{}: {text}", turn.host));
    }

    fn say_all(&self, texts: &[String]) {
        for text in texts {
            show(self.global, self.started, text);
        }
    }
}

/// Ctrl-C, and what ends a program whose terminal or whose caller is gone.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn recv(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

/// Takes the lock of a machine that let it go when it restarted.
async fn lock_again(alone: &crate::machines::Machines, doing: &str) -> anyhow::Result<lock::Lock> {
    let mut attempt = 1;
    loop {
        match lock::take(alone, doing).await {
            Err(_) if attempt < LOCK_ATTEMPTS => attempt += 1,
            taken => return taken,
        }
        tokio::time::sleep(LOCK_AGAIN).await;
    }
}

fn as_json(ended: &Ended) -> serde_json::Value {
    let names = |hosts: &[gaiola_model::inventory::Host]| -> Vec<String> {
        hosts.iter().map(ToString::to_string).collect()
    };
    let failed = ended.failed.as_ref().map(|failed| {
        serde_json::json!({
            "machine": failed.host.to_string(), "why": failed.why, "aside": failed.aside,
        })
    });
    serde_json::json!({ "done": names(&ended.done), "failed": failed, "left": names(&ended.left) })
}
