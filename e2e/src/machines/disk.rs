//! A machine's disk: a layer of its own over an image. Before the first boot it holds what an installer writes: name, address,
//! host key, and the operator's key.

use super::Image;
use super::network::{self, OPERATOR, PREFIX_LENGTH};
use super::programs::{self, Tried as _};
use super::rack::Rack;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first ordinary user of a Debian: `ops` of the image.
const OPS: u32 = 1000;

impl Rack {
    /// Makes a machine's disk, unless it has one.
    pub(crate) fn make_disk(&self, name: &str, image: Image) -> io::Result<()> {
        let disk = self.disk(name);
        // Written last: without it the disk is half made.
        let layers = disk.join("layers");
        if layers.exists() {
            return Ok(());
        }
        let tried = format!("make the disk of {name}");
        if disk.exists() {
            fs::remove_dir_all(&disk).tried(&tried)?;
        }
        for folder in ["upper/etc/systemd/network", "upper/etc/ssh", "work", "root"] {
            fs::create_dir_all(disk.join(folder)).tried(&tried)?;
        }
        self.furnish(name, &disk.join("upper")).tried(&tried)?;
        let below = image.layers();
        let below: Vec<_> = below.iter().map(|layer| layer.to_string_lossy()).collect();
        fs::write(layers, below.join(":")).tried(&tried)
    }

    fn furnish(&self, name: &str, root: &Path) -> io::Result<()> {
        let address = network::address(name)?;
        fs::write(root.join("etc/hostname"), format!("{name}\n"))?;
        fs::write(root.join("etc/hosts"), network::hosts())?;
        let network = format!(
            "[Match]\nName=host0\n\n[Network]\nAddress={address}/{PREFIX_LENGTH}\nGateway={OPERATOR}\n\
             LinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\n"
        );
        fs::write(root.join("etc/systemd/network/10-cable.network"), network)?;
        create_key(&root.join("etc/ssh/ssh_host_ed25519_key"), name)?;
        let key = fs::read(self.operator().join(".ssh/id_ed25519.pub"))?;
        for (home, owner) in [("root", 0), ("home/ops", OPS)] {
            let home = root.join(home);
            fs::create_dir_all(home.join(".ssh"))?;
            fs::write(home.join(".ssh/authorized_keys"), &key)?;
            for path in [".ssh/authorized_keys", ".ssh", ""].map(|path| home.join(path)) {
                chown(path, Some(owner), Some(owner))?;
            }
            for path in [".ssh", ""].map(|path| home.join(path)) {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
        }
        Ok(())
    }

    /// Mounts a machine's disk, in the mount namespace that we are in, and returns where.
    pub(crate) fn mount_disk(&self, name: &str) -> io::Result<PathBuf> {
        let disk = self.disk(name);
        let (upper, work, root) = (disk.join("upper"), disk.join("work"), disk.join("root"));
        let tried = format!("mount the disk of {name}");
        let below = fs::read_to_string(disk.join("layers")).tried(&tried)?;
        let (upper, work) = (upper.display(), work.display());
        let options = format!("lowerdir={below},upperdir={upper},workdir={work}");
        let options = CString::new(options).tried(&tried)?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &root, "overlay", flags, &*options).tried(&tried)?;
        Ok(root)
    }
}

/// Creates a key pair of ssh.
pub(crate) fn create_key(path: &Path, comment: &str) -> io::Result<()> {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]);
    programs::run(keygen.arg(path)).map(drop)
}
