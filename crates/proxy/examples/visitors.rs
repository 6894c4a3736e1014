//! Clients for `bench/take_over`: they come at a steady rate, each asks once on a connection of its own, and every failure counts.
//!
//! `visitors ADDRESS RATE SECONDS THREADS` prints JSON: how many were answered, and how the others fared.
#![expect(clippy::print_stdout, reason = "it is a tool")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A visitor that has no answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(5);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n";

/// What a thread's visitors met.
#[derive(Default)]
struct Met {
    answered: u64,
    failed: BTreeMap<String, u64>,
    slowest: Duration,
    late: u64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, rate, seconds, threads] = &args[..] else {
        panic!("visitors ADDRESS RATE SECONDS THREADS");
    };
    let address: SocketAddr = address.parse().expect("an address");
    let rate: u32 = rate.parse().expect("a rate");
    let seconds: u64 = seconds.parse().expect("seconds");
    let threads: u32 = threads.parse().expect("a number of threads");
    let gap = Duration::from_secs(1) * threads / rate;
    let end = Instant::now() + Duration::from_secs(seconds);
    let come = |_| std::thread::spawn(move || come(address, gap, end));
    let all: Vec<_> = (0..threads).map(come).collect();
    let mut sum = Met::default();
    for thread in all {
        let met = thread.join().expect("a thread");
        sum.answered += met.answered;
        sum.late += met.late;
        sum.slowest = sum.slowest.max(met.slowest);
        for (how, count) in met.failed {
            *sum.failed.entry(how).or_default() += count;
        }
    }
    let json = serde_json::json!({
        "answered": sum.answered,
        "failed": sum.failed,
        "slowest_ms": sum.slowest.as_millis(),
        "over_200_ms": sum.late,
    });
    println!("{json}");
}

/// One visitor after another, each when it is due or as soon as the one before has gone.
fn come(address: SocketAddr, gap: Duration, end: Instant) -> Met {
    let mut met = Met::default();
    let mut due = Instant::now();
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        match visit(address) {
            Ok(()) => met.answered += 1,
            Err(error) => *met.failed.entry(in_a_word(&error)).or_default() += 1,
        }
        let took = begun.elapsed();
        met.slowest = met.slowest.max(took);
        met.late += u64::from(took > Duration::from_millis(200));
        due = (due + gap).max(begun);
    }
    met
}

fn visit(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    // The reset keeps no port waiting: there are more visitors in a minute than ports.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false if answer.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
        false => Err(std::io::Error::other("another answer")),
    }
}

fn in_a_word(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".into(),
        ErrorKind::ConnectionReset => "reset".into(),
        ErrorKind::UnexpectedEof => "closed".into(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "no answer".into(),
        _ => error.to_string(),
    }
}
