//! A response without an end, read line by line.

use super::connection::Connection;
use super::{Bytes, ClientError, HeaderMap, InFlight, MAX_BODY, Request, Target};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use std::time::Duration;

/// The body of a response, line by line. Dropping it closes its connection.
pub struct Stream {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    target: Target,
    request: Request,
    body: Incoming,
    /// Bytes not yet returned in a line; never more than [`MAX_BODY`] and one frame.
    pending: Vec<u8>,
    /// Bytes of `pending` that are known to hold no line end.
    searched: usize,
    ended: bool,
    _connection: Connection,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("target", &self.target)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(
        target: &Target,
        request: &Request,
        head: Response<Incoming>,
        connection: Connection,
    ) -> Self {
        Self {
            status: head.status().as_u16(),
            headers: head.headers().clone(),
            target: target.clone(),
            request: request.clone(),
            body: head.into_body(),
            pending: Vec::new(),
            searched: 0,
            ended: false,
            _connection: connection,
        }
    }

    /// The next line without its line end; `None` when the stream has ended. The rest before the stream's end counts as a line.
    ///
    /// An error of kind [`ClientError::Timeout`] loses nothing: call it again. The same holds if its future was dropped.
    pub async fn next_line(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, ClientError> {
        let (target, request) = (self.target.clone(), self.request.clone());
        let in_flight = InFlight::new(&target, &request, timeout);
        in_flight.sending();
        match tokio::time::timeout(timeout, self.line(&in_flight)).await {
            Ok(result) => result,
            Err(_) => Err(in_flight.timed_out()),
        }
    }

    /// The next piece of the body, whatever is in it; `None` at its end.
    pub async fn next_piece(&mut self, timeout: Duration) -> Result<Option<Bytes>, ClientError> {
        let (target, request) = (self.target.clone(), self.request.clone());
        let in_flight = InFlight::new(&target, &request, timeout);
        in_flight.sending();
        match tokio::time::timeout(timeout, self.piece(&in_flight)).await {
            Ok(result) => result,
            Err(_) => Err(in_flight.timed_out()),
        }
    }

    async fn piece(&mut self, in_flight: &InFlight<'_>) -> Result<Option<Bytes>, ClientError> {
        if !self.pending.is_empty() {
            self.searched = 0;
            return Ok(Some(std::mem::take(&mut self.pending).into()));
        }
        while !self.ended {
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(source)) => return Err(in_flight.broken(source)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn line(&mut self, in_flight: &InFlight<'_>) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.pending.len() > MAX_BODY {
                return Err(in_flight.too_large());
            }
            if self.ended {
                self.searched = 0;
                let rest = std::mem::take(&mut self.pending);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(source)) => return Err(in_flight.broken(source)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.pending.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let unseen = &self.pending[self.searched..];
        let Some(end) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.pending.len();
            return None;
        };
        let rest = self.pending.split_off(self.searched + end + 1);
        let mut line = std::mem::replace(&mut self.pending, rest);
        self.searched = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }
}
