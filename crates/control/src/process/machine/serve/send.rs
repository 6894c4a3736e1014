//! Releases and certificates on their way to another machine.

use super::super::fetch::DIGEST;
use super::failed;
use crate::api::Digest;
use crate::archive::{Outlet, PIECES};
use crate::certificates::Certificates;
use crate::release;
use crate::site::Site;
use bytes::Bytes;
use gaiola_model::placement::ReleaseNumber;
use gaiola_os::serve::{self, text};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use std::io::{self, BufWriter, Write as _};
use tokio::sync::mpsc;

/// Bytes in one piece of an archive.
const PIECE: usize = 64 << 10;

pub(super) async fn release(site: &Site, number: ReleaseNumber) -> serve::Response {
    let releases = site.state.releases();
    if !site.state.release(number).is_dir() {
        let why = format!("release {number} is not here");
        return text(StatusCode::NOT_FOUND, why);
    }
    let scanning = tokio::task::spawn_blocking(move || release::scan_release(&releases, number));
    let scan = match scanning.await {
        Ok(Ok(scan)) => scan,
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    let digest = HeaderValue::from_str(scan.digest.as_str());
    let mut answer = stream(move |out| {
        let packed = scan.pack(out, &mut |_| {});
        packed.map_err(|error| io::Error::other(gaiola_os::chain(&error)))
    });
    if let Ok(digest) = digest {
        answer.headers_mut().insert(DIGEST, digest);
    }
    answer
}

pub(super) async fn certificates(site: &Site, digest: Digest) -> serve::Response {
    let copies = site.state.certificates();
    let reading = tokio::task::spawn_blocking(move || Certificates::held(&copies, &digest));
    let not_here = || text(StatusCode::NOT_FOUND, "these certificates are not here");
    match reading.await {
        Ok(Ok(Some(held))) => stream(move |out| held.pack(out)),
        Ok(Ok(None)) => not_here(),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => not_here(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// Answers with what `write` writes on a thread of its own. Where it fails the archive has no end, and is not taken for whole.
fn stream(
    write: impl FnOnce(&mut BufWriter<Outlet>) -> io::Result<()> + Send + 'static,
) -> serve::Response {
    let (pieces, mut written) = mpsc::channel::<Bytes>(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE, Outlet(pieces));
        if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
            tracing::warn!(%error, "an archive was not sent to its end");
        }
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
