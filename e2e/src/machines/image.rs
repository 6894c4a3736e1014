//! What the machines' disks start as: built once, kept under the state directory, never changed.

use super::network::{APT_CACHE_PORT, OPERATOR};
use super::programs::{self, Tried as _};
use super::rack;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's name of the release that the machines run.
const SUITE: &str = "bookworm";
const BARE: &str = include_str!("image/bare.sh");
const PREPARED: &str = include_str!("image/prepared.sh");
/// What `prepared` installs Patroni from.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts");
const PATRONI: &str = include_str!("../../../scripts/patroni/requirements.txt");

/// What is installed on a machine from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// What a provider delivers: ssh, sudo, systemd.
    Bare,
    /// Besides: PostgreSQL, etcd and the Patroni that Gaiola accepts, their services masked and no cluster created.
    Prepared,
}

impl Image {
    /// The image of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "bare" => Some(Self::Bare),
            "prepared" => Some(Self::Prepared),
            _ => None,
        }
    }

    /// Whether it is there.
    pub fn is_built(self) -> bool {
        self.layers().iter().all(|layer| layer.is_dir())
    }

    /// The directories that it is made of, the topmost first, as `lowerdir` of an overlay has them.
    pub(crate) fn layers(self) -> Vec<PathBuf> {
        match self {
            Self::Bare => vec![layer("bare", &[BARE])],
            Self::Prepared => vec![
                layer("prepared", &[BARE, PREPARED, PATRONI]),
                layer("bare", &[BARE]),
            ],
        }
    }

    /// Builds it unless it is there. Waits while another process builds one.
    ///
    /// # Errors
    /// Where a program is missing or fails.
    pub fn build(self) -> io::Result<()> {
        let images = folder();
        fs::create_dir_all(&images).tried(format!("create {}", images.display()))?;
        let lock = File::create(images.join(".lock")).tried("open the lock of the images")?;
        lock.lock().tried("lock the images")?;
        if !Self::Bare.is_built() {
            build_bare(&Self::Bare.layers()[0])?;
        }
        if !self.is_built() {
            build_prepared(&self.layers())?;
        }
        Ok(())
    }
}

/// Where the images are.
pub(crate) fn folder() -> PathBuf {
    rack::state().join("images")
}

/// The directory of a layer. Its name changes with what it is built from, so that an older one is not taken for it.
fn layer(name: &str, sources: &[&str]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    let version = hasher.finish() >> 32;
    folder().join(format!("{SUITE}-{name}-{version:08x}"))
}

fn build_bare(target: &Path) -> io::Result<()> {
    let unfinished = unfinished(target, "new")?;
    let proxy = format!("http://{OPERATOR}:{APT_CACHE_PORT}");
    let mut command = in_its_own_mounts();
    command
        .args(["sh", "-c", BARE, "bare.sh"])
        .arg(&unfinished)
        .args([SUITE, &proxy]);
    programs::feed(&mut command, &sources(&mirrors()?))?;
    fs::rename(&unfinished, target).tried(format!("create {}", target.display()))
}

fn build_prepared(layers: &[PathBuf]) -> io::Result<()> {
    let [target, below @ ..] = layers else {
        return Ok(());
    };
    let below: Vec<_> = below.iter().map(|layer| layer.to_string_lossy()).collect();
    let (upper, work) = (unfinished(target, "new")?, unfinished(target, "work")?);
    let root = unfinished(target, "root")?;
    let mut command = in_its_own_mounts();
    command
        .args(["sh", "-c", PREPARED, "prepared.sh"])
        .args([root.as_os_str(), SCRIPTS.as_ref()])
        .arg(below.join(":"))
        .args([&upper, &work])
        .arg(wheels()?);
    programs::run(&mut command)?;
    for folder in [&work, &root] {
        fs::remove_dir_all(folder).tried(format!("remove {}", folder.display()))?;
    }
    fs::rename(&upper, target).tried(format!("create {}", target.display()))
}

/// Where the packages are kept that pip installs: bare machines install them from there.
fn wheels() -> io::Result<PathBuf> {
    let folder = rack::state().join("packages/wheels");
    fs::create_dir_all(&folder).tried(format!("create {}", folder.display()))?;
    Ok(folder)
}

/// What is mounted for a build is gone when the build ends, in whatever way.
fn in_its_own_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command
}

/// An empty directory beside a layer; what a build that was killed left in it is removed.
fn unfinished(target: &Path, ending: &str) -> io::Result<PathBuf> {
    let path = target.with_extension(ending);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).tried(format!("remove {}", path.display()));
        }
        _ => {}
    }
    fs::create_dir(&path).tried(format!("create {}", path.display()))?;
    Ok(path)
}

/// The mirrors of Debian that this host itself installs from.
pub(crate) fn mirrors() -> io::Result<Vec<String>> {
    let sites =
        programs::run(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    let mut sites: Vec<String> = sites
        .lines()
        .map(|site| site.trim_end_matches('/').into())
        .collect();
    sites.sort_unstable();
    sites.dedup();
    sites.retain(|site| is_mirror(site));
    if sites.is_empty() {
        return Err(io::Error::other(
            "no mirror of Debian reached by http is in this host's apt sources (run apt-get update first)",
        ));
    }
    Ok(sites)
}

fn is_mirror(site: &str) -> bool {
    site.starts_with("http://") && (site.ends_with("/debian") || site.ends_with("/debian-security"))
}

/// What a machine's /etc/apt/sources.list has.
fn sources(mirrors: &[String]) -> String {
    let lines = mirrors.iter().flat_map(|mirror| {
        let suites = if mirror.ends_with("-security") {
            vec![format!("{SUITE}-security")]
        } else {
            vec![SUITE.into(), format!("{SUITE}-updates")]
        };
        suites
            .into_iter()
            .map(move |suite| format!("deb {mirror} {suite} main\n"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_name_each_mirror_with_its_suites() {
        let mirrors = [
            "http://m.example/debian",
            "http://m.example/debian-security",
        ]
        .map(String::from);
        assert!(mirrors.iter().all(|mirror| is_mirror(mirror)));
        assert!(!is_mirror("http://m.example/ubuntu") && !is_mirror("https://m.example/debian"));
        assert_eq!(
            sources(&mirrors),
            "deb http://m.example/debian bookworm main\n\
             deb http://m.example/debian bookworm-updates main\n\
             deb http://m.example/debian-security bookworm-security main\n"
        );
    }

    #[test]
    fn prepared_lies_on_bare() {
        let layers = Image::Prepared.layers();
        assert_eq!(layers[1..], Image::Bare.layers());
        assert_ne!(layers[0], layers[1]);
    }
}
