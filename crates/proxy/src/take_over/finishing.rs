//! The old process, as the new one sees it: it finishes what is open.

use super::{ANSWER_LIMIT, MESSAGES, TakeOverError};
use gaiola_model::proxy::{ControlReply, ControlRequest, LateCounts, ProxyReport, TakenOver};
use gaiola_wire::document::{decode_message, encode_message};
use std::cell::RefCell;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Interval between polls of its report.
const POLL: Duration = Duration::from_millis(100);

/// One that does not answer for this long hangs, and is left alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection to the old process.
pub(crate) struct Finishing {
    line: Mutex<Option<BufReader<UnixStream>>>,
    report: RefCell<Option<ProxyReport>>,
}

impl Finishing {
    /// Says that this process is ready. Returns once the old one does not accept any more, with what its limits have
    /// counted in the end.
    ///
    /// # Errors
    /// Why it still serves, or is gone.
    pub(crate) async fn begin(
        stream: std::os::unix::net::UnixStream,
        taken: TakenOver,
    ) -> Result<(Self, Vec<LateCounts>), TakeOverError> {
        stream.set_nonblocking(true)?;
        let mut line = BufReader::new(UnixStream::from_std(stream)?);
        let request = ControlRequest::TakenOver(taken);
        let reply = timeout(ANSWER_LIMIT, exchange(&mut line, &request)).await;
        let late = match reply.map_err(|_| TakeOverError::Late(ANSWER_LIMIT))?? {
            ControlReply::Left(late) => late,
            other => return Err(TakeOverError::Unexpected(format!("{other:?}"))),
        };
        let old = Self {
            line: Mutex::new(Some(line)),
            report: RefCell::new(Some(ProxyReport::default())),
        };
        Ok((old, late))
    }

    /// Its last report; `None` once it is gone.
    pub(crate) fn report(&self) -> Option<ProxyReport> {
        self.report.borrow().clone()
    }

    /// Asks it; `None` if it is gone. `wait`: how long the request may take.
    pub(crate) async fn ask(
        &self,
        request: &ControlRequest,
        wait: Duration,
    ) -> Option<ControlReply> {
        let mut line = self.line.lock().await;
        let open = line.as_mut()?;
        match timeout(wait + PATIENCE, exchange(open, request)).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(TakeOverError::Closed)) => tracing::info!("the old process has ended"),
            Ok(Err(error)) => {
                let error = gaiola_os::chain(&error);
                tracing::warn!(error, "lost the old process");
            }
            Err(_) => tracing::warn!("the old process does not answer"),
        }
        *line = None;
        self.report.take();
        None
    }

    /// Keeps its report up to date, until it is gone.
    pub(crate) async fn follow(&self) {
        while self.refresh().await {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Reads its report now; `false`: it is gone.
    pub(crate) async fn refresh(&self) -> bool {
        match self.ask(&ControlRequest::Report, Duration::ZERO).await {
            Some(ControlReply::Report(report)) => {
                self.report.replace(Some(report));
                true
            }
            reply => reply.is_some(),
        }
    }
}

async fn exchange(
    line: &mut BufReader<UnixStream>,
    request: &ControlRequest,
) -> Result<ControlReply, TakeOverError> {
    let mut text = encode_message(request, MESSAGES)?;
    text.push(b'\n');
    // A process that ended between two requests has closed its side.
    if line.write_all(&text).await.is_err() {
        return Err(TakeOverError::Closed);
    }
    let mut reply = Vec::new();
    match line.read_until(b'\n', &mut reply).await {
        Ok(0) => Err(TakeOverError::Closed),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            Err(TakeOverError::Closed)
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(decode_message(&reply)?.0),
    }
}
