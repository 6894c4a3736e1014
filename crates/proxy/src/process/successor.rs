//! A new process that this one starts itself, and what remains of this one afterwards: the parent that the system knows.
//!
//! Whoever started the first process (systemd, a container, a shell) watches its pid. So it stays, without anything of its
//! own, until the processes that came after it have ended: it passes signals on, and ends as they do. Those between the
//! first one and the one that serves end as soon as they have finished what was open.

use super::Signals;
use crate::hand_over::{give, request, serve_successor};
use crate::program::program;
use crate::supervisor::Supervisor;
use crate::take_over::{ANSWER_LIMIT, TakeOverError};
use gaiola_model::proxy::ControlRequest;
use gaiola_os::process::{Children, Exit, adopt_orphans, children, reap_children, signal};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal as listen};

/// Set for a new process: it takes over through its standard input.
const TAKES_OVER: &str = "GAIOLA_TAKES_OVER";

/// Interval at which children are looked for, should a signal be missed.
const POLL: Duration = Duration::from_secs(1);

/// Time in which a signal that has come before is found.
const PENDING: Duration = Duration::from_millis(5);

/// A process that this one has started to take over from it.
pub(crate) struct Successor {
    child: Child,
    /// In the process that the system knows: the end of the pipe whose closing ends all others.
    lifeline: Option<OwnedFd>,
}

/// The socket to take over through, where the parent has passed one.
///
/// # Errors
/// The system's error.
pub(crate) fn parents_socket() -> io::Result<Option<OwnedFd>> {
    match std::env::var_os(TAKES_OVER) {
        Some(_) => gaiola_os::descriptors::take_stdin().map(Some),
        None => Ok(None),
    }
}

impl Successor {
    /// Starts this program again with the same arguments, and hands everything over to it.
    ///
    /// # Errors
    /// Why it did not take over. Then it has ended, and this process serves as before.
    pub(crate) async fn start(supervisor: &Rc<Supervisor>) -> Result<Self, TakeOverError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        adopt_orphans()?;
        let mut args = std::env::args_os();
        let mut command = Command::new(program()?.0);
        if let Some(name) = args.next() {
            command.arg0(name);
        }
        command.args(args).env(TAKES_OVER, "stdin");
        let child = command.stdin(OwnedFd::from(theirs)).spawn()?;
        // Its end of the socket is closed here.
        drop(command);
        tracing::info!(pid = child.id(), "started a new process to take over");
        let mut started = Self {
            child,
            lifeline: lifeline(supervisor)?,
        };
        match started
            .hand_over(UnixStream::from_std(ours)?, supervisor)
            .await
        {
            Ok(()) => Ok(started),
            Err(error) => {
                if started.lifeline.take().is_some() {
                    supervisor.endpoints.borrow_mut().lifeline = None;
                }
                Err(started.end(error))
            }
        }
    }

    async fn hand_over(
        &self,
        stream: UnixStream,
        supervisor: &Rc<Supervisor>,
    ) -> Result<(), TakeOverError> {
        let mut line = BufReader::new(stream);
        let asked = tokio::time::timeout(ANSWER_LIMIT, request(&mut line)).await;
        let (asked, schema) = asked.map_err(|_| TakeOverError::Late(ANSWER_LIMIT))??;
        if asked != ControlRequest::TakeOver {
            return Err(TakeOverError::Unexpected(format!("{asked:?}")));
        }
        let first = give(&mut line, schema, supervisor).await?;
        let served = serve_successor(line, first, Rc::clone(supervisor));
        tokio::task::spawn_local(served);
        Ok(())
    }

    /// Ends it; a process that ended by itself is the reason.
    fn end(&mut self, error: TakeOverError) -> TakeOverError {
        match self.child.try_wait() {
            Ok(Some(status)) if !matches!(error, TakeOverError::Refused(_)) => {
                TakeOverError::Ended(status.to_string())
            }
            _ => {
                let _ = self.child.kill();
                let _ = self.child.wait();
                error
            }
        }
    }
}

/// Makes a pipe that ends with this process, unless this one has been handed one itself. It is handed over with the rest.
fn lifeline(supervisor: &Supervisor) -> io::Result<Option<OwnedFd>> {
    let mut endpoints = supervisor.endpoints.borrow_mut();
    if endpoints.lifeline.is_some() {
        return Ok(None);
    }
    let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    endpoints.lifeline = Some(reads);
    Ok(Some(writes))
}

/// The processes that came after this one.
pub(crate) struct Heir(pub(crate) Successor);

/// How they ended.
pub(crate) type Outlived = Result<(), String>;

impl Heir {
    /// Passes a signal on to them.
    pub(crate) fn pass_on(sent: Signal) {
        // A terminal sends INT to all of them; a second one would end them at once.
        let sent = if sent == Signal::INT {
            Signal::TERM
        } else {
            sent
        };
        for pid in children().unwrap_or_default() {
            signal(pid, sent);
        }
    }

    /// In the process that the system knows: waits until they have ended. Any other ends now, and its children become those
    /// of the first one.
    pub(crate) fn outlive(self, mut signals: Signals) -> io::Result<Outlived> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_io().enable_time().build()?;
        let outlived = match self.0.lifeline {
            Some(_) => runtime.block_on(until_ended(&mut signals)),
            None => runtime.block_on(leave(&mut signals)),
        };
        // Until then its end of the lifeline is open.
        drop(self.0);
        outlived
    }
}

/// Waits until there are no children, those of children that have ended among them, and passes signals on.
async fn until_ended(signals: &mut Signals) -> io::Result<Outlived> {
    let mut ended = listen(SignalKind::child())?;
    let (mut last, mut stopping) = (None, false);
    loop {
        match reap_children() {
            Children::Some(exit) => last = exit.or(last),
            Children::None(exit) => return Ok(outcome(exit.or(last))),
        }
        if stopping {
            // A child that has just ended may have left another one.
            Heir::pass_on(Signal::TERM);
        }
        tokio::select! {
            _ = ended.recv() => {}
            sent = signals.next() => {
                stopping |= matches!(sent, Signal::TERM | Signal::INT);
                Heir::pass_on(sent);
            }
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Passes on what has come meanwhile. A child that has failed is the reason why this process ends.
async fn leave(signals: &mut Signals) -> io::Result<Outlived> {
    while let Ok(sent) = tokio::time::timeout(PENDING, signals.next()).await {
        Heir::pass_on(sent);
    }
    match reap_children() {
        Children::None(exit) => Ok(outcome(exit)),
        Children::Some(_) => Ok(Ok(())),
    }
}

fn outcome(last: Option<Exit>) -> Outlived {
    match last {
        None | Some(Exit::Status(0)) => Ok(()),
        Some(exit) => Err(exit.to_string()),
    }
}
