//! A steady load during a test, and its results.

use gaiola_control::drill::{Course, Load, Record};
use gaiola_model::config::Drill;
use std::net::SocketAddr;
use std::time::Duration;

/// The results of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Requests sent.
    pub sent: usize,
    /// The number of failed requests by reason.
    pub failures: Vec<(String, u64)>,
}

impl Figures {
    /// The number of failed requests.
    pub fn failed(&self) -> u64 {
        self.failures.iter().map(|(_, count)| count).sum()
    }

    /// # Panics
    /// If a request failed, or none was sent.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        assert!(self.sent > 0 && self.failed() == 0, "{self:?}");
    }
}

/// Does `work` while these requests are sent over keep-alive connections.
pub(crate) fn under_load<T>(
    door: SocketAddr,
    drill: Drill,
    work: impl FnOnce() -> T,
) -> (T, Figures) {
    let course = Course::new(door, Some(drill));
    let record = Record::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let load = std::thread::spawn({
        let record = record.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime starts");
            runtime.block_on(async {
                let load = Load::start(&course, &record);
                let _ = stopped.await;
                load.stop().await;
            });
        }
    });
    // The work begins once all connections are open.
    std::thread::sleep(Duration::from_millis(500));
    let done = work();
    std::thread::sleep(Duration::from_millis(500));
    drop(stop);
    load.join().expect("the load ends");
    (done, figures(&record))
}

fn figures(record: &Record) -> Figures {
    use gaiola_core::drill::Kind;
    let ledger = record.ledger();
    let failures = ledger
        .failures()
        .map(|(_, why, count)| (why.to_string(), count));
    Figures {
        sent: ledger.of(Kind::Page).count(),
        failures: failures.collect(),
    }
}
