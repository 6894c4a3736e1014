//! Releases and certificates on their way to another machine.

use super::failed;
use super::shares::Share;
use crate::api::Digest;
use crate::archive::{Outlet, PIECES};
use crate::certificates::Certificates;
use crate::release::{self, Contents, ReleaseError};
use crate::site::Site;
use bytes::Bytes;
use gaiola_model::placement::ReleaseNumber;
use gaiola_os::serve::{self, text};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use hyper::{Response, StatusCode};
use std::io::{self, BufWriter, Write as _};
use tokio::sync::mpsc;

/// Bytes in one piece of an archive.
const PIECE: usize = 64 << 10;

/// Sends a release with these contents.
pub(super) async fn release(
    site: &Site,
    number: ReleaseNumber,
    digest: Digest,
    share: Share,
) -> serve::Response {
    let releases = site.state.releases();
    // What has begun ends, also where the machine that asks is gone, and has its place until then.
    let scanning = tokio::task::spawn_blocking(move || {
        let held = release::contents(&releases, number, &digest)? == Contents::Expected;
        let scan = held.then(|| release::scan_release(&releases, number));
        Ok::<_, ReleaseError>((scan.transpose()?, share))
    });
    let (scan, share) = match scanning.await {
        Ok(Ok((Some(scan), share))) => (scan, share),
        Ok(Ok((None, _))) => {
            let why = format!("release {number} is not here with these contents");
            return text(StatusCode::NOT_FOUND, why);
        }
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    stream(share, move |out| {
        let packed = scan.pack(out, &mut |_| {});
        packed.map_err(|error| io::Error::other(gaiola_os::chain(&error)))
    })
}

pub(super) async fn certificates(site: &Site, digest: Digest, share: Share) -> serve::Response {
    let copies = site.state.certificates();
    let reading =
        tokio::task::spawn_blocking(move || (Certificates::held(&copies, &digest), share));
    let not_here = || text(StatusCode::NOT_FOUND, "these certificates are not here");
    match reading.await {
        Ok((Ok(Some(held)), share)) => stream(share, move |out| held.pack(out)),
        Ok((Ok(None), _)) => not_here(),
        Ok((Err(error), _)) if error.kind() == io::ErrorKind::NotFound => not_here(),
        Ok((Err(error), _)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// Answers with what `write` writes on a thread of its own. Where it fails the archive has no end, and is not taken for whole.
fn stream(
    share: Share,
    write: impl FnOnce(&mut BufWriter<Outlet>) -> io::Result<()> + Send + 'static,
) -> serve::Response {
    let (pieces, mut written) = mpsc::channel::<Bytes>(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE, Outlet(pieces));
        if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
            tracing::warn!(%error, "an archive was not sent to its end");
        }
        drop(share);
    });
    let (mut sender, body) = Channel::new(PIECES);
    tokio::task::spawn_local(async move {
        while let Some(piece) = written.recv().await {
            // The other side has gone: the thread ends with its next piece.
            if sender.send_data(piece).await.is_err() {
                return;
            }
        }
    });
    Response::new(body.boxed_unsync())
}
