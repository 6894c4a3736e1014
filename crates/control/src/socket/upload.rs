//! Uploads, identified by their digests: `GET` reports whether the site has the contents, `PUT` sends them.
//!
//! The body is unpacked as it arrives, on a separate thread: only a few pieces of it are in memory. There is one upload at a
//! time; one that falls silent is aborted.

use crate::api::{Digest, Presence};
use crate::archive::{PIECES, Pieces, described, on_a_thread};
use crate::certificates;
use crate::change::has_release;
use crate::release;
use crate::site::Site;
use bytes::Bytes;
use gaiola_os::serve::{Response, json, text};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, StatusCode};
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, timeout_at};

/// Timeouts of a body.
const LIMITS: Limits = Limits {
    silence: Duration::from_secs(30),
    whole: Duration::from_secs(3600),
    rest: Duration::from_secs(10),
};

#[derive(Clone, Copy)]
struct Limits {
    /// A body without data for this long is aborted,
    silence: Duration,
    /// and so is one that takes longer than this.
    whole: Duration,
    /// How long the rest of a rejected body is read: a client that is still sending does not read the response.
    rest: Duration,
}

/// The contents that a path of the control socket identifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    Release(Digest),
    Certificates(Digest),
}

impl Contents {
    /// `/releases/DIGEST` and `/certificates/DIGEST`.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (kind, digest) = path.strip_prefix('/')?.split_once('/')?;
        let digest = digest.parse().ok()?;
        match kind {
            "releases" => Some(Self::Release(digest)),
            "certificates" => Some(Self::Certificates(digest)),
            _ => None,
        }
    }

    fn is_held(&self, site: &Site) -> bool {
        match self {
            Self::Release(digest) => has_release(site, digest),
            Self::Certificates(digest) => certificates::has(&site.state.certificates(), digest),
        }
    }
}

/// Reports whether the site has the contents, or receives them.
pub(super) async fn respond(
    site: &Rc<Site>,
    contents: Contents,
    request: Request<Incoming>,
) -> Response {
    if request.method() == Method::GET {
        let held = contents.is_held(site);
        return json(&Presence { held });
    }
    // Runs to its end even if the client disconnects: partial contents are removed before the next upload.
    let site = Rc::clone(site);
    let receiving = tokio::task::spawn_local(async move {
        let Ok(_held) = site.receiving.try_lock() else {
            // The client reads the response only after it has sent the body.
            drain(&mut request.into_body(), LIMITS.rest).await;
            let busy = "another upload is in progress; try again when it has finished";
            return text(StatusCode::CONFLICT, busy);
        };
        match receive(&site, contents, request.into_body()).await {
            Ok(()) => json(&true),
            Err(error) => text(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        }
    });
    let failed =
        |error: tokio::task::JoinError| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    receiving.await.unwrap_or_else(failed)
}

/// Unpacks and stores an upload.
async fn receive<B>(site: &Rc<Site>, contents: Contents, body: B) -> io::Result<()>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + Send + Sync + 'static,
{
    match contents {
        Contents::Certificates(digest) => {
            let copies = site.state.certificates();
            unpack(body, LIMITS, move |pieces| {
                certificates::receive(pieces, &copies, &digest).map_err(described)
            })
            .await
        }
        Contents::Release(digest) => {
            let releases = site.state.releases();
            let received = unpack(body, LIMITS, move |pieces| {
                release::receive(pieces, &releases, &digest).map_err(described)
            })
            .await?;
            let _held = site.pruning.lock().await;
            on_a_thread(move || received.hold().map_err(described)).await
        }
    }
}

/// Runs `take` on a separate thread with the body, piece by piece.
async fn unpack<B, T: Send + 'static>(
    mut body: B,
    limits: Limits,
    take: impl FnOnce(Pieces) -> io::Result<T> + Send + 'static,
) -> io::Result<T>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + Send + Sync + 'static,
{
    let (sender, pieces) = channel(PIECES);
    let taking = on_a_thread(move || take(Pieces::new(pieces)));
    let feeding = async {
        if !feed(&mut body, limits, sender).await {
            drain(&mut body, limits.rest).await;
        }
    };
    tokio::join!(taking, feeding).0
}

/// Reads the rest of a body, for at most this long.
async fn drain<B: Body + Unpin>(body: &mut B, limit: Duration) {
    let deadline = Instant::now() + limit;
    while let Ok(Some(Ok(_))) = timeout_at(deadline, body.frame()).await {}
}

/// `false`: unpacking has ended before the end of the body.
async fn feed<B>(body: &mut B, limits: Limits, pieces: Sender<io::Result<Bytes>>) -> bool
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + Send + Sync + 'static,
{
    let end = Instant::now() + limits.whole;
    loop {
        let deadline = end.min(Instant::now() + limits.silence);
        let piece = match timeout_at(deadline, body.frame()).await {
            Ok(None) => return true,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) if deadline == end => Err(late(format!(
                "incomplete after {} s",
                limits.whole.as_secs_f32()
            ))),
            Err(_) => Err(late(format!(
                "no data for {} s",
                limits.silence.as_secs_f32()
            ))),
        };
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() {
            return false;
        }
        if is_last {
            return true;
        }
    }
}

fn late(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Frame;
    use std::io::Read as _;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A body of these pieces, which then ends, breaks off or falls silent.
    struct Sent {
        pieces: Vec<&'static str>,
        end: fn() -> Poll<Option<io::Result<Frame<Bytes>>>>,
    }

    impl Body for Sent {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            if self.pieces.is_empty() {
                (self.end)()
            } else {
                let piece = Bytes::from_static(self.pieces.remove(0).as_bytes());
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    const SHORT: Limits = Limits {
        whole: Duration::from_secs(60),
        silence: Duration::from_millis(20),
        rest: Duration::from_millis(20),
    };
    const LONG: Limits = Limits {
        whole: Duration::from_secs(60),
        silence: Duration::from_secs(60),
        rest: Duration::from_secs(60),
    };

    fn read_all(mut pieces: Pieces) -> io::Result<String> {
        let mut text = String::new();
        pieces.read_to_string(&mut text).map(|_| text)
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end() {
        let body = Sent {
            pieces: vec!["ab", "", "c", "d", "e", "f", "g"],
            end: || Poll::Ready(None),
        };
        assert_eq!(unpack(body, LONG, read_all).await.unwrap(), "abcdefg");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_at_its_end() {
        let body = Sent {
            pieces: vec!["ab"],
            end: || Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
        };
        assert!(unpack(body, LONG, read_all).await.is_err());
    }

    #[tokio::test]
    async fn a_body_that_falls_silent_is_given_up() {
        let body = Sent {
            pieces: vec!["ab"],
            end: || Poll::Pending,
        };
        let why = unpack(body, SHORT, read_all).await.unwrap_err();
        assert_eq!(why.to_string(), "no data for 0.02 s");
    }

    #[tokio::test]
    async fn what_is_rejected_is_read_on_for_a_while_so_that_the_answer_is_heard() {
        let body = Sent {
            pieces: vec!["a"; 100],
            end: || Poll::Pending,
        };
        let reject = |_| Err::<(), _>(io::Error::other("no"));
        let why = unpack(body, SHORT, reject).await.unwrap_err();
        assert_eq!(why.to_string(), "no");
    }

    #[test]
    fn only_digests_are_paths_of_contents() {
        let digest = "ab".repeat(16);
        let of = |path: &str| Contents::of(&format!("{path}{digest}"));
        let known = digest.parse().unwrap();
        assert_eq!(of("/releases/"), Some(Contents::Release(known)));
        assert!(of("/certificates/").is_some());
        for path in [
            "/releases/../",
            "releases/",
            "/releases",
            "/other/",
            "/releases//",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(Contents::of("/releases/1"), None);
    }
}
