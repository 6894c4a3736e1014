//! A WebSocket that returns each message: its client sees whether the connection goes on while the site changes.

use crate::until_stopped;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Maximum size of a message, in bytes.
const MESSAGE: usize = 16 * 1024;
/// The longest silence of a client, and the longest wait until it takes a message.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client has to answer a close.
const CLOSE: Duration = Duration::from_secs(2);

/// What all WebSockets of a process share.
#[derive(Clone)]
pub(crate) struct Sockets {
    stopped: watch::Receiver<bool>,
    open: mpsc::Sender<Infallible>,
}

impl Sockets {
    /// They are closed once `stopped` is true. The receiver ends when the last is, and nothing can open another.
    pub(crate) fn new(stopped: watch::Receiver<bool>) -> (Self, mpsc::Receiver<Infallible>) {
        let (open, all_closed) = mpsc::channel(1);
        (Self { stopped, open }, all_closed)
    }

    /// Serves one.
    pub(crate) fn accept(self, upgrade: WebSocketUpgrade) -> Response {
        let upgrade = upgrade.max_message_size(MESSAGE).max_frame_size(MESSAGE);
        upgrade.on_upgrade(async move |mut socket| {
            tokio::select! {
                () = echo(&mut socket) => {}
                () = until_stopped(self.stopped) => close(&mut socket).await,
            }
            drop(self.open);
        })
    }
}

/// Until either side ends it.
async fn echo(socket: &mut WebSocket) {
    while let Ok(Some(Ok(message))) = timeout(SILENCE, socket.recv()).await {
        // The library answers pings and closes by itself.
        let (Message::Text(_) | Message::Binary(_)) = message else {
            continue;
        };
        if !matches!(timeout(SILENCE, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Says that this process ends (RFC 6455, section 7.4.1), and waits for the client's answer.
async fn close(socket: &mut WebSocket) {
    let away = CloseFrame {
        code: close_code::AWAY,
        reason: "this instance stops".into(),
    };
    let closed = async {
        if socket.send(Message::Close(Some(away))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    // A client that does not answer is left.
    let _ = timeout(CLOSE, closed).await;
}
