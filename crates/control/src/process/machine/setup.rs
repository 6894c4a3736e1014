//! A machine is made part of a site: what `gaiola machine prepare`, `authority`, `sign`, `accept` and `units` do.

use crate::api::machine::{
    Authority as OwnAuthority, MachineSetup, Prepared, Signed, SigningRequest,
};
use crate::provider::folder::{self, KeptError};
use crate::provider::machine::{SITE_USER, STORE_USER, name_of, unit_files};
use gaiola_agent::state::{State, read_json, write_json};
use gaiola_model::SiteName;
use gaiola_model::inventory::Host;
use gaiola_model::schema::SCHEMA;
use gaiola_net::pki::{Authority, CA, PkiError, Subject};
use gaiola_os::process::find_user;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the units of a machine stand.
const UNITS: &str = "/etc/systemd/system";

/// Why a machine is not made part of a site.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A machine belongs to one site.
    #[error("this machine belongs to the site {0} already; a machine belongs to one site")]
    OtherSite(SiteName),
    /// It has servers under another name.
    #[error(
        "this machine is {held} in {site} and has servers; the file names it {named} now: keep the name {held}, or first move its servers to other machines"
    )]
    OtherName {
        /// The site.
        site: SiteName,
        /// The name that it was prepared with.
        held: Host,
        /// The name that it is to have.
        named: Host,
    },
    /// Not prepared.
    #[error("this machine is not prepared for {0}")]
    NotPrepared(SiteName),
    /// A certificate or key.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A secret.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The machine that is to sign does not have the authority.
    #[error("this machine does not have the authority of {0}")]
    NoAuthority(SiteName),
    /// A file.
    #[error("cannot {tried} {}", path.display())]
    Io {
        /// What was tried.
        tried: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A command of the system.
    #[error("{command} failed: {why}")]
    Command {
        /// The program.
        command: String,
        /// What it wrote.
        why: String,
    },
}

/// Keeps a machine's part in a site, and makes its key; returns a request where it needs a certificate.
///
/// # Errors
/// Where it belongs to another site, or a file cannot be written.
pub fn prepare(setup: &MachineSetup) -> Result<Prepared, SetupError> {
    let others = State::sites().into_iter();
    let mut others = others.filter(|site| *site != setup.site);
    if let Some(other) = others.find(|site| State::of(site).machine().exists()) {
        return Err(SetupError::OtherSite(other));
    }
    for user in [SITE_USER, STORE_USER] {
        make_user(user)?;
    }
    prepare_in(&State::of(&setup.site), setup)
}

fn prepare_in(state: &State, setup: &MachineSetup) -> Result<Prepared, SetupError> {
    make(state)?;
    let path = state.machine();
    let held = read_json::<MachineSetup>(&path).ok();
    if let Some(held) = held.as_ref().filter(|held| held.host != setup.host)
        && has_servers(state)?
    {
        return Err(SetupError::OtherName {
            site: setup.site.clone(),
            held: held.host.clone(),
            named: setup.host.clone(),
        });
    }
    if held.as_ref() != Some(setup) {
        write_json(&path, setup).map_err(failed("write", &path))?;
    }
    let subject = subject(state, setup);
    let authority = fs::read_to_string(state.pki().join(CA));
    let is_certified = authority.is_ok_and(|authority| subject.is_certified(&authority));
    let request = (!is_certified).then(|| subject.request()).transpose()?;
    Ok(Prepared { request })
}

/// Whether a server has a directory here.
fn has_servers(state: &State) -> Result<bool, SetupError> {
    let servers = state.servers();
    match fs::read_dir(&servers) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("read", &servers)(error)),
        Ok(mut entries) => Ok(entries.next().is_some()),
    }
}

/// The site's authority: made here, with the site's secrets, unless they are here.
///
/// # Errors
/// Where they cannot be made or read.
pub fn authority(site: &SiteName) -> Result<OwnAuthority, SetupError> {
    authority_in(&State::of(site))
}

fn authority_in(state: &State) -> Result<OwnAuthority, SetupError> {
    make(state)?;
    let authority = Authority::create_or_load(&state.authority())?;
    folder::secrets(state, SCHEMA)?;
    folder::keeper_key(state)?;
    Ok(OwnAuthority {
        certificate: authority.certificate().into(),
    })
}

/// Signs the certificate of a machine.
///
/// # Errors
/// Where the authority is not here, or the request is for other names.
pub fn sign(site: &SiteName, asked: &SigningRequest) -> Result<Signed, SetupError> {
    sign_in(&State::of(site), site, asked)
}

fn sign_in(state: &State, site: &SiteName, asked: &SigningRequest) -> Result<Signed, SetupError> {
    let authority = Authority::load_from(&state.authority())?;
    let authority = authority.ok_or_else(|| SetupError::NoAuthority(site.clone()))?;
    let name = name_of(&asked.host);
    Ok(Signed {
        certificate: authority.sign(&name, &[asked.address], &asked.request)?,
        authority: authority.certificate().into(),
    })
}

/// Keeps the certificate that was signed for this machine.
///
/// # Errors
/// Where it is for another key or another name.
pub fn accept(site: &SiteName, signed: &Signed) -> Result<(), SetupError> {
    accept_in(&State::of(site), site, signed)
}

fn accept_in(state: &State, site: &SiteName, signed: &Signed) -> Result<(), SetupError> {
    let setup = read_json::<MachineSetup>(&state.machine());
    let setup = setup.map_err(|_| SetupError::NotPrepared(site.clone()))?;
    Ok(subject(state, &setup).accept(&signed.authority, &signed.certificate)?)
}

/// Writes the units of the site's processes, and has systemd read them where they changed.
///
/// # Errors
/// Where the system refuses.
pub fn units(site: &SiteName) -> Result<(), SetupError> {
    let mut changed = false;
    for (name, text) in unit_files(site, &State::of(site).servers()) {
        let path = Path::new(UNITS).join(name);
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            let new = path.with_extension("new");
            fs::write(&new, &text).map_err(failed("write", &new))?;
            fs::rename(&new, &path).map_err(failed("write", &path))?;
            changed = true;
        }
    }
    if changed {
        run("systemctl", &["daemon-reload"])?;
    }
    Ok(())
}

fn make(state: &State) -> Result<(), SetupError> {
    state
        .make()
        .map_err(failed("make the directory", state.folder()))
}

fn subject(state: &State, setup: &MachineSetup) -> Subject {
    Subject::new(&name_of(&setup.host), &[setup.address], &state.pki(), None)
}

/// An ordinary user without a password, a shell or a home.
fn make_user(name: &str) -> Result<(), SetupError> {
    if find_user(name).is_some() {
        return Ok(());
    }
    let kind = ["--system", "--user-group", "--no-create-home"];
    let rest = [
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
        name,
    ];
    run("useradd", &[&kind[..], &rest[..]].concat())
}

fn run(program: &str, args: &[&str]) -> Result<(), SetupError> {
    let failed = |why: String| SetupError::Command {
        command: program.into(),
        why,
    };
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(
        String::from_utf8_lossy(&output.stderr).trim().into(),
    ))
}

fn failed(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_path_buf();
    move |source| SetupError::Io {
        tried,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::machine::MachineAddress;

    fn setup(host: &str, last: u8) -> MachineSetup {
        let own = MachineAddress {
            host: Host(host.into()),
            address: [192, 0, 2, last].into(),
        };
        MachineSetup {
            site: "shop".parse().unwrap(),
            host: own.host.clone(),
            address: own.address,
            machines: vec![own],
        }
    }

    #[test]
    fn a_machine_with_servers_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path().join("site"));
        prepare_in(&state, &setup("db-a", 7)).unwrap();
        prepare_in(&state, &setup("db-b", 7)).unwrap();
        fs::create_dir_all(state.servers().join("db1")).unwrap();
        prepare_in(&state, &setup("db-b", 8)).unwrap();
        let why = prepare_in(&state, &setup("root@db-b", 7)).unwrap_err();
        let why = why.to_string();
        assert!(
            why.contains("is db-b") && why.contains("names it root@db-b"),
            "{why}"
        );
        let held: MachineSetup = read_json(&state.machine()).unwrap();
        assert_eq!(held, setup("db-b", 8));
    }

    #[test]
    fn a_machine_gets_the_certificate_that_another_has_signed() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| State::at(folder.path().join(name)));
        let site: SiteName = "shop".parse().unwrap();
        let part = setup("web-a", 7);
        let request = prepare_in(&second, &part).unwrap().request.unwrap();
        let asked = SigningRequest {
            host: part.host.clone(),
            address: part.address,
            request,
        };
        let why = sign_in(&first, &site, &asked).unwrap_err();
        assert!(matches!(why, SetupError::NoAuthority(_)), "{why}");
        let own = authority_in(&first).unwrap();
        assert_eq!(authority_in(&first).unwrap(), own);
        let other = SigningRequest {
            host: Host("web-b".into()),
            ..asked.clone()
        };
        let why = sign_in(&first, &site, &other).unwrap_err();
        assert!(matches!(why, SetupError::Pki(_)), "{why}");
        let signed = sign_in(&first, &site, &asked).unwrap();
        assert!(accept_in(&first, &site, &signed).is_err());
        accept_in(&second, &site, &signed).unwrap();
        assert_eq!(prepare_in(&second, &part).unwrap().request, None);
        // Its address is another one: so must its certificate be.
        let moved = setup("web-a", 8);
        assert!(prepare_in(&second, &moved).unwrap().request.is_some());
    }
}
