//! The response half of an attempt.

use super::{Holder, Outcome, Policy, Stage};
use crate::check::in_words;
use crate::compress::Compressor;
use crate::exchange::body::Body;
use crate::exchange::large::{self, Text};
use crate::io::{self, Buffer, Fault, Pipe, Reader, Timer, Writer};
use crate::rules::LIMITS;
use gaiola_core::compression::{self, Decision};
use gaiola_core::forward::{self, Edit, Outgoing, ResponseContext};
use gaiola_core::private;
use gaiola_core::retry::Failure;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::{Method, RequestHead, ResponseHead, Version};
use gaiola_wire::http1::{self, ChunkDecoder, Part, Progress};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// Forwards the response to the client.
pub(super) struct Receiving<'a> {
    pub(super) request: &'a RequestHead,
    pub(super) text: &'a RefCell<Text>,
    pub(super) response: &'a mut ResponseHead,
    pub(super) back: &'a mut Outgoing,
    pub(super) buffer: &'a mut Option<Buffer>,
    pub(super) from: Reader<'a>,
    pub(super) to: Writer<'a>,
    pub(super) timer: &'a mut Timer,
    pub(super) edit: Edit<'a>,
    /// Complete field lines to add to the final response.
    pub(super) lines: &'a [u8],
    pub(super) reused: bool,
    pub(super) policy: &'a Policy<'a>,
    pub(super) stage: &'a Stage,
}

impl Receiving<'_> {
    /// Runs to the end. Called once; by value, the future would hold `self` twice.
    pub(super) async fn run(&mut self) -> Outcome {
        match self.receive().await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn receive(&mut self) -> Result<Outcome, Outcome> {
        loop {
            self.head().await?;
            if !self.response.is_interim() {
                break;
            }
            if self.request.version == Version::Http11 {
                self.pass_on_interim().await?;
            }
            let buffer = self.buffer.as_mut().expect("a head was read into it");
            buffer.consume(self.response.len);
            buffer.compact();
        }
        if self.response.upgrade && !self.request.upgrade {
            let reason = "it changed the protocol, which nobody asked for";
            return Err(Outcome::failed(Failure::BadResponse, reason.into()));
        }
        let sent_at = self.stage.sent_at.get();
        let sent = self.stage.is_sent.get();
        let began_after = sent_at.map(|sent_at| sent_at.elapsed());
        self.stage.began_after.set(began_after);
        let (compressed, compressor) = self.compression();
        let answer = ResponseContext {
            client: self.request.version,
            keep_alive: self.policy.keeps_alive() && sent,
            server: self.policy.hop,
            edit: self.edit,
            date: &self.policy.worker.date(),
            lines: self.lines,
            own_cookie: self.policy.own_cookie,
            own_request_id: self.policy.own_request_id,
            compressed,
        };
        let buffer = self.buffer.as_mut().expect("a head was read into it");
        let forwarded = forward::response(self.response, buffer.filled(), &answer, self.back);
        self.stage.count_head(self.back);
        if forwarded.unchunk {
            return self.unchunked().await;
        }
        let holder = if private::by_response(self.response, buffer.filled()) {
            Holder::Client
        } else {
            Holder::Anyone
        };
        let mut body = Body::new(self.response.framing);
        if let Some(compressor) = compressor {
            Box::pin(self.compressed(&mut body, compressor)).await?;
            return Ok(self.answered(&body, forwarded.keep_alive, holder, sent));
        }
        let head_len = self.response.len;
        let part = body
            .take(&buffer.filled()[head_len..])
            .map_err(|bad| Outcome::failed(Failure::BadResponse, bad.to_string()))?;
        let data = &buffer.filled()[head_len..head_len + part];
        let data = if self.response.upgrade { &[] } else { data };
        let pieces = self.back.slices(buffer.filled()).chain([data]);
        self.stage.status.set(self.response.status);
        large::give_up(self.text, self.request);
        let written = io::write_pieces(&mut self.to, pieces, &self.stage.delivered);
        let written = self.timer.within(self.policy.client_limit, written).await;
        written.map_err(client_gone)?;
        if self.response.upgrade {
            buffer.consume(head_len);
            return Ok(Outcome::Upgraded);
        }
        buffer.consume(head_len + part);
        self.body(&mut body).await?;
        Ok(self.answered(&body, forwarded.keep_alive, holder, sent))
    }

    /// The client has received the whole response; `sent`: and the server the whole request.
    fn answered(&self, body: &Body, keep_client: bool, holder: Holder, sent: bool) -> Outcome {
        let empty = self.buffer.as_ref().is_none_or(Buffer::is_empty);
        let keeps = self.response.keep_alive && body.is_done() && empty && sent;
        Outcome::Answered {
            keep_client,
            keep_server: keeps.then_some(holder),
        }
    }

    /// Whether and how the response is compressed.
    fn compression(&self) -> (Decision, Option<Compressor>) {
        let Some(policy) = self.policy.compress else {
            return Default::default();
        };
        if self.edit.speaks_of(b"content-encoding") {
            return Default::default();
        }
        let buffer = self.buffer.as_ref().expect("a head was read into it");
        let (client, head) = (self.policy.reader, &*self.response);
        let decision = compression::decide(policy, client, head, buffer.filled());
        let memory = &self.policy.worker.compressing;
        let compressor = decision.coding;
        let compressor = compressor.and_then(|coding| Compressor::new(policy, coding, memory));
        let coding = decision.coding.filter(|_| compressor.is_some());
        (Decision { coding, ..decision }, compressor)
    }

    /// Reads a head.
    async fn head(&mut self) -> Result<(), Outcome> {
        if self.buffer.is_none() {
            // No buffer is held while waiting for the server.
            let readable = poll_fn(|cx| self.from.poll_read_ready(cx).map_err(Fault::Os));
            let readable =
                until_late(readable, self.timer, self.stage, self.policy.response_limit).await;
            readable.map_err(|fault| self.no_head(fault))?;
        }
        loop {
            let buffer = self.buffer.get_or_insert_with(Buffer::take_long);
            if !buffer.is_empty() {
                let asked: Method = self.request.method;
                match http1::parse_response(buffer.filled(), asked, self.response, &LIMITS) {
                    Ok(Progress::Done) => return Ok(()),
                    Ok(Progress::Partial) => {}
                    Err(bad) => {
                        return Err(Outcome::failed(Failure::BadResponse, bad.to_string()));
                    }
                }
            }
            let read = io::read(&mut self.from, buffer);
            let read = until_late(read, self.timer, self.stage, self.policy.response_limit).await;
            if let Err(fault) = read {
                return Err(self.no_head(fault));
            }
        }
    }

    fn no_head(&self, fault: Fault) -> Outcome {
        let nothing = self.buffer.as_ref().is_none_or(Buffer::is_empty);
        let closed = Failure::Closed {
            stale: self.reused && nothing,
        };
        let (failure, reason) = match fault {
            Fault::Deadline => {
                let words = format!(
                    "no response within {} ms",
                    self.policy.response_limit.as_millis()
                );
                (Failure::TimedOut, words)
            }
            Fault::Closed => (closed, "it closed without a response".into()),
            Fault::Os(error) => (closed, in_words(error)),
        };
        Outcome::failed(failure, reason)
    }

    async fn pass_on_interim(&mut self) -> Result<(), Outcome> {
        let buffer = self.buffer.as_ref().expect("a head was read into it");
        let answer = ResponseContext {
            client: self.request.version,
            keep_alive: true,
            server: self.policy.hop,
            edit: Edit::default(),
            date: b"",
            lines: &[],
            own_cookie: None,
            own_request_id: false,
            compressed: Decision::default(),
        };
        forward::response(self.response, buffer.filled(), &answer, self.back);
        self.stage.count_head(self.back);
        let pieces = self.back.slices(buffer.filled());
        let written = io::write_pieces(&mut self.to, pieces, &self.stage.delivered);
        self.timer
            .within(self.policy.client_limit, written)
            .await
            .map_err(client_gone)
    }

    /// Forwards the rest of the body.
    async fn body(&mut self, body: &mut Body) -> Result<(), Outcome> {
        let mut splices = true;
        while !body.is_done() {
            if let Body::Length(left) = body
                && splices
                && *left >= io::SPLICE_FROM
                && self.buffer.as_ref().is_none_or(Buffer::is_empty)
                && self.from.plain().is_some()
                && self.to.plain().is_some()
            {
                *self.buffer = None;
                match Pipe::take() {
                    Ok(pipe) => *left -= self.splice(pipe, *left).await?,
                    // No descriptor is left: it is copied.
                    Err(_) => splices = false,
                }
                continue;
            }
            if !self.more().await? {
                return match body {
                    Body::UntilClose => Ok(()),
                    Body::Length(_) | Body::Chunked(_) => Err(server_stopped(Fault::Closed)),
                };
            }
            let buffer = self.buffer.as_mut().expect("it was just read into");
            let part = body.take(buffer.filled()).map_err(|bad| {
                Outcome::Broken(Cause::BadResponse(Phase::Data), bad.to_string().into())
            })?;
            let data = [&buffer.filled()[..part]].into_iter();
            let written = io::write_pieces(&mut self.to, data, &self.stage.delivered);
            let written = self.timer.within(self.policy.client_limit, written).await;
            written.map_err(client_gone)?;
            buffer.consume(part);
        }
        Ok(())
    }

    /// Forwards the head, and the body compressed.
    async fn compressed(
        &mut self,
        body: &mut Body,
        mut compressor: Compressor,
    ) -> Result<(), Outcome> {
        let buffer = self.buffer.as_mut().expect("a head was read into it");
        compressor.set_head(self.back.slices(buffer.filled()));
        self.stage.status.set(self.response.status);
        large::give_up(self.text, self.request);
        buffer.consume(self.response.len);
        loop {
            self.compress(body, &mut compressor).await?;
            // Compressing takes a while: the worker has others to serve.
            tokio::task::yield_now().await;
            if body.is_done() || !self.more_or_flush(&mut compressor).await? {
                break;
            }
        }
        if !body.is_done() && !matches!(body, Body::UntilClose) {
            // As without compression, the client gets what there is, and sees that something is missing.
            self.send_rest(&mut compressor).await?;
            return Err(server_stopped(Fault::Closed));
        }
        compressor.finish().map_err(not_compressed)?;
        self.write_chunk(&mut compressor).await
    }

    /// Compresses what has been read.
    async fn compress(
        &mut self,
        body: &mut Body,
        compressor: &mut Compressor,
    ) -> Result<(), Outcome> {
        loop {
            let buffer = self.buffer.as_mut().expect("the head was read into it");
            if buffer.is_empty() || body.is_done() {
                return Ok(());
            }
            let (kind, count) = match body.next_part(buffer.filled()) {
                Ok(part) => part,
                Err(bad) => {
                    self.send_rest(compressor).await?;
                    let cause = Cause::BadResponse(Phase::Data);
                    return Err(Outcome::Broken(cause, bad.to_string().into()));
                }
            };
            if kind == Part::Data {
                let written = compressor.write(&buffer.filled()[..count]);
                written.map_err(not_compressed)?;
            }
            buffer.consume(count);
            if compressor.is_full() {
                self.write_chunk(compressor).await?;
            }
        }
    }

    /// Reads more of the body; `false` at the connection's end. If that takes a while, the client gets what there is first: a
    /// stream's events do not wait in the compressor.
    async fn more_or_flush(&mut self, compressor: &mut Compressor) -> Result<bool, Outcome> {
        let buffer = self.buffer.get_or_insert_with(Buffer::take_long);
        let mut read = io::read(&mut self.from, buffer);
        let at_once = poll_fn(|cx| Poll::Ready(Pin::new(&mut read).poll(cx))).await;
        drop(read);
        match at_once {
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(Fault::Closed)) => Ok(false),
            Poll::Ready(Err(fault)) => {
                self.send_rest(compressor).await?;
                Err(server_stopped(fault))
            }
            Poll::Pending => {
                self.send_rest(compressor).await?;
                self.more().await
            }
        }
    }

    /// Sends all that the compressor holds.
    async fn send_rest(&mut self, compressor: &mut Compressor) -> Result<(), Outcome> {
        compressor.flush().map_err(not_compressed)?;
        self.write_chunk(compressor).await
    }

    async fn write_chunk(&mut self, compressor: &mut Compressor) -> Result<(), Outcome> {
        let pieces = compressor.chunk().into_iter();
        let written = io::write_pieces(&mut self.to, pieces, &self.stage.delivered);
        let written = self.timer.within(self.policy.client_limit, written).await;
        compressor.written();
        written.map_err(client_gone)
    }

    /// Moves at most `left` bytes of the body within the kernel, and returns how many.
    async fn splice(&mut self, mut pipe: Pipe, left: u64) -> Result<u64, Outcome> {
        let (Some(from), Some(to)) = (self.from.plain(), self.to.plain()) else {
            unreachable!("only plain connections are spliced");
        };
        let moved = {
            let filling = pin!(pipe.fill(from, left));
            let filled = self.timer.within(self.policy.response_limit, filling).await;
            filled.map_err(server_stopped)?
        };
        while !pipe.is_empty() {
            let draining = pin!(pipe.drain(to));
            let written = self.timer.within(self.policy.client_limit, draining).await;
            let delivered = &self.stage.delivered;
            delivered.set(delivered.get() + written.map_err(client_gone)?);
        }
        Ok(moved)
    }

    /// Reads more of the body; `false` at the connection's end.
    async fn more(&mut self) -> Result<bool, Outcome> {
        let buffer = self.buffer.get_or_insert_with(Buffer::take_long);
        let read = io::read(&mut self.from, buffer);
        match self.timer.within(self.policy.response_limit, read).await {
            Ok(_) => Ok(true),
            Err(Fault::Closed) => Ok(false),
            Err(fault) => Err(server_stopped(fault)),
        }
    }

    /// Forwards the data of chunks to a client that knows no chunked coding (HTTP/1.0).
    async fn unchunked(&mut self) -> Result<Outcome, Outcome> {
        let mut chunks = ChunkDecoder::default();
        let buffer = self.buffer.as_mut().expect("a head was read into it");
        self.stage.status.set(self.response.status);
        large::give_up(self.text, self.request);
        let head = self.back.slices(buffer.filled());
        let written = io::write_pieces(&mut self.to, head, &self.stage.delivered);
        self.timer
            .within(self.policy.client_limit, written)
            .await
            .map_err(client_gone)?;
        buffer.consume(self.response.len);
        loop {
            let buffer = self.buffer.as_mut().expect("a head was read into it");
            while !buffer.is_empty() && !chunks.is_done() {
                let (kind, count) = chunks.next_part(buffer.filled()).map_err(|bad| {
                    Outcome::Broken(Cause::BadResponse(Phase::Data), bad.to_string().into())
                })?;
                if kind == Part::Data {
                    let data = [&buffer.filled()[..count]].into_iter();
                    let written = io::write_pieces(&mut self.to, data, &self.stage.delivered);
                    let written = self.timer.within(self.policy.client_limit, written).await;
                    written.map_err(client_gone)?;
                }
                buffer.consume(count);
            }
            if chunks.is_done() {
                return Ok(Outcome::Answered {
                    keep_client: false,
                    keep_server: None,
                });
            }
            if !self.more().await? {
                return Err(server_stopped(Fault::Closed));
            }
        }
    }
}

fn not_compressed(error: std::io::Error) -> Outcome {
    let reason = format!("the response could not be compressed: {error}");
    Outcome::Broken(Cause::ServerFailed(Phase::Data), reason.into())
}

fn server_stopped(fault: Fault) -> Outcome {
    let failed = Cause::ServerFailed(Phase::Data);
    match fault {
        Fault::Deadline => Outcome::broken(Cause::ServerTimedOut(Phase::Data)),
        Fault::Closed => Outcome::broken(failed),
        // TLS without a proper close.
        Fault::Os(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Outcome::Broken(failed, "the server's response was cut off".into())
        }
        Fault::Os(error) => Outcome::Broken(failed, in_words(error).into()),
    }
}

fn client_gone(fault: Fault) -> Outcome {
    match fault {
        Fault::Deadline => Outcome::broken(Cause::ClientTimedOut(Phase::Data)),
        Fault::Closed | Fault::Os(_) => Outcome::broken(Cause::ClientLeft(Phase::Data)),
    }
}

/// Waits for `work`, for at most `limit` from the moment the request was sent.
fn until_late<T>(
    mut work: impl Future<Output = Result<T, Fault>> + Unpin,
    timer: &mut Timer,
    stage: &Stage,
    limit: Duration,
) -> impl Future<Output = Result<T, Fault>> + Unpin {
    poll_fn(move |cx| {
        if let Poll::Ready(done) = Pin::new(&mut work).poll(cx) {
            return Poll::Ready(done);
        }
        match stage.sent_at.get() {
            Some(sent_at) => timer
                .poll_until(cx, sent_at + limit)
                .map(|()| Err(Fault::Deadline)),
            None => Poll::Pending,
        }
    })
}
