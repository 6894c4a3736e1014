//! WebSockets that stay open while a site changes, and how each ended.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Between two messages of one.
const EVERY: Duration = Duration::from_secs(1);
/// The longest wait for one to be opened, and for the answer to a message.
const LIMIT: Duration = Duration::from_secs(10);
/// The same for each of the first, which may be refused meanwhile.
const START: Duration = Duration::from_secs(60);
/// Before one that could not be opened is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// What became of WebSockets.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// How many were opened at first.
    pub opened: u64,
    /// Of these, how many were open until the end.
    pub kept: u64,
    /// Messages that came back.
    pub answered: u64,
    /// Closed by the site in order (RFC 6455, section 7.1): code and number.
    pub closed: BTreeMap<String, u64>,
    /// Ended in another way: what and number.
    pub broken: BTreeMap<String, u64>,
    /// Attempts to open one that failed: why and number.
    pub refused: BTreeMap<String, u64>,
}

impl Sockets {
    pub(super) fn read(said: &Value) -> Option<Self> {
        let number = |key: &str| said[key].as_u64();
        let counts = |key: &str| {
            let counts = said[key].as_object()?.iter();
            let counts = counts.map(|(what, count)| Some((what.clone(), count.as_u64()?)));
            counts.collect::<Option<BTreeMap<String, u64>>>()
        };
        Some(Self {
            opened: number("opened")?,
            kept: number("kept")?,
            answered: number("answered")?,
            closed: counts("closed")?,
            broken: counts("broken")?,
            refused: counts("refused")?,
        })
    }

    pub(super) fn write(&self) -> Value {
        json!({
            "opened": self.opened, "kept": self.kept, "answered": self.answered,
            "closed": self.closed, "broken": self.broken, "refused": self.refused,
        })
    }
}

/// Why one is not open any more.
enum End {
    Closed(String),
    Broken(String),
}

/// WebSockets that are open. Those that end are opened again.
pub(super) struct Open {
    seen: Rc<RefCell<Sockets>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Open {
    /// Opens them, one after the other. On a `LocalSet`.
    pub(super) async fn start(door: SocketAddr, count: u32) -> io::Result<Self> {
        let seen = Rc::new(RefCell::new(Sockets::default()));
        let mut tasks = Vec::new();
        for _ in 0..count {
            let socket = timeout(START, open(door, &seen)).await?;
            seen.borrow_mut().opened += 1;
            seen.borrow_mut().kept += 1;
            tasks.push(spawn_local(stay(door, socket, seen.clone())));
        }
        Ok(Self { seen, tasks })
    }

    /// Ends them.
    pub(super) fn end(self) -> Sockets {
        for task in &self.tasks {
            task.abort();
        }
        self.seen.take()
    }
}

/// Keeps one open, without end.
async fn stay(door: SocketAddr, first: Socket, seen: Rc<RefCell<Sockets>>) {
    let mut socket = first;
    let mut is_first = true;
    loop {
        let end = talk(&mut socket, &seen).await;
        {
            let mut all = seen.borrow_mut();
            all.kept -= u64::from(is_first);
            is_first = false;
            match end {
                End::Closed(code) => *all.closed.entry(code).or_default() += 1,
                End::Broken(why) => *all.broken.entry(why).or_default() += 1,
            }
        }
        socket = open(door, &seen).await;
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn open(door: SocketAddr, seen: &RefCell<Sockets>) -> Socket {
    loop {
        match timeout(LIMIT, open_once(door)).await {
            Ok(Ok(socket)) => return socket,
            Ok(Err(why)) => *seen.borrow_mut().refused.entry(why).or_default() += 1,
            Err(_) => {
                *seen
                    .borrow_mut()
                    .refused
                    .entry("no answer".into())
                    .or_default() += 1
            }
        }
        sleep(AGAIN).await;
    }
}

async fn open_once(door: SocketAddr) -> Result<Socket, String> {
    let stream = TcpStream::connect(door).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let opened = client_async(format!("ws://{door}/api/echo"), stream).await;
    opened
        .map(|(socket, _)| socket)
        .map_err(|error| error.to_string())
}

/// Sends a message, waits for its answer, and so on until it ends.
async fn talk(socket: &mut Socket, seen: &RefCell<Sockets>) -> End {
    for number in 0_u64.. {
        let message = Message::text(number.to_string());
        if let Err(error) = socket.send(message.clone()).await {
            return End::Broken(error.to_string());
        }
        match timeout(LIMIT, socket.next()).await {
            Ok(Some(Ok(answer))) if answer == message => seen.borrow_mut().answered += 1,
            Ok(other) => return ended(other),
            Err(_) => return End::Broken("no answer".into()),
        }
        if let Ok(unasked) = timeout(EVERY, socket.next()).await {
            return ended(unasked);
        }
    }
    End::Broken("every number was used".into())
}

fn ended(by: Option<Result<Message, Error>>) -> End {
    match by {
        Some(Ok(Message::Close(frame))) => {
            End::Closed(frame.map_or("no code".into(), |frame| frame.code.to_string()))
        }
        Some(Ok(other)) => End::Broken(format!("unasked: {other:?}")),
        Some(Err(error)) => End::Broken(error.to_string()),
        None => End::Broken("the stream ended".into()),
    }
}
