//! The tests' site: a small HTTP server that misbehaves on request.
//!
//! `gaiola-e2e-site [SWITCHES]` serves HOST:PORT. Every response except that of `/up` has INSTANCE, RELEASE and the pid as JSON.
//! Words in the file `switches` of its working directory (a release's own) and of SWITCHES/all and SWITCHES/INSTANCE
//! (which may change while it runs) make it misbehave: `exit`, `hang` (no responses), `sick` (503 from `/up`),
//! `slow=MS`, `limit=N` (requests a second). SIGTERM stops it once all requests in flight are answered.
//!
//! `gaiola-e2e-site probe STOP LIMIT VIP...` is a client instead ([`gaiola_e2e::probe`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Maximum size of a head.
const LARGEST_HEAD: usize = 16 * 1024;

struct Site {
    instance: String,
    release: String,
    switches: Option<PathBuf>,
    /// When the next request may begin, if they are limited.
    turn: Mutex<Instant>,
}

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("probe") {
        gaiola_e2e::probe::run(args);
        return Ok(());
    }
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let site = Rc::new(Site {
        instance: env("INSTANCE"),
        release: env("RELEASE"),
        switches: std::env::args_os().nth(1).map(PathBuf::from),
        turn: Mutex::new(Instant::now()),
    });
    if site.switches().contains_key("exit") {
        eprintln!("exits on request");
        std::process::exit(3);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(
        &runtime,
        serve(site, format!("{}:{}", env("HOST"), env("PORT"))),
    )
}

async fn serve(site: Rc<Site>, address: String) -> std::io::Result<()> {
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {address}");
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn_local(converse(Rc::clone(&site), accepted?.0, stopping.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => break,
        }
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
    println!("ended gracefully");
    Ok(())
}

/// Serves one connection until its client disconnects, or the site is stopped while it is idle.
async fn converse(
    site: Rc<Site>,
    mut stream: TcpStream,
    mut stopping: watch::Receiver<bool>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break read.drain(..end + 4).collect::<Vec<u8>>();
            }
            let mut buffer = [0_u8; 2048];
            let count = tokio::select! {
                count = stream.read(&mut buffer) => count?,
                // A request that has begun to arrive is still answered.
                _ = stopping.wait_for(|stopping| *stopping), if read.is_empty() => return Ok(()),
            };
            read.extend_from_slice(&buffer[..count]);
            if count == 0 || read.len() > LARGEST_HEAD {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let (status, body) = site.answer(head.split(' ').nth(1).unwrap_or("/")).await;
        let last = *stopping.borrow() || head.to_ascii_lowercase().contains("connection: close");
        let connection = if last { "close" } else { "keep-alive" };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await?;
        if last {
            return stream.shutdown().await;
        }
    }
}

impl Site {
    async fn answer(&self, path: &str) -> (&'static str, String) {
        let switches = self.switches();
        let number = |name: &str| {
            switches
                .get(name)
                .and_then(|value| value.parse::<u64>().ok())
        };
        if switches.contains_key("hang") {
            std::future::pending::<()>().await;
        }
        if path == "/up" {
            let status = if switches.contains_key("sick") {
                "503 Service Unavailable"
            } else {
                "200 OK"
            };
            return (status, "{}\n".into());
        }
        if let Some(limit) = number("limit") {
            self.wait_for_turn(Duration::from_secs(1) / u32::try_from(limit.max(1)).unwrap_or(1))
                .await;
        }
        sleep(Duration::from_millis(number("slow").unwrap_or(0))).await;
        let (instance, release, pid) = (&self.instance, &self.release, std::process::id());
        (
            "200 OK",
            format!("{{\"instance\":\"{instance}\",\"release\":\"{release}\",\"pid\":{pid}}}\n"),
        )
    }

    async fn wait_for_turn(&self, pause: Duration) {
        let begin = {
            let mut turn = self.turn.lock().await;
            let begin = (*turn).max(Instant::now());
            *turn = begin + pause;
            begin
        };
        sleep_until(begin).await;
    }

    fn switches(&self) -> BTreeMap<String, String> {
        let files = self
            .switches
            .iter()
            .flat_map(|folder| [folder.join("all"), folder.join(&self.instance)]);
        let texts = [Path::new("switches").to_path_buf()]
            .into_iter()
            .chain(files)
            .filter_map(|file| std::fs::read_to_string(file).ok());
        let words: Vec<String> = texts
            .flat_map(|text| {
                text.split_whitespace()
                    .map(str::to_string)
                    .collect::<Vec<_>>()
            })
            .collect();
        let pair = |word: String| {
            word.split_once('=')
                .map_or((word.clone(), String::new()), |(name, value)| {
                    (name.into(), value.into())
                })
        };
        words.into_iter().map(pair).collect()
    }
}
