//! Reports of a change in progress: lines of JSON.

use super::Progress;
use bytes::Bytes;
use http_body_util::channel::Sender;
use std::convert::Infallible;

/// The receiver of a change's steps.
pub struct Steps {
    sender: Sender<Bytes, Infallible>,
}

/// The client of the change has disconnected.
#[derive(Debug)]
pub struct Gone;

impl Steps {
    /// Reports them to the other end of this channel.
    pub const fn new(sender: Sender<Bytes, Infallible>) -> Self {
        Self { sender }
    }

    /// Reports one step.
    ///
    /// # Errors
    /// If the client has disconnected.
    pub async fn say(&mut self, progress: Progress) -> Result<(), Gone> {
        self.line(&progress).await
    }

    /// Sends an empty line as keep-alive.
    ///
    /// # Errors
    /// If the client has disconnected.
    pub async fn say_nothing(&mut self) -> Result<(), Gone> {
        self.sender
            .send_data(Bytes::from_static(b"\n"))
            .await
            .map_err(|_| Gone)
    }

    /// Reports any value, as a line of JSON.
    ///
    /// # Errors
    /// If the client has disconnected.
    pub async fn line(&mut self, value: &impl serde::Serialize) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(value).unwrap_or_default();
        line.push(b'\n');
        self.sender.send_data(line.into()).await.map_err(|_| Gone)
    }
}
