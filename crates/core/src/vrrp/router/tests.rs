use super::*;
use crate::vrrp::ADDRESS_LIFETIME;
use Output::{AddAddress, Advertise, Announce, Became, RefreshAddress, RemoveAddress};
use gaiola_model::vrrp::{Advertisement, Hello, Vrid};
use std::net::Ipv4Addr;

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
const LOWER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1));
const HIGHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 3));
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
const PRIORITY: Priority = Priority(128);

/// A router and a clock.
struct Bench {
    router: Router,
    now: Time,
}

impl Bench {
    fn new(preempt: bool) -> Self {
        let mut settings = Settings::new(Vrid::new(1).unwrap(), VIP, OWN, PRIORITY);
        settings.preempt = preempt;
        let mut bench = Self {
            router: Router::new(settings),
            now: Time::ZERO,
        };
        bench.step(Input::Start { held: false });
        bench
    }

    fn backup(preempt: bool) -> Self {
        let mut bench = Self::new(preempt);
        bench.step(Input::Ready);
        bench
    }

    fn active() -> Self {
        let mut bench = Self::backup(false);
        bench.reach();
        assert_eq!(bench.router.role(), Role::Active);
        bench
    }

    /// An Active router of a site whose routers say hellos.
    fn active_with_hellos() -> Self {
        let mut settings = Self::new(false).router.settings().clone();
        settings.hellos = true;
        let mut bench = Self {
            router: Router::new(settings),
            now: Time::ZERO,
        };
        bench.step(Input::Start { held: false });
        bench.step(Input::Ready);
        bench.run(350);
        assert_eq!(bench.router.role(), Role::Active);
        bench
    }

    /// Hellos of a router that stands by with this priority, for so long.
    fn hear_hellos(&mut self, priority: u8, hears: &[IpAddr], ms: u64) -> Vec<Output> {
        let mut out = Vec::new();
        for _ in 0..ms / 100 {
            out.extend(self.run(100));
            let hello = Hello {
                vrid: Vrid::new(1).unwrap(),
                priority: Priority(priority),
                interval: Duration::from_millis(100),
                stands_by: true,
                hears: hears.to_vec(),
            };
            let from = HIGHER_ADDRESS;
            out.extend(self.step(Input::HeardHello { from, hello }));
        }
        out
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.router.step(self.now, input, &mut out);
        out
    }

    /// Goes to the next deadline.
    fn reach(&mut self) -> Vec<Output> {
        self.now = self.router.next_deadline().expect("a deadline");
        self.step(Input::Deadline)
    }

    fn pass(&mut self, ms: u64) -> &mut Self {
        self.now = self.now + Duration::from_millis(ms);
        self
    }

    /// Goes on, keeping every deadline, for so long.
    fn run(&mut self, ms: u64) -> Vec<Output> {
        let end = self.now + Duration::from_millis(ms);
        let mut out = Vec::new();
        while self.router.next_deadline().is_some_and(|due| due <= end) {
            out.extend(self.reach());
        }
        self.now = end;
        out
    }

    fn hear(&mut self, from: IpAddr, priority: u8) -> Vec<Output> {
        let advert = Advertisement {
            vrid: Vrid::new(1).unwrap(),
            priority: Priority(priority),
            interval: Duration::from_millis(100),
            vips: vec![VIP],
        };
        self.step(Input::Heard { from, advert })
    }
}

#[test]
fn a_start_removes_what_an_earlier_life_left() {
    let mut router = Router::new(Bench::new(false).router.settings().clone());
    let mut out = Vec::new();
    router.step(Time::ZERO, Input::Start { held: false }, &mut out);
    assert_eq!(out, [RemoveAddress]);
    assert_eq!(router.next_deadline(), None);
}

#[test]
fn backup_waits_out_the_skew_before_taking_over() {
    let mut bench = Bench::backup(false);
    let out = bench.reach();
    assert_eq!(bench.now.since_start(), Duration::from_millis(350));
    assert_eq!(
        out,
        [
            AddAddress,
            Announce,
            Advertise(PRIORITY),
            Became(Role::Active, Reason::Silence)
        ]
    );
}

#[test]
fn an_active_router_advertises_refreshes_and_announces() {
    let mut bench = Bench::active();
    let out = bench.run(1000);
    let count = |what| out.iter().filter(|it| **it == what).count();
    assert_eq!(count(Advertise(PRIORITY)), 10);
    assert_eq!(count(RefreshAddress), 5);
    assert_eq!(count(Announce), 4);
    assert_eq!(
        bench
            .run(60_000)
            .iter()
            .filter(|it| **it == Announce)
            .count(),
        30
    );
}

#[test]
fn without_preemption_a_lower_holder_is_left_alone() {
    let mut bench = Bench::backup(false);
    for _ in 0..50 {
        bench.pass(100).hear(LOWER_ADDRESS, 1);
    }
    let active = Some(LOWER_ADDRESS);
    assert_eq!(bench.router.role(), Role::Backup { active });
}

#[test]
fn with_preemption_a_lower_holder_is_pushed_aside() {
    let mut bench = Bench::backup(true);
    bench.pass(100).hear(LOWER_ADDRESS, 1);
    bench.reach();
    assert_eq!(bench.now.since_start(), Duration::from_millis(350));
    assert_eq!(bench.router.role(), Role::Active);
}

#[test]
fn a_release_shortens_the_wait_to_the_skew() {
    let mut bench = Bench::backup(false);
    bench.pass(100).hear(HIGHER_ADDRESS, 200);
    bench.pass(100).hear(HIGHER_ADDRESS, 0);
    let out = bench.reach();
    assert_eq!(bench.now.since_start(), Duration::from_millis(250));
    assert_eq!(out.last(), Some(&Became(Role::Active, Reason::Released)));
}

#[test]
fn a_release_said_twice_does_not_lengthen_the_wait() {
    let mut bench = Bench::backup(false);
    bench.hear(HIGHER_ADDRESS, 0);
    bench.pass(40).hear(HIGHER_ADDRESS, 0);
    bench.reach();
    assert_eq!(bench.now.since_start(), Duration::from_millis(50));
}

#[test]
fn the_release_of_one_who_does_not_hold_it_changes_nothing() {
    let mut bench = Bench::backup(false);
    bench.hear(HIGHER_ADDRESS, 200);
    let due = bench.router.next_deadline();
    bench.pass(10).hear(LOWER_ADDRESS, 0);
    assert_eq!(bench.router.next_deadline(), due);
}

#[test]
fn the_loser_of_a_duel_removes_the_address_and_speaks_once_more() {
    let mut bench = Bench::active();
    let out = bench.hear(HIGHER_ADDRESS, 200);
    let active = Some(HIGHER_ADDRESS);
    assert_eq!(
        out,
        [
            RemoveAddress,
            Advertise(PRIORITY),
            Became(Role::Backup { active }, Reason::LostDuel)
        ]
    );
}

#[test]
fn the_winner_of_a_duel_announces_at_once_and_again() {
    let mut bench = Bench::active();
    bench.run(20_000);
    assert_eq!(
        bench.hear(HIGHER_ADDRESS, 1),
        [Announce, Advertise(PRIORITY)]
    );
    let out = bench.run(250);
    assert_eq!(out.iter().filter(|it| **it == Announce).count(), 2);
}

#[test]
fn equal_priorities_are_distinguished_by_address() {
    let mut bench = Bench::active();
    bench.hear(LOWER_ADDRESS, PRIORITY.0);
    assert_eq!(bench.router.role(), Role::Active);
    bench.hear(HIGHER_ADDRESS, PRIORITY.0);
    assert_ne!(bench.router.role(), Role::Active);
}

#[test]
fn a_flood_of_lower_adverts_is_answered_sparingly() {
    let mut bench = Bench::active();
    let answers = (0..1000)
        .flat_map(|_| bench.hear(LOWER_ADDRESS, 1))
        .filter(|it| *it == Announce)
        .count();
    assert_eq!(answers, 8);
}

#[test]
fn not_ready_takes_the_address_away_before_telling_the_others() {
    let mut bench = Bench::active();
    assert_eq!(
        bench.step(Input::NotReady),
        [
            RemoveAddress,
            Advertise(Priority::RELEASE),
            Became(Role::Initialize, Reason::NotReady)
        ]
    );
    assert_eq!(bench.router.next_deadline(), None);
}

#[test]
fn a_yielding_holder_serves_until_it_hears_the_next_one() {
    let mut bench = Bench::active();
    assert_eq!(bench.step(Input::Yield), [Advertise(Priority::RELEASE)]);
    assert_eq!(bench.router.role(), Role::Active);
    let active = Some(LOWER_ADDRESS);
    assert_eq!(
        bench.pass(60).hear(LOWER_ADDRESS, 1),
        [
            RemoveAddress,
            Advertise(Priority::RELEASE),
            Became(Role::Backup { active }, Reason::Yielded)
        ]
    );
}

#[test]
fn a_vip_that_nobody_takes_is_kept() {
    let mut bench = Bench::active();
    bench.step(Input::Yield);
    let out = bench.run(300);
    assert!(!out.contains(&RemoveAddress));
    assert!(out.contains(&RefreshAddress));
    assert_eq!(
        out.last(),
        Some(&Became(Role::Active, Reason::NobodyTookIt))
    );
}

#[test]
fn after_yielding_even_a_preempting_router_is_patient() {
    let mut bench = Bench::backup(true);
    bench.reach();
    bench.step(Input::Yield);
    bench.pass(60).hear(LOWER_ADDRESS, 1);
    for _ in 0..90 {
        bench.pass(100).hear(LOWER_ADDRESS, 1);
    }
    assert_ne!(bench.router.role(), Role::Active);
    for _ in 0..15 {
        bench.pass(100).hear(LOWER_ADDRESS, 1);
    }
    bench.reach();
    assert_eq!(bench.router.role(), Role::Active);
}

#[test]
fn stop_hands_over_and_never_waits_for_long() {
    let mut heard = Bench::active();
    heard.step(Input::Stop);
    assert!(!heard.router.is_stopped());
    heard.pass(60).hear(LOWER_ADDRESS, 1);
    assert!(heard.router.is_stopped());

    let mut alone = Bench::active();
    alone.step(Input::Stop);
    let out = alone.run(300);
    assert!(alone.router.is_stopped());
    assert!(out.contains(&RemoveAddress));
}

#[test]
fn a_frozen_holder_listens_before_it_goes_on() {
    let mut bench = Bench::active();
    bench.pass(400);
    let out = bench.step(Input::Deadline);
    assert_eq!(out, [Became(Role::Initialize, Reason::Late)]);
    let mut alone = bench.router.clone();
    let out = bench.hear(LOWER_ADDRESS, 1);
    assert_eq!(out[0], RemoveAddress);
    assert_ne!(bench.router.role(), Role::Active);

    let mut out = Vec::new();
    let due = alone.next_deadline().unwrap();
    alone.step(due, Input::Deadline, &mut out);
    assert_eq!(out.last(), Some(&Became(Role::Active, Reason::Resumed)));
}

#[test]
fn a_frozen_backup_listens_before_it_takes_over() {
    let mut bench = Bench::backup(false);
    bench.pass(5000);
    assert_eq!(bench.step(Input::Deadline), []);
    bench.hear(HIGHER_ADDRESS, 200);
    assert_ne!(bench.router.role(), Role::Active);
}

#[test]
fn a_restarted_router_goes_on_where_it_was_unless_another_is_heard() {
    let settings = Bench::new(false).router.settings().clone();
    let start = |heard: bool| {
        let mut bench = Bench {
            router: Router::new(settings.clone()),
            now: Time::ZERO,
        };
        assert_eq!(bench.step(Input::Start { held: true }), []);
        bench.pass(60).step(Input::Ready);
        if heard {
            bench.hear(LOWER_ADDRESS, 1);
        }
        bench.run(100);
        bench.router.role()
    };
    assert_eq!(start(false), Role::Active);
    let active = Some(LOWER_ADDRESS);
    assert_eq!(start(true), Role::Backup { active });
}

#[test]
fn a_restarted_router_without_a_data_plane_drops_the_address() {
    let settings = Bench::new(false).router.settings().clone();
    let mut bench = Bench {
        router: Router::new(settings),
        now: Time::ZERO,
    };
    bench.step(Input::Start { held: true });
    // Whoever may wait for it need not.
    assert_eq!(bench.reach(), [RemoveAddress, Advertise(Priority::RELEASE)]);
    assert!(bench.now.since_start() < ADDRESS_LIFETIME);
}

#[test]
fn what_is_said_of_another_vip_or_by_ourselves_is_ignored() {
    let mut bench = Bench::active();
    assert_eq!(bench.hear(OWN, 255), []);
    let advert = Advertisement {
        vrid: Vrid::new(1).unwrap(),
        priority: Priority(255),
        interval: Duration::from_millis(100),
        vips: vec![IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101))],
    };
    let from = HIGHER_ADDRESS;
    assert_eq!(bench.step(Input::Heard { from, advert }), []);
}

#[test]
fn a_slower_holder_is_waited_for_at_its_own_pace() {
    let mut bench = Bench::backup(false);
    let advert = Advertisement {
        vrid: Vrid::new(1).unwrap(),
        priority: Priority(200),
        interval: Duration::from_secs(1),
        vips: vec![VIP],
    };
    let from = HIGHER_ADDRESS;
    bench.step(Input::Heard { from, advert });
    let due = bench.router.next_deadline().unwrap();
    assert_eq!(due.since_start(), Duration::from_millis(3500));
}

#[test]
fn a_vip_is_yielded_only_to_one_that_is_heard_and_hears_us() {
    let mut bench = Bench::active_with_hellos();
    let yields = |bench: &mut Bench| {
        bench.step(Input::Yield);
        bench.router.is_yielding()
    };
    assert!(!yields(&mut bench), "nobody was ever heard");
    bench.hear_hellos(200, &[], 3000);
    assert!(!yields(&mut bench), "it does not hear us");
    bench.hear_hellos(200, &[OWN], 3000);
    assert_eq!(bench.router.settled(bench.now), Some(HIGHER_ADDRESS));
    bench.run(400);
    assert!(!yields(&mut bench), "it is silent");
    assert_eq!(bench.router.settled(bench.now), None);
    bench.hear_hellos(200, &[OWN], 100);
    assert!(yields(&mut bench));
    // It went silent then, and must settle again, for longer.
    bench.run(300);
    assert_eq!(bench.router.role(), Role::Active);
    bench.hear_hellos(200, &[OWN], 2500);
    assert_eq!(bench.router.settled(bench.now), None);
}

#[test]
fn one_that_hears_nobody_wins_no_duel() {
    let mut bench = Bench::active_with_hellos();
    bench.hear_hellos(200, &[], 500);
    let out = bench.hear(HIGHER_ADDRESS, 200);
    assert_eq!(out, [Announce, Advertise(PRIORITY), Output::SayHello]);
    bench.hear_hellos(200, &[OWN], 100);
    assert!(bench.hear(HIGHER_ADDRESS, 200).contains(&RemoveAddress));
}

#[test]
fn a_holder_that_hears_nobody_is_relieved() {
    let mut bench = Bench::active_with_hellos();
    bench.hear_hellos(200, &[OWN], 100);
    bench.hear(HIGHER_ADDRESS, 200);
    assert_ne!(bench.router.role(), Role::Active);
    for _ in 0..10 {
        bench.hear_hellos(200, &[OWN], 100);
        bench.hear(HIGHER_ADDRESS, 200);
    }
    assert_ne!(bench.router.role(), Role::Active);
    let mut out = Vec::new();
    for _ in 0..4 {
        out.extend(bench.hear_hellos(200, &[], 100));
        out.extend(bench.hear(HIGHER_ADDRESS, 200));
    }
    assert!(out.contains(&Became(Role::Active, Reason::Deaf)), "{out:?}");
}

#[test]
fn the_neighbours_are_notified_again_once_a_router_is_heard_again() {
    let mut bench = Bench::active_with_hellos();
    bench.run(10_000);
    assert!(bench.hear_hellos(100, &[OWN], 100).contains(&Announce));
    assert!(!bench.run(10).contains(&Announce));
    assert!(bench.run(90).contains(&Announce), "as often as at first");
}

#[test]
fn syns_are_kept_for_the_next_holder_and_not_for_long() {
    let mut bench = Bench::active_with_hellos();
    bench.hear_hellos(200, &[OWN], 3000);
    assert_eq!(bench.step(Input::HoldBack(true)), [Output::HoldBack]);
    bench.step(Input::Yield);
    let out = bench.hear(HIGHER_ADDRESS, 200);
    let place = |what| out.iter().position(|it| *it == what);
    assert!(place(RemoveAddress) < place(Output::PassOn), "{out:?}");
    assert_eq!(
        bench.step(Input::HoldBack(true)),
        [],
        "it has nothing to keep"
    );

    let mut bench = Bench::active_with_hellos();
    bench.step(Input::HoldBack(true));
    assert_eq!(bench.step(Input::HoldBack(false)), [Output::PassOn]);
    bench.step(Input::HoldBack(true));
    assert!(bench.run(1500).contains(&Output::PassOn));
    assert!(!bench.router.is_holding_back());
}
