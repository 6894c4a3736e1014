//! A site of one process, and what takes it away.

use super::*;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A site of one process: a page, and entries that are kept in memory.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) door: SocketAddr,
    pub(super) entries: Arc<Mutex<BTreeMap<usize, String>>>,
    pub(super) serving: watch::Sender<bool>,
}

impl Site {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (serving, _) = watch::channel(true);
        let site = Self {
            door: listener.local_addr().unwrap(),
            entries: Arc::default(),
            serving,
        };
        tokio::spawn(site.clone().live(listener));
        site
    }

    /// Serves while it is wanted. While it is not, nothing listens and every connection is cut.
    async fn live(self, mut listener: TcpListener) {
        let mut wanted = self.serving.subscribe();
        loop {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let site = self.clone();
                        let service = service_fn(move |request| site.clone().answer(request));
                        connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                    }
                    Some(_) = connections.join_next() => {}
                    _ = wanted.wait_for(|wanted| !wanted) => break,
                }
            }
            drop((listener, connections));
            wanted.wait_for(|wanted| *wanted).await.unwrap();
            listener = TcpListener::bind(self.door).await.unwrap();
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_string();
        if request.method() == Method::POST {
            let body = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes());
            let Ok(body) = body else {
                return Ok(answer(400, String::new()));
            };
            let text = String::from_utf8_lossy(&body).into_owned();
            let mut entries = self.entries.lock().unwrap();
            let id = entries.len();
            entries.insert(id, text);
            return Ok(answer(201, format!("{{\"id\":{id}}}")));
        }
        let entry = path.strip_prefix("/entries/").map(|id| id.parse().unwrap());
        let entries = self.entries.lock().unwrap();
        Ok(match entry.map(|id: usize| entries.get(&id)) {
            None => answer(200, "a page".into()),
            Some(Some(entry)) => answer(200, entry.clone()),
            Some(None) => answer(404, String::new()),
        })
    }
}

fn answer(status: u16, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::from(body))
        .unwrap()
}

/// Takes the site away, and lets it come back by itself when that is what the target does.
pub(super) struct Injector {
    site: Site,
    pub(super) healthy: bool,
    pub(super) can_confirm: bool,
    pub(super) forget: bool,
    pub(super) away: Arc<AtomicBool>,
    pub(super) put_back: AtomicU32,
}

impl Injector {
    pub(super) fn of(site: &Site) -> Self {
        Self {
            site: site.clone(),
            healthy: true,
            can_confirm: true,
            forget: false,
            away: Arc::default(),
            put_back: AtomicU32::new(0),
        }
    }
}

impl Harm for Injector {
    fn harm<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()> {
        Box::pin(async move {
            self.away.store(true, Ordering::Relaxed);
            self.site.serving.send_replace(false);
            if self.forget {
                self.site.entries.lock().unwrap().clear();
            }
            if target.heals_itself() {
                let site = self.site.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    site.serving.send_replace(true);
                });
            }
            Ok(())
        })
    }

    fn confirm<'a>(&'a self, _: &'a Target) -> HarmFuture<'a, ()> {
        let confirmed = self.can_confirm && self.away.load(Ordering::Relaxed);
        Box::pin(async move {
            if confirmed {
                Ok(())
            } else {
                Err(DrillError::harm("it still runs"))
            }
        })
    }

    fn put_back<'a>(&'a self, _: &'a Target) -> HarmFuture<'a, ()> {
        self.put_back.fetch_add(1, Ordering::Relaxed);
        self.site.serving.send_replace(true);
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> HarmFuture<'_, Sight> {
        let sight = Sight {
            healthy: self.healthy && *self.site.serving.borrow(),
            noticed: self.away.load(Ordering::Relaxed),
            missing: "the server".into(),
        };
        Box::pin(async { Ok(sight) })
    }
}
