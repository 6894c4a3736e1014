//! The database tier as it is: etcd, Patroni and PostgreSQL of two servers, run by real keepers, hurt and healed.
//!
//! Everything runs in a network and PID namespace of the test's own, so nothing is left behind and nothing outside is
//! touched. Where a program or a right is missing the test says so and passes.

mod site;
mod sql;
mod world;
mod writer;

use gaiola_agent::engine::{self as database, TargetState};
use gaiola_agent::keeper::database::DatabaseArgs;
use gaiola_model::placement::DatabaseRole;
use site::Site;
use std::env;
use std::time::Instant;
use writer::Writer;

/// Set inside the namespace.
const INSIDE: &str = "GAIOLA_TEST_INSIDE";
/// Set for a keeper's process: its directory.
const KEEPER: &str = "GAIOLA_TEST_KEEPER";

#[test]
fn acknowledged_writes_outlive_every_death() {
    inside("acknowledged_writes_outlive_every_death", deaths());
}

#[test]
fn what_patroni_does_not_notice_is_ended_and_what_cannot_follow_is_cloned() {
    inside(
        "what_patroni_does_not_notice_is_ended_and_what_cannot_follow_is_cloned",
        hung_and_deposed(),
    );
}

/// Runs a story in namespaces of its own.
fn inside(test: &str, story: impl Future<Output = ()>) {
    if env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(story);
    } else {
        world::enter(test);
    }
}

/// Not a test: what this binary does when it is started as a keeper.
#[test]
fn keeper_process() {
    if let Some(directory) = env::var_os(KEEPER) {
        let args = DatabaseArgs {
            directory: directory.into(),
        };
        gaiola_agent::keeper::database::run(&args).unwrap();
    }
}

async fn deaths() {
    let mut story = Story(Instant::now());
    let mut site = Site::start();
    site.healthy().await;
    story.report("empty disks to a primary with a synchronous standby");

    let first = site.primary().await;
    let other = site.other(first);
    assert_eq!(site.sql(first, "SHOW gaiola.server"), first.to_string());
    assert_eq!(site.sql(first, "SHOW max_slot_wal_keep_size"), "256MB");
    assert_eq!(site.sql(first, "SHOW max_wal_size"), "256MB");
    site.sql(first, "CREATE TABLE entries (id bigint PRIMARY KEY)");
    let writer = Writer::start(site.psql.clone());

    site.api
        .switchover(site.address(first), first, other)
        .await
        .unwrap();
    story.report("switchover answered");
    writer.more(5);
    site.healthy().await;
    assert_eq!(site.primary().await, other);
    story.report("healthy after the switchover");

    site.kill_postgres(other);
    writer.more(5);
    story.report("writes after PostgreSQL of the primary was killed");
    site.healthy().await;
    assert_eq!(site.primary().await, other);
    story.report("healthy after PostgreSQL was killed");

    site.kill_keeper(other);
    site.all_gone(other).await;
    story.report("every process gone after the primary's keeper was killed");
    site.start_keeper(other);
    writer.more(5);
    story.report("writes after the keeper was started again");
    site.healthy().await;
    story.report("healthy after the keeper was started again");

    site.kill_patroni(other).await;
    writer.more(5);
    site.healthy().await;
    assert!(site.report(other).restarts >= 1);
    story.report("healthy after Patroni was killed");

    let primary = site.primary().await;
    database::ensure_site(site.settings(primary)).await.unwrap();
    let shared = site.settings(primary).shared();
    site.api
        .configure(site.address(primary), &shared)
        .await
        .unwrap();

    let standby = site.other(primary);
    site.order(standby, TargetState::Stop);
    site.all_gone(standby).await;
    writer.more(5);
    assert_eq!(site.observe().await[&standby].role, DatabaseRole::Unknown);
    story.report("writes after the standby was shut down in order");
    site.wait_for_ghost(primary);
    writer.more(5);
    story.report("writes after commits waited for a standby that is gone");
    site.order(standby, TargetState::Run);
    site.healthy().await;
    story.report("healthy with the standby back");

    none_lost(&site, writer).await;
    site.no_secret_shown();
    site.stop().await;
    story.report("everything shut down in order");
}

async fn hung_and_deposed() {
    let mut story = Story(Instant::now());
    let mut site = Site::start();
    site.healthy().await;
    let first = site.primary().await;
    site.sql(first, "CREATE TABLE entries (id bigint PRIMARY KEY)");
    let writer = Writer::start(site.psql.clone());
    writer.more(5);
    story.report("empty disks to a primary with a synchronous standby");

    world::stop(site.postmaster(first));
    site.ended_because(first, "postmaster was stopped").await;
    writer.more(5);
    site.healthy().await;
    story.report("healthy after the primary's postmaster was stopped");

    let primary = site.primary().await;
    world::stop(site.patroni(primary));
    site.ended_because(primary, "Patroni was stopped").await;
    writer.more(5);
    site.healthy().await;
    story.report("healthy after the primary's Patroni was stopped");

    let deposed = site.primary().await;
    let patroni = site.patroni(deposed);
    world::stop(patroni);
    site.give_leadership_to("somebody-else").await;
    site.ended_because(deposed, "although somebody-else is the leader")
        .await;
    site.take_leadership_back().await;
    writer.more(5);
    site.healthy().await;
    story.report("healthy after a primary was ended that was not the leader");

    let standby = site.other(site.primary().await);
    let aside = site.clone_anew(standby).await;
    writer.more(5);
    site.healthy().await;
    assert!(aside.join("PG_VERSION").exists(), "the old data is kept");
    story.report("healthy after the standby's data was set aside");

    none_lost(&site, writer).await;
    site.same_contents().await;
    site.stop().await;
    story.report("everything shut down in order");
}

async fn none_lost(site: &Site, writer: Writer) {
    let (acknowledged, longest_gap) = writer.finish();
    let kept = site.sql(site.primary().await, "SELECT id FROM entries ORDER BY id");
    let kept: Vec<u64> = kept.lines().map(|id| id.parse().unwrap()).collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| kept.binary_search(id).is_err())
        .collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", acknowledged.len());
    println!(
        "{} writes acknowledged, none lost; longest gap {longest_gap:.2?}",
        acknowledged.len()
    );
}

/// Prints how long each part took.
struct Story(Instant);

impl Story {
    fn report(&mut self, what: &str) {
        println!("{:6.2} s: {what}", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}
