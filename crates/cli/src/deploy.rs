//! What `up` sends: the release and the certificates, if the site does not have them, then their digests.

use crate::args::{Global, SiteFile};
use crate::connect::SiteClient;
use crate::file::site_folder;
use crate::pending::Pending;
use anyhow::{Context as _, anyhow, bail};
use gaiola_agent::state::State;
use gaiola_control::api::{Change, NewSecrets, Presence};
use gaiola_control::certificates::{self, Certificates};
use gaiola_control::release::{self, Phase, Progress, ReleaseError, Scan, Source};
use gaiola_model::Config;
use gaiola_model::secret::SecretName;
use gaiola_net::client::{Request, Response, Writer};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a directory that changes during the upload is scanned.
const ATTEMPTS: usize = 3;
/// Interval of progress lines.
const PROGRESS: Duration = Duration::from_secs(2);
/// Additional time in which the site may store the upload, after the command's own timeout.
const KEEPING: Duration = Duration::from_secs(60);

/// The site as the operator has it: configuration, directory and certificates.
pub(crate) struct Local {
    file: PathBuf,
    folder: PathBuf,
    /// The file's configuration, with the digest of the certificates.
    pub(crate) config: Config,
    certificates: Option<Certificates>,
    scan: Scan,
    /// Machines that were replaced, and have been emptied since.
    pub(crate) emptied: Vec<String>,
    /// Secrets that were set before the site was up.
    secrets: NewSecrets,
}

impl Local {
    /// Reads the site's directory and certificates, and rejects what cannot be deployed. Sends and writes nothing.
    pub(crate) fn read(global: &Global, config: Config, of: &SiteFile) -> anyhow::Result<Self> {
        let (folder, file) = (site_folder(&of.file)?, std::path::absolute(&of.file)?);
        let mut config = config;
        let certificates = read_certificates(&mut config, &folder)?;
        let secrets = Pending::of(&config.site)?.to_send();
        let scan = scan(global, &config, &folder, &file)?;
        let commands = [Some(&config.app.run), config.app.release.as_ref()];
        for command in commands.into_iter().flatten() {
            let left_out = release::private_program(&scan.private, command);
            if let Some(why) = left_out.or_else(|| release::missing_program(&folder, command)) {
                bail!("a command in the file cannot be run: {why}");
            }
        }
        Ok(Self {
            file,
            folder,
            config,
            certificates,
            scan,
            emptied: Vec::new(),
            secrets,
        })
    }

    /// A message that lists what is left out of the release.
    pub(crate) fn left_out(&self) -> Option<String> {
        release::left_out_in_words(&self.scan.private)
    }

    /// The change that brings the site to this state. `yes`: whether irreversible changes are allowed.
    pub(crate) fn apply(&self, yes: bool) -> Change {
        Change::Apply {
            config: Box::new(self.config.clone()),
            release: self.scan.digest.clone(),
            yes,
            emptied: self.emptied.clone(),
            secrets: self.secrets.clone(),
        }
    }

    /// The change as `plan` asks about it: without the values of secrets.
    pub(crate) fn planned(&self) -> Change {
        let mut change = self.apply(false);
        if let Change::Apply { secrets, .. } = &mut change {
            *secrets = NewSecrets::default();
        }
        change
    }

    /// The secrets that wait to be set.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &SecretName> {
        self.secrets.values.keys()
    }

    /// Sends what the site does not have.
    pub(crate) async fn send(
        &mut self,
        global: &Global,
        client: &SiteClient,
    ) -> anyhow::Result<()> {
        if let Some(certificates) = self.certificates.take() {
            let path = format!("/certificates/{}", certificates.contents);
            let write = move |out: &mut Writer| certificates.pack(out);
            if !has(client, &path).await? {
                let sent = upload(global, client, &path, write).await?;
                accepted(sent.context("cannot send the certificates")?)?;
            }
        }
        for attempt in 1.. {
            match self.send_release(global, client).await {
                Err(error) if attempt < ATTEMPTS && is_changing(&error) => {
                    self.scan = scan(global, &self.config, &self.folder, &self.file)?;
                }
                sent => return sent,
            }
        }
        Ok(())
    }

    async fn send_release(&self, global: &Global, client: &SiteClient) -> anyhow::Result<()> {
        let path = format!("/releases/{}", self.scan.digest);
        if has(client, &path).await? {
            return Ok(());
        }
        let (scan, mut shown) = (self.scan.clone(), Shown::new(global));
        let write = move |out: &mut Writer| scan.pack(out, &mut |progress| shown.show(progress));
        accepted(upload(global, client, &path, write).await??)
    }
}

/// Whether the directory changed during the upload.
fn is_changing(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<ReleaseError>(),
        Some(ReleaseError::Changing(_))
    )
}

/// Reads the certificates that balancers serve, and notes their digest in the configuration.
fn read_certificates(config: &mut Config, folder: &Path) -> anyhow::Result<Option<Certificates>> {
    let tls = config.balancer.as_mut().and_then(|b| b.tls.as_mut());
    let Some(tls) = tls else {
        return Ok(None);
    };
    let read = certificates::read(folder, tls)
        .map_err(|why| anyhow!("the balancers' certificates cannot be served: {why}"))?;
    tls.contents = read.contents.to_string();
    Ok(Some(read))
}

fn scan(global: &Global, config: &Config, folder: &Path, file: &Path) -> anyhow::Result<Scan> {
    let tls = config.tls();
    let mut apart = tls.map_or_else(Vec::new, |tls| certificates::apart(folder, tls));
    if let Some(env_file) = &config.env_file {
        let path = folder.join(env_file);
        apart.extend(path.canonicalize());
        apart.push(path);
    }
    let source = Source {
        directory: folder,
        file,
        apart: &apart,
    };
    let releases = State::of(&config.site).releases();
    let mut shown = Shown::new(global);
    let scan = release::scan(source, &releases, &mut |progress| shown.show(progress))?;
    Ok(scan)
}

async fn has(client: &SiteClient, path: &str) -> anyhow::Result<bool> {
    let Presence { held } = client.ask(&Request::get(path)).await?;
    Ok(held)
}

/// The inner error is that of writing the archive.
async fn upload<E: Send + 'static>(
    global: &Global,
    client: &SiteClient,
    path: &str,
    write: impl FnOnce(&mut Writer) -> Result<(), E> + Send + 'static,
) -> anyhow::Result<Result<Response, E>> {
    let limit = global.timeout + KEEPING;
    client.upload(&Request::put(path), limit, write).await
}

/// Another upload is in progress.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Busy(pub(crate) String);

fn accepted(response: Response) -> anyhow::Result<()> {
    match response.status {
        200 => Ok(()),
        409 => Err(Busy(response.text().trim().into()).into()),
        _ => bail!("{}", response.text().trim()),
    }
}

/// Reports the progress of long uploads.
struct Shown {
    quiet: bool,
    last: Instant,
}

impl Shown {
    fn new(global: &Global) -> Self {
        Self {
            quiet: global.quiet,
            last: Instant::now(),
        }
    }

    fn show(&mut self, progress: Progress) {
        if !self.quiet && self.last.elapsed() >= PROGRESS {
            self.last = Instant::now();
            eprint_line!("{}", in_words(progress));
        }
    }
}

fn in_words(progress: Progress) -> String {
    let Progress {
        phase,
        files,
        of_files,
        bytes,
        of_bytes,
    } = progress;
    let phase = match phase {
        Phase::Reading => "reading the site's directory",
        Phase::Sending => "sending the release",
    };
    let (mib, of_mib) = (bytes >> 20, of_bytes >> 20);
    format!("{phase}: {files} of {of_files} files, {mib} of {of_mib} MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_reported_in_files_and_mebibytes() {
        let progress = Progress {
            phase: Phase::Sending,
            files: 3,
            of_files: 40,
            bytes: 5 << 20,
            of_bytes: 99 << 20,
        };
        let words = "sending the release: 3 of 40 files, 5 of 99 MiB";
        assert_eq!(in_words(progress), words);
    }

    #[test]
    fn only_a_directory_that_changes_is_scanned_again() {
        let changing = ReleaseError::Changing("a".into());
        assert!(is_changing(&changing.into()));
        assert!(!is_changing(&ReleaseError::Busy("a".into()).into()));
        assert!(!is_changing(&anyhow!("the disk is full")));
    }
}
