//! `gaiola open`: the status page. In the lab it is served here; that of a site on machines is relayed over `ssh`.

use crate::args::{Global, Open};
use crate::connect::{Place, SiteClient, place};
use crate::machines::Machines;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::SiteInfo;
use gaiola_control::monitor::relay;
use gaiola_net::client::{Request, Response, Target};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::LocalSet;

/// The page's address, unless it is taken.
const PAGE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);
/// Another address where it is.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The longest that a machine may take to answer before another one is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// `gaiola open`.
pub(crate) fn open(global: &Global, open: &Open) -> anyhow::Result<Exit> {
    if let Some(page) = open.page.filter(|page| !page.ip().is_loopback()) {
        bail!(
            "the status page is for this computer alone, and {page} is not: take --page 127.0.0.1:7070"
        );
    }
    let place = place(global, &open.of.file)?;
    let client = SiteClient::find(global, &open.of.file)?;
    if client.machine().is_some() {
        return on_machines(global, open, &place, client);
    }
    let info: SiteInfo = client.get("/ping")?;
    if open.page.is_some_and(|page| page != info.page) {
        bail!(
            "the status page of {} is at {}; another address takes: gaiola down, then gaiola up --page",
            info.site,
            info.page
        );
    }
    show(global, open, info.page);
    Ok(Exit::Ok)
}

/// Serves the page here until an interrupt.
fn on_machines(
    global: &Global,
    open: &Open,
    place: &Place,
    client: SiteClient,
) -> anyhow::Result<Exit> {
    let hosts = place.machines.clone().unwrap_or_default();
    let window = Rc::new(Window {
        target: Mutex::new(client.target().clone()),
        machines: Machines::new(hosts)?,
        client,
        quiet: global.quiet,
    });
    // Dropped first: its tasks use the client's runtime.
    let tasks = LocalSet::new();
    tasks.block_on(&window.client.runtime, async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let listener = listen(open.page).await?;
        show(global, open, listener.local_addr()?);
        if !global.quiet && !global.json {
            eprint_line!("Ctrl-C closes it.");
        }
        let looking = Rc::clone(&window);
        let ask = move |path| Rc::clone(&looking).ask(path);
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
            () = relay::page(listener, ask) => {}
        }
        Ok(Exit::Interrupted)
    })
}

async fn listen(page: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    let wanted = page.unwrap_or(PAGE);
    let listener = match TcpListener::bind(wanted).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse && page.is_none() => {
            TcpListener::bind(ANY_PORT).await
        }
        bound => bound,
    };
    listener.with_context(|| format!("cannot listen on {wanted}; name another address with --page"))
}

/// A view of the site through one of its machines.
struct Window {
    client: SiteClient,
    machines: Machines,
    /// The machine that answers. One request at a time: each further connection would be a session of its sshd.
    target: Mutex<Target>,
    quiet: bool,
}

impl Window {
    /// Asks the machine that answered last, and then another one.
    async fn ask(self: Rc<Self>, path: String) -> Result<Response, String> {
        let request = Request::get(path);
        let mut target = self.target.lock().await;
        let answer = self.client.send_to(&target, &request, ANSWER_LIMIT).await;
        let Err(error) = answer else {
            return answer.map_err(|error| format!("{error:#}"));
        };
        let found = self.client.find_again(&self.machines).await;
        let Some((host, found)) = found.map_err(|error| format!("{error:#}"))? else {
            return Err(format!("{} is not up", self.client.site));
        };
        if found != *target && !self.quiet {
            eprint_line!("{error:#}; now {host} is asked");
        }
        *target = found;
        let answer = self.client.send_to(&target, &request, ANSWER_LIMIT).await;
        answer.map_err(|error| format!("{error:#}"))
    }
}

/// Prints the address, and opens it in a browser where there is one.
fn show(global: &Global, open: &Open, page: SocketAddr) {
    let url = url(page);
    if global.json {
        print_line!("{}", serde_json::json!({ "url": url }));
    } else {
        print_line!("{url}");
    }
    let display = ["DISPLAY", "WAYLAND_DISPLAY"].map(std::env::var_os);
    if !open.no_browser && has_display(&display) {
        browse(&url);
    }
}

/// The page answers requests to a local name only.
fn url(page: SocketAddr) -> String {
    if page.ip().is_unspecified() {
        return format!("http://localhost:{}/", page.port());
    }
    format!("http://{page}/")
}

fn has_display(variables: &[Option<std::ffi::OsString>]) -> bool {
    variables.iter().flatten().any(|value| !value.is_empty())
}

/// In a group of its own: what interrupts this command leaves the browser.
fn browse(url: &str) {
    let mut command = Command::new("xdg-open");
    command.arg(url).process_group(0);
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.spawn() {
        Ok(mut browser) => {
            std::thread::spawn(move || browser.wait());
        }
        Err(error) => eprint_line!("no browser was opened: xdg-open: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_one_that_the_page_answers_to() {
        assert_eq!(url(PAGE), "http://127.0.0.1:7070/");
        assert_eq!(url("[::1]:80".parse().unwrap()), "http://[::1]:80/");
        assert_eq!(url("0.0.0.0:80".parse().unwrap()), "http://localhost:80/");
    }

    #[test]
    fn a_browser_needs_a_display() {
        assert!(has_display(&[None, Some("wayland-0".into())]));
        assert!(!has_display(&[None, Some("".into())]));
    }
}
