//! The old process's side of a take-over: it hands everything over, and leaves once the new one is ready.

use super::supervisor::Supervisor;
use super::take_over::{ANSWER_LIMIT, Handed, READY_LIMIT, TakeOverError, write_counts};
use gaiola_model::proxy::{ControlReply, ControlRequest, TakenOver};
use gaiola_os::descriptors;
use gaiola_wire::document::{decode_message, encode_message};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Longest message of the new process: a configuration of some ten thousand servers.
const LINE_LIMIT: u64 = 16 * 1024 * 1024;

type Line = BufReader<UnixStream>;

/// Hands everything over to the process that asks on this connection, in this schema. Returns its first request once it
/// serves: from then on this process accepts nothing more.
///
/// # Errors
/// Why it did not take over; then this process serves as before.
pub(super) async fn give(
    line: &mut Line,
    schema: u64,
    supervisor: &Rc<Supervisor>,
) -> Result<Option<(ControlRequest, u64)>, TakeOverError> {
    let _changing = supervisor.changing().await;
    if supervisor.orders().leaving {
        let why = "another process has taken over already".to_owned();
        let refusal = ControlReply::Refused(why.clone());
        send(line, &refusal, schema).await?;
        return Err(TakeOverError::Refused(why));
    }
    let handed = offer(line, schema, supervisor).await?;
    let taken = ready(line).await?;
    let held = supervisor.leave().await;
    let late = handed.iter().map(Handed::late);
    let left = ControlReply::Left(late.collect());
    let first = match send(line, &left, schema).await {
        Ok(()) => timeout(ANSWER_LIMIT, request(line)).await.ok().transpose(),
        Err(error) => Err(error),
    };
    match first {
        Ok(first) => {
            supervisor.have_left(&taken, held);
            Ok(first)
        }
        Err(error) => {
            supervisor.resume(held).await;
            Err(error)
        }
    }
}

/// Serves the requests of the process that has taken over, until it ends.
pub(super) async fn serve_successor(
    mut line: Line,
    first: Option<(ControlRequest, u64)>,
    supervisor: Rc<Supervisor>,
) {
    let mut next = first.map(Ok);
    loop {
        let asked = match next.take() {
            Some(asked) => asked,
            None => request(&mut line).await,
        };
        let Ok((asked, schema)) = asked else { break };
        let reply = supervisor.handle(asked).await;
        if send(&mut line, &reply, schema).await.is_err() {
            break;
        }
    }
    supervisor.lose_successor();
}

/// The next request, and its schema.
pub(super) async fn request(line: &mut Line) -> Result<(ControlRequest, u64), TakeOverError> {
    let mut text = Vec::new();
    match line.take(LINE_LIMIT).read_until(b'\n', &mut text).await? {
        0 => Err(TakeOverError::Closed),
        _ => Ok(decode_message(&text)?),
    }
}

async fn send(line: &mut Line, reply: &ControlReply, schema: u64) -> Result<(), TakeOverError> {
    let mut text = encode_message(reply, schema)?;
    text.push(b'\n');
    write(line, &text).await
}

async fn write(line: &mut Line, bytes: &[u8]) -> Result<(), TakeOverError> {
    let written = timeout(ANSWER_LIMIT, line.write_all(bytes)).await;
    Ok(written.map_err(|_| TakeOverError::Late(ANSWER_LIMIT))??)
}

/// Sends what there is, and returns what is needed to tell the rest later.
async fn offer(
    line: &mut Line,
    schema: u64,
    supervisor: &Rc<Supervisor>,
) -> Result<Vec<Handed>, TakeOverError> {
    let orders = supervisor.orders();
    let handed: Vec<_> = orders.limits.iter().map(Handed::of).collect();
    let (offer, sockets) = supervisor.offer(&handed)?;
    send(line, &ControlReply::HandOver(Box::new(offer)), schema).await?;
    for limit in &handed {
        let mut bytes = Vec::new();
        write_counts(limit.counts(), &mut bytes);
        write(line, &bytes).await?;
    }
    for of_use in sockets {
        for some in of_use.chunks(descriptors::MOST) {
            send_sockets(line.get_ref(), some).await?;
        }
    }
    Ok(handed)
}

async fn send_sockets(stream: &UnixStream, sockets: &[OwnedFd]) -> Result<(), TakeOverError> {
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let sent = stream.async_io(Interest::WRITABLE, || descriptors::send(stream, &sockets));
    let sent = timeout(ANSWER_LIMIT, sent).await;
    let sent: io::Result<()> = sent.map_err(|_| TakeOverError::Late(ANSWER_LIMIT))?;
    Ok(sent?)
}

/// Waits until the new process is ready.
async fn ready(line: &mut Line) -> Result<TakenOver, TakeOverError> {
    let limit: Duration = READY_LIMIT;
    let asked = timeout(limit, request(line)).await;
    match asked.map_err(|_| TakeOverError::Late(limit))??.0 {
        ControlRequest::TakenOver(taken) => Ok(taken),
        other => Err(TakeOverError::Unexpected(format!("{other:?}"))),
    }
}
