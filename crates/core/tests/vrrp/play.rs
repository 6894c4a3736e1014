//! The little world of a scenario.

use gaiola_core::vrrp::{ADDRESS_LIFETIME, Input, Output, Reason, Role, Router, Settings};
use gaiola_model::Time;
use gaiola_model::vrrp::{Advertisement, Hello, Priority, Vrid};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(100);
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
const DELAY: Duration = Duration::from_millis(1);

/// Plays a script and reports what the routers did.
pub(crate) fn play(script: &str) -> String {
    let mut lines = script
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty());
    let mut world = World::new(lines.next().expect("a line of routers"));
    for line in lines {
        let (at, command) = line.split_once(' ').expect("TIME COMMAND");
        let at: u64 = at.parse().expect("milliseconds");
        world.run_until(Time::from_start(Duration::from_millis(at)));
        let words: Vec<&str> = command.split_whitespace().collect();
        world.command(&words);
    }
    world.finish()
}

struct World {
    now: Time,
    routers: BTreeMap<String, Place>,
    packets: Vec<Packet>,
    cut: BTreeSet<(String, String)>,
    transcript: String,
}

/// A router and its server.
struct Place {
    settings: Settings,
    router: Option<Router>,
    frozen: bool,
    /// Until when the kernel has the VIP.
    address: Option<Time>,
}

struct Packet {
    arrives: Time,
    to: String,
    from: IpAddr,
    said: Said,
}

#[derive(Clone)]
enum Said {
    Advertisement(Advertisement),
    Hello(Hello),
}

impl World {
    /// `routers a=250 b=240 [preempt] [hellos]`
    fn new(line: &str) -> Self {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("routers"), "{line}");
        let has = |option| line.split_whitespace().any(|word| word == option);
        let routers = words
            .filter_map(|word| word.split_once('='))
            .zip(1..)
            .map(|((name, priority), number)| {
                let address = IpAddr::V4(Ipv4Addr::new(10, 77, 1, number));
                let priority = Priority(priority.parse().expect("a priority"));
                let mut settings = Settings::new(vrid(), VIP, address, priority);
                settings.preempt = has("preempt");
                settings.hellos = has("hellos");
                let place = Place {
                    settings,
                    router: None,
                    frozen: false,
                    address: None,
                };
                (name.to_string(), place)
            })
            .collect();
        Self {
            now: Time::ZERO,
            routers,
            packets: Vec::new(),
            cut: BTreeSet::new(),
            transcript: String::new(),
        }
    }

    fn command(&mut self, words: &[&str]) {
        match *words {
            ["start", ref names @ ..] => names.iter().for_each(|name| self.start(name)),
            ["ready", ref names @ ..] => self.all(names, &Input::Ready),
            ["unready", ref names @ ..] => self.all(names, &Input::NotReady),
            ["cut_off", ref names @ ..] => self.all(names, &Input::CutOff(true)),
            ["found", ref names @ ..] => self.all(names, &Input::CutOff(false)),
            ["yield", ref names @ ..] => self.all(names, &Input::Yield),
            ["hold_back", name] => self.step(name, Input::HoldBack(true)),
            ["go_on", name] => self.step(name, Input::HoldBack(false)),
            ["settled", name] => self.say_who_settled(name),
            ["stop", ref names @ ..] => self.all(names, &Input::Stop),
            ["exchange", name] => {
                self.step(name, Input::Exchange);
                self.place(name).router = None;
            }
            ["crash", name] => {
                self.place(name).router = None;
                self.report(name, "crashes");
            }
            ["freeze", name] => {
                self.place(name).frozen = true;
                self.report(name, "is frozen");
            }
            ["thaw", name] => self.thaw(name),
            ["cut", from, to] => {
                self.cut.insert((from.into(), to.into()));
            }
            ["heal"] => self.cut.clear(),
            ["forge", name, "priority", priority] => {
                let priority = Priority(priority.parse().expect("a priority"));
                let forger = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 99));
                self.send_to(
                    name,
                    forger,
                    Said::Advertisement(advert(priority, INTERVAL)),
                );
            }
            ["end"] => {}
            _ => panic!("no such command: {words:?}"),
        }
    }

    fn all(&mut self, names: &[&str], input: &Input) {
        for name in names {
            self.step(name, input.clone());
        }
    }

    fn start(&mut self, name: &str) {
        let place = self.place(name);
        place.router = Some(Router::new(place.settings.clone()));
        place.frozen = false;
        let held = place.address.is_some();
        self.step(name, Input::Start { held });
    }

    /// A process that goes on first reads what its socket kept for it.
    fn thaw(&mut self, name: &str) {
        self.place(name).frozen = false;
        self.report(name, "goes on");
        self.deliver();
        self.step(name, Input::Deadline);
    }

    /// Goes on millisecond by millisecond: packets, then deadlines, then the kernel.
    fn run_until(&mut self, end: Time) {
        while self.now < end {
            self.now = self.now + DELAY;
            self.deliver();
            for name in self.names() {
                let now = self.now;
                let place = self.place(&name);
                let due = place.router.as_ref().and_then(Router::next_deadline);
                if !place.frozen && due.is_some_and(|due| due <= now) {
                    self.step(&name, Input::Deadline);
                }
                if self.place(&name).address.is_some_and(|until| until <= now) {
                    self.place(&name).address = None;
                    self.report(&name, "loses the VIP: its lifetime has ended");
                }
            }
        }
    }

    fn deliver(&mut self) {
        let mut kept = Vec::new();
        for packet in std::mem::take(&mut self.packets) {
            let waits = packet.arrives > self.now;
            if waits || self.place(&packet.to).frozen {
                kept.push(packet);
            } else {
                let Packet { to, from, said, .. } = packet;
                let input = match said {
                    Said::Advertisement(advert) => Input::Heard { from, advert },
                    Said::Hello(hello) => Input::HeardHello { from, hello },
                };
                self.step(&to, input);
            }
        }
        kept.append(&mut self.packets);
        self.packets = kept;
    }

    fn step(&mut self, name: &str, input: Input) {
        let now = self.now;
        let place = self.place(name);
        let Some(router) = place.router.as_mut().filter(|_| !place.frozen) else {
            return;
        };
        let mut out = Vec::new();
        let routine = input == Input::Deadline;
        router.step(now, input, &mut out);
        let routine = routine && out.iter().all(is_routine);
        if !routine && !out.is_empty() {
            let shown = out.iter().filter(|output| **output != Output::SayHello);
            let shown: Vec<String> = shown.map(words).collect();
            if !shown.is_empty() {
                self.report(name, &shown.join(", "));
            }
        }
        for output in out {
            self.carry_out(name, output);
        }
    }

    fn carry_out(&mut self, name: &str, output: Output) {
        let now = self.now;
        match output {
            Output::AddAddress | Output::RefreshAddress => {
                self.place(name).address = Some(now + ADDRESS_LIFETIME);
            }
            Output::RemoveAddress => self.place(name).address = None,
            Output::Advertise(priority) => {
                self.send(name, Said::Advertisement(advert(priority, INTERVAL)));
            }
            Output::AskForPatience(priority) => {
                let interval = self.place(name).settings.exchange_interval();
                self.send(name, Said::Advertisement(advert(priority, interval)));
            }
            Output::SayHello => {
                let place = self.place(name);
                if let Some(hello) = place.router.as_ref().map(|router| router.hello(now)) {
                    self.send(name, Said::Hello(hello));
                }
            }
            Output::Announce | Output::HoldBack | Output::PassOn | Output::Became(..) => {}
        }
    }

    fn send(&mut self, name: &str, said: Said) {
        let from = self.place(name).settings.address;
        for to in self.names() {
            let way = (name.to_string(), to.clone());
            if to != name && !self.cut.contains(&way) {
                self.send_to(&to, from, said.clone());
            }
        }
    }

    fn send_to(&mut self, to: &str, from: IpAddr, said: Said) {
        self.packets.push(Packet {
            arrives: self.now + DELAY,
            to: to.into(),
            from,
            said,
        });
    }

    fn say_who_settled(&mut self, name: &str) {
        let now = self.now;
        let router = self.place(name).router.as_ref();
        let settled = router.and_then(|router| router.settled(now));
        let mut others = self.routers.iter();
        let who = others.find(|(_, place)| Some(place.settings.address) == settled);
        let who = who.map_or("nobody", |(name, _)| name).to_string();
        self.report(name, &format!("could give the VIP to {who}"));
    }

    fn finish(mut self) -> String {
        for name in self.names() {
            let place = self.place(&name);
            let role = place.router.as_ref().map_or("down", |it| role(it.role()));
            let has = if place.address.is_some() {
                ", has the VIP"
            } else {
                ""
            };
            self.report(&name, &format!("ends: {role}{has}"));
        }
        self.transcript
    }

    fn report(&mut self, name: &str, what: &str) {
        let at = self.now.since_start().as_millis();
        writeln!(self.transcript, "{at:>6} {name}: {what}").expect("a string grows");
    }

    fn place(&mut self, name: &str) -> &mut Place {
        self.routers
            .get_mut(name)
            .unwrap_or_else(|| panic!("no router {name}"))
    }

    fn names(&self) -> Vec<String> {
        self.routers.keys().cloned().collect()
    }
}

fn advert(priority: Priority, interval: Duration) -> Advertisement {
    Advertisement {
        vrid: vrid(),
        priority,
        interval,
        vips: vec![VIP],
    }
}

fn vrid() -> Vrid {
    Vrid::new(1).expect("not zero")
}

fn is_routine(output: &Output) -> bool {
    matches!(
        output,
        Output::Advertise(_) | Output::RefreshAddress | Output::Announce | Output::SayHello
    )
}

fn words(output: &Output) -> String {
    match output {
        Output::AddAddress => "adds the VIP".into(),
        Output::RefreshAddress => "refreshes it".into(),
        Output::RemoveAddress => "removes the VIP".into(),
        Output::Advertise(Priority::RELEASE) => "lets go".into(),
        Output::Advertise(priority) => format!("advertises {priority}"),
        Output::AskForPatience(_) => "asks the others to wait".into(),
        Output::Announce => "announces".into(),
        Output::SayHello => "says hello".into(),
        Output::HoldBack => "keeps SYNs".into(),
        Output::PassOn => "passes SYNs on".into(),
        Output::Became(became, reason) => format!("{} ({})", role(*became), why(*reason)),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Initialize => "Initialize",
        Role::Backup { active: None } => "Backup of nobody",
        Role::Backup { .. } => "Backup",
        Role::Active => "Active",
    }
}

fn why(reason: Reason) -> String {
    reason.as_str().replace('_', " ")
}
