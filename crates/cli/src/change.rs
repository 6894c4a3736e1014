//! Changes of a running site: how each is asked for and followed to its end.

use crate::args::Global;
use crate::connect::Lab;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::{Change, ChangeRequest, Outcome, Progress};
use gaiola_net::client::Request;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Asks for a change, shows its steps, and ends as it ends.
pub(crate) fn change(global: &Global, lab: &Lab, change: Change) -> anyhow::Result<Exit> {
    let timeout_ms = u64::try_from(global.timeout.as_millis()).unwrap_or(u64::MAX);
    let request = Request::post(
        "/change",
        serde_json::to_vec(&ChangeRequest { change, timeout_ms })?,
    );
    let started = Instant::now();
    let outcome = lab.runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        tokio::select! {
            outcome = follow(global, lab, &request, started) => outcome.map(Some),
            _ = interrupted.recv() => Ok(None),
        }
    })?;
    let Some(outcome) = outcome else {
        return Ok(Exit::Interrupted);
    };
    if global.json {
        say!("{}", serde_json::to_string_pretty(&outcome)?);
    } else if outcome.exit == Exit::Ok {
        if !global.quiet {
            tell!(
                "{:>6.1} s  done{}",
                started.elapsed().as_secs_f32(),
                said(&outcome.message)
            );
        }
    } else {
        tell!("gaiola: {}", outcome.message);
    }
    Ok(outcome.exit)
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

async fn follow(
    global: &Global,
    lab: &Lab,
    request: &Request,
    started: Instant,
) -> anyhow::Result<Outcome> {
    let limit = global.timeout + Duration::from_secs(60);
    let mut stream = lab
        .client()
        .stream(&lab.target(), request, Duration::from_secs(30))
        .await?;
    while let Some(line) = stream.next_line(limit).await? {
        // An empty line says that the lab is still there.
        if line.is_empty() {
            continue;
        }
        let progress: Progress = serde_json::from_slice(&line).context(
            "the lab answered with something else than was asked for; is it of another version?",
        )?;
        match progress {
            Progress::Done(outcome) => return Ok(*outcome),
            Progress::Step(text) if !global.quiet => {
                tell!("{:>6.1} s  {text}", started.elapsed().as_secs_f32())
            }
            Progress::Server { name, state } if !global.quiet => {
                tell!(
                    "{:>6.1} s  {:<5} {state}",
                    started.elapsed().as_secs_f32(),
                    name.to_string()
                );
            }
            Progress::Step(_) | Progress::Server { .. } => {}
        }
    }
    bail!(
        "the lab ended in the middle of the change; see {}",
        lab.state.lab_log().display()
    )
}
