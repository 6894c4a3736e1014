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
        takes_over: false,
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
        old: false,
    };
    step(&mut plant, 0, adopt);
    assert_eq!(step(&mut plant, 0, Input::Want(&all("x"))), []);
    assert_eq!(plant.running_as("a"), Some(&"x"));
    let stopped = step(&mut plant, 0, Input::Want(&all("y")));
    assert_eq!(stopped, [Action::Terminate("a".into(), 7)]);
    assert_eq!(plant.running_as("a"), None);
}

fn heir(launch: &'static str) -> BTreeMap<String, WantedProcess<&'static str>> {
    let heir = WantedProcess {
        takes_over: true,
        ..wanted(launch)
    };
    BTreeMap::from([("a".into(), heir)])
}

fn old(plant: &Plant) -> Vec<u32> {
    plant.old().map(|(_, id, _)| id).collect()
}

#[test]
fn a_process_that_takes_over_is_started_while_the_old_one_runs_which_ends_by_itself() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&heir("x")));
    step(&mut plant, 0, started(1));
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 100, Input::Want(&heir("y"))), launch);
    assert_eq!(step(&mut plant, 100, started(2)), []);
    assert_eq!(plant.running_as("a"), Some(&"y"));
    assert_eq!((old(&plant), plant.next_deadline()), (vec![1], None));
    assert!(!plant.is_expected_to_run("a", 1));
    assert_eq!(step(&mut plant, 200, Input::Want(&heir("z"))), launch);
    step(&mut plant, 200, started(3));
    assert_eq!(old(&plant), [1, 2]);
    step(&mut plant, 300, ended(1));
    assert_eq!(old(&plant), [2]);
    assert_eq!(plant.restarts().collect::<Vec<_>>(), [("a", 0)]);
    assert_eq!(step(&mut plant, 400, Input::Want(&heir("z"))), []);
}

#[test]
fn a_process_that_fails_to_take_over_is_tried_again_and_the_old_one_is_left_alone() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&heir("x")));
    step(&mut plant, 0, started(1));
    step(&mut plant, 100, Input::Want(&heir("y")));
    step(&mut plant, 100, started(2));
    step(&mut plant, 200, ended(2));
    assert_eq!(plant.condition("a"), Some(Condition::Down("exited".into())));
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 400, Input::Deadline), launch);
    step(&mut plant, 400, started(3));
    step(&mut plant, 500, ended(3));
    assert_eq!(step(&mut plant, 501, Input::Want(&heir("z"))), launch);
    step(&mut plant, 501, started(4));
    assert_eq!((old(&plant), plant.running_as("a")), (vec![1], Some(&"z")));
}

#[test]
fn old_processes_are_stopped_with_the_one_that_took_over() {
    let kill = |id| Action::Kill("a".into(), id);
    let stop = |id| Action::Terminate("a".into(), id);
    for is_up in [true, false] {
        let mut plant = Plant::default();
        step(&mut plant, 0, Input::Want(&heir("x")));
        step(&mut plant, 0, started(1));
        step(&mut plant, 100, Input::Want(&heir("y")));
        step(&mut plant, 100, started(2));
        let mut stopped = vec![stop(2), stop(1)];
        if !is_up {
            step(&mut plant, 150, ended(2));
            stopped.remove(0);
        }
        assert_eq!(
            step(&mut plant, 200, Input::Want(&BTreeMap::new())),
            stopped
        );
        if is_up {
            step(&mut plant, 250, ended(2));
            step(&mut plant, 250, group(2, true));
        }
        assert_eq!(plant.condition("a"), Some(Condition::Stopping));
        assert_eq!(step(&mut plant, 3200, Input::Deadline), [kill(1)]);
        step(&mut plant, 3201, ended(1));
        step(&mut plant, 3201, group(1, true));
        assert_eq!((plant.condition("a"), old(&plant)), (None, vec![]));
    }
}

#[test]
fn the_next_agent_adopts_the_old_process_and_the_new_one_and_starts_the_new_one_if_it_has_ended() {
    let adopt = |id, old| Input::Adopt {
        name: "a",
        wanted: heir("y").remove("a").unwrap(),
        id,
        old,
    };
    let mut plant = Plant::default();
    step(&mut plant, 0, adopt(2, false));
    step(&mut plant, 0, adopt(1, true));
    assert_eq!(step(&mut plant, 0, Input::Want(&heir("y"))), []);
    assert_eq!((old(&plant), plant.running_as("a")), (vec![1], Some(&"y")));
    for launch in ["y", "z"] {
        let mut plant = Plant::default();
        step(&mut plant, 0, adopt(1, true));
        let started = step(&mut plant, 0, Input::Want(&heir(launch)));
        assert_eq!(started, [Action::Launch("a".into())]);
        assert_eq!(
            (old(&plant), plant.launch_of("a")),
            (vec![1], Some(&launch))
        );
    }
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
                        let old = false;
                        let adopt = Input::Adopt {
                            name,
                            wanted,
                            id,
                            old,
                        };
                        self.give(adopt, may_start);
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
