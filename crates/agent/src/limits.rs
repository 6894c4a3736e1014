//! What processes of the site may use: each that the file limits has a control group.

use gaiola_model::config::Bytes;
use gaiola_model::{ServerName, SiteName};
use gaiola_os::cgroup::{Base, Group, Kills, LimitError, Limits};
use gaiola_os::process::Identity;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The processes of one server have their groups in one of this name, behind which the server's follows.
pub const GROUPS: &str = "gaiola-processes@";
/// One-off commands have groups of their own.
pub(crate) const ONE_OFF: &str = "run-";
/// A process that still runs this long after something of it was killed is not ending for that.
const STAYS: Duration = Duration::from_secs(1);
/// Between two attempts to set what did not hold.
const AGAIN: Duration = Duration::from_secs(1);

/// The groups of a server's processes, relative to the group that ours is in, and how many parts of it are other servers' too.
pub fn groups_of(site: &SiteName, server: ServerName) -> (PathBuf, usize) {
    let path = Path::new(&format!("gaiola@{site}")).join(format!("{GROUPS}{server}"));
    (path, 1)
}

/// Where an agent notes the groups of its server, for one-off commands.
pub(crate) fn note(run: &Path) -> PathBuf {
    run.join("groups.json")
}

/// The limits of the model as the system takes them.
pub(crate) fn of_system(limits: gaiola_model::config::Limits) -> Limits {
    Limits {
        memory: limits.memory,
        cpu: limits.cpu,
        tasks: limits.tasks,
    }
}

/// The groups of one server's processes.
pub(crate) struct Groups {
    name: PathBuf,
    above: usize,
    note: PathBuf,
    /// `None`: no process was limited so far.
    base: Option<Result<Base, String>>,
    wanted: BTreeMap<String, Limits>,
    held: BTreeMap<String, Held>,
    /// How often something was killed in the groups of one-off commands, as far as it was reported.
    one_offs: BTreeMap<String, u64>,
}

/// The group of a process.
struct Held {
    group: Group,
    set: Limits,
    set_at: Instant,
    /// Why limits do not hold, in words.
    missing: Vec<String>,
    /// Which process is in it.
    has: Option<Identity>,
    kills: Kills,
    /// Since when more were killed than are accounted for.
    killed_at: Option<Instant>,
}

/// Something of a process was killed for want of memory, and the process goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The process.
    pub(crate) name: String,
    /// Why, in words that follow it.
    pub(crate) why: String,
}

impl Groups {
    pub(crate) fn new(site: &SiteName, server: ServerName, run: &Path) -> Self {
        let (name, above) = groups_of(site, server);
        Self {
            name,
            above,
            note: note(run),
            base: None,
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
            one_offs: BTreeMap::new(),
        }
    }

    /// The limits of processes by their names, from now on. Those that have none are left out.
    pub(crate) fn want(&mut self, wanted: BTreeMap<String, Limits>) {
        if self.wanted == wanted {
            return;
        }
        self.wanted = wanted;
        if self.wanted.is_empty() || matches!(self.base, Some(Ok(_))) {
            return;
        }
        let base = Base::beside_own(&self.name).map_err(|error| gaiola_os::chain(&error));
        match &base {
            Ok(base) => {
                if let Err(error) = crate::state::write_json(&self.note, base) {
                    tracing::error!(%error, "cannot note the control groups for one-off commands");
                }
            }
            Err(why) => tracing::warn!(why, "limits of processes do not hold here"),
        }
        self.base = Some(base);
    }

    /// The ways into the group of a process that is about to start, which has its limits by then. None: it is not limited, or cannot be.
    pub(crate) fn entrances(&mut self, name: &str) -> Vec<OwnedFd> {
        let Some(limits) = self.wanted.get(name).copied() else {
            return Vec::new();
        };
        let Some(held) = self.hold(name) else {
            return Vec::new();
        };
        held.set(limits);
        held.group.entrances().unwrap_or_default()
    }

    /// Brings the groups to what is wanted, whatever runs, and returns what was killed.
    pub(crate) fn tick(&mut self, running: &BTreeMap<String, Identity>) -> Vec<Loss> {
        for (name, id) in running {
            let limits = self.wanted.get(name).copied();
            // One that has no limits any more stays in its group.
            if limits.is_some() || self.held.contains_key(name) {
                let Some(held) = self.hold(name) else {
                    continue;
                };
                held.set(limits.unwrap_or_default());
                held.take_in(*id);
            }
        }
        let gone: BTreeSet<String> = self.held.keys().cloned().collect();
        for name in gone.iter().filter(|name| !running.contains_key(*name)) {
            if !self.wanted.contains_key(name) {
                self.held.remove(name);
            }
        }
        let mut losses = self.losses_of_commands();
        if let Some(Ok(base)) = &self.base {
            base.prune(|name| self.held.contains_key(name));
        }
        let held = self.held.iter_mut();
        losses.extend(held.filter_map(|(name, held)| {
            let why = held.loss()?;
            let name = name.clone();
            Some(Loss { name, why })
        }));
        losses
    }

    /// What was killed of commands of `gaiola run`: nobody else may see why they ended.
    fn losses_of_commands(&mut self) -> Vec<Loss> {
        let Some(Ok(base)) = &self.base else {
            return Vec::new();
        };
        let names = base.names().into_iter();
        let killed = names.filter(|name| name.starts_with(ONE_OFF));
        let killed = killed.filter_map(|name| {
            let kills = base.group(&name).ok()?.kills();
            Some((name, kills.killed))
        });
        let killed: BTreeMap<String, u64> = killed.collect();
        let before = std::mem::replace(&mut self.one_offs, killed);
        let now = self.one_offs.iter();
        let new = now.filter(|(name, killed)| **killed > before.get(*name).copied().unwrap_or(0));
        let losses = new.map(|_| Loss {
            name: "gaiola run".into(),
            why: "was killed: it used more memory than [app] allows".into(),
        });
        losses.collect()
    }

    /// Why a process that has ended was killed, if it was for want of memory.
    pub(crate) fn death(&mut self, name: &str) -> Option<String> {
        let held = self.held.get_mut(name)?;
        held.has = None;
        held.account()
    }

    /// Which limits do not hold and why, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        if let (Some(Err(why)), false) = (&self.base, self.wanted.is_empty()) {
            return vec![format!("limits of processes do not hold here: {why}")];
        }
        let held = self.held.iter();
        let all = held.flat_map(|(name, held)| {
            let words = held.missing.iter();
            words.map(move |why| format!("{name}: {why}"))
        });
        all.collect()
    }

    /// Removes all groups: nothing runs any more.
    pub(crate) fn end(&mut self) {
        self.held.clear();
        if let Some(Ok(base)) = &self.base {
            base.remove(self.above);
        }
    }

    fn hold(&mut self, name: &str) -> Option<&mut Held> {
        if !self.held.contains_key(name) {
            let Some(Ok(base)) = &self.base else {
                return None;
            };
            let group = match base.group(name) {
                Ok(group) => group,
                Err(error) => {
                    tracing::error!(process = name, %error, "cannot make a control group");
                    return None;
                }
            };
            self.held.insert(name.into(), Held::new(group));
        }
        self.held.get_mut(name)
    }
}

impl Held {
    fn new(group: Group) -> Self {
        Self {
            kills: group.kills(),
            group,
            set: Limits::default(),
            set_at: Instant::now(),
            missing: Vec::new(),
            has: None,
            killed_at: None,
        }
    }

    /// Sets limits that are other ones, or that did not hold so far.
    fn set(&mut self, limits: Limits) {
        let is_due = !self.missing.is_empty() && self.set_at.elapsed() >= AGAIN;
        if limits == self.set && !is_due {
            return;
        }
        (self.set, self.set_at) = (limits, Instant::now());
        let errors = self.group.set(&limits);
        self.missing = errors.iter().map(|error| in_words(error, limits)).collect();
    }

    /// A process that was started before it had limits, or by an earlier agent, may be elsewhere.
    fn take_in(&mut self, id: Identity) {
        if self.has == Some(id) {
            return;
        }
        if !self.group.has(id.pid) {
            let pids = id.session_pids().unwrap_or_default();
            if let Err(error) = self.group.admit(&pids) {
                tracing::error!(pid = id.pid, %error, "cannot move a process to its control group");
                return;
            }
        }
        self.has = Some(id);
    }

    /// What was killed a while ago, if the process goes on.
    fn loss(&mut self) -> Option<String> {
        if self.group.kills() == self.kills {
            self.killed_at = None;
            return None;
        }
        let since = *self.killed_at.get_or_insert_with(Instant::now);
        if since.elapsed() < STAYS {
            return None;
        }
        self.account()
    }

    /// Why processes were killed since the last time.
    fn account(&mut self) -> Option<String> {
        let before = std::mem::replace(&mut self.kills, self.group.kills());
        self.killed_at = None;
        let is_killed = self.kills.killed > before.killed;
        let by_limit = self.kills.at_limit > before.at_limit;
        let memory = self.set.memory.filter(|_| by_limit);
        is_killed.then(|| match memory {
            Some(memory) => format!("was killed: it used more than its {}", Bytes(memory)),
            None => "was killed: the server was out of memory".into(),
        })
    }
}

fn in_words(error: &LimitError, limits: Limits) -> String {
    match (error, limits.memory) {
        (LimitError::InUse { used }, Some(limit)) => {
            let (used, limit) = (*used >> 20, Bytes(limit));
            format!(
                "it uses {used} MiB of memory, more than its new limit of {limit}, which holds once it uses less, or starts again"
            )
        }
        (error, _) => format!("a limit does not hold: {}", gaiola_os::chain(error)),
    }
}
