//! A client in a site's network that probes each VIP separately, with a new connection each time.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Interval of requests to a VIP.
const PAUSE: Duration = Duration::from_millis(20);
const ANSWER: Duration = Duration::from_secs(5);

/// The results of the requests to one VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Requests with a complete response.
    pub answered: u64,
    /// Failed connections by reason.
    pub unconnected: BTreeMap<String, u64>,
    /// Requests that broke off, or were answered with an error, by reason.
    pub broken: BTreeMap<String, u64>,
}

impl Probed {
    /// Reads the printed JSON.
    pub(crate) fn read(value: &Value) -> Self {
        let counts = |name: &str| -> BTreeMap<String, u64> {
            serde_json::from_value(value[name].clone()).unwrap_or_default()
        };
        Self {
            answered: value["answered"].as_u64().unwrap_or_default(),
            unconnected: counts("unconnected"),
            broken: counts("broken"),
        }
    }
}

/// `probe STOP LIMIT VIP...`: probes each VIP until the file STOP exists, and prints the results. LIMIT is the timeout of a
/// connection in milliseconds.
///
/// # Panics
/// If the arguments are invalid.
pub fn run(mut args: impl Iterator<Item = String>) {
    let stop = PathBuf::from(args.next().expect("a file"));
    let limit = args.next().and_then(|limit| limit.parse().ok());
    let limit = Duration::from_millis(limit.expect("milliseconds"));
    let vips = args.map(|vip| {
        let stop = stop.clone();
        let address: IpAddr = vip.parse().expect("an address");
        let address = SocketAddr::new(address, 80);
        (
            vip,
            std::thread::spawn(move || probe(address, limit, &stop)),
        )
    });
    let vips: Vec<_> = vips.collect();
    let ends = vips.into_iter().map(|(vip, probe)| {
        let probed = probe.join().expect("a probe ends");
        let Probed {
            answered,
            unconnected,
            broken,
        } = probed;
        let results = json!({ "answered": answered, "unconnected": unconnected, "broken": broken });
        (vip, results)
    });
    let ends: serde_json::Map<String, Value> = ends.collect();
    println!("{}", Value::Object(ends));
}

fn probe(address: SocketAddr, limit: Duration, stop: &Path) -> Probed {
    let mut probed = Probed::default();
    while !stop.exists() {
        match TcpStream::connect_timeout(&address, limit) {
            Err(error) => *probed.unconnected.entry(error.to_string()).or_default() += 1,
            Ok(stream) => match ask(stream) {
                Ok(()) => probed.answered += 1,
                Err(error) => *probed.broken.entry(error.to_string()).or_default() += 1,
            },
        }
        std::thread::sleep(PAUSE);
    }
    probed
}

fn ask(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => {
            let line = answer.split(|byte| *byte == b'\r').next();
            let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
            Err(io::Error::other(format!("answered {line:?}")))
        }
    }
}
