//! Drills against a real server on the loopback that is taken away, forgets, and closes connections.

use super::*;
use gaiola_core::drill::{DrillReport, Target, Verdict, Writes};
use gaiola_model::config::DrillWrite;
use site::{Injector, Site};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

mod site;

/// How long anything may take that a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

fn writes() -> DrillWrite {
    DrillWrite {
        path: "/entries".into(),
        body: r#"{"text":"{id}"}"#.into(),
        look_up: "/entries/{id}".into(),
    }
}

fn course(door: SocketAddr, write: Option<DrillWrite>) -> Course {
    let drill = Drill {
        rate: Some(60),
        page: "/".into(),
        read: Some("/entries".into()),
        write,
        ..Drill::default()
    };
    Course::new(door, Some(drill))
}

fn plan(site: &Site, target: &str) -> Plan {
    Plan {
        site: "test".parse().unwrap(),
        target: target.parse().unwrap(),
        hold: Duration::from_secs(2),
        course: course(site.door, Some(writes())),
        limits: Limits {
            ready: Duration::from_millis(200),
            calm: Duration::from_millis(500),
            calm_within: DEADLINE,
            confirm: Duration::from_millis(200),
            settle: Duration::from_millis(300),
            look_up: Duration::from_secs(1),
            ..Limits::default()
        },
    }
}

async fn rehearse(plan: &Plan, injector: &Injector) -> DrillReport {
    let never = std::future::pending();
    let mut progress = |line: &str| println!("{line}");
    let drill = run(plan, injector, never, &mut progress);
    tokio::time::timeout(DEADLINE * 2, drill)
        .await
        .expect("the drill ends")
}

#[tokio::test]
async fn a_site_that_was_away_for_half_a_second_is_measured_and_whole_again() {
    let site = Site::start().await;
    let report = rehearse(&plan(&site, "kill lb1/proxy"), &Injector::of(&site)).await;
    println!("{}", gaiola_core::drill::render(&report));
    assert_eq!(
        (report.verdict, report.reason.as_str()),
        (Verdict::Passed, "")
    );
    assert!(report.outage_ms >= 450, "{report:?}");
    assert!(
        report.recovered_ms >= Some(450) && report.whole_ms >= report.recovered_ms,
        "{report:?}"
    );
    assert!(
        report.detected_ms.is_some() && report.put_back_ms.is_none(),
        "{report:?}"
    );
    assert!(
        report
            .kinds
            .iter()
            .all(|kind| kind.failed > 0 && kind.failed < kind.sent),
        "{report:?}"
    );
    assert!(
        report.acknowledged > 0 && report.lost == 0 && report.unknown == 0,
        "{report:?}"
    );
    let written = site.entries.lock().unwrap().len() as u64;
    assert!(
        report.acknowledged <= written,
        "nothing is acknowledged that was not written"
    );
}

#[tokio::test]
async fn what_was_taken_away_is_given_back() {
    let site = Site::start().await;
    let mut plan = plan(&site, "power lb1");
    plan.limits.heal = Duration::from_millis(500); // this site has one server only: it cannot go on without it
    let injector = Injector::of(&site);
    let report = rehearse(&plan, &injector).await;
    assert_eq!(report.verdict, Verdict::NotHealthy);
    assert!(
        report.reason.starts_with("requests still fail: "),
        "{}",
        report.reason
    );
    assert!(
        report.put_back_ms >= Some(500) && report.whole_ms >= report.put_back_ms,
        "{report:?}"
    );
    assert_eq!(
        (
            injector.put_back.load(Ordering::Relaxed),
            report.lost,
            report.unknown
        ),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn a_fault_is_undone_after_its_span_and_the_site_has_recovered_only_then() {
    let site = Site::start().await;
    let mut plan = plan(&site, "cut lb1");
    plan.hold = Duration::from_secs(1);
    let injector = Injector::of(&site);
    let report = rehearse(&plan, &injector).await;
    assert_eq!(
        (report.verdict, report.reason.as_str()),
        (Verdict::Passed, "")
    );
    assert!(report.put_back_ms >= Some(1000), "{report:?}");
    assert!(report.recovered_ms >= report.put_back_ms, "{report:?}");
    assert!(report.outage_ms >= 1000, "{report:?}");
    assert_eq!(injector.put_back.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_outage_that_the_file_does_not_allow_does_not_pass() {
    let site = Site::start().await;
    let mut plan = plan(&site, "kill lb1/proxy");
    plan.course.drill.limits.max_outage = Duration::from_millis(200);
    let report = rehearse(&plan, &Injector::of(&site)).await;
    assert_eq!(
        (report.verdict, report.verdict.exit().code()),
        (Verdict::OverLimit, 1)
    );
    assert!(
        report.reason.contains("[drill] max_outage is 200 ms"),
        "{}",
        report.reason
    );
}

/// A site that takes its time for a page is not loaded by whoever measures it.
#[tokio::test]
async fn a_slow_site_is_probed_and_loaded_below_a_tenth_of_what_it_can_do() {
    let door = raw(DEADLINE, |_, _| {
        std::thread::sleep(Duration::from_millis(20));
        (OK, true)
    })
    .await;
    let course = Course::new(door, None).calibrated().await;
    for (kind, pace) in course.paces() {
        assert!(pace >= Duration::from_millis(200), "{kind} every {pace:?}");
    }
    let course = Course::new(door, None).probing("/.gaiola/probe", true);
    let course = course.calibrated().await;
    let (kind, pace) = course.paces()[0];
    assert_eq!(
        (kind, pace),
        (Kind::Probe, probe::EVERY),
        "answered by Gaiola's own proxies"
    );
}

#[tokio::test]
async fn a_site_that_forgets_what_it_acknowledged_is_found_out() {
    let site = Site::start().await;
    let mut injector = Injector::of(&site);
    injector.forget = true;
    let report = rehearse(&plan(&site, "kill lb1/proxy"), &injector).await;
    assert_eq!(
        (report.verdict, report.verdict.exit().code()),
        (Verdict::Lost, 4),
        "{report:?}"
    );
    let kept = site.entries.lock().unwrap().len() as u64;
    assert!(
        report.lost > 0 && report.acknowledged - report.lost <= kept,
        "{report:?}"
    );
}

#[tokio::test]
async fn a_harm_that_cannot_be_confirmed_proves_nothing_and_is_put_back() {
    let site = Site::start().await;
    let mut injector = Injector::of(&site);
    injector.can_confirm = false;
    let report = rehearse(&plan(&site, "power lb1"), &injector).await;
    assert_eq!(report.verdict, Verdict::NotDone);
    assert_eq!(report.reason, "cannot confirm it: it still runs");
    assert_eq!(injector.put_back.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_site_that_is_not_healthy_is_not_harmed() {
    let site = Site::start().await;
    let mut injector = Injector::of(&site);
    injector.healthy = false;
    let report = rehearse(&plan(&site, "power lb1"), &injector).await;
    assert_eq!(report.verdict, Verdict::NotReady);
    assert_eq!(
        report.reason,
        "the site is not healthy before the drill: the server"
    );
    assert!(
        !injector.away.load(Ordering::Relaxed) && injector.put_back.load(Ordering::Relaxed) == 0
    );
}

#[tokio::test]
async fn a_load_that_fails_before_the_harm_is_reported_with_its_reason() {
    let site = Site::start().await;
    let refuse = |_: u32, _: &str| {
        (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            true,
        )
    };
    let mut plan = plan(&site, "power lb1");
    plan.course = course(raw(DEADLINE, refuse).await, None);
    plan.limits.calm_within = Duration::ZERO;
    let injector = Injector::of(&site);
    let report = rehearse(&plan, &injector).await;
    assert_eq!(report.verdict, Verdict::NotReady, "{report:?}");
    for words in [
        "the load fails before any harm is done: ",
        " requests, ",
        "503",
        "the load was ",
        "read every ",
        "[drill] rate",
    ] {
        assert!(
            report.reason.contains(words),
            "no {words:?}: {}",
            report.reason
        );
    }
    assert!(!injector.away.load(Ordering::Relaxed), "nothing is harmed");
}

#[tokio::test]
async fn a_drill_that_is_broken_off_puts_back_what_it_took() {
    let site = Site::start().await;
    let injector = Injector::of(&site);
    let away = injector.away.clone();
    let interrupted = async move {
        while !away.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let report = run(
        &plan(&site, "stop lb1"),
        &injector,
        interrupted,
        &mut |_| (),
    )
    .await;
    assert_eq!(
        (report.verdict, report.verdict.exit().code()),
        (Verdict::Interrupted, 130)
    );
    assert!(*site.serving.borrow() && injector.put_back.load(Ordering::Relaxed) == 1);
}

/// A server that reads each request's head and lets `reply` say what is done about the `n`th on its connection:
/// bytes, or nothing; and whether the connection stays, which it does while it is idle for no longer than `idle`.
async fn raw(idle: Duration, reply: fn(u32, &str) -> (&'static str, bool)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                for n in 0.. {
                    let read = tokio::time::timeout(idle, stream.read(&mut buffer)).await;
                    let Ok(Ok(length @ 1..)) = read else { return };
                    let (bytes, stays) = reply(n, &String::from_utf8_lossy(&buffer[..length]));
                    if stream.write_all(bytes.as_bytes()).await.is_err() || !stays {
                        return;
                    }
                }
            });
        }
    });
    door
}

/// Loads until `count` requests of a kind have ended.
async fn load(course: &Course, kind: Kind, count: usize) -> (Record, Vec<Acknowledged>) {
    let record = Record::default();
    let load = Load::start(course, &record);
    let enough = tokio::time::timeout(DEADLINE, async {
        while record.ledger().of(kind).count() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    enough.await.expect("the load goes on");
    let acknowledged = load.stop().await;
    (record, acknowledged)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn an_idle_connection_that_the_site_closes_is_opened_again_without_a_failure() {
    let door = raw(Duration::from_millis(100), |_, _| (OK, true)).await; // each has its turn after 16 / 60 s
    let (record, _) = load(&course(door, None), Kind::Page, 60).await;
    assert_eq!(record.ledger().failed_count(), 0);
    assert!(record.ledger().reopened_count() > 0);
}

#[tokio::test]
async fn a_connection_that_is_closed_after_each_answer_costs_nothing() {
    let door = raw(DEADLINE, |_, _| (OK, false)).await;
    let (record, _) = load(&course(door, None), Kind::Page, 60).await;
    assert_eq!(record.ledger().failed_count(), 0);
}

#[tokio::test]
async fn a_request_without_a_byte_of_an_answer_is_sent_again_unless_it_is_a_write() {
    let door = raw(
        DEADLINE,
        |n, _| if n == 0 { (OK, true) } else { ("", false) },
    )
    .await;
    let (record, acknowledged) = load(&course(door, Some(writes())), Kind::Write, 30).await;
    let ledger = record.ledger();
    let failed = |kind| ledger.of(kind).filter(|sample| !sample.ok).count();
    let resent = |kind| ledger.of(kind).filter(|sample| sample.resent).count();
    assert_eq!((failed(Kind::Page), failed(Kind::Read)), (0, 0));
    assert!(resent(Kind::Page) + resent(Kind::Read) > 0);
    assert!(failed(Kind::Write) > 0 && resent(Kind::Write) == 0);
    assert_eq!(
        acknowledged.len() + failed(Kind::Write),
        ledger.of(Kind::Write).count()
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure_and_not_sent_again() {
    let door = raw(DEADLINE, |n, _| {
        if n == 0 {
            (OK, true)
        } else {
            ("HTTP/1.1 2", false)
        }
    })
    .await;
    let (record, _) = load(&course(door, None), Kind::Page, 30).await;
    let ledger = record.ledger();
    assert!(ledger.of(Kind::Page).any(|sample| !sample.ok));
    assert!(ledger.of(Kind::Page).all(|sample| !sample.resent));
}

#[tokio::test]
async fn a_write_that_the_site_denies_is_not_acknowledged() {
    const DENIED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\n{\"acknowledged\": false}";
    let door = raw(DEADLINE, |_, head| {
        (if head.starts_with("POST") { DENIED } else { OK }, true)
    })
    .await;
    let (record, acknowledged) = load(&course(door, Some(writes())), Kind::Write, 5).await;
    assert!(acknowledged.is_empty());
    assert!(record.ledger().of(Kind::Write).all(|sample| !sample.ok));
}

#[tokio::test]
async fn what_the_site_does_not_answer_is_not_called_lost() {
    let door = raw(DEADLINE, |_, _| {
        ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", true)
    })
    .await;
    let written = |path: Result<&str, &str>| Acknowledged {
        id: "drill-1".into(),
        path: path
            .map(String::from)
            .map_err(|why| NoPath::Answer(why.into())),
    };
    let both = [
        written(Ok("/entries/1")),
        written(Err("the answer has no field \"id\"")),
    ];
    let found = check_lost(&course(door, None), &both, Duration::from_millis(100)).await;
    let expected = [
        "drill-1: /entries/1: HTTP 503",
        "drill-1: the answer has no field \"id\"",
    ];
    assert_eq!(
        found
            .unknown
            .iter()
            .filter(|why| expected.contains(&why.as_str()))
            .count(),
        2,
        "{found:?}"
    );
    assert_eq!(
        found,
        Writes {
            acknowledged: 2,
            lost: vec![],
            unknown: found.unknown.clone()
        }
    );
}

#[test]
fn without_a_drill_section_the_page_alone_is_asked_for() {
    let course = Course::new("127.0.0.1:8080".parse().unwrap(), None);
    let page = (Kind::Page, Duration::from_millis(10));
    assert_eq!(
        course.paces(),
        [(Kind::Probe, Duration::from_millis(10)), page]
    );
}

#[test]
fn a_report_is_read_as_it_is_written() {
    let json = r#"{"schema":2,"site":"guestbook","target":"kill db1/postgres","verdict":"not_healthy","reason":"x",
        "detected_ms":null,"recovered_ms":0,"put_back_ms":null,"whole_ms":7,"outage_ms":12,"outage_of":"vip 10.77.0.100","longest_pause_ms":11,
        "kinds":[{"kind":"probe","sent":1,"failed":1,"resent":0,"longest_gap_ms":9,"p50_ms":1,"p99_ms":2,
        "failures":[["HTTP 503",1]]}],"reopened":0,"acknowledged":1,"lost":0,"lost_examples":[],"unknown":1,"contents":{"different":["entries: db2 has 3 rows, db1 has 4 rows"]}}"#;
    let report: DrillReport = serde_json::from_str(json).unwrap();
    let written: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(
        written,
        serde_json::from_str::<serde_json::Value>(json).unwrap()
    );
}
