//! The built site, with a real PostgreSQL and without one.

#![allow(missing_docs, unreachable_pub)]

mod support;

use rustix::process::Signal;
use serde_json::json;
use std::process::Command;
use std::time::Duration;
use support::{DEADLINE, Instance, Postgres, ask, guestbook, signal};

fn with_database(postgres: &Postgres) -> Command {
    let mut command = guestbook();
    command
        .env("DATABASE_URL", postgres.url())
        .env("INSTANCE", "app1.2")
        .env("RELEASE", "3");
    command
}

fn migrate(postgres: &Postgres) {
    assert!(
        with_database(postgres)
            .arg("migrate")
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn without_a_database_it_serves_and_says_so() {
    let site = Instance::start(&mut guestbook());
    assert_eq!(site.ask("/up", None).await.0, 200);
    let (status, page) = site.ask("/", None).await;
    assert!(status == 200 && page.as_str().unwrap().contains("Guest book"));
    let (status, way) = site.ask("/api/served_by", None).await;
    assert_eq!(
        (status.as_u16(), &way["served_by"]["balancer"]),
        (200, &json!("lb2"))
    );
    let (status, entries) = site.ask("/api/entries", None).await;
    assert_eq!(
        (status.as_u16(), &entries["error"]),
        (503, &json!("this site has no database"))
    );
    let (status, written) = site
        .ask("/api/entries", Some(r#"{"author":"a","text":"b"}"#))
        .await;
    assert_eq!(
        (status.as_u16(), &written["acknowledged"]),
        (503, &json!(false))
    );
}

#[tokio::test]
async fn an_entry_is_written_found_and_listed() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    let mut together: Vec<_> = (0..3)
        .map(|_| with_database(&postgres).arg("migrate").spawn().unwrap())
        .collect();
    assert!(
        together
            .iter_mut()
            .all(|migration| migration.wait().unwrap().success())
    );
    let site = Instance::start(&mut with_database(&postgres));

    let (status, written) = site
        .ask(
            "/api/entries",
            Some(r#"{"author":" Ana ","text":"Olá, \"mundo\""}"#),
        )
        .await;
    assert_eq!(status, 201, "{written}");
    assert_eq!(
        (&written["author"], &written["text"]),
        (&json!("Ana"), &json!("Olá, \"mundo\""))
    );
    assert_eq!(
        written["served_by"],
        json!({"balancer": "lb2", "web": "web1", "app": "app1.2", "release": "3", "database": "127.0.0.1"})
    );
    let (status, found) = site
        .ask(&format!("/api/entries/{}", written["id"]), None)
        .await;
    assert_eq!((status.as_u16(), &found), (200, &written));
    let (status, listed) = site.ask("/api/entries", None).await;
    assert_eq!(
        (status.as_u16(), &listed["entries"][0]["id"]),
        (200, &written["id"])
    );

    for missing in ["/api/entries/999999", "/api/entries/one", "/nothing"] {
        assert_eq!(site.ask(missing, None).await.0, 404, "{missing}");
    }
    for (body, status) in [
        ("{", 400),
        ("{}", 422),
        (r#"{"author":"","text":"b"}"#, 422),
    ] {
        let (answered, why) = site.ask("/api/entries", Some(body)).await;
        assert_eq!(
            (answered.as_u16(), &why["acknowledged"]),
            (status, &json!(false)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_commit_that_no_standby_confirmed_is_not_acknowledged() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    migrate(&postgres);
    let site = Instance::start(&mut with_database(&postgres));
    let admin = postgres.client().await;
    admin
        .batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        .await
        .unwrap();
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();

    for ended_by in ["pg_cancel_backend", "pg_terminate_backend"] {
        let address = site.address;
        let body = format!(r#"{{"author":"a","text":"{ended_by}"}}"#);
        let write = tokio::spawn(async move { ask(address, "/api/entries", Some(&body)).await });
        let cut =
            format!("SELECT {ended_by}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
        let waited = tokio::time::timeout(DEADLINE, async {
            while admin.query(&cut, &[]).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("the write waits for its standby");
        let (status, answer) = write.await.unwrap();
        assert_eq!(
            (status.as_u16(), &answer["acknowledged"]),
            (503, &json!(false)),
            "{answer}"
        );
    }
    let committed = admin.query("SELECT FROM entries", &[]).await.unwrap().len();
    assert_eq!(
        committed, 2,
        "both stand on the primary, and no client was answered so"
    );
}

#[tokio::test]
async fn it_goes_on_by_itself_when_the_database_comes_back() {
    let Some(mut postgres) = Postgres::start().await else {
        return;
    };
    migrate(&postgres);
    let site = Instance::start(&mut with_database(&postgres));
    let entry = Some(r#"{"author":"a","text":"b"}"#);
    assert_eq!(site.ask("/api/entries", entry).await.0, 201);

    postgres.stop();
    let (status, answer) = site.ask("/api/entries", entry).await;
    assert_eq!(
        (status.as_u16(), &answer["acknowledged"]),
        (503, &json!(false))
    );
    assert_eq!(site.ask("/api/entries", None).await.0, 503);
    assert_eq!(site.ask("/up", None).await.0, 200);

    postgres.run().await;
    assert_eq!(site.ask("/api/entries", None).await.0, 200);
    assert_eq!(site.ask("/api/entries", entry).await.0, 201);
}

#[tokio::test]
async fn a_restart_of_the_database_between_two_requests_costs_none() {
    let Some(mut postgres) = Postgres::start().await else {
        return;
    };
    migrate(&postgres);
    let site = Instance::start(&mut with_database(&postgres));
    for _ in 0..3 {
        assert_eq!(site.ask("/api/entries", None).await.0, 200);
        assert_eq!(
            site.ask("/api/entries", Some(r#"{"author":"a","text":"b"}"#))
                .await
                .0,
            201
        );
        postgres.stop();
        postgres.run().await;
    }
}

#[tokio::test]
async fn sigterm_lets_requests_in_flight_end() {
    let mut site = Instance::start(guestbook().env("GUESTBOOK_RATE", "2"));
    let address = site.address;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..4 {
        asked.spawn(async move { ask(address, "/api/served_by", None).await.0 });
    }
    assert_eq!(asked.join_next().await.unwrap().unwrap(), 200);
    // By now the others wait for their turn.
    assert_eq!(asked.join_next().await.unwrap().unwrap(), 200);
    signal(&site.process, Signal::TERM);
    while let Some(status) = asked.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(site.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_migration_without_a_database_fails_with_a_reason() {
    let output = guestbook().arg("migrate").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "guestbook: migrate needs DATABASE_URL\n"
    );
}
