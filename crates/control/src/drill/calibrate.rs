//! How much a site may be asked for without being loaded by it.

use super::client::{Ask, Connection};
use super::{Course, RATE, probe};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Requests of each path.
const ASKED: u32 = 8;
/// The longest that all of them may take together.
const LIMIT: Duration = Duration::from_secs(4);
/// Of what one connection achieves, which is less than what the site can do.
const SHARE: u32 = 10;

impl Course {
    /// Asks for each path a few times, one after another, and stays below a tenth of what that achieved, where neither
    /// the file says how much to ask for nor Gaiola's own proxies answer. A site that does not answer leaves all as it was.
    pub(super) async fn calibrated(mut self) -> Self {
        if !self.probed.by_proxies
            && let Some(took) = self.takes(&self.probed.path).await
        {
            self.probed.every = probe::EVERY.max(took * SHARE);
        }
        let pages = [Some(&self.drill.page), self.drill.read.as_ref()];
        let mut slowest = None;
        for path in pages.into_iter().flatten() {
            slowest = slowest.max(self.takes(path).await);
        }
        if let Some(took) = slowest {
            self.rate = a_share(took);
        }
        self
    }

    /// How long a request takes on average.
    async fn takes(&self, path: &str) -> Option<Duration> {
        let began = Instant::now();
        let all = async {
            let mut connection = Connection::open(self).await.ok()?;
            for _ in 0..ASKED {
                if connection.is_closed() {
                    connection = Connection::open(self).await.ok()?;
                }
                connection.ask(&Ask::get(path)).await.ok()?;
            }
            Some(began.elapsed() / ASKED)
        };
        timeout(LIMIT, all).await.unwrap_or(Some(LIMIT / ASKED))
    }
}

/// Requests a second that leave nine tenths of the time of a site that takes so long for one.
fn a_share(took: Duration) -> u32 {
    let between = (took * SHARE).as_millis().max(1);
    u32::try_from(1000 / between).unwrap_or(RATE).clamp(1, RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_site_is_asked_seldom() {
        let rates = [1, 5, 40, 3000].map(|ms| a_share(Duration::from_millis(ms)));
        assert_eq!(rates, [100, 20, 2, 1]);
        assert_eq!(a_share(Duration::ZERO), RATE);
    }
}
