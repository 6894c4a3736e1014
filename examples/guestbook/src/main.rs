//! A guest book: an example of a small site for Gaiola.
//!
//! Entries are written to the primary and listed from the standbys; every response names the servers on
//! its path. `guestbook` serves, `guestbook migrate` prepares the database for this release.

mod api;
mod database;
mod echo;
mod entries;
mod gate;
mod page;
mod served_by;
mod settings;

use echo::Sockets;
use settings::Settings;
use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long requests in flight may continue after SIGTERM: a little less than the 10 s after which a supervisor
/// usually sends SIGKILL.
const GRACE: Duration = Duration::from_secs(9);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [] => settings().and_then(|settings| run(serve(settings))),
        ["migrate"] => settings().and_then(|settings| run(migrate(settings))),
        _ => {
            eprintln!("usage: guestbook [migrate]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("guestbook: {why}");
            ExitCode::FAILURE
        }
    }
}

fn settings() -> Result<Settings, String> {
    Settings::read(|name| std::env::var(name).ok())
}

fn run(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?
        .block_on(work)
}

/// Serves until SIGTERM or SIGINT, then finishes the requests in flight.
async fn serve(settings: Settings) -> Result<(), String> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("cannot read its own address: {error}"))?;
    let name = settings.instance.as_deref().unwrap_or("guestbook");
    println!("{name} serves on {address}");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(stop_on_signal(stop)?);
    let (sockets, mut all_closed) = Sockets::new(stopped.clone());
    let server = axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))),
        api::routes(&settings, sockets),
    )
    .with_graceful_shutdown(until_stopped(stopped.clone()));
    let served = async {
        server
            .await
            .map_err(|error| format!("cannot go on serving: {error}"))?;
        let _: Option<Infallible> = all_closed.recv().await;
        Ok(())
    };
    tokio::select! {
        ended = served => ended,
        () = grace_is_over(stopped) => {
            eprintln!("guestbook: stopped with requests in flight, {} s after the signal", GRACE.as_secs());
            Ok(())
        }
    }
}

/// Prepares the database for this release. It may run repeatedly, and concurrently elsewhere.
async fn migrate(settings: Settings) -> Result<(), String> {
    let Some(config) = &settings.primary else {
        return Err("migrate needs DATABASE_URL".into());
    };
    entries::migrate(config).await?;
    println!("the database is ready");
    Ok(())
}

fn stop_on_signal(stop: watch::Sender<bool>) -> Result<impl Future<Output = ()>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        // A dropped sender would look like a second signal.
        stop.closed().await;
    })
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn grace_is_over(stopped: watch::Receiver<bool>) {
    until_stopped(stopped).await;
    tokio::time::sleep(GRACE).await;
}
