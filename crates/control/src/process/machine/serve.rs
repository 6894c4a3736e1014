//! The answers to the site's other machines. Who asks is known by its certificate; what it may ask follows from the newest order.

mod send;
mod shares;

use super::fetch;
use crate::api::Digest;
use crate::provider::machine::{
    AuthorityFiles, FetchRequest, Machine, PORT, PowerRequest, SecretFiles, host_of, kept_secrets,
};
use crate::provider::seal::SealRequest;
use crate::site::Site;
use gaiola_core::machines::{self, Asked};
use gaiola_core::topology;
use gaiola_model::inventory::Host;
use gaiola_model::placement::ReleaseNumber;
use gaiola_model::schema::SCHEMA;
use gaiola_model::{ServerName, Tier};
use gaiola_net::pki::Authority;
use gaiola_net::server::{self, Limits};
use gaiola_os::serve::{Response, not_found, text, whole};
use gaiola_wire::document;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shares::{Share, Shares};
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// The largest request that is read.
const LARGEST_REQUEST: usize = 512 << 10;
/// Timeout of reading it.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts to listen: a machine that has just started may not have its address yet.
const AGAIN: Duration = Duration::from_secs(1);

/// Answers, without end.
pub(super) async fn run(machine: Rc<Machine>, site: Rc<Site>) {
    let listener = listen(&machine).await;
    let identity = Rc::clone(&machine);
    let tls = move || identity.peers.server_config();
    let answers = Rc::new(Answers::new(machine, site));
    server::serve(listener, Limits::default(), tls, move |peer, request| {
        let answers = Rc::clone(&answers);
        async move { answers.answer(&peer, request).await }
    })
    .await;
}

/// What answers take, and how many of those that take long there may be at a time.
struct Answers {
    machine: Rc<Machine>,
    site: Rc<Site>,
    sends: Shares,
    fetches: Shares,
    stops: Shares,
}

async fn listen(machine: &Machine) -> TcpListener {
    let mut reported = None;
    loop {
        let address = SocketAddr::new(machine.address(), PORT);
        let why = match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => error.to_string(),
        };
        if reported.as_ref() != Some(&why) {
            tracing::error!(%address, error = why, "cannot listen for the other machines yet");
            reported = Some(why);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Order,
    Sign(ServerName),
    Authority,
    Secrets,
    Release(ReleaseNumber, Digest),
    Certificates(Digest),
    Fetch(ReleaseNumber),
    Power,
    Stop,
    Start,
    Seal,
}

impl Wanted {
    fn of(method: &Method, path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let (what, which) = path
            .split_once('/')
            .map_or((path, None), |(a, b)| (a, Some(b)));
        match (method, what, which) {
            (&Method::GET, "order", None) => Some(Self::Order),
            (&Method::GET, "authority", None) => Some(Self::Authority),
            (&Method::GET, "secrets", None) => Some(Self::Secrets),
            (&Method::GET, "power", None) => Some(Self::Power),
            (&Method::GET, "releases", Some(which)) => {
                let (number, digest) = which.split_once('/')?;
                let number = number.parse().ok().map(ReleaseNumber)?;
                Some(Self::Release(number, digest.parse().ok()?))
            }
            (&Method::GET, "certificates", Some(digest)) => {
                digest.parse().ok().map(Self::Certificates)
            }
            (&Method::POST, "sign", Some(server)) => server.parse().ok().map(Self::Sign),
            (&Method::POST, "fetch", Some(number)) => number
                .parse()
                .ok()
                .map(|number| Self::Fetch(ReleaseNumber(number))),
            (&Method::POST, "stop", None) => Some(Self::Stop),
            (&Method::POST, "start", None) => Some(Self::Start),
            (&Method::POST, "seal", None) => Some(Self::Seal),
            _ => None,
        }
    }

    const fn asked(&self) -> Asked {
        match self {
            Self::Order => Asked::Order,
            Self::Sign(server) => Asked::Sign(*server),
            Self::Authority => Asked::Authority,
            Self::Secrets => Asked::Secrets,
            Self::Release(..) => Asked::Release,
            Self::Certificates(_) => Asked::Certificates,
            Self::Fetch(_) => Asked::Fetch,
            Self::Power | Self::Stop | Self::Start => Asked::Power,
            Self::Seal => Asked::Seal,
        }
    }
}

impl Answers {
    fn new(machine: Rc<Machine>, site: Rc<Site>) -> Self {
        Self {
            machine,
            site,
            // A machine fetches one thing at a time; the second place is for what it has given up and does not know to be over.
            sends: Shares::new(24, 2),
            fetches: Shares::new(8, 2),
            stops: Shares::new(64, 16),
        }
    }

    async fn answer(&self, peer: &str, request: Request<Incoming>) -> Response {
        let forbidden = |why: String| text(StatusCode::FORBIDDEN, why);
        let order = self.site.order.borrow().clone();
        let placement = order.as_ref().map(|order| &order.placement);
        let is_lost = |host: &Host| placement.is_some_and(|it| machines::is_lost(it, host));
        let is_known = |host: &Host| self.machine.knows(host) || is_lost(host);
        let Some(host) = host_of(peer).filter(is_known) else {
            return forbidden(format!("{peer} is no machine of the site"));
        };
        let path = request.uri().path();
        let Some(wanted) = Wanted::of(request.method(), path) else {
            return not_found();
        };
        if !machines::may_ask(placement, &host, wanted.asked()) {
            return forbidden(format!(
                "{path} is not for {host}, by the newest placement that is known here"
            ));
        }
        let answered = self.carry_out(&host, wanted, request).await;
        answered.unwrap_or_else(|refusal| refusal)
    }

    async fn carry_out(
        &self,
        host: &Host,
        wanted: Wanted,
        request: Request<Incoming>,
    ) -> Result<Response, Response> {
        let (machine, site) = (&self.machine, &self.site);
        Ok(match wanted {
            Wanted::Order => order(site),
            Wanted::Authority => authority(site),
            Wanted::Secrets => secrets(site, host),
            Wanted::Release(number, digest) => {
                let share = self.sends.take(host).ok_or_else(busy)?;
                send::release(site, number, digest, share).await
            }
            Wanted::Certificates(digest) => {
                send::certificates(site, digest, self.sends.take(host).ok_or_else(busy)?).await
            }
            Wanted::Sign(server) => sign(site, server, body(request).await?),
            Wanted::Fetch(number) => {
                let what = body(request).await?;
                let share = self.fetches.take(host).ok_or_else(busy)?;
                fetch_from(machine, site, host, (number, what), share).await
            }
            Wanted::Power => message(site, &machine.power()),
            Wanted::Seal => seal(site, &body(request).await?),
            Wanted::Stop | Wanted::Start => {
                let on = wanted == Wanted::Start;
                let what = body(request).await?;
                let share = self.stops.take(host).ok_or_else(busy)?;
                switch(machine, site, (what, on), share).await
            }
        })
    }
}

/// Where the site's passwords are kept.
fn seal(site: &Site, asked: &SealRequest) -> Response {
    let Some((secrets, _)) = kept_secrets(&site.state) else {
        return not_here();
    };
    match asked.seal(&site.name, &secrets.sealing_key()) {
        Ok(sealed) => message(site, &sealed),
        Err(error) => failed(&error),
    }
}

fn busy() -> Response {
    let why = "this machine does as much of this kind as it may; try again";
    text(StatusCode::SERVICE_UNAVAILABLE, why)
}

fn order(site: &Site) -> Response {
    let order = site.order.borrow().clone();
    match order {
        Some(order) => message(site, &*order),
        None => text(StatusCode::NOT_FOUND, "no placement is known here"),
    }
}

/// 200 with a message, in the schema of the site's documents.
fn message(site: &Site, body: &impl Serialize) -> Response {
    let order = site.order.borrow();
    let schema = order
        .as_ref()
        .map_or(SCHEMA, |order| order.placement.schema);
    match document::encode_message(body, schema) {
        Ok(body) => whole(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Response> {
    let refused = |why: String| text(StatusCode::BAD_REQUEST, why);
    let body = Limited::new(request.into_body(), LARGEST_REQUEST);
    let body = timeout(REQUEST_LIMIT, body.collect())
        .await
        .map_err(|_| {
            text(
                StatusCode::REQUEST_TIMEOUT,
                "the request did not come whole",
            )
        })?
        .map_err(|error| refused(error.to_string()))?;
    let message = document::decode_message(&body.to_bytes());
    message
        .map(|(body, _)| body)
        .map_err(|error| refused(error.to_string()))
}

fn sign(site: &Site, server: ServerName, request: String) -> Response {
    let authority = match Authority::load_from(&site.state.authority()) {
        Ok(Some(authority)) => authority,
        Ok(None) => return not_here(),
        Err(error) => return failed(&error),
    };
    let order = site.order.borrow();
    let placement = order.as_ref().map(|order| &order.placement);
    let location = placement.and_then(|placement| topology::location(placement, server));
    let Some(location) = location else {
        return text(StatusCode::FORBIDDEN, format!("there is no {server}"));
    };
    match authority.sign(&server.to_string(), &[location.address], &request) {
        Ok(certificate) => message(site, &certificate),
        Err(error) => text(StatusCode::BAD_REQUEST, gaiola_os::chain(&error)),
    }
}

fn authority(site: &Site) -> Response {
    let held = Authority::load_from(&site.state.authority());
    let (authority, (secrets, keeper_key)) = match (held, kept_secrets(&site.state)) {
        (Ok(Some(authority)), Some(secrets)) => (authority, secrets),
        (Err(error), _) => return failed(&error),
        (Ok(_), _) => return not_here(),
    };
    let (certificate, key) = authority.export();
    let files = AuthorityFiles {
        certificate: certificate.into(),
        key,
        secrets,
        keeper_key,
    };
    message(site, &files)
}

/// Of the secrets only those that the servers of that machine need.
fn secrets(site: &Site, host: &Host) -> Response {
    let Some((secrets, keeper_key)) = kept_secrets(&site.state) else {
        return not_here();
    };
    let order = site.order.borrow();
    let placement = order.as_ref().map(|order| &order.placement);
    let servers = placement.map(|placement| machines::servers_on(placement, host));
    let servers = servers.unwrap_or_default();
    let has = |tiers: &[Tier]| servers.iter().any(|server| tiers.contains(&server.tier));
    let files = SecretFiles {
        sealing_key: has(&[Tier::App]).then(|| secrets.sealing_key().to_hex()),
        secrets: has(&[Tier::App, Tier::Database]).then_some(secrets),
        keeper_key: has(&[Tier::Balancer]).then_some(keeper_key),
    };
    message(site, &files)
}

async fn fetch_from(
    machine: &Rc<Machine>,
    site: &Rc<Site>,
    host: &Host,
    (number, what): (ReleaseNumber, FetchRequest),
    share: Share,
) -> Response {
    let Some(from) = machine.others().remove(host) else {
        return text(StatusCode::FORBIDDEN, format!("{host} has no address here"));
    };
    // To its end, also where the machine that asks goes away.
    let (machine, own) = (Rc::clone(machine), Rc::clone(site));
    let fetching = tokio::task::spawn_local(async move {
        let _share = share;
        if let Some(digest) = &what.release {
            fetch::offered_release(&machine, &own, from, number, digest).await?;
        }
        match &what.certificates {
            Some(digest) => fetch::certificates(&machine, &own, from, digest).await,
            None => Ok(()),
        }
    });
    match fetching.await {
        Ok(Ok(())) => message(site, &true),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// Stops or starts.
async fn switch(
    machine: &Rc<Machine>,
    site: &Site,
    (what, on): (PowerRequest, bool),
    share: Share,
) -> Response {
    let own = Rc::clone(machine);
    // To its end, as above: what is half stopped is neither up nor down.
    let switching = tokio::task::spawn_local(async move {
        let _share = share;
        match what {
            PowerRequest::All(power) => own.take_power(power).await,
            PowerRequest::Servers(servers) if on => {
                servers.into_iter().for_each(|server| own.start(server));
                Ok(())
            }
            PowerRequest::Servers(servers) => own.stop(&servers).await,
        }
    });
    match switching.await {
        Ok(Ok(())) => message(site, &true),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn not_here() -> Response {
    let why = "this machine does not have the site's authority";
    text(StatusCode::NOT_FOUND, why)
}

fn failed(error: &dyn Error) -> Response {
    text(StatusCode::CONFLICT, gaiola_os::chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_paths_of_the_plan_are_answered() {
        let get = |path: &str| Wanted::of(&Method::GET, path);
        let post = |path: &str| Wanted::of(&Method::POST, path);
        assert_eq!(get("/order"), Some(Wanted::Order));
        let digest = "ab".repeat(16);
        let release = Wanted::Release(ReleaseNumber(7), digest.parse().unwrap());
        assert_eq!(get(&format!("/releases/7/{digest}")), Some(release));
        assert_eq!(post("/fetch/7"), Some(Wanted::Fetch(ReleaseNumber(7))));
        assert_eq!(
            post("/sign/db1"),
            Some(Wanted::Sign("db1".parse().unwrap()))
        );
        let certificates = Wanted::Certificates(digest.parse().unwrap());
        assert_eq!(get(&format!("/certificates/{digest}")), Some(certificates));
        assert_eq!(post("/stop"), Some(Wanted::Stop));
        assert_eq!(post("/start"), Some(Wanted::Start));
        assert_eq!(get("/power"), Some(Wanted::Power));
        for none in [
            "",
            "/",
            "order",
            "/order/1",
            "/releases",
            "/releases/x",
            "/releases/7",
            "/releases/7/",
            "/releases/7/..",
            "/stop",
        ] {
            assert_eq!(get(none), None, "{none}");
        }
        for none in ["/order", "/sign/x9", "/sign", "/authority", "/stop/1"] {
            assert_eq!(post(none), None, "{none}");
        }
    }
}
