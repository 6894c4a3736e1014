//! The rate of requests that does not load a site much.

use super::client::{Ask, Connection};
use super::{Course, RATE, probe};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Requests of each path.
const ASKED: u32 = 8;
/// Timeout of all of them together.
const LIMIT: Duration = Duration::from_secs(4);
/// The share of what one connection achieves, which is less than the site's capacity.
const SHARE: u32 = 10;

impl Course {
    /// If neither the file sets a rate nor Gaiola's own proxies answer: requests each path a few times in sequence, and
    /// limits the rate to a tenth of what that achieved. If the site does not answer, nothing changes.
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

    /// The mean duration of a request.
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

/// The rate that uses a tenth of a site's time if one request takes this long.
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
