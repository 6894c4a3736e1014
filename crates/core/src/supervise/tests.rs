use super::process::{BACKOFF, backoff};
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

fn adopt(id: u32, is_led: bool) -> Input<'static, &'static str, u32> {
    Input::Adopt {
        name: "a",
        wanted: wanted("x"),
        id,
        is_led,
        is_old: false,
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

/// One that takes over.
fn heir(launch: &'static str) -> BTreeMap<String, WantedProcess<&'static str>> {
    let heir = WantedProcess {
        takes_over: true,
        ..wanted(launch)
    };
    BTreeMap::from([("a".into(), heir)])
}

fn adopt_heir(id: u32, is_led: bool, is_old: bool) -> Input<'static, &'static str, u32> {
    Input::Adopt {
        name: "a",
        wanted: heir("y").remove("a").unwrap(),
        id,
        is_led,
        is_old,
    }
}

fn old(plant: &Plant) -> Vec<u32> {
    plant.old().map(|(_, id, _)| id).collect()
}

/// 2 takes over from 1 at 100.
fn taking_over() -> Plant {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&heir("x")));
    step(&mut plant, 0, started(1));
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 100, Input::Want(&heir("y"))), launch);
    assert_eq!(step(&mut plant, 100, started(2)), []);
    plant
}

#[test]
fn a_process_that_takes_over_is_started_while_the_old_one_runs_which_ends_by_itself() {
    let mut plant = taking_over();
    assert_eq!(plant.running_as("a"), Some(&"y"));
    assert_eq!((old(&plant), plant.next_deadline()), (vec![1], None));
    assert!(!plant.is_expected_to_run("a", 1));
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 200, Input::Want(&heir("z"))), launch);
    step(&mut plant, 200, started(3));
    assert_eq!(old(&plant), [1, 2]);
    assert_eq!(step(&mut plant, 300, ended(1)), ends(1));
    assert_eq!(step(&mut plant, 300, group(1, true)), []);
    assert_eq!(old(&plant), [2]);
    assert_eq!(plant.restarts().collect::<Vec<_>>(), [("a", 0)]);
    assert_eq!(step(&mut plant, 400, Input::Want(&heir("z"))), []);
}

#[test]
fn a_process_that_fails_to_take_over_is_tried_again_and_the_old_one_is_left_alone() {
    let mut plant = taking_over();
    step(&mut plant, 200, ended(2));
    step(&mut plant, 200, group(2, true));
    assert_eq!(plant.condition("a"), Some(Condition::Down("exited".into())));
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 400, Input::Deadline), launch);
    step(&mut plant, 400, started(3));
    step(&mut plant, 500, ended(3));
    step(&mut plant, 500, group(3, true));
    assert_eq!(step(&mut plant, 501, Input::Want(&heir("z"))), launch);
    step(&mut plant, 501, started(4));
    assert_eq!((old(&plant), plant.running_as("a")), (vec![1], Some(&"z")));
}

#[test]
fn descendants_of_an_old_process_are_ended_and_hold_back_nothing() {
    let mut plant = taking_over();
    assert_eq!(step(&mut plant, 200, ended(1)), ends(1));
    assert_eq!(step(&mut plant, 200, group(1, false)), []);
    let launch = || Action::Launch("a".into());
    let next = step(&mut plant, 210, Input::Want(&heir("z")));
    assert_eq!(next, [launch()]);
    step(&mut plant, 210, started(3));
    step(&mut plant, 220, ended(3));
    step(&mut plant, 220, group(3, true));
    let check = Action::CheckGroup("a".into(), 1);
    assert_eq!(step(&mut plant, 420, Input::Deadline), [check, launch()]);
    step(&mut plant, 420, started(4));
    assert_eq!(step(&mut plant, 3199, group(1, false)), []);
    let kill = [Action::Kill("a".into(), 1)];
    assert_eq!(step(&mut plant, 3200, group(1, false)), kill);
    assert_eq!(step(&mut plant, 3240, group(1, true)), []);
    assert_eq!((old(&plant), plant.running_as("a")), (vec![2], Some(&"z")));
}

#[test]
fn what_a_crashed_process_has_left_is_ended_before_another_one_takes_over_from_the_old_one() {
    let mut plant = taking_over();
    assert_eq!(step(&mut plant, 200, ended(2)), ends(2));
    assert_eq!(step(&mut plant, 200, group(2, false)), []);
    assert_eq!(
        step(&mut plant, 300, Input::Want(&heir("z"))),
        [Action::CheckGroup("a".into(), 2)]
    );
    assert_eq!(step(&mut plant, 300, group(2, false)), []);
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 310, group(2, true)), launch);
    step(&mut plant, 310, started(3));
    assert_eq!((old(&plant), plant.running_as("a")), (vec![1], Some(&"z")));
}

#[test]
fn one_that_does_not_take_over_waits_until_the_old_ones_have_been_stopped() {
    let stop = |id| Action::Terminate("a".into(), id);
    let launch = [Action::Launch("a".into())];
    let mut plant = taking_over();
    let stopped = step(&mut plant, 200, Input::Want(&all("z")));
    assert_eq!(stopped, [stop(2), stop(1)]);
    step(&mut plant, 210, ended(2));
    step(&mut plant, 210, group(2, true));
    assert_eq!(step(&mut plant, 215, Input::Want(&all("z"))), []);
    step(&mut plant, 220, ended(1));
    step(&mut plant, 220, group(1, true));
    assert_eq!(step(&mut plant, 220, Input::Want(&all("z"))), launch);

    let mut plant = taking_over();
    let same = step(&mut plant, 200, Input::Want(&all("y")));
    assert_eq!((same, plant.running_as("a")), (vec![stop(1)], Some(&"y")));
    step(&mut plant, 6000, ended(2));
    assert_eq!(
        step(&mut plant, 6000, group(2, true)),
        [Action::Kill("a".into(), 1)]
    );
    assert_eq!(plant.next_deadline(), Some(at(7000)));
    step(&mut plant, 6010, ended(1));
    assert_eq!(step(&mut plant, 6010, group(1, true)), launch);
}

#[test]
fn old_processes_are_stopped_with_the_one_that_took_over() {
    let kill = |id| Action::Kill("a".into(), id);
    let stop = |id| Action::Terminate("a".into(), id);
    for is_up in [true, false] {
        let mut plant = taking_over();
        let mut stopped = vec![stop(2), stop(1)];
        if !is_up {
            step(&mut plant, 150, ended(2));
            step(&mut plant, 150, group(2, true));
            stopped.remove(0);
        }
        let none = BTreeMap::new();
        assert_eq!(step(&mut plant, 200, Input::Want(&none)), stopped);
        if is_up {
            step(&mut plant, 250, ended(2));
            step(&mut plant, 250, group(2, true));
        }
        assert_eq!(plant.condition("a"), Some(Condition::Stopping));
        assert_eq!((plant.running().count(), old(&plant)), (0, vec![1]));
        assert_eq!(step(&mut plant, 3200, Input::Deadline), [kill(1)]);
        step(&mut plant, 3201, ended(1));
        step(&mut plant, 3201, group(1, true));
        assert_eq!((plant.condition("a"), old(&plant)), (None, vec![]));
    }
}

#[test]
fn the_next_agent_adopts_the_old_process_and_the_new_one_and_starts_the_new_one_if_it_has_ended() {
    let mut plant = Plant::default();
    step(&mut plant, 0, adopt_heir(2, true, false));
    step(&mut plant, 0, adopt_heir(1, true, true));
    assert_eq!(step(&mut plant, 0, Input::Want(&heir("y"))), []);
    assert_eq!((old(&plant), plant.running_as("a")), (vec![1], Some(&"y")));
    for launch in ["y", "z"] {
        let mut plant = Plant::default();
        step(&mut plant, 0, adopt_heir(1, true, true));
        let started = step(&mut plant, 0, Input::Want(&heir(launch)));
        assert_eq!(started, [Action::Launch("a".into())]);
        let known = (old(&plant), plant.launch_of("a"));
        assert_eq!(known, (vec![1], Some(&launch)));
    }
}

#[test]
fn the_next_agent_ends_what_an_old_process_has_left_and_starts_nothing_before_it_knows_what_is_wanted()
 {
    let mut plant = Plant::default();
    step(&mut plant, 0, adopt_heir(2, true, false));
    assert_eq!(step(&mut plant, 0, adopt_heir(1, false, true)), ends(1));
    assert_eq!(step(&mut plant, 0, group(1, true)), []);
    assert_eq!((old(&plant), plant.running_as("a")), (vec![], Some(&"y")));

    let mut plant = Plant::default();
    assert_eq!(step(&mut plant, 0, adopt_heir(2, false, false)), ends(2));
    assert_eq!(step(&mut plant, 0, adopt_heir(1, true, true)), []);
    assert_eq!(step(&mut plant, 0, Input::Want(&heir("y"))), []);
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 500, group(2, true)), launch);
    assert_eq!(old(&plant), [1]);
}

#[test]
fn what_is_replaced_while_it_is_started_is_taken_over_from_once_it_runs() {
    let mut plant = Plant::default();
    step(&mut plant, 0, Input::Want(&heir("x")));
    assert_eq!(step(&mut plant, 1, Input::Want(&heir("y"))), []);
    assert_eq!(step(&mut plant, 2, started(1)), []);
    let launch = [Action::Launch("a".into())];
    assert_eq!(step(&mut plant, 3, Input::Want(&heir("y"))), launch);
    assert_eq!(old(&plant), [1]);
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
/// What may be wanted; those from `v` on take over.
const LAUNCHES: [&str; 4] = ["x", "y", "v", "w"];

fn takes_over(launch: &str) -> bool {
    ["v", "w"].contains(&launch)
}

/// The process of one of the [`LAUNCHES`].
fn either(launch: &'static str) -> BTreeMap<String, WantedProcess<&'static str>> {
    if takes_over(launch) {
        heir(launch)
    } else {
        all(launch)
    }
}

/// The kernel's side: processes and descendants that take their time to end.
#[derive(Default)]
struct Kernel {
    plant: Plant,
    now: u64,
    ids: u32,
    /// How often one was to be started.
    launches: u32,
    /// Every process or group that is alive, the oldest first.
    alive: Vec<Alive>,
    /// When the last process ended by itself, if it is wanted since.
    down_since: Option<u64>,
}

struct Alive {
    id: u32,
    leads: bool,
    descendants: bool,
    /// Whether another one was to take over from it.
    is_old: bool,
    /// When it was first asked to stop, by this agent.
    asked_at: Option<u64>,
    /// When it will be gone, as it was sent SIGKILL.
    gone_at: Option<u64>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The agent decides again what is wanted: nothing, or one of the [`LAUNCHES`].
    Want(Option<usize>),
    Wait(u64),
    /// One of the processes ends, and its descendants with it or not.
    End(usize, bool),
    /// Those of one of the processes.
    DescendantsEnd(usize),
    /// The agent dies; one of the processes may end, and its descendants with it or not, before the next agent adopts.
    NewAgent(Option<(usize, bool)>),
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
            Action::Launch(_) => self.launch(may_start),
            Action::Terminate(_, id) => {
                let wanted = self.plant.launch_of("a").is_some_and(|it| takes_over(it));
                let stays = wanted && self.plant.condition("a") != Some(Condition::Stopping);
                let now = self.now;
                for one in self.alive.iter_mut().filter(|one| one.id == id) {
                    let serves = one.is_old && one.leads;
                    assert!(!(serves && stays), "{id} has not finished");
                    one.asked_at = one.asked_at.or(Some(now));
                }
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

    fn launch(&mut self, may_start: bool) {
        self.launches += 1;
        if takes_over(self.plant.launch_of("a").unwrap()) {
            let mut last = self.alive.iter().filter(|one| !one.is_old);
            assert!(
                last.all(|one| one.leads),
                "a crashed one has left something"
            );
            self.alive.iter_mut().for_each(|one| one.is_old = true);
        }
        assert!(self.alive.iter().all(|one| one.is_old), "two of one name");
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
            is_old: false,
            asked_at: None,
            gone_at: None,
        });
        self.give(started(self.ids), may_start);
    }

    /// Time passes; every deadline is kept, and what was killed ends.
    fn wait(&mut self, ms: u64, may_start: bool) {
        let end = self.now + ms;
        loop {
            let due = self.plant.next_deadline();
            let due = due.map(|due| u64::try_from(due.since_start().as_millis()).unwrap());
            let alive = self.alive.iter();
            let gone = alive.filter_map(|one| Some((one.gone_at?, one.id))).min();
            let next = due.into_iter().chain(gone.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if let Some((_, id)) = gone.filter(|(at, _)| *at == next) {
                self.end(id, true, may_start);
            } else {
                self.give(Input::Deadline, may_start);
                let next = self.plant.next_deadline();
                assert!(next.is_none_or(|next| next > at(self.now)), "a busy loop");
            }
            self.check(may_start);
        }
        self.now = end;
    }

    /// One of the processes that run.
    fn led(&self, which: usize) -> Option<u32> {
        let led: Vec<u32> = self
            .alive
            .iter()
            .filter(|one| one.leads)
            .map(|one| one.id)
            .collect();
        let index = which.checked_rem(led.len())?;
        Some(led[index])
    }

    /// A process ends, or what is left of it, and its descendants with it or not. Returns whether it ran.
    fn take_away(&mut self, id: u32, with_descendants: bool) -> bool {
        let one = self.alive.iter_mut().find(|one| one.id == id).unwrap();
        let led = std::mem::replace(&mut one.leads, false);
        one.descendants &= !with_descendants;
        self.alive.retain(|one| one.leads || one.descendants);
        led
    }

    /// It ends, and the agent learns of it.
    fn end(&mut self, id: u32, with_descendants: bool, may_start: bool) {
        if self.take_away(id, with_descendants) {
            if self.plant.is_expected_to_run("a", id) {
                self.down_since = Some(self.now);
            }
            self.give(ended(id), may_start);
        }
    }

    /// The next agent finds what the records name: processes that still run, or descendants of one.
    fn adopt(&mut self, may_start: bool) {
        let recorded = self.plant.running().map(|one| (one, false));
        let recorded = recorded.chain(self.plant.old().map(|one| (one, true)));
        let recorded: Vec<_> = recorded
            .map(|((_, id, wanted), is_old)| (id, wanted.clone(), is_old))
            .collect();
        for one in &self.alive {
            let found = recorded.iter().find(|(id, ..)| *id == one.id);
            let is_old = found.map(|(.., is_old)| *is_old);
            assert_eq!(is_old, Some(one.is_old), "{} is recorded", one.id);
        }
        self.plant = Plant::default();
        self.down_since = None;
        for (id, wanted, is_old) in recorded {
            let Some(one) = self.alive.iter_mut().find(|one| one.id == id) else {
                continue;
            };
            one.asked_at = None;
            let (name, is_led) = ("a", one.leads);
            let adopt = Input::Adopt {
                name,
                wanted,
                id,
                is_led,
                is_old,
            };
            let launches = self.launches;
            self.give(adopt, may_start);
            assert_eq!(
                self.launches, launches,
                "it does not know yet what is wanted"
            );
        }
    }

    fn want(&mut self, launch: &'static str, may_start: bool) {
        let runs = self.plant.running_as("a");
        let is_replaced = takes_over(launch) && runs.is_some_and(|runs| *runs != launch);
        if self.plant.launch_of("a") != Some(&launch) {
            self.down_since = None;
        }
        let launches = self.launches;
        self.give(Input::Want(&either(launch)), may_start);
        let begun = self.launches > launches;
        assert!(begun || !is_replaced, "it waits although it takes over");
    }

    fn happen(&mut self, what: Happening, may_start: bool) {
        match what {
            Happening::Want(None) => {
                self.down_since = None;
                self.give(Input::Want(&BTreeMap::new()), may_start);
            }
            Happening::Want(Some(which)) => self.want(LAUNCHES[which], may_start),
            Happening::Wait(ms) => self.wait(ms, may_start),
            Happening::End(which, with_descendants) => {
                if let Some(id) = self.led(which) {
                    self.end(id, with_descendants, may_start);
                }
            }
            Happening::DescendantsEnd(which) => {
                let index = which.checked_rem(self.alive.len());
                if let Some(index) = index {
                    self.alive[index].descendants = false;
                    self.alive.retain(|one| one.leads || one.descendants);
                }
            }
            Happening::NewAgent(ends) => {
                if let Some((which, with_descendants)) = ends
                    && let Some(id) = self.led(which)
                {
                    self.take_away(id, with_descendants);
                }
                self.adopt(may_start);
            }
        }
        self.check(may_start);
    }

    fn check(&self, may_start: bool) {
        for one in &self.alive {
            let asked = one.asked_at;
            let late = asked.is_some_and(|asked| self.now > asked + GRACE + 20);
            assert!(!late || one.gone_at.is_some(), "{} was not killed", one.id);
            assert!(one.leads || asked.is_some(), "{} leaves something", one.id);
        }
        let longest = u64::try_from(BACKOFF.longest.as_millis()).unwrap();
        let longest = longest.max(GRACE + DYING + 2 * 20);
        if let Some(since) = self.down_since.filter(|_| may_start) {
            assert!(self.now - since <= longest, "not started again");
        }
    }

    /// Nothing is wanted any more: all that runs ends, and is forgotten.
    fn leave(&mut self) {
        self.happen(Happening::Want(None), true);
        self.wait(GRACE + DYING + 2 * 20, true);
        assert!(self.alive.is_empty() && self.plant.condition("a").is_none());
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    let which = 0..4usize;
    let ends = (which.clone(), any::<bool>());
    prop_oneof![
        3 => proptest::option::weighted(0.8, 0..LAUNCHES.len()).prop_map(Happening::Want),
        4 => (0u64..4000).prop_map(Happening::Wait),
        3 => ends.clone().prop_map(|(which, all)| Happening::End(which, all)),
        2 => which.prop_map(Happening::DescendantsEnd),
        2 => proptest::option::of(ends).prop_map(Happening::NewAgent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn one_process_of_a_name_is_alive_unless_another_takes_over_and_a_stopped_one_is_killed_in_time(
        story in proptest::collection::vec((happening(), proptest::bool::weighted(0.9)), 1..80)
    ) {
        let mut kernel = Kernel::default();
        for (what, may_start) in story {
            kernel.happen(what, may_start);
        }
        kernel.leave();
    }
}
