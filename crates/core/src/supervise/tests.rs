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
    assert_eq!(
        step(&mut plant, 100, ended(1)),
        [Action::Kill("a".into(), 1)]
    );
    assert_eq!(plant.condition("a"), Some(Condition::Down("exited".into())));
    assert_eq!(plant.next_deadline(), Some(at(300)));
    assert_eq!(step(&mut plant, 299, Input::Deadline), []);
    assert_eq!(step(&mut plant, 300, Input::Deadline), launch);
    step(&mut plant, 300, started(2));
    step(&mut plant, 5300, ended(2));
    assert_eq!(step(&mut plant, 5300, Input::Want(&all("x"))), launch);
    assert_eq!(plant.restarts().collect::<Vec<_>>(), [("a", 2)]);
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
    let adopt = Input::Adopt {
        name: "a",
        wanted: wanted("x"),
        id: 7,
    };
    step(&mut plant, 0, adopt);
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
    assert_eq!(plant.next_deadline(), None);
    assert_eq!(step(&mut plant, 60_000, Input::Want(&once)), []);
}

/// The kernel's side: processes and descendants that take a random time to end.
#[derive(Default)]
struct Kernel {
    plant: Plant,
    now: u64,
    ids: u32,
    /// Every process or group that is alive.
    alive: Vec<Alive>,
    /// Since when each process was asked to stop, with its grace.
    stopping: BTreeMap<u32, (u64, u64)>,
    /// When the last process ended by itself, if it is wanted since.
    down_since: Option<u64>,
}

struct Alive {
    id: u32,
    leads: bool,
    descendants: bool,
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
    /// The agent dies, and the next adopts.
    NewAgent,
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
            Action::Launch(_) if !may_start => {
                self.down_since = None;
                let why = "no".into();
                self.give(Input::NotStarted { name: "a", why }, may_start);
            }
            Action::Launch(_) => {
                assert!(self.alive.is_empty(), "two processes of one name");
                self.ids += 1;
                let id = self.ids;
                let (leads, descendants) = (true, true);
                self.alive.push(Alive {
                    id,
                    leads,
                    descendants,
                });
                self.down_since = None;
                self.give(started(id), may_start);
            }
            Action::Terminate(_, id) => {
                self.stopping.insert(id, (self.now, 3000));
            }
            Action::Kill(_, id) => {
                let led = self.alive.iter().any(|one| one.id == id && one.leads);
                self.alive.retain(|one| one.id != id);
                self.stopping.remove(&id);
                if led {
                    self.give(ended(id), may_start);
                }
            }
            Action::CheckGroup(_, id) => {
                let is_empty = !self.alive.iter().any(|one| one.id == id);
                self.give(group(id, is_empty), may_start);
            }
        }
    }

    /// Time passes; every deadline is kept.
    fn wait(&mut self, ms: u64, may_start: bool) {
        let end = self.now + ms;
        while let Some(due) = self.plant.next_deadline().filter(|due| *due <= at(end)) {
            let due = u64::try_from(due.since_start().as_millis()).unwrap();
            self.now = self.now.max(due);
            self.give(Input::Deadline, may_start);
            let next = self.plant.next_deadline();
            assert!(next.is_none_or(|next| next > at(self.now)), "a busy loop");
        }
        self.now = end;
    }

    fn happen(&mut self, what: Happening, may_start: bool) {
        match what {
            Happening::Want(None) => {
                self.down_since = None;
                self.give(Input::Want(&BTreeMap::new()), may_start);
            }
            Happening::Want(Some(one)) => {
                let launch = if one { "x" } else { "y" };
                self.give(Input::Want(&all(launch)), may_start);
            }
            Happening::Wait(ms) => self.wait(ms, may_start),
            Happening::End(with_descendants) => {
                let Some(one) = self.alive.iter_mut().find(|one| one.leads) else {
                    return;
                };
                let id = one.id;
                (one.leads, one.descendants) = (false, !with_descendants);
                if self.plant.is_expected_to_run("a", id) {
                    self.down_since = Some(self.now);
                }
                self.alive.retain(|one| one.leads || one.descendants);
                self.give(ended(id), may_start);
            }
            Happening::DescendantsEnd => self.alive.retain(|one| one.leads),
            Happening::NewAgent => {
                let left: Vec<_> = self
                    .plant
                    .running()
                    .map(|(_, id, w)| (id, w.clone()))
                    .collect();
                self.plant = Plant::default();
                self.stopping.clear();
                self.down_since = None;
                // A process that has ended by then is not found.
                for (id, wanted) in left {
                    if self.alive.iter().any(|one| one.id == id && one.leads) {
                        let name = "a";
                        self.give(Input::Adopt { name, wanted, id }, may_start);
                    } else {
                        self.alive.retain(|one| one.id != id);
                    }
                }
            }
        }
        for (id, (since, grace)) in &self.stopping {
            let left = self.alive.iter().any(|one| one.id == *id);
            let late = self.now > since + grace + 20;
            assert!(!left || !late, "{id} was not killed");
        }
        let longest = BACKOFF.longest.as_millis();
        if let Some(since) = self.down_since.filter(|_| may_start) {
            assert!(u128::from(self.now - since) <= longest, "not started again");
        }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => proptest::option::of(any::<bool>()).prop_map(Happening::Want),
        4 => (0u64..4000).prop_map(Happening::Wait),
        3 => any::<bool>().prop_map(Happening::End),
        2 => Just(Happening::DescendantsEnd),
        1 => Just(Happening::NewAgent),
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
