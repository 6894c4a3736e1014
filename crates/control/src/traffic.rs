//! The site's traffic: the figures of all proxies and agents become rates for the status page and one text for Prometheus.

mod merged;
mod rates;
mod silence;

pub use rates::{Load, Totals};

use gaiola_core::topology;
use gaiola_model::{InstanceName, Placement, ServerName, Tier, Time};
use merged::Part;
use rates::{Counted, Meter, Rates};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The figures of the traffic.
#[derive(Debug, Default)]
pub struct Traffic(RefCell<Board>, tokio::sync::Mutex<()>);

#[derive(Debug, Default)]
struct Board {
    top: Option<Tier>,
    proxies: BTreeMap<ServerName, Meter>,
    texts: Answers,
    totals: Totals,
    /// When each process last answered.
    answered: BTreeMap<(ServerName, Source), Time>,
}

/// The processes that were polled, each with its metrics; `None`: it did not answer.
pub(crate) type Answers = BTreeMap<(ServerName, Source), Option<String>>;

/// A process with metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Proxy,
    Agent,
}

/// The traffic over the last few seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Of the whole site, as its topmost proxies count it; `None`: it has no proxies, or they have not reported yet.
    pub site: Option<Load>,
    /// Of each server: balancers and web servers by their own counts, application servers by the counts of their senders.
    pub servers: BTreeMap<ServerName, Load>,
    /// Of each instance, by the counts of its senders.
    pub instances: BTreeMap<InstanceName, Load>,
    /// From one server to another.
    pub ways: BTreeMap<(ServerName, ServerName), Load>,
}

impl Traffic {
    /// Records the results of one round of polls: the time, the topmost tier, and the metrics.
    ///
    /// Rounds must not overlap: a result that is recorded after a newer one would look like that of a restarted proxy, and its
    /// counts would be added twice.
    pub(crate) async fn round(
        &self,
        polls: impl Future<Output = Option<(Time, Option<Tier>, Answers)>>,
    ) {
        let _one_at_a_time = self.1.lock().await;
        if let Some((now, top, answers)) = polls.await {
            self.0.borrow_mut().take(now, top, answers);
        }
    }

    /// Requests since this process started, as the topmost proxies counted them. The counts of a proxy between the last poll
    /// and its death are missing.
    pub fn totals(&self) -> Totals {
        self.0.borrow().totals
    }

    /// The current traffic.
    pub fn figures(&self) -> Figures {
        self.0.borrow().figures()
    }

    /// The metrics of the whole cluster.
    pub fn metrics(&self) -> String {
        let board = self.0.borrow();
        let mut parts = Vec::new();
        for ((server, source), text) in &board.texts {
            parts.push(Part {
                host: server.to_string(),
                source: source.name(),
                text: text.as_deref(),
            });
        }
        merged::merge(&parts)
    }
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Agent => "agent",
        }
    }

    /// The process's address on a server; `None`: it is not in the placement.
    pub(crate) fn address(self, placement: &Placement, server: ServerName) -> Option<SocketAddr> {
        let location = topology::location(placement, server)?;
        Some(location.socket(match self {
            Self::Proxy => location.ports.proxy,
            Self::Agent => location.ports.agent,
        }))
    }
}

impl Board {
    /// Records one round of results.
    fn take(&mut self, now: Time, top: Option<Tier>, answers: Answers) {
        self.top = top;
        self.proxies
            .retain(|server, _| answers.contains_key(&(*server, Source::Proxy)));
        for ((server, source), text) in &answers {
            if *source != Source::Proxy {
                continue;
            }
            let meter = self.proxies.entry(*server).or_default();
            let Some(text) = text else {
                meter.missed(now);
                continue;
            };
            let grown = meter.record(now, Counted::read(text));
            if Some(server.tier) == top {
                self.totals.requests += grown.requests;
                self.totals.failed += grown.failed;
            }
        }
        self.texts = answers;
    }

    fn figures(&self) -> Figures {
        let (mut site, mut servers) = (None::<Rates>, BTreeMap::<_, Rates>::new());
        let (mut instances, mut ways) = (BTreeMap::<_, Rates>::new(), BTreeMap::<_, Rates>::new());
        let http = self.proxies.iter().filter(|(server, meter)| {
            matches!(server.tier, Tier::Balancer | Tier::Web) && meter.is_known()
        });
        for (proxy, meter) in http {
            let own = servers.entry(*proxy).or_default();
            let rates = meter.rates();
            rates.values().for_each(|rates| own.add(rates));
            if Some(proxy.tier) == self.top {
                site.get_or_insert_default().add(own);
            }
            for (member, rates) in &rates {
                if let Ok(instance) = member.parse::<InstanceName>() {
                    instances.entry(instance).or_default().add(rates);
                    servers.entry(instance.server).or_default().add(rates);
                    ways.entry((*proxy, instance.server))
                        .or_default()
                        .add(rates);
                } else if let Ok(server) = member.parse::<ServerName>() {
                    ways.entry((*proxy, server)).or_default().add(rates);
                }
            }
        }
        Figures {
            site: site.map(|rates| rates.load()),
            servers: loads(servers),
            instances: loads(instances),
            ways: loads(ways),
        }
    }
}

fn loads<K: Ord>(rates: BTreeMap<K, Rates>) -> BTreeMap<K, Load> {
    rates
        .into_iter()
        .map(|(key, rates)| (key, rates.load()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::metric;
    use gaiola_wire::metrics::Text;
    use std::time::Duration;

    const EVERY: Duration = Duration::from_secs(2);

    fn metrics(requests: &[(&str, &str, u64)]) -> String {
        let mut text = Text::default();
        let mut family = text.family(&metric::HTTP_REQUESTS);
        for (member, code, count) in requests {
            family.sample(["http", "b", member, code], *count);
        }
        text.into_string()
    }

    fn figures(rounds: &[&[(&str, String)]]) -> (Figures, Totals) {
        let mut board = Board::default();
        for (round, answers) in (0..).zip(rounds) {
            let answers = answers.iter().map(|(server, text)| {
                ((server.parse().unwrap(), Source::Proxy), Some(text.clone()))
            });
            board.take(
                Time::from_start(EVERY * round),
                Some(Tier::Balancer),
                answers.collect(),
            );
        }
        (board.figures(), board.totals)
    }

    #[test]
    fn every_server_has_its_share() {
        let first: [(&str, String); 2] = [("lb1", String::new()), ("web1", String::new())];
        let balancer = metrics(&[("web1", "200", 60), ("-", "503", 4)]);
        let web = metrics(&[
            ("-", "200", 20),
            ("app1.1", "200", 30),
            ("app1.2", "500", 10),
        ]);
        let (figures, totals) = figures(&[&first, &[("lb1", balancer), ("web1", web)]]);
        let server = |name: &str| figures.servers[&name.parse().unwrap()];
        assert_eq!((server("lb1").requests, server("lb1").errors), (32.0, 2.0));
        assert_eq!(
            (
                server("web1").requests,
                server("app1").requests,
                server("app1").errors
            ),
            (30.0, 20.0, 5.0)
        );
        assert_eq!(figures.instances[&"app1.2".parse().unwrap()].errors, 5.0);
        assert_eq!(
            figures.ways[&("lb1".parse().unwrap(), "web1".parse().unwrap())].requests,
            30.0
        );
        assert_eq!(figures.site.unwrap().requests, 32.0);
        assert_eq!(
            totals,
            Totals {
                requests: 64,
                failed: 4
            }
        );
    }

    #[test]
    fn a_proxy_that_did_not_answer_the_last_poll_has_no_figures() {
        let mut board = Board::default();
        let mut take = |round: u32, lb2: Option<String>| {
            let text = metrics(&[("web1", "200", u64::from(round) * 20)]);
            let answers = [("lb1", Some(text)), ("lb2", lb2)];
            let answers =
                answers.map(|(name, text)| ((name.parse().unwrap(), Source::Proxy), text));
            let now = Time::from_start(EVERY * round);
            board.take(now, Some(Tier::Balancer), answers.into());
            board.figures()
        };
        let text = |round: u64| Some(metrics(&[("web1", "200", round * 40)]));
        let lb2 = "lb2".parse().unwrap();
        take(0, text(0));
        let figures = take(1, text(1));
        assert_eq!(figures.site.unwrap().requests, 30.0);
        let figures = take(2, None);
        assert_eq!(figures.servers.get(&lb2), None);
        assert_eq!(figures.site.unwrap().requests, 10.0);
        assert!(take(3, text(3)).servers.contains_key(&lb2));
    }

    #[tokio::test]
    async fn of_two_rounds_at_the_same_time_nothing_is_counted_twice() {
        let traffic = Traffic::default();
        let counted = std::cell::Cell::new(7000);
        let round = async |later: u64, on_the_way: u32| {
            let polls = async {
                counted.set(counted.get() + later);
                let text = metrics(&[("web1", "200", counted.get())]);
                for _ in 0..on_the_way {
                    tokio::task::yield_now().await;
                }
                let answers =
                    BTreeMap::from([(("lb1".parse().unwrap(), Source::Proxy), Some(text))]);
                Some((Time::ZERO, Some(Tier::Balancer), answers))
            };
            traffic.round(polls).await;
        };
        // The answer of the first comes after that of the second.
        tokio::join!(round(0, 10), round(35, 0));
        assert_eq!(traffic.totals().requests, 7035);
    }

    #[test]
    fn a_server_that_is_gone_has_no_figures_and_its_requests_stay_counted() {
        let text = metrics(&[("web1", "200", 60)]);
        let (figures, totals) = figures(&[&[("lb1", text.clone())], &[("lb1", text)], &[]]);
        assert_eq!((figures, totals.requests), (Figures::default(), 60));
    }
}
