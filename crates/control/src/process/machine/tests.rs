//! Two machines of one site on this host, at the real port of loopback addresses of their own.

use super::*;
use crate::api::Digest;
use crate::api::machine::{MachineAddress, MachineSetup};
use crate::provider::machine::{FetchRequest, PeerError, name_of};
use crate::release::{self, Source};
use gaiola_agent::state::{Order, write_json};
use gaiola_core::rollout::{self, AutoReplace};
use gaiola_model::config::{App, Machines};
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Desired, Release, ReleaseNumber, Revision};
use gaiola_model::{Config, Inventory, Observed};
use gaiola_net::pki::Authority;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time for anything in these tests.
const LIMIT: Duration = Duration::from_secs(30);

/// A machine of the tests.
struct Stood {
    machine: Rc<Machine>,
    site: Rc<Site>,
}

impl Stood {
    /// The digest of the release that has this page, which the machine has under this number from now on.
    fn make_release(&self, number: u64, page: &str) -> Digest {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("public")).unwrap();
        fs::write(source.path().join("public/index.html"), page).unwrap();
        let releases = self.site.state.releases();
        let of = Source {
            directory: source.path(),
            file: &source.path().join("gaiola.toml"),
            apart: &[],
        };
        let scan = release::scan(of, &releases, &mut |_| {}).unwrap();
        let mut archive = Vec::new();
        scan.pack(&mut archive, &mut |_| {}).unwrap();
        let received = release::receive(&archive[..], &releases, &scan.digest).unwrap();
        received.keep_as(ReleaseNumber(number)).unwrap();
        scan.digest
    }

    fn page(&self, number: u64) -> Option<String> {
        let release = self.site.state.release(ReleaseNumber(number));
        fs::read_to_string(release.join("public/index.html")).ok()
    }

    /// Asks another machine to fetch a release from this one.
    async fn offer(&self, to: &Self, number: u64, digest: &Digest) -> Result<(), PeerError> {
        let what = FetchRequest {
            release: Some(digest.clone()),
            certificates: None,
        };
        let (at, number) = (to.machine.address(), ReleaseNumber(number));
        self.machine.peers.fetch(at, number, &what).await
    }

    /// The machine knows a placement whose release this is.
    fn know(&self, number: u64, digest: &Digest) {
        let config = Config::new("shop".parse().unwrap(), App::new("run"));
        let inventory = Inventory::numbered(&config, [10, 77]);
        let release = Release {
            number: ReleaseNumber(number),
            digest: digest.to_string(),
        };
        let desired = Desired::first(config, release, inventory);
        let order = Order {
            revision: Revision(1),
            placement: rollout::first(&desired, "one".into()),
        };
        self.site.order.send_replace(Some(Rc::new(order)));
    }
}

/// The machines `a` and `b`.
fn stand_two(folder: &Path) -> [Stood; 2] {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let machines = [("a", 71), ("b", 72)].map(|(host, network)| MachineAddress {
        host: Host(host.into()),
        address: IpAddr::from([127, network, high, low]),
    });
    let authority = Authority::create_or_load(&folder.join("ca")).unwrap();
    machines.clone().map(|own| {
        let state = State::at(folder.join(&own.host.0));
        state.make().unwrap();
        let (name, site) = (name_of(&own.host), "shop".parse().unwrap());
        authority
            .issue(&name, &[own.address], &state.pki())
            .unwrap();
        let setup = MachineSetup {
            site,
            host: own.host,
            address: own.address,
            machines: machines.to_vec(),
        };
        write_json(&state.machine(), &setup).unwrap();
        let (machine, site) = stand(&setup.site, state).unwrap();
        Stood { machine, site }
    })
}

/// Runs a test beside the answers of both machines.
async fn with_two<F: Future<Output = ()>>(test: impl FnOnce(Rc<Stood>, Rc<Stood>) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = stand_two(folder.path()).map(Rc::new);
    let tasks = tokio::task::LocalSet::new();
    let run = async {
        for one in [&a, &b] {
            spawn_local(serve::run(Rc::clone(&one.machine), Rc::clone(&one.site)));
        }
        for (from, to) in [(&a, &b), (&b, &a)] {
            let deadline = Instant::now() + LIMIT;
            while let Err(error) = from.machine.peers.order(to.machine.address()).await {
                assert!(Instant::now() < deadline, "{error}");
                sleep(Duration::from_millis(10)).await;
            }
        }
        test(Rc::clone(&a), Rc::clone(&b)).await;
    };
    tokio::time::timeout(LIMIT, tasks.run_until(run))
        .await
        .unwrap();
    for one in [&a, &b] {
        release::remove_all(&one.site.state.releases());
    }
}

#[tokio::test]
async fn a_release_is_fetched_by_its_contents_and_replaces_what_a_failed_change_left() {
    with_two(|a, b| async move {
        b.make_release(7, "left");
        let digest = a.make_release(7, "new");
        let (first, second) = tokio::join!(a.offer(&b, 7, &digest), a.offer(&b, 7, &digest));
        first.unwrap();
        second.unwrap();
        assert_eq!(b.page(7).unwrap(), "new");
        // What the other machine does not have with these contents is not sent.
        let other = Digest::of(&[7; 32]);
        let why = a.offer(&b, 8, &other).await.unwrap_err().to_string();
        assert!(why.contains("not here with these contents"), "{why}");
        assert_eq!(b.page(8), None);
        let names = fs::read_dir(b.site.state.releases()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name == ".new"));
    })
    .await;
}

#[tokio::test]
async fn what_the_placement_names_is_not_replaced_and_other_numbers_are_not_fetched() {
    with_two(|a, b| async move {
        let placed = b.make_release(7, "placed");
        b.know(7, &placed);
        let other = a.make_release(7, "other");
        let why = a.offer(&b, 7, &other).await.unwrap_err().to_string();
        assert!(why.contains("release 7 has other contents here"), "{why}");
        assert_eq!(b.page(7).unwrap(), "placed");
        a.offer(&b, 7, &placed).await.unwrap();
        for (number, part) in [(6, "is not needed"), (u64::MAX, "no number of the next")] {
            let why = a.offer(&b, number, &other).await.unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
        let next = a.make_release(8, "next");
        a.offer(&b, 8, &next).await.unwrap();
        assert_eq!(b.page(8).unwrap(), "next");
    })
    .await;
}

/// app1 stands on `a`, app2 on `c`, which is gone; `b` is spare. `conductor`: the server that conducts.
fn without_c(conductor: &str) -> View {
    let [app1, app2] = ["app1", "app2"].map(|name| name.parse().unwrap());
    let on = |host: &str, last| gaiola_model::config::Machine {
        address: Some(IpAddr::from([192, 0, 2, last])),
        ..gaiola_model::config::Machine::new(host)
    };
    let mut config = Config::new("shop".parse().unwrap(), App::new("run"));
    config.set_machines(Machines {
        servers: [(app1, on("a", 1)), (app2, on("c", 3))].into(),
        spare: vec![on("b", 2)],
        replace_after: Some(Duration::ZERO),
        ..Machines::default()
    });
    let release = Release {
        number: ReleaseNumber(1),
        digest: String::new(),
    };
    let inventory = Inventory::on_machines(&config, None).unwrap();
    let desired = Desired::first(config, release, inventory);
    let placement = rollout::first(&desired, "one".into());
    let report = Rc::new(Observed::nothing_on(app1));
    View {
        desired: Some((Revision(3), Rc::new(desired))),
        placement: Some((Revision(4), Rc::new(placement))),
        observed: [(app1, (Revision(5), report))].into(),
        conductor: Some(conductor.into()),
        incarnation: "one".into(),
        ..View::default()
    }
}

#[tokio::test]
async fn the_process_beside_the_conductor_replaces_a_machine_that_is_gone_if_the_spare_one_answers()
{
    with_two(|a, b| async move {
        let view = |one: &Stood, conductor| one.site.view.send_replace(without_c(conductor));
        let found = |one: &Stood| replace::decide(&one.machine, &one.site);
        view(&a, "app1");
        // Nobody was asked yet.
        let (decided_on, kept) = found(&a).unwrap();
        assert_eq!(decided_on, Revision(3));
        let kept = format!("{kept:?}");
        assert!(kept.contains("SpareSilent"), "{kept}");
        replace::ask(&a.machine, &a.site).await;
        let due = AutoReplace::Due {
            gone: Host("c".into()),
            onto: Host("b".into()),
            silent: Duration::ZERO,
        };
        let said = |found: AutoReplace| match found {
            AutoReplace::Due { gone, onto, .. } => AutoReplace::Due {
                gone,
                onto,
                silent: Duration::ZERO,
            },
            other => other,
        };
        assert_eq!(said(found(&a).unwrap().1), due);
        // Another machine's process leaves it to that one, and so does one whose store is silent.
        view(&b, "app1");
        assert!(found(&b).is_none());
        view(&a, "app2");
        assert!(found(&a).is_none());
        view(&a, "app1");
        a.site.view.send_modify(|view| view.incarnation.clear());
        assert!(found(&a).is_none());
    })
    .await;
}
