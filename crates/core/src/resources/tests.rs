//! One server's disk, second by second.

use super::*;
use gaiola_model::{ServerName, Tier};

const MB: u64 = 1_000_000;
const GB: u64 = 1000 * MB;

fn disk(total_bytes: u64, free_bytes: u64) -> DiskReading {
    DiskReading {
        holds: Holds::Database,
        total_bytes,
        free_bytes,
        refused: None,
    }
}

fn with_disk(disk: DiskReading) -> Reading {
    Reading {
        disks: vec![disk],
        ..Reading::default()
    }
}

/// What is reported of a disk of 50 GB that has each of these free, one second after another.
fn reported(free: &[u64]) -> Resources {
    let mut watch = Watch::default();
    let mut reported = Resources::default();
    for (second, free) in (0..).zip(free) {
        let now = Time::from_start(Duration::from_secs(second));
        reported = watch.step(now, &with_disk(disk(50 * GB, *free)));
    }
    reported
}

fn state(free: &[u64]) -> DiskState {
    reported(free).disks[0].state
}

fn observed(resources: Resources) -> Observed {
    Observed {
        resources,
        ..Observed::nothing_on(ServerName::new(Tier::Database, 1))
    }
}

#[test]
fn a_disk_is_low_before_it_is_full() {
    assert_eq!(state(&[5 * GB]), DiskState::Room);
    assert_eq!(state(&[GB]), DiskState::Low);
    assert_eq!(state(&[15 * MB]), DiskState::Full);
    let mut small = Watch::default();
    let small = small.step(Time::ZERO, &with_disk(disk(2 * GB, 190 * MB)));
    assert_eq!(small.disks[0].state, DiskState::Low);
    assert_eq!(
        warnings(&small),
        ["the disk with PostgreSQL's data is almost full: 190 MB of 2.0 GB are free"]
    );
}

#[test]
fn a_full_disk_is_named_at_once_and_healthy_again_with_some_room() {
    assert!(disk_is_full(&observed(reported(&[5 * GB, 0]))));
    assert_eq!(
        faults(&reported(&[5 * GB, 3 * MB])),
        ["the disk with PostgreSQL's data is full: 3 MB of 50.0 GB are free"]
    );
    assert_eq!(state(&[0, 20 * MB]), DiskState::Full);
    assert_eq!(state(&[0, 40 * MB]), DiskState::Low);
    assert_eq!(state(&[0, 5 * GB]), DiskState::Room);
    assert!(!disk_is_full(&observed(Resources::default())));
}

#[test]
fn a_refused_write_is_a_fault_however_much_is_free() {
    let mut watch = Watch::default();
    let mut reported = |refused| {
        let disk = DiskReading {
            refused,
            ..disk(50 * GB, 30 * GB)
        };
        watch.step(Time::ZERO, &with_disk(disk))
    };
    let quota = reported(Some(Refused::NoRoom("Disk quota exceeded".into())));
    assert!(disk_is_full(&observed(quota.clone())));
    let words =
        "the disk with PostgreSQL's data is full: Disk quota exceeded; 30.0 GB of 50.0 GB are free";
    assert_eq!(faults(&quota), [words]);
    let read_only = reported(Some(Refused::Other("Read-only file system".into())));
    assert!(!disk_is_full(&observed(read_only.clone())));
    let words = "the disk with PostgreSQL's data refuses what is written: Read-only file system";
    assert_eq!(faults(&read_only), [words]);
    assert_eq!(faults(&reported(None)), [""; 0]);
}

#[test]
fn a_disk_that_fills_up_is_reported_with_the_time_that_is_left() {
    let falling: Vec<u64> = (0..40).map(|second| 20 * GB - second * 300 * MB).collect();
    let reported = reported(&falling);
    assert_eq!(reported.disks[0].state, DiskState::Low);
    assert!(reported.disks[0].full_in_s.is_some_and(|left| left < 60));
    assert!(
        warnings(&reported)[0]
            .starts_with("the disk with PostgreSQL's data will be full in about ")
    );
    // A warning that came stays for a while, and goes once nothing more is written.
    let mut stopped = falling;
    stopped.extend([8 * GB; 30]);
    assert_eq!(state(&stopped), DiskState::Low);
    stopped.extend([8 * GB; 100]);
    assert_eq!(state(&stopped), DiskState::Room);
}

#[test]
fn another_file_system_in_its_place_does_not_fill_up() {
    let mut watch = Watch::default();
    let mut at = |second, disk| {
        let now = Time::from_start(Duration::from_secs(second));
        watch.step(now, &with_disk(disk)).disks[0].state
    };
    (0..30).for_each(|second| assert_eq!(at(second, disk(50 * GB, 40 * GB)), DiskState::Room));
    assert_eq!(at(30, disk(20 * GB, 20 * GB)), DiskState::Room);
    assert_eq!(at(60, disk(20 * GB, 20 * GB)), DiskState::Room);
}

#[test]
fn small_changes_are_not_reported() {
    let free = |percent: u64| 50 * GB / 100 * percent;
    assert_eq!(reported(&[free(60), free(59)]), reported(&[free(60)]));
    assert_ne!(reported(&[free(60), free(55)]), reported(&[free(60)]));
}

#[test]
fn descriptors_are_reported_where_few_are_left() {
    let of = |process: Option<&str>, open| Descriptors {
        process: process.map(Into::into),
        open,
        limit: 1000,
    };
    let reading = |proxy| Reading {
        descriptors: vec![of(None, 10), of(Some("proxy"), proxy)],
        ..Reading::default()
    };
    let mut watch = Watch::default();
    let mut words = |proxy| warnings(&watch.step(Time::ZERO, &reading(proxy)));
    assert_eq!(words(700), [""; 0]);
    let scarce = "proxy has 900 of its 1000 descriptors open";
    assert_eq!(words(900), [scarce]);
    assert_eq!(words(880), [scarce]);
    assert_eq!(words(700), [""; 0]);
}
