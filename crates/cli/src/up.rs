//! `gaiola up` and `gaiola down`, and how every change is followed.

use crate::args::{Global, SiteFile, Up};
use crate::connect::Lab;
use crate::hands;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_model::Config;
use gaiola_node::api::{Change, ChangeRequest, Outcome, Place, Progress};
use gaiola_node::client::Request;
use gaiola_node::{database, store};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The longest until the lab has stopped every server.
const DOWN_LIMIT: Duration = Duration::from_secs(120);

/// The directory that a site's file stands in: the site.
pub(crate) fn site_folder(file: &Path) -> anyhow::Result<PathBuf> {
    let whole = std::path::absolute(file)?;
    Ok(whole
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_else(|| "/".into()))
}

/// `gaiola up`.
pub(crate) fn up(global: &Global, up: &Up) -> anyhow::Result<Exit> {
    let config = hands::read(&up.of.file)?;
    find_programs(&config)?;
    let lab = Lab::of(config.site.clone())?;
    let started = !lab.is_running();
    let started = started && start_lab(&lab, up)?;
    let scheme = if config.speaks_tls() { "https" } else { "http" };
    let apply = Change::Apply {
        config: Box::new(config),
        file: std::path::absolute(&up.of.file)?,
        folder: site_folder(&up.of.file)?,
        yes: global.yes,
    };
    let exit = change(global, &lab, apply)?;
    if exit == Exit::Ok && !global.json && !global.quiet {
        let place: Place = lab.get("/ping")?;
        say!("\n{} is up", lab.site);
        say!("  the site      {scheme}://{}/", place.front_door);
        say!(
            "  its status    http://{}/  (or: gaiola status)",
            place.page
        );
        say!("  try next      gaiola drill kill lb1   gaiola scale app=3   gaiola logs -f");
    }
    if up.detach || !started {
        return Ok(exit);
    }
    if exit == Exit::Interrupted {
        tell!("interrupted: bringing {} down", lab.site);
        stop(&lab)?;
        return Ok(exit);
    }
    stay(global, &lab)
}

/// What every server needs is looked for before anything is started.
fn find_programs(config: &Config) -> anyhow::Result<()> {
    let mut missing: Vec<String> = Vec::new();
    missing.extend(
        store::etcd::find()
            .err()
            .map(|error| gaiola_node::chain(&error)),
    );
    if config.database.is_some() {
        missing.extend(
            database::find_tools()
                .err()
                .map(|error| gaiola_node::chain(&error)),
        );
    }
    if missing.is_empty() {
        Ok(())
    } else {
        bail!("{}", missing.join("\n"))
    }
}

/// Starts the lab as a process of its own: it outlives this one. `false`: somebody else was faster.
fn start_lab(lab: &Lab, up: &Up) -> anyhow::Result<bool> {
    let deadline = Instant::now() + DOWN_LIMIT;
    loop {
        match try_lab(lab, up)?.as_str() {
            "ready" => return Ok(true),
            "" => bail!(
                "the lab ended without a word; see {}",
                lab.state.lab_log().display()
            ),
            // One that is going down, or is only just coming up.
            gaiola_node::lab::UP_ALREADY if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50))
            }
            why => bail!("{why}"),
        }
        if lab.is_running() {
            return Ok(false);
        }
    }
}

/// Starts a lab and tells what it says.
fn try_lab(lab: &Lab, up: &Up) -> anyhow::Result<String> {
    lab.state.make().with_context(|| {
        format!(
            "cannot make the state directory {}",
            lab.state.folder().display()
        )
    })?;
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(lab.state.lab_log());
    let log = log.with_context(|| format!("cannot write {}", lab.state.lab_log().display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("lab").arg(lab.site.as_str());
    command.args([
        "--front-door",
        &up.front_door.to_string(),
        "--page",
        &up.page.to_string(),
    ]);
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0);
    let mut child = command.spawn().context("cannot start the lab")?;
    let mut said = String::new();
    let stdout = child.stdout.take().context("the lab has no output")?;
    BufReader::new(stdout).read_line(&mut said)?;
    if said.trim() != "ready" {
        child.wait().context("cannot wait for the lab")?;
    }
    Ok(said.trim().to_string())
}

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
    } else if outcome.exit == 0 {
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
    Ok(Exit::of(outcome.exit))
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

/// Stays in the foreground with the events, until an interrupt brings everything down.
fn stay(global: &Global, lab: &Lab) -> anyhow::Result<Exit> {
    if !global.quiet {
        tell!("\nCtrl-C brings it down. What happens:");
    }
    let ended = lab.runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupted.recv() => Ok::<_, anyhow::Error>(false),
            _ = terminated.recv() => Ok(false),
            () = show_events(lab) => Ok(true),
        }
    })?;
    if ended {
        tell!("{} went down", lab.site);
        return Ok(Exit::Failed);
    }
    tell!("bringing {} down", lab.site);
    stop(lab)?;
    Ok(Exit::Interrupted)
}

/// Shows events until the lab is gone.
async fn show_events(lab: &Lab) {
    let request = Request::get("/events?last=0&follow=true");
    while let Ok(mut stream) = lab
        .client()
        .stream(&lab.target(), &request, Duration::from_secs(30))
        .await
    {
        while let Ok(Some(line)) = stream.next_line(Duration::from_secs(365 * 86_400)).await {
            if let Ok(event) = serde_json::from_slice::<gaiola_model::event::Event>(&line) {
                tell!("{event}");
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// `gaiola down`.
pub(crate) fn down(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let lab = Lab::of(crate::connect::site(global, &of.file)?)?;
    if !lab.answers() {
        if !global.quiet {
            tell!("{} is not up", lab.site);
        }
        return Ok(Exit::Ok);
    }
    let started = Instant::now();
    stop(&lab)?;
    if !global.quiet {
        tell!(
            "{:>6.1} s  {} is down; its data stays in {}",
            started.elapsed().as_secs_f32(),
            lab.site,
            lab.state.folder().display()
        );
    }
    Ok(Exit::Ok)
}

/// Brings everything down and waits until it is.
fn stop(lab: &Lab) -> anyhow::Result<()> {
    let _: bool = lab.post("/down", &())?;
    let deadline = Instant::now() + DOWN_LIMIT;
    while lab.state.control_socket().exists() && lab.answers() {
        if Instant::now() >= deadline {
            bail!(
                "{} did not come down within {} s; see {}",
                lab.site,
                DOWN_LIMIT.as_secs(),
                lab.state.lab_log().display()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
