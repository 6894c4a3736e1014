//! Requests changes of a running site and follows them to the end.

use crate::args::Global;
use crate::connect::{SiteClient, UNREADABLE};
use crate::deploy::{Busy, Local};
use crate::operator;
use crate::output::Exit;
use crate::pending;
use anyhow::{Context as _, bail};
use gaiola_control::api::{Change, ChangeRequest, Outcome, Progress, refused};
use gaiola_net::client::Request;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Requests a change, prints its steps, and returns its exit code.
pub(crate) fn change(global: &Global, client: &SiteClient, change: Change) -> anyhow::Result<Exit> {
    let started = Instant::now();
    carry_out(global, client, started, async {
        follow(global, client, change, started).await
    })
}

/// As [`change`], for a deployment: sends first what the site does not have.
pub(crate) fn deploy(
    global: &Global,
    client: &SiteClient,
    mut local: Local,
) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let exit = carry_out(global, client, started, async {
        if let Some(words) = local.left_out() {
            show(global, started, &words);
        }
        if let Err(error) = local.send(global, client).await {
            return Ok(not_begun(&error));
        }
        follow(global, client, local.apply(global.yes), started).await
    })?;
    if let Err(error) = pending::settle(client) {
        eprint_line!("which secrets still wait here is not known: {error:#}");
    }
    Ok(exit)
}

/// Reports a change that could not begin, and returns its exit code.
pub(crate) fn refuse(global: &Global, error: &anyhow::Error) -> anyhow::Result<Exit> {
    end(global, Instant::now(), &not_begun(error))
}

/// The outcome of a change whose upload failed. Another upload in progress belongs to another change.
fn not_begun(error: &anyhow::Error) -> Outcome {
    let is_busy = error.downcast_ref::<Busy>().is_some();
    let exit = if is_busy {
        Exit::ChangeUnderWay
    } else {
        Exit::Failed
    };
    refused(exit, format!("{error:#}"))
}

/// Waits for the outcome, unless an interrupt comes first.
fn carry_out(
    global: &Global,
    client: &SiteClient,
    started: Instant,
    change: impl Future<Output = anyhow::Result<Outcome>>,
) -> anyhow::Result<Exit> {
    let outcome = client.runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        tokio::select! {
            outcome = change => outcome.map(Some),
            _ = interrupted.recv() => Ok(None),
        }
    })?;
    match outcome {
        Some(outcome) => end(global, started, &outcome),
        None => Ok(Exit::Interrupted),
    }
}

fn end(global: &Global, started: Instant, outcome: &Outcome) -> anyhow::Result<Exit> {
    if global.json {
        print_line!("{}", serde_json::to_string_pretty(&outcome)?);
    } else if outcome.exit == Exit::Ok {
        if !global.quiet {
            eprint_line!(
                "{:>6.1} s  done{}",
                started.elapsed().as_secs_f32(),
                said(&outcome.message)
            );
        }
    } else {
        eprint_line!("gaiola: {}", outcome.message);
    }
    Ok(outcome.exit)
}

/// Shows a step on standard error.
pub(crate) fn show(global: &Global, started: Instant, text: &str) {
    if !global.quiet {
        eprint_line!("{:>6.1} s  {text}", started.elapsed().as_secs_f32());
    }
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// Requests a change, and shows its steps until it has ended.
pub(crate) async fn follow(
    global: &Global,
    client: &SiteClient,
    change: Change,
    started: Instant,
) -> anyhow::Result<Outcome> {
    let timeout_ms = u64::try_from(global.timeout.as_millis()).unwrap_or(u64::MAX);
    let asked = serde_json::to_vec(&ChangeRequest {
        change,
        timeout_ms,
        by: operator::name(),
    })?;
    let limit = global.timeout + Duration::from_secs(60);
    let mut stream = client
        .stream(&Request::post("/change", asked), Duration::from_secs(30))
        .await?;
    while let Some(line) = stream.next_line(limit).await? {
        // An empty line is a keep-alive.
        if line.is_empty() {
            continue;
        }
        let progress: Progress = serde_json::from_slice(&line).context(UNREADABLE)?;
        match progress {
            Progress::Done(outcome) => return Ok(*outcome),
            Progress::Step(text) => show(global, started, &text),
            Progress::Server { name, state } => {
                show(global, started, &format!("{:<5} {state}", name.to_string()));
            }
        }
    }
    bail!("{}", client.ended())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_is_sent_something_else_has_another_change_under_way() {
        let busy = anyhow::Error::from(Busy("another upload is in progress".into()));
        let outcome = not_begun(&busy.context("cannot send the release"));
        assert_eq!(outcome.exit, Exit::ChangeUnderWay);
        assert_eq!(
            outcome.message,
            "cannot send the release: another upload is in progress"
        );
        let outcome = not_begun(&anyhow::anyhow!("the disk is full"));
        assert_eq!(outcome.exit, Exit::Failed);
    }
}
