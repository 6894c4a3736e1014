//! Sends a release: an archive of exactly the scanned entries.

use super::digest::Tally;
use super::{Phase, Progress, ReleaseError, Scan};
use crate::archive::{Exactly, Kind, Packer, Time};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

impl Scan {
    /// Writes the archive of the scanned entries. It blocks, and calls `progress` after each file.
    ///
    /// # Errors
    /// If writing to `out` fails, or a file has changed since the scan ([`ReleaseError::Changing`]). The archive is incomplete then.
    pub fn pack(
        &self,
        out: impl Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ReleaseError> {
        let mut archive = Packer::new(out);
        let mut tally = Tally::new(Phase::Sending, &self.entries);
        let mut contents = self.contents.iter();
        for entry in &self.entries {
            match &entry.kind {
                Kind::Directory => archive.directory(&entry.path),
                Kind::Link(target) => archive.link(&entry.path, target),
                Kind::File { executable, bytes } => {
                    let expected = contents.next().copied().unwrap_or_default();
                    let file = (*executable, *bytes, expected);
                    pack_file(&mut archive, &self.root, &entry.path, file)?;
                    progress(tally.add(*bytes));
                    Ok(())
                }
            }
            .map_err(ReleaseError::Send)?;
        }
        archive.finish().map_err(ReleaseError::Send)
    }
}

/// Compiled Python, `ETag` and `Last-Modified` depend on a file's time, so the time is sent too.
fn pack_file(
    archive: &mut Packer<impl Write>,
    root: &Path,
    path: &Path,
    (executable, bytes, expected): (bool, u64, [u8; 32]),
) -> Result<(), ReleaseError> {
    let place = root.join(path);
    let changing = || ReleaseError::Changing(place.clone());
    let file = File::open(&place).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => changing(),
        _ => ReleaseError::io("open", &place)(error),
    })?;
    let held = file.metadata().map_err(ReleaseError::io("stat", &place))?;
    let changed = Time {
        seconds: held.mtime(),
        nanoseconds: u32::try_from(held.mtime_nsec()).unwrap_or(0),
    };
    let mut contents = Exactly::new(file, bytes);
    let sent = archive.file(path, executable, Some(changed), bytes, &mut contents);
    sent.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => changing(),
        _ => ReleaseError::Send(error),
    })?;
    if contents.digest() == expected {
        Ok(())
    } else {
        Err(changing())
    }
}
