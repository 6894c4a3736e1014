//! What systemd is told: that this process is ready, and that it still runs (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Reports that it is ready.
pub fn ready() {
    notify("READY=1");
}

/// Reports that it runs, twice in each span of systemd's watchdog; ends where there is none.
pub async fn watchdog() {
    let Some(span) = span(std::env::var("WATCHDOG_USEC").ok().as_deref()) else {
        return;
    };
    loop {
        tokio::time::sleep(span / 2).await;
        notify("WATCHDOG=1");
    }
}

fn span(microseconds: Option<&str>) -> Option<Duration> {
    let microseconds: u64 = microseconds?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds))
}

fn notify(text: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&name, text) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

fn send(name: &str, text: &str) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_gets_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), "READY=1").unwrap();
        let mut bytes = [0; 64];
        let length = systemd.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
        assert!(send("@gaiola-nobody-listens", "READY=1").is_err());
    }

    #[test]
    fn without_a_watchdog_nothing_is_reported() {
        assert_eq!(span(None), None);
        assert_eq!(span(Some("0")), None);
        assert_eq!(span(Some("30000000")), Some(Duration::from_secs(30)));
    }
}
