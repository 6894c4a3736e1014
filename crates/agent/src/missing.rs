//! What the placement has this server run from and is not on its disk yet: a machine that was away fetches it first. Until it is
//! there, what needs it is withheld, and what runs continues.

use super::Agent;
use super::supervisor::WantedProcess;
use crate::state::{Boot, Order};
use gaiola_model::placement::ReleaseNumber;
use gaiola_model::{Placement, Tier};
use std::collections::{BTreeMap, BTreeSet};

impl Agent {
    /// Takes instances out whose release is not here. One that runs stays as it is.
    pub(super) fn withhold(
        &self,
        wanted: &mut BTreeMap<String, WantedProcess>,
        placement: &Placement,
    ) {
        let here = placement.instances.iter();
        let here = here.filter(|(name, _)| name.server == self.boot.server);
        for (name, placed) in here {
            if is_here(&self.boot, placed.release) {
                continue;
            }
            let name = name.to_string();
            match (self.supervisor.running_as(&name), wanted.get_mut(&name)) {
                (Some(running), Some(wanted)) => wanted.launch.clone_from(running),
                _ => _ = wanted.remove(&name),
            }
        }
    }

    /// Whether the files are here that the proxy's configuration names.
    pub(super) fn may_serve(&self, placement: &Placement) -> bool {
        missing_releases(&self.boot, served(&self.boot, placement)).is_empty()
            && missing_certificates(&self.boot, placement).is_none()
    }

    /// What is withheld, in words.
    pub(super) fn missing_files(&self, order: &Order) -> Option<String> {
        let placement = &order.placement;
        let here = placement.instances.iter();
        let here = here.filter(|(name, _)| name.server == self.boot.server);
        let run = self.ordered_run(order).map(|run| run.release);
        let needed = here.map(|(_, placed)| placed.release).chain(run);
        let needed = needed.chain(served(&self.boot, placement));
        let releases = missing_releases(&self.boot, needed).into_iter();
        let releases = releases.map(|release| format!("release {release}"));
        let certificates = missing_certificates(&self.boot, placement);
        let certificates = certificates.map(|_| "the balancers' certificates".to_string());
        let all: Vec<String> = releases.chain(certificates).collect();
        (!all.is_empty()).then(|| {
            let all = all.join(" and ");
            format!("not on this server yet: {all}; what needs it waits")
        })
    }
}

/// Whether a release is on this server's disk.
pub(super) fn is_here(boot: &Boot, release: ReleaseNumber) -> bool {
    boot.release(release).is_dir()
}

/// The releases whose files this server's proxy serves.
fn served<'a>(
    boot: &Boot,
    placement: &'a Placement,
) -> impl Iterator<Item = ReleaseNumber> + use<'a> {
    let is_web = boot.server.tier == Tier::Web;
    let releases = placement.web_releases.iter().copied();
    releases.filter(move |_| is_web)
}

fn missing_releases(
    boot: &Boot,
    needed: impl Iterator<Item = ReleaseNumber>,
) -> BTreeSet<ReleaseNumber> {
    needed.filter(|release| !is_here(boot, *release)).collect()
}

fn missing_certificates<'a>(boot: &Boot, placement: &'a Placement) -> Option<&'a str> {
    let is_balancer = boot.server.tier == Tier::Balancer;
    let tls = placement.config.tls().filter(|_| is_balancer)?;
    let copy = boot.directories.certificates.join(&tls.contents);
    (!copy.is_dir()).then_some(&tls.contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use crate::state::order::tests::order;
    use gaiola_model::config::{Balancer, BalancerTls};
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
    fn a_web_server_needs_the_releases_that_it_serves() {
        let folder = tempfile::tempdir().unwrap();
        let mut placement = order("a", 1).placement;
        placement.web_releases = vec![ReleaseNumber(2), ReleaseNumber(1)];
        std::fs::create_dir_all(folder.path().join("releases/1")).unwrap();
        let missing = |server: &str| {
            let boot = boot(folder.path(), server);
            missing_releases(&boot, served(&boot, &placement))
        };
        assert_eq!(missing("web1"), [ReleaseNumber(2)].into());
        assert_eq!(missing("app1"), [].into());
        std::fs::create_dir_all(folder.path().join("releases/2")).unwrap();
        let boot = boot(folder.path(), "web1");
        assert!(missing_releases(&boot, served(&boot, &placement)).is_empty());
    }

    #[test]
    fn a_balancer_needs_its_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let mut placement = order("a", 1).placement;
        let boot = boot(folder.path(), "lb1");
        assert_eq!(missing_certificates(&boot, &placement), None);
        placement.config.balancer = Some(Balancer {
            tls: Some(BalancerTls {
                contents: "abc".into(),
                ..BalancerTls::new(Vec::new())
            }),
            ..Balancer::default()
        });
        assert_eq!(missing_certificates(&boot, &placement), Some("abc"));
        std::fs::create_dir_all(folder.path().join("certificates/abc")).unwrap();
        assert_eq!(missing_certificates(&boot, &placement), None);
    }
}
