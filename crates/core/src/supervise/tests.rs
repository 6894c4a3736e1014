use super::*;
use proptest::prelude::*;

type Plant = Supervisor<&'static str, u32>;

const fn at(ms: u64) -> Time {
    Time::from_start(Duration::from_millis(ms))
}

fn wanted(launch: &'static str) -> WantedProcess<&'static str> {
    WantedProcess {
        launch,
        grace: Duration::from_secs(3),
        restart: true,
    }
}

fn all(launch: &'static str) -> BTreeMap<String, WantedProcess<&'static str>> {
    BTreeMap::from([("a".into(), wanted(launch))])
}

fn step(plant: &mut Plant, now: u64, input: Input<'_, &'static str, u32>) -> Vec<Action<u32>> {
    let mut out = Vec::new();
    plant.step(at(now), input, &mut out);
    out
}

fn started(id: u32) -> Input<'static, &'static str, u32> {
    Input::Started { name: "a", id }
}

fn ended(id: u32) -> Input<'static, &'static str, u32> {
    Input::Ended {
        name: "a",
        id,
        how: "exited".into(),
    }
}

fn adopt(id: u32, is_led: bool) -> Input<'static, &'static str, u32> {
    Input::Adopt {
        name: "a",
        wanted: wanted("x"),
        id,
        is_led,
    }
}

/// What a process that ended by itself leads to.
fn ends(id: u32) -> [Action<u32>; 2] {
    [
        Action::Terminate("a".into(), id),
        Action::CheckGroup("a".into(), id),
    ]
}

fn group(id: u32, is_empty: bool) -> Input<'static, &'static str, u32> {
    let name = "a";
    Input::Group { name, id, is_empty }
}

#[test]
fn a_process_that_keeps_ending_is_started_less_and_less_often() {
    let waits: Vec<u128> = (0..=8).map(|n| backoff(n).as_millis()).collect();
    assert_eq!(waits, [0, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
}

#[test]
fn a_process_that_ended_is_started_after_its_back_off_and_at_once_if_it_ran_for_long() {
    let mut plant = Plant::default();
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 0, Input::Want(&all("x"))), launch);
    assert_eq!(plant.condition("a"), Some(Condition::Starting));
    step(&mut plant, 0, started(1));
    assert_eq!(step(&mut plant, 100, ended(1)), ends(1));
    assert_eq!(plant.condition("a"), Some(Condition::Down("exited".into())));
    assert_eq!(step(&mut plant, 100, group(1, true)), []);
    assert_eq!(plant.next_deadline(), Some(at(300)));
    assert_eq!(step(&mut plant, 299, Input::Deadline), []);
    assert_eq!(step(&mut plant, 300, Input::Deadline), launch);
    step(&mut plant, 300, started(2));
    step(&mut plant, 5300, ended(2));
    assert_eq!(step(&mut plant, 5300, group(2, true)), launch);
    assert_eq!(plant.restarts().collect::<Vec<_>>(), [("a", 2)]);
}

#[test]
fn descendants_of_a_process_that_ended_by_itself_are_ended_before_it_is_started_again() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&all("x")));
    step(&mut plant, 0, started(1));
    assert_eq!(step(&mut plant, 6000, ended(1)), ends(1));
    assert_eq!(step(&mut plant, 6000, group(1, false)), []);
    assert_eq!(step(&mut plant, 6010, Input::Want(&all("x"))), []);
    assert_eq!(plant.next_deadline(), Some(at(6020)));
    let check = [Action::CheckGroup("a".into(), 1)];
    assert_eq!(step(&mut plant, 6020, Input::Deadline), check);
    assert_eq!(step(&mut plant, 8999, group(1, false)), []);
    let kill = [Action::Kill("a".into(), 1)];
    assert_eq!(step(&mut plant, 9000, group(1, false)), kill);
    assert_eq!(plant.running().count(), 1);
    assert_eq!(plant.condition("a"), Some(Condition::Down("exited".into())));
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 9020, group(1, true)), launch);
}

#[test]
fn what_is_not_wanted_any_more_is_not_started_again_once_its_descendants_have_ended() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&all("x")));
    step(&mut plant, 0, started(1));
    step(&mut plant, 10, ended(1));
    step(&mut plant, 10, group(1, false));
    assert_eq!(step(&mut plant, 20, Input::Want(&all("y"))), []);
    assert_eq!(plant.condition("a"), Some(Condition::Stopping));
    let kill = [Action::Kill("a".into(), 1)];
    assert_eq!(step(&mut plant, 3010, group(1, false)), kill);
    assert_eq!(step(&mut plant, 3030, group(1, true)), []);
    assert_eq!(plant.condition("a"), None);
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 3030, Input::Want(&all("y"))), launch);
}

#[test]
fn descendants_that_an_earlier_agent_has_left_are_ended_before_the_process_is_started_again() {
    let mut plant = Plant::default();
    assert_eq!(step(&mut plant, 0, adopt(7, false)), ends(7));
    assert_eq!(step(&mut plant, 0, group(7, false)), []);
    assert_eq!(step(&mut plant, 5, Input::Want(&all("x"))), []);
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 1000, group(7, true)), launch);
    assert_eq!(plant.launch_of("a"), Some(&"x"));
}

#[test]
fn a_stopped_process_is_killed_at_its_deadline_and_again_while_it_does_not_end() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&all("x")));
    step(&mut plant, 0, started(1));
    let stopped = step(&mut plant, 1000, Input::Want(&BTreeMap::new()));
    assert_eq!(stopped, [Action::Terminate("a".into(), 1)]);
    assert_eq!(plant.next_deadline(), Some(at(4000)));
    let kill = [Action::Kill("a".into(), 1)];
    assert_eq!(step(&mut plant, 4000, Input::Deadline), kill);
    assert_eq!(plant.next_deadline(), Some(at(5000)));
    assert_eq!(step(&mut plant, 4500, Input::Deadline), []);
    assert_eq!(step(&mut plant, 5000, Input::Deadline), kill);
    assert_eq!(
        step(&mut plant, 5001, ended(1)),
        [Action::CheckGroup("a".into(), 1)]
    );
    step(&mut plant, 5001, group(1, true));
    assert_eq!((plant.condition("a"), plant.next_deadline()), (None, None));
}

#[test]
fn descendants_have_the_grace_of_their_process_and_the_next_one_waits_for_them() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&all("x")));
    step(&mut plant, 0, started(1));
    let stopped = step(&mut plant, 0, Input::Want(&all("y")));
    assert_eq!(stopped, [Action::Terminate("a".into(), 1)]);
    step(&mut plant, 10, ended(1));
    assert_eq!(step(&mut plant, 10, group(1, false)), []);
    assert_eq!(step(&mut plant, 20, Input::Want(&all("y"))), []);
    let kill = [Action::Kill("a".into(), 1)];
    assert_eq!(step(&mut plant, 3000, group(1, false)), kill);
    assert_eq!(step(&mut plant, 3020, group(1, true)), []);
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 3020, Input::Want(&all("y"))), launch);
    assert_eq!(plant.launch_of("a"), Some(&"y"));
}

#[test]
fn an_adopted_process_is_not_started_and_one_with_another_launch_is_stopped_first() {
    let mut plant = Plant::default();
    assert_eq!(step(&mut plant, 0, adopt(7, true)), []);
    assert_eq!(step(&mut plant, 0, Input::Want(&all("x"))), []);
    assert_eq!(plant.running_as("a"), Some(&"x"));
    let stopped = step(&mut plant, 0, Input::Want(&all("y")));
    assert_eq!(stopped, [Action::Terminate("a".into(), 7)]);
    assert_eq!(plant.running_as("a"), None);
}

#[test]
fn what_is_not_wanted_any_more_while_it_is_started_is_stopped_once_it_runs() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&all("x")));
    assert_eq!(step(&mut plant, 1, Input::Want(&BTreeMap::new())), []);
    assert_eq!(
        step(&mut plant, 2, started(1)),
        [Action::Terminate("a".into(), 1)]
    );
}

#[test]
fn another_grace_does_not_start_a_process_again_and_one_that_ended_is_not_restarted_unless_wanted()
{
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&all("x")));
    step(&mut plant, 0, started(1));
    let mut once = all("x");
    let handling = once.get_mut("a").unwrap();
    (handling.grace, handling.restart) = (Duration::from_secs(1), false);
    assert_eq!(step(&mut plant, 0, Input::Want(&once)), []);
    step(&mut plant, 10, ended(1));
    step(&mut plant, 10, group(1, true));
    assert_eq!(plant.next_deadline(), None);
    assert_eq!(step(&mut plant, 60_000, Input::Want(&once)), []);
}

/// How long a process, and each of its descendants, may take to end after SIGKILL, in milliseconds.
const DYING: u64 = 40;
/// The grace of [`wanted`].
const GRACE: u64 = 3000;

/// The kernel's side: processes and descendants that take their time to end.
#[derive(Default)]
struct Kernel {
    plant: Plant,
    now: u64,
    ids: u32,
    /// Every process or group that is alive.
    alive: Vec<Alive>,
    /// When the last process ended by itself, if it is wanted since.
    down_since: Option<u64>,
}

struct Alive {
    id: u32,
    leads: bool,
    descendants: bool,
    /// When it was first asked to stop, by this agent.
    asked_at: Option<u64>,
    /// When it will be gone, as it was sent SIGKILL.
    gone_at: Option<u64>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The agent decides again what is wanted: nothing, or the process in one of two ways.
    Want(Option<bool>),
    Wait(u64),
    /// The process ends, and its descendants with it or not.
    End(bool),
    DescendantsEnd,
    /// The agent dies; the process may end, and its descendants with it or not, before the next agent adopts.
    NewAgent(Option<bool>),
}

impl Kernel {
    fn give(&mut self, input: Input<'_, &'static str, u32>, may_start: bool) {
        let mut out = Vec::new();
        self.plant.step(at(self.now), input, &mut out);
        for action in out {
            self.carry_out(action, may_start);
        }
    }

    fn carry_out(&mut self, action: Action<u32>, may_start: bool) {
        match action {
            Action::Launch(_) => {
                assert!(self.alive.is_empty(), "two processes of one name");
                self.down_since = None;
                if !may_start {
                    let why = "no".into();
                    return self.give(Input::NotStarted { name: "a", why }, may_start);
                }
                self.ids += 1;
                self.alive.push(Alive {
                    id: self.ids,
                    leads: true,
                    descendants: true,
                    asked_at: None,
                    gone_at: None,
                });
                self.give(started(self.ids), may_start);
            }
            Action::Terminate(_, id) => {
                let now = self.now;
                let of = self.alive.iter_mut().filter(|one| one.id == id);
                of.for_each(|one| one.asked_at = one.asked_at.or(Some(now)));
            }
            Action::Kill(_, id) => {
                let now = self.now;
                let of = self.alive.iter_mut().filter(|one| one.id == id);
                of.for_each(|one| one.gone_at = one.gone_at.or(Some(now + DYING)));
            }
            Action::CheckGroup(_, id) => {
                let is_empty = !self.alive.iter().any(|one| one.id == id);
                self.give(group(id, is_empty), may_start);
            }
        }
    }

    /// Time passes; every deadline is kept, and what was killed ends.
    fn wait(&mut self, ms: u64, may_start: bool) {
        let end = self.now + ms;
        loop {
            let due = self.plant.next_deadline();
            let due = due.map(|due| u64::try_from(due.since_start().as_millis()).unwrap());
            let gone = self.alive.iter().filter_map(|one| one.gone_at).min();
            let Some(next) = due
                .into_iter()
                .chain(gone)
                .min()
                .filter(|next| *next <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if gone == Some(next) {
                self.end(false, true, may_start);
            } else {
                self.give(Input::Deadline, may_start);
                let next = self.plant.next_deadline();
                assert!(next.is_none_or(|next| next > at(self.now)), "a busy loop");
            }
            self.check(may_start);
        }
        self.now = end;
    }

    /// The process ends, or what is left of it, and its descendants with it or not.
    fn end(&mut self, leader_only: bool, with_descendants: bool, may_start: bool) {
        let Some(one) = self.alive.first_mut() else {
            return;
        };
        if leader_only && !one.leads {
            return;
        }
        let (id, led) = (one.id, std::mem::replace(&mut one.leads, false));
        one.descendants &= !with_descendants;
        if led && self.plant.is_expected_to_run("a", id) {
            self.down_since = Some(self.now);
        }
        self.alive.retain(|one| one.descendants);
        if led {
            self.give(ended(id), may_start);
        }
    }

    /// The next agent finds what the records name: a process that still runs, or descendants of one.
    fn adopt(&mut self, may_start: bool) {
        let recorded = self.plant.running();
        let recorded: Vec<u32> = recorded.map(|(_, id, _)| id).collect();
        let launch = self.plant.launch_of("a").copied();
        self.plant = Plant::default();
        self.down_since = None;
        let found = self.alive.iter_mut().find(|one| recorded.contains(&one.id));
        if let Some(one) = found {
            one.asked_at = None;
            let (id, is_led) = (one.id, one.leads);
            let (name, wanted) = ("a", wanted(launch.unwrap()));
            let input = Input::Adopt {
                name,
                wanted,
                id,
                is_led,
            };
            self.give(input, may_start);
        }
    }

    fn happen(&mut self, what: Happening, may_start: bool) {
        match what {
            Happening::Want(None) => {
                self.down_since = None;
                self.give(Input::Want(&BTreeMap::new()), may_start);
            }
            Happening::Want(Some(one)) => {
                let launch = if one { "x" } else { "y" };
                if self.plant.launch_of("a") != Some(&launch) {
                    self.down_since = None;
                }
                self.give(Input::Want(&all(launch)), may_start);
            }
            Happening::Wait(ms) => self.wait(ms, may_start),
            Happening::End(with_descendants) => self.end(true, with_descendants, may_start),
            Happening::DescendantsEnd => {
                self.alive
                    .iter_mut()
                    .for_each(|one| one.descendants = false);
                self.alive.retain(|one| one.leads);
            }
            Happening::NewAgent(ends) => {
                let led = self.alive.first_mut().filter(|one| one.leads);
                if let Some((one, with_descendants)) = led.zip(ends) {
                    (one.leads, one.descendants) = (false, one.descendants && !with_descendants);
                    self.alive.retain(|one| one.descendants);
                }
                self.adopt(may_start);
            }
        }
        self.check(may_start);
    }

    fn check(&self, may_start: bool) {
        for one in &self.alive {
            let late = one
                .asked_at
                .is_some_and(|asked| self.now > asked + GRACE + 20);
            assert!(!late || one.gone_at.is_some(), "{} was not killed", one.id);
        }
        let longest = u64::try_from(BACKOFF.longest.as_millis()).unwrap();
        let longest = longest.max(GRACE + DYING + 2 * 20);
        if let Some(since) = self.down_since.filter(|_| may_start) {
            assert!(self.now - since <= longest, "not started again");
        }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => proptest::option::of(any::<bool>()).prop_map(Happening::Want),
        4 => (0u64..4000).prop_map(Happening::Wait),
        3 => any::<bool>().prop_map(Happening::End),
        2 => Just(Happening::DescendantsEnd),
        2 => proptest::option::of(any::<bool>()).prop_map(Happening::NewAgent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn one_process_of_a_name_is_alive_and_a_stopped_one_is_killed_in_time(
        story in proptest::collection::vec((happening(), proptest::bool::weighted(0.9)), 1..80)
    ) {
        let mut kernel = Kernel::default();
        for (what, may_start) in story {
            kernel.happen(what, may_start);
        }
    }
}
