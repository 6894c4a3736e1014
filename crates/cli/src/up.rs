//! `gaiola up`.

use crate::args::{Global, Up};
use crate::change::{deploy, refuse};
use crate::connect::SiteClient;
use crate::deploy::Local;
use crate::doctor::find_programs;
use crate::down::{DOWN_LIMIT, stop};
use crate::file;
use crate::install;
use crate::output::Exit;
use crate::secret;
use anyhow::{Context as _, bail};
use gaiola_control::api::SiteInfo;
use gaiola_model::Config;
use gaiola_net::client::Request;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The site's default address.
const FRONT_DOOR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The status page's default address.
const PAGE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// `gaiola up`.
pub(crate) fn up(global: &Global, up: &Up) -> anyhow::Result<Exit> {
    let config = secret::checked(global, &up.of, file::read(&up.of.file)?)?;
    if config.machines.is_some() {
        return install::up(global, up, config);
    }
    find_programs(&config)?;
    let client = SiteClient::of(config.site.clone())?;
    make_state(&client)?;
    let local = match Local::read(global, config, &up.of) {
        Ok(local) => local,
        Err(error) => return refuse(global, &error),
    };
    let started = !client.is_running() && start_lab(&client, up)?;
    if !started && let Some(why) = is_elsewhere(&client.get("/ping")?, up) {
        bail!("{why}");
    }
    let next = try_next(&local.config);
    let tls = local.config.speaks_tls();
    let scheme = if tls { "https" } else { "http" };
    let exit = deploy(global, &client, local)?;
    if exit == Exit::Ok && !global.json && !global.quiet {
        let info: SiteInfo = client.get("/ping")?;
        print_line!("\n{} is up", client.site);
        print_line!("  the site      {scheme}://{}/", info.entry);
        print_line!("  its status    http://{}/  (or: gaiola status)", info.page);
        print_line!("  try next      {next}");
    }
    if up.detach || !started {
        return Ok(exit);
    }
    if exit == Exit::Interrupted {
        eprint_line!("interrupted: bringing {} down", client.site);
        stop(&client)?;
        return Ok(exit);
    }
    stay(global, &client)
}

/// A message if a site that is up has other addresses than the command line requests.
fn is_elsewhere(info: &SiteInfo, up: &Up) -> Option<String> {
    let asked = [
        ("the site", "--front-door", info.entry, up.front_door),
        ("the status page", "--page", info.page, up.page),
    ];
    let differs = |(_, _, is, wanted): &&(_, _, SocketAddr, Option<SocketAddr>)| {
        wanted.is_some_and(|wanted| wanted != *is)
    };
    let (what, option, is, wanted) = asked.iter().find(differs)?;
    let (site, wanted) = (&info.site, wanted.as_ref()?);
    Some(format!(
        "{site} is up, and {what} is at {is}, not at {wanted}: an address cannot change while the site is up; \
         leave {option} out, or run: gaiola down, then gaiola up {option} {wanted}"
    ))
}

/// Commands to try on this site.
fn try_next(config: &Config) -> String {
    let first = config.server_names().next();
    let drill = first.map(|server| format!("gaiola drill kill {server}   "));
    let drill = drill.unwrap_or_default();
    let more = config.app.servers.saturating_add(1);
    let machines = config.machines.as_ref();
    // Without a spare machine there can be no more.
    let can_grow = machines.is_none_or(|machines| !machines.spare.is_empty());
    let scale = if can_grow {
        format!("gaiola scale app={more}   ")
    } else {
        String::new()
    };
    format!("{drill}{scale}gaiola logs -f")
}

/// Starts the lab in a separate process, which outlives this one. `false`: another process was faster.
fn start_lab(client: &SiteClient, up: &Up) -> anyhow::Result<bool> {
    let deadline = Instant::now() + DOWN_LIMIT;
    loop {
        match try_lab(client, up)?.as_str() {
            "ready" => return Ok(true),
            "" => bail!(
                "the lab exited without a message; see {}",
                client.state.lab_log().display()
            ),
            // Another lab of the site is going down, or is just starting.
            gaiola_control::process::UP_ALREADY if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50))
            }
            why => bail!("{why}"),
        }
        if client.is_running() {
            return Ok(false);
        }
    }
}

/// The state directory must exist before the site's directory is read: it may lie within.
fn make_state(client: &SiteClient) -> anyhow::Result<()> {
    client.state.make().with_context(|| {
        let folder = client.state.folder();
        format!("cannot make the state directory {}", folder.display())
    })
}

/// Starts a lab and returns its first line.
fn try_lab(client: &SiteClient, up: &Up) -> anyhow::Result<String> {
    make_state(client)?;
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(client.state.lab_log());
    let log = log.with_context(|| format!("cannot write {}", client.state.lab_log().display()))?;
    let mut command =
        Command::new(std::env::current_exe().context("cannot find this program's path")?);
    command.arg("lab").arg(client.site.as_str());
    command.args([
        "--front-door",
        &up.front_door.unwrap_or(FRONT_DOOR).to_string(),
        "--page",
        &up.page.unwrap_or(PAGE).to_string(),
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

/// Prints events in the foreground until an interrupt, then brings the site down.
fn stay(global: &Global, client: &SiteClient) -> anyhow::Result<Exit> {
    if !global.quiet {
        eprint_line!("\nCtrl-C brings it down. Events:");
    }
    let ended = client.runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupted.recv() => Ok::<_, anyhow::Error>(false),
            _ = terminated.recv() => Ok(false),
            () = show_events(client) => Ok(true),
        }
    })?;
    if ended {
        eprint_line!("{} went down", client.site);
        return Ok(Exit::Failed);
    }
    eprint_line!("bringing {} down", client.site);
    stop(client)?;
    Ok(Exit::Interrupted)
}

/// Shows events until the site is down.
async fn show_events(client: &SiteClient) {
    let request = Request::get("/events?last=0&follow=true");
    while let Ok(mut stream) = client.stream(&request, Duration::from_secs(30)).await {
        while let Ok(Some(line)) = stream.next_line(Duration::from_secs(365 * 86_400)).await {
            if let Ok(event) = serde_json::from_slice::<gaiola_model::event::Event>(&line) {
                eprint_line!("{event}");
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn up(args: &[&str]) -> Up {
        let args = [&["gaiola", "up"], args].concat();
        match crate::args::Args::parse_from(args).command {
            crate::args::Command::Up(up) => up,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_site_that_is_up_elsewhere_is_not_moved_and_it_is_said_what_to_do() {
        let info = SiteInfo {
            site: "shop".parse().unwrap(),
            entry: "127.0.0.1:9090".parse().unwrap(),
            page: PAGE,
        };
        assert_eq!(is_elsewhere(&info, &up(&[])), None);
        let there = up(&["--front-door", "127.0.0.1:9090", "--page", "127.0.0.1:7070"]);
        assert_eq!(is_elsewhere(&info, &there), None);
        let why = is_elsewhere(&info, &up(&["--front-door", "127.0.0.1:8080"])).unwrap();
        assert!(
            why.starts_with(
                "shop is up, and the site is at 127.0.0.1:9090, not at 127.0.0.1:8080: "
            )
        );
        assert!(why.ends_with("gaiola down, then gaiola up --front-door 127.0.0.1:8080"));
        let why = is_elsewhere(&info, &up(&["--page", "127.0.0.1:7071"])).unwrap();
        assert!(why.contains("the status page is at 127.0.0.1:7070, not at 127.0.0.1:7071"));
    }

    #[test]
    fn what_is_tried_next_is_there() {
        let config = Config::new(
            "shop".parse().unwrap(),
            gaiola_model::config::App::new("run"),
        );
        let servers = config.app.servers;
        assert_eq!(
            try_next(&config),
            format!(
                "gaiola drill kill app1   gaiola scale app={}   gaiola logs -f",
                servers + 1
            )
        );
    }
}
