//! What the placement has this server run from and is not on its disk yet: a machine that was away fetches it first. Until it is
//! there, what needs it is withheld, and what runs continues: a proxy goes on with the files that it has.

use super::Agent;
use super::supervisor::WantedProcess;
use crate::state::{Boot, Order, release_digest, write_document};
use gaiola_core::topology::{self, FilesHere};
use gaiola_model::Placement;
use gaiola_model::placement::{CertificateCopy, LackingFiles, ProxyFiles, ReleaseNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

impl Agent {
    /// Takes instances and workers out whose release is not here, or whose environment cannot be read. One that runs stays as it is.
    pub(super) fn withhold(
        &self,
        wanted: &mut BTreeMap<String, WantedProcess>,
        placement: &Placement,
    ) {
        for (name, release, env) in self.placed_here(placement) {
            if self.environments.is_open(env) && is_here(&self.boot, placement, release) {
                continue;
            }
            match (self.supervisor.running_as(&name), wanted.get_mut(&name)) {
                (Some(running), Some(wanted)) => wanted.launch.clone_from(running),
                _ => _ = wanted.remove(&name),
            }
        }
    }

    /// The instances and workers of this server, each with its release and the number of its environment.
    fn placed_here(&self, placement: &Placement) -> Vec<(String, ReleaseNumber, u64)> {
        let server = self.boot.server;
        let instances = placement.instances.iter();
        let instances = instances.filter(|(name, _)| name.server == server);
        let instances = instances.map(|(name, it)| (name.to_string(), it.release, it.env));
        let workers = placement.workers.iter();
        let workers = workers.filter(|(name, _)| name.server == server);
        let workers = workers.map(|(name, it)| (name.to_string(), it.release, it.env));
        instances.chain(workers).collect()
    }

    /// Takes instances out that would take the port of the proxy in front of them. One that runs stays as it is.
    pub(super) fn wait_for_proxy(
        &self,
        wanted: &mut BTreeMap<String, WantedProcess>,
        order: &Order,
    ) {
        let known = self.proxy_known.borrow();
        wanted.retain(|process, _| {
            let Ok(name) = process.parse() else {
                return true;
            };
            self.supervisor.running_as(process).is_some()
                || topology::may_start(&order.placement, order.revision, name, known.proxy.as_ref())
        });
    }

    /// Which of the site's files the proxy is to serve now; `None`: its configuration is withheld.
    pub(super) fn files_to_serve(&self, placement: &Placement) -> Option<ProxyFiles> {
        let wanted = topology::files_wanted(placement, self.boot.server);
        let last = self.served.as_ref();
        let here = files_here(&self.boot, placement, [Some(&wanted), last]);
        topology::files_to_serve(&wanted, last, &here)
    }

    /// Keeps what the proxy serves, so that also a restarted agent knows what it may go on with.
    pub(super) fn keep_served_files(&mut self) {
        let known = self.proxy_known.borrow().files.clone();
        if known.is_none() || known == self.served {
            return;
        }
        let (path, schema) = (self.boot.served_files(), self.order.placement.schema);
        if let Err(error) = write_document(&path, &known, schema) {
            tracing::error!(%error, "cannot save which files the proxy serves");
        }
        self.served = known;
    }

    /// What its placement has the proxy serve and `served` does not have.
    pub(super) fn lacking_files(&self, served: Option<&ProxyFiles>) -> LackingFiles {
        let wanted = topology::files_wanted(&self.order.placement, self.boot.server);
        topology::files_lacking(&wanted, served.unwrap_or(&ProxyFiles::default()))
    }

    /// Why environments of what should run here cannot be read.
    pub(super) fn closed_environments(&self, order: &Order) -> Option<String> {
        let here = self.placed_here(&order.placement).into_iter();
        let run = self.ordered_runs(order).into_iter().map(|run| run.env);
        let mut all = here.map(|(_, _, env)| env).chain(run);
        let why = all.find_map(|number| self.environments.why_closed(number))?;
        Some(format!("{why}; what needs it waits"))
    }

    /// What is withheld, in words.
    pub(super) fn missing_files(&self, order: &Order) -> Option<String> {
        let placement = &order.placement;
        let here = self.placed_here(placement).into_iter();
        let run = self.ordered_runs(order).into_iter().map(|run| run.release);
        let needed = here.map(|(_, release, _)| release).chain(run);
        let files = topology::files_wanted(placement, self.boot.server);
        let needed = needed.chain(files.releases);
        let needed = needed.filter(|release| !is_here(&self.boot, placement, *release));
        let needed: BTreeSet<ReleaseNumber> = needed.collect();
        let releases = needed.iter().map(|release| format!("release {release}"));
        let copy = files
            .certificates
            .filter(|copy| !has_copy(&self.boot, copy));
        let certificates = copy.map(|_| "the balancers' certificates".to_string());
        let all: Vec<String> = releases.chain(certificates).collect();
        (!all.is_empty()).then(|| {
            let all = all.join(" and ");
            format!("not on this server yet: {all}; what needs it waits")
        })
    }
}

/// Whether a release is on this server's disk, with the contents that the placement names.
pub(super) fn is_here(boot: &Boot, placement: &Placement, release: ReleaseNumber) -> bool {
    let digest = || fs::read_to_string(release_digest(&boot.directories.releases, release)).ok();
    let named = placement.digests.get(&release);
    let is_same = || named.is_none_or(|named| digest().is_none_or(|digest| digest == *named));
    boot.release(release).is_dir() && is_same()
}

fn has_copy(boot: &Boot, copy: &CertificateCopy) -> bool {
    let certificates = &boot.directories.certificates;
    certificates.join(&copy.contents).is_dir()
}

/// Which of these files are on this server's disk.
fn files_here<'a>(
    boot: &Boot,
    placement: &Placement,
    all: impl IntoIterator<Item = Option<&'a ProxyFiles>>,
) -> FilesHere {
    let mut here = FilesHere::default();
    for files in all.into_iter().flatten() {
        let releases = files.releases.iter().copied();
        let releases = releases.filter(|release| is_here(boot, placement, *release));
        here.releases.extend(releases);
        let copy = files
            .certificates
            .iter()
            .filter(|copy| has_copy(boot, copy));
        here.certificates
            .extend(copy.map(|copy| copy.contents.clone()));
    }
    here
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use crate::state::order::tests::order;
    use gaiola_model::inventory::Location;
    use gaiola_model::placement::BootNumber;

    fn boot(folder: &std::path::Path, server: &str) -> Boot {
        let server = server.parse().unwrap();
        Boot {
            site: "site".parse().unwrap(),
            server,
            number: BootNumber(1),
            location: Location::at([127, 0, 0, 1].into()),
            interface: "lo".into(),
            prefix_length: 8,
            further: Vec::new(),
            directories: State::at(folder.into()).directories(server),
            store_token: String::new(),
            database_user: None,
            site_user: None,
            keeper_key: None,
            program: None,
            path: String::new(),
            disk: None,
        }
    }

    #[test]
    fn a_release_with_other_contents_than_the_placement_names_is_not_here() {
        let folder = tempfile::tempdir().unwrap();
        let (boot, number) = (boot(folder.path(), "web1"), ReleaseNumber(2));
        let mut placement = order("a", 1).placement;
        let is_here = |placement: &Placement| is_here(&boot, placement, number);
        assert!(!is_here(&placement));
        let releases = folder.path().join("releases");
        std::fs::create_dir_all(releases.join("2")).unwrap();
        assert!(is_here(&placement));
        placement.digests.insert(number, "ab".into());
        // Of an earlier version: nothing is known of it.
        assert!(is_here(&placement));
        std::fs::write(release_digest(&releases, number), "cd").unwrap();
        assert!(!is_here(&placement));
        std::fs::write(release_digest(&releases, number), "ab").unwrap();
        assert!(is_here(&placement));
    }

    #[test]
    fn what_is_on_the_disk_of_the_files_that_are_or_were_served() {
        let folder = tempfile::tempdir().unwrap();
        let placement = order("a", 1).placement;
        for path in ["releases/1", "certificates/old"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let files = |release, contents: &str| ProxyFiles {
            releases: vec![ReleaseNumber(release)],
            certificates: Some(CertificateCopy {
                contents: contents.into(),
                folders: 1,
            }),
        };
        let (wanted, last) = (files(2, "new"), files(1, "old"));
        let boot = boot(folder.path(), "web1");
        let here = files_here(&boot, &placement, [Some(&wanted), Some(&last)]);
        assert_eq!(here.releases, [ReleaseNumber(1)].into());
        assert_eq!(here.certificates, ["old".to_string()].into());
        let none = files_here(&boot, &placement, [Some(&wanted), None]);
        assert_eq!(none, FilesHere::default());
    }
}
