use super::*;
use gaiola_model::config::{App, Config};
use gaiola_model::placement::{Desired, Release, ReleaseNumber};
use gaiola_model::{Inventory, Tier};

/// A site's usual members: those on lb1, web1, app1 and db1.
fn usual() -> [ServerName; 4] {
    ["lb1", "web1", "app1", "db1"].map(|server| server.parse().unwrap())
}

fn voters(members: &[ServerName]) -> Vec<StoreMember> {
    let numbered = (1..).zip(members);
    numbered
        .map(|(id, server)| member(*server, id, false))
        .collect()
}

fn dead(id: u64) -> MemberFacts {
    MemberFacts {
        dead: [id].into(),
        ..MemberFacts::default()
    }
}

fn next(members: &[StoreMember], wanted: &[ServerName]) -> MemberChange {
    next_step(members, wanted, &MemberFacts::default())
}

fn wanted(count: u16) -> Vec<ServerName> {
    (1..=count).map(|n| ServerName::new(Tier::App, n)).collect()
}

fn member(server: ServerName, id: u64, is_learner: bool) -> StoreMember {
    StoreMember {
        id,
        server: Some(server),
        is_started: true,
        is_learner,
    }
}

/// Carries steps out as etcd would, and counts them.
fn carry_out(members: &mut Vec<StoreMember>, wanted: &[ServerName]) -> usize {
    for steps in 0..20 {
        match next(members, wanted) {
            MemberChange::Done => return steps,
            MemberChange::AddLearner(server) => {
                let id = 100 + u64::try_from(steps).unwrap();
                members.push(StoreMember {
                    is_started: false,
                    ..member(server, id, true)
                });
            }
            MemberChange::Start(_) => {
                let unstarted = members.iter_mut().find(|member| !member.is_started);
                unstarted.unwrap().is_started = true;
            }
            MemberChange::Promote(id) => {
                let learner = members.iter_mut().find(|member| member.id == id);
                learner.unwrap().is_learner = false;
            }
            MemberChange::MoveLeader { .. } => panic!("nobody is known to lead"),
            MemberChange::Remove(id) => members.retain(|member| member.id != id),
        }
        assert!(members.iter().filter(|member| member.is_learner).count() <= 1);
    }
    panic!("never done: {members:?}");
}

#[test]
fn one_grows_into_three_by_one_learner_at_a_time() {
    let wanted = wanted(3);
    let mut members = vec![member(wanted[0], 1, false)];
    assert_eq!(carry_out(&mut members, &wanted), 6);
    assert!(members.iter().all(|member| !member.is_learner));
}

#[test]
fn a_member_moves_by_coming_before_the_old_one_goes() {
    let all = wanted(4);
    let mut members: Vec<_> = (0..3).map(|n| member(all[n], n as u64, false)).collect();
    let wanted = [all[0], all[1], all[3]];
    let first = next(&members, &wanted);
    assert_eq!(first, MemberChange::AddLearner(all[3]));
    carry_out(&mut members, &wanted);
    assert_eq!(members.len(), 3);
    assert!(!members.iter().any(|member| member.server == Some(all[2])));
}

#[test]
fn a_learner_that_is_not_wanted_any_more_goes_first() {
    let all = wanted(3);
    let members = [member(all[0], 1, false), member(all[1], 2, true)];
    let wanted = [all[0], all[2]];
    assert_eq!(next(&members, &wanted), MemberChange::Remove(2));
}

#[test]
fn a_dead_member_goes_before_its_successor_comes_which_etcd_refuses_until_then() {
    let [lb1, web1, app1, db1] = usual();
    let members = voters(&[lb1, web1, app1]);
    let wanted = [lb1, app1, db1];
    let step = next_step(&members, &wanted, &dead(2));
    assert_eq!(step, MemberChange::Remove(2));
    let left = [members[0], members[2]];
    assert_eq!(next(&left, &wanted), MemberChange::AddLearner(db1));
}

#[test]
fn a_dead_member_goes_before_the_living_which_the_quorum_needs_until_then() {
    let [lb1, web1, app1, _] = usual();
    let members = voters(&[lb1, web1, app1]);
    let step = next_step(&members, &[app1], &dead(2));
    assert_eq!(step, MemberChange::Remove(2));
    let left = [members[0], members[2]];
    assert_eq!(next(&left, &[app1]), MemberChange::Remove(1));
}

#[test]
fn a_voter_that_lost_its_data_goes_and_comes_again_as_a_learner() {
    let [lb1, web1, app1, _] = usual();
    let wanted = [lb1, web1, app1];
    let members = voters(&wanted);
    let lost = MemberFacts {
        lost: [2].into(),
        ..MemberFacts::default()
    };
    let step = next_step(&members, &wanted, &lost);
    assert_eq!(step, MemberChange::Remove(2));
    let left = [members[0], members[2]];
    let step = next_step(&left, &wanted, &lost);
    assert_eq!(step, MemberChange::AddLearner(web1));
    // The last member keeps what is left of a store.
    let step = next_step(&members[1..2], &wanted[1..2], &lost);
    assert_eq!(step, MemberChange::Done);
}

#[test]
fn who_leads_goes_last_and_hands_over_before() {
    let [lb1, web1, app1, _] = usual();
    let mut members = voters(&[lb1, web1, app1]);
    let wanted = [app1];
    let led_by = |id| MemberFacts {
        leader: Some(id),
        ..MemberFacts::default()
    };
    let step = next_step(&members, &wanted, &led_by(1));
    assert_eq!(step, MemberChange::Remove(2));
    members.remove(1);
    let step = next_step(&members, &wanted, &led_by(1));
    assert_eq!(step, MemberChange::MoveLeader { from: 1, to: 3 });
    let step = next_step(&members, &wanted, &led_by(3));
    assert_eq!(step, MemberChange::Remove(1));
}

#[test]
fn a_dead_learner_gives_up_its_place_and_a_dead_voter_that_is_wanted_keeps_it() {
    let [lb1, web1, app1, _] = usual();
    let wanted = [lb1, web1, app1];
    let mut members = voters(&wanted);
    assert_eq!(next_step(&members, &wanted, &dead(2)), MemberChange::Done);
    members[1].is_learner = true;
    let step = next_step(&members, &wanted, &dead(2));
    assert_eq!(step, MemberChange::Remove(2));
}

/// etcd's rules for adding and removing members (`--strict-reconfig-check`), and the current leader.
struct Rules {
    members: Vec<StoreMember>,
    leader: u64,
    dead: Option<ServerName>,
}

impl Rules {
    fn is_dead(&self, member: &StoreMember) -> bool {
        self.dead.is_some() && member.server == self.dead
    }

    /// The number of voters, and of those that are up.
    fn voters(&self) -> (usize, usize) {
        let voters = self.members.iter().filter(|member| !member.is_learner);
        let (dead, live): (Vec<&StoreMember>, Vec<&StoreMember>) =
            voters.partition(|member| self.is_dead(member));
        (dead.len() + live.len(), live.len())
    }

    /// `false`: etcd rejects it, or the server is down.
    fn carry_out(&mut self, step: MemberChange, id: u64) -> bool {
        let (voters, live) = self.voters();
        let find = |id| {
            self.members
                .iter()
                .position(|member| member.id == id)
                .unwrap()
        };
        match step {
            MemberChange::AddLearner(server) => {
                let new = member(server, id, true);
                if self.is_dead(&new) || live < voters {
                    return false;
                }
                let is_started = false;
                self.members.push(StoreMember { is_started, ..new });
            }
            MemberChange::Start(_) => {
                let unstarted = self.members.iter_mut().find(|member| !member.is_started);
                unstarted.unwrap().is_started = true;
            }
            MemberChange::Promote(id) => {
                let at = find(id);
                self.members[at].is_learner = false;
            }
            MemberChange::MoveLeader { from, to } => {
                let next = &self.members[find(to)];
                assert!(from == self.leader && !next.is_learner && !self.is_dead(next));
                self.leader = to;
            }
            MemberChange::Remove(id) => {
                let at = find(id);
                assert_ne!(
                    id, self.leader,
                    "the leader goes without having handed over"
                );
                if !self.is_dead(&self.members[at]) && live - 1 < 1 + (voters - 1) / 2 {
                    return false;
                }
                self.members.remove(at);
            }
            MemberChange::Done => {}
        }
        true
    }
}

/// Every change from one site's members to another's, with each of them as leader and each server dead.
#[test]
fn members_move_as_etcd_allows_and_wait_only_for_a_dead_server_that_is_wanted() {
    let [lb1, web1, app1, db1] = usual();
    let sets = [
        vec![app1],
        vec![lb1, web1, app1],
        vec![lb1, app1, db1],
        vec![web1, app1, db1],
    ];
    let deaths = usual().map(Some).into_iter();
    let deaths: Vec<_> = deaths.chain([None]).collect();
    for (old, wanted) in sets
        .iter()
        .flat_map(|old| sets.iter().map(move |new| (old, new)))
    {
        for (dead, leader) in deaths
            .iter()
            .flat_map(|dead| (1..=3).map(move |id| (dead, id)))
        {
            let mut rules = Rules {
                members: voters(old),
                leader,
                dead: *dead,
            };
            let leads = |member: &StoreMember| member.id == leader && !rules.is_dead(member);
            if !rules.members.iter().any(leads) {
                continue;
            }
            let mut is_done = false;
            for id in 10..40 {
                let (voters, live) = rules.voters();
                assert!(live > voters / 2, "{old:?} to {wanted:?} without {dead:?}");
                let dead = rules.members.iter().filter(|member| rules.is_dead(member));
                let seen = MemberFacts {
                    dead: dead.map(|member| member.id).collect(),
                    leader: Some(rules.leader),
                    ..MemberFacts::default()
                };
                let step = next_step(&rules.members, wanted, &seen);
                is_done = step == MemberChange::Done;
                if is_done || !rules.carry_out(step, id) {
                    break;
                }
            }
            let waits = dead.as_ref().is_some_and(|dead| wanted.contains(dead));
            assert!(
                is_done || waits,
                "{old:?} to {wanted:?} without {dead:?}: {:?}",
                rules.members
            );
            assert!(!is_done || rules.members.len() == wanted.len());
        }
    }
}

#[test]
fn a_placement_names_who_is_in_and_who_does_not_vote_yet() {
    let [_, _, app1, db1] = usual();
    let placement = |store: &[ServerName], store_joining| {
        let mut placement = placement();
        let placed = placement.servers[&app1].clone();
        placement.servers.insert(db1, placed);
        (placement.store, placement.store_joining) = (store.into(), store_joining);
        placement
    };
    let both = [app1, db1];
    let learner = |is_started| StoreMember {
        is_started,
        ..member(db1, 2, true)
    };
    let learning = |is_started| [member(app1, 1, false), learner(is_started)];
    let named_with = |joining, begun| {
        let members = both.into();
        Some(Named {
            members,
            joining,
            begun,
        })
    };
    assert_eq!(
        named(&learning(false), &placement(&[app1], None)),
        named_with(Some(db1), None)
    );
    let mut placed = placement(&both, Some(db1));
    assert_eq!(named(&learning(false), &placed), None);
    // Before it may vote, so that it never begins again without its data.
    let begun = named(&learning(true), &placed);
    assert_eq!(begun, named_with(Some(db1), Some(db1)));
    begun.unwrap().write(&mut placed);
    assert_eq!(named(&learning(true), &placed), None);
    let voting = voters(&both);
    assert_eq!(named(&voting, &placed), named_with(None, None));
    assert_eq!(named(&[], &placement(&both, None)), None);
}

fn placement() -> Placement {
    let config = Config::new("site".parse().unwrap(), App::new("run"));
    let inventory = Inventory::numbered(&config, [10, 77]);
    let release = Release {
        number: ReleaseNumber(1),
        digest: String::new(),
    };
    rollout::first(&Desired::first(config, release, inventory), "a".into())
}

#[test]
fn a_member_on_no_server_of_the_site_counts_as_dead() {
    let [_, _, app1, db1] = usual();
    let elsewhere = StoreMember {
        server: None,
        ..member(db1, 3, false)
    };
    let members = [member(app1, 1, false), member(db1, 2, false), elsewhere];
    let seen = MemberFacts::of(&members, &placement(), &Facts::default());
    assert_eq!(seen.dead, [2, 3].into());
}

#[test]
fn a_member_comes_only_where_the_agent_knows_and_nothing_is_left_of_an_older_one() {
    let observed = |revision, store_data| Observed {
        revision: Revision(revision),
        store_data,
        ..Observed::nothing_on("db1".parse().unwrap())
    };
    assert!(may_come(&observed(7, Some(false)), Revision(7)));
    assert!(!may_come(&observed(6, Some(false)), Revision(7)));
    assert!(!may_come(&observed(7, Some(true)), Revision(7)));
    assert!(!may_come(&observed(7, None), Revision(7)));
}

const NAMED: Own = Own {
    named: true,
    joining: false,
    founding: false,
    confirmed: true,
    runs: false,
    has_log: true,
};

#[test]
fn only_the_stores_own_word_takes_a_member_out() {
    let out = Own {
        named: false,
        ..NAMED
    };
    assert_eq!(fate(out), Fate::Forget);
    let from_disk = Own {
        confirmed: false,
        ..out
    };
    assert_eq!(fate(from_disk), Fate::Run);
    let nothing_there = Own {
        has_log: false,
        ..from_disk
    };
    assert_eq!(fate(nothing_there), Fate::Rest);
}

#[test]
fn only_a_learner_or_a_founder_begins_with_nothing() {
    assert_eq!(fate(NAMED), Fate::Run);
    let lost = Own {
        has_log: false,
        ..NAMED
    };
    assert_eq!(fate(lost), Fate::Forget);
    let founder = Own {
        founding: true,
        confirmed: false,
        ..lost
    };
    assert_eq!(fate(founder), Fate::Run);
    let learner = Own {
        joining: true,
        ..lost
    };
    assert_eq!(fate(learner), Fate::Run);
    // It may be a voter by now.
    let from_disk = Own {
        confirmed: false,
        ..learner
    };
    assert_eq!(fate(from_disk), Fate::Rest);
    let just_started = Own { runs: true, ..lost };
    assert_eq!(fate(just_started), Fate::Run);
}

/// A site whose servers stand on these machines: `app1=a db1=b`.
fn on_machines(servers: &[(&str, &str)]) -> Placement {
    use gaiola_model::config::{Database, Machine, Machines};
    let mut config = Config::new("site".parse().unwrap(), App::new("run"));
    config.database = Some(Database::default());
    let machine = |on: &str| Machine {
        address: Some([192, 0, 2, on.as_bytes()[0]].into()),
        ..Machine::new(on)
    };
    let servers = servers.iter();
    let servers = servers.map(|(name, on)| (name.parse().unwrap(), machine(on)));
    config.set_machines(Machines {
        servers: servers.collect(),
        ..Machines::default()
    });
    let release = Release {
        number: gaiola_model::placement::ReleaseNumber(1),
        digest: String::new(),
    };
    let inventory = Inventory::on_machines(&config, None).unwrap();
    rollout::first(&Desired::first(config, release, inventory), "one".into())
}

#[test]
fn a_server_that_moves_to_another_machine_has_no_member_on_the_way() {
    let three = [("app1", "a"), ("db1", "b"), ("app2", "c"), ("db2", "c")];
    let mut placement = on_machines(&three);
    let moved = on_machines(&[("app1", "m"), ("db1", "b"), ("app2", "c"), ("db2", "c")]);
    let names =
        |all: Vec<ServerName>| -> Vec<String> { all.iter().map(ToString::to_string).collect() };
    assert_eq!(names(super::wanted(&placement)), ["app1", "db1", "app2"]);
    placement.config = moved.config.clone();
    assert_eq!(names(super::wanted(&placement)), ["db1", "app2"]);
    placement.servers.remove(&"app1".parse().unwrap());
    assert_eq!(names(super::wanted(&placement)), ["app1", "db1", "app2"]);
    assert_eq!(names(super::wanted(&moved)), ["app1", "db1", "app2"]);
}

#[test]
fn the_only_member_moves_by_way_of_another_machine() {
    let mut placement = on_machines(&[("app1", "a"), ("app2", "b"), ("db1", "a")]);
    let [app1, app2] = ["app1", "app2"].map(|name| name.parse::<ServerName>().unwrap());
    assert_eq!(super::wanted(&placement), [app1]);
    let moved = on_machines(&[("app1", "m"), ("app2", "b"), ("db1", "m")]);
    placement.config = moved.config.clone();
    assert_eq!(super::wanted(&placement), [app2]);
    assert_eq!(super::wanted(&moved), [app1]);
    // Where all move at once it stays until the others are there.
    let mut alone = on_machines(&[("app1", "a"), ("db1", "a")]);
    alone.config = on_machines(&[("app1", "m"), ("db1", "m")]).config;
    assert_eq!(super::wanted(&alone), [app1]);
}
