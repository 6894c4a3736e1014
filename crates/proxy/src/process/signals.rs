//! Signals to the process, and what they mean until it stops serving.

use super::successor::{Heir, Successor};
use super::{Process, Stop};
use crate::reload::Reloaded;
use crate::supervisor::{Stage, Supervisor};
use rustix::process::Signal;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// The signals that a proxy handles.
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reopen: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
    replace: tokio::signal::unix::Signal,
    /// Ends with the process that the system knows, where that is another one.
    lifeline: Option<pipe::Receiver>,
}

impl Signals {
    pub(super) fn new(lifeline: Option<&OwnedFd>) -> std::io::Result<Self> {
        let lifeline = lifeline.map(|pipe| pipe::Receiver::from_owned_fd(pipe.try_clone()?));
        Ok(Self {
            lifeline: lifeline.transpose()?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
            replace: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.reopen.recv() => Signal::USR1,
            _ = self.reload.recv() => Signal::HUP,
            _ = self.replace.recv() => Signal::USR2,
            () = end_of(self.lifeline.as_ref()) => {
                tracing::warn!("the process that was started is gone: ending");
                self.lifeline = None;
                Signal::TERM
            }
        }
    }

    /// Handles them until the process should stop serving.
    pub(super) async fn until_stop(
        &mut self,
        process: &Process<'_>,
        supervisor: &Rc<Supervisor>,
    ) -> Stop {
        let mut stage = supervisor.stage();
        loop {
            let sent = tokio::select! {
                sent = self.next() => sent,
                _ = stage.wait_for(|stage| *stage != Stage::Serving) => {
                    return Stop::TakenOver(None);
                }
            };
            let why = match (sent, &process.args.reload) {
                (Signal::TERM | Signal::INT, _) => return Stop::Asked,
                (Signal::USR1, _) => {
                    process.log.iter().for_each(|log| log.reopen());
                    continue;
                }
                (_, None) => {
                    tracing::info!("signal ignored: there is no file to reload");
                    continue;
                }
                (Signal::HUP, Some(reload)) => tokio::select! {
                    reloaded = reload.again(supervisor) => match reloaded {
                        Reloaded::Done => continue,
                        Reloaded::Limits(limits) => {
                            process.limits.set(limits);
                            continue;
                        }
                        Reloaded::Replace(why) => why,
                    },
                    () = self.until_asked_to_end() => return Stop::Asked,
                },
                (_, Some(_)) => "it was asked for",
            };
            tracing::info!(why, "starting a new process");
            let replaced = tokio::select! {
                replaced = Successor::start(supervisor) => replaced,
                () = self.until_asked_to_end() => return Stop::Asked,
            };
            match replaced {
                Ok(successor) => return Stop::TakenOver(Some(Heir(successor))),
                Err(error) => {
                    let error = gaiola_os::chain(&error);
                    supervisor.count_reload(false);
                    tracing::error!(error, "no new process has taken over: this one goes on");
                }
            }
        }
    }

    async fn until_asked_to_end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = end_of(self.lifeline.as_ref()) => {}
        }
    }

    pub(super) async fn until_interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}

/// Completes when this pipe has no writer any more; never without a pipe, or once its event loop has ended.
async fn end_of(pipe: Option<&pipe::Receiver>) {
    if let Some(pipe) = pipe
        // Nobody writes to it.
        && pipe.readable().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
