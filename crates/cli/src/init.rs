//! `gaiola init`: writes a first `gaiola.toml`.
//!
//! [`draft`] decides what it says and [`text`] how; both are pure. Nothing is written unless every value is valid, and an existing file
//! is never touched.

mod ask;
mod draft;
mod name;
mod placement;
mod procfile;
#[cfg(test)]
mod tests;
mod text;

use crate::answer;
use crate::args::{Global, Init};
use crate::file;
use crate::operate::size;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use draft::{Draft, Wishes};
use gaiola_control::release;
use gaiola_model::Config;
use procfile::Procfile;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

/// Where a site's public files are, the usual names first.
const ROOTS: [&str; 3] = ["public", "static", "dist"];

/// `gaiola init`.
pub(crate) fn init(global: &Global, init: &Init) -> anyhow::Result<Exit> {
    let path = &init.of.file;
    if path.symlink_metadata().is_ok() {
        bail!("{}", exists(path));
    }
    if global.machine.is_some() {
        eprint_line!(
            "gaiola: --machine asks a site that runs; name machines for the file with --machines"
        );
        return Ok(Exit::Usage);
    }
    let folder = file::site_folder(path)?;
    let mut wishes = wishes(global, init, &folder)?;
    if !global.yes && answer::is_possible() {
        ask::complete(&mut wishes)?;
    }
    let draft = match Draft::of(&wishes) {
        Ok(draft) => draft,
        Err(mistakes) => {
            mistakes
                .iter()
                .for_each(|mistake| eprint_line!("gaiola: {mistake}"));
            return Ok(Exit::Usage);
        }
    };
    let text = text::write(&draft);
    // What the decoder rejects is not written.
    let config = file::load(path, &text)?;
    write(path, &text)?;
    report(global, path, &folder, &config)
}

/// What the command line says, and what the directory has.
fn wishes(global: &Global, init: &Init, folder: &Path) -> anyhow::Result<Wishes> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let is_root = |name: &&str| folder.join(name).is_dir();
    Ok(Wishes {
        directory: name.into_owned(),
        site: global.site.as_ref().map(ToString::to_string),
        machines: init.machines.clone(),
        vips: init.vips.clone(),
        run: init.run.clone(),
        release: init.release.clone(),
        without_database: init.no_database,
        procfile: read_procfile(&folder.join("Procfile"))?,
        roots: ROOTS
            .iter()
            .filter(|name| is_root(name))
            .map(ToString::to_string)
            .collect(),
    })
}

fn read_procfile(path: &Path) -> anyhow::Result<Procfile> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Procfile::parse(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Procfile::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn exists(path: &Path) -> String {
    format!(
        "{} exists already and is left as it is; name another file with -f",
        path.display()
    )
}

/// Writes a new file. One that appeared meanwhile stays as it is.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match created {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!("{}", exists(path)),
        created => created.with_context(|| format!("cannot write {}", path.display()))?,
    };
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.with_context(|| {
        // Half a file would have to be removed before another attempt.
        let _ = fs::remove_file(path);
        format!("cannot write {}", path.display())
    })
}

fn report(global: &Global, path: &Path, folder: &Path, config: &Config) -> anyhow::Result<Exit> {
    if global.json {
        print_line!("{}", serde_json::to_string_pretty(config)?);
        return Ok(Exit::Ok);
    }
    let commands = [Some(&config.app.run), config.app.release.as_ref()];
    for command in commands.into_iter().flatten() {
        if let Some(why) = release::missing_program(folder, command) {
            eprint_line!("before `gaiola up`: a command in the file cannot be run: {why}");
        }
    }
    if !global.quiet {
        print_line!("{}: site {}, {}", path.display(), config.site, size(config));
        print_line!("  read it, then  {}", next(config, path));
    }
    Ok(Exit::Ok)
}

/// The commands that follow.
fn next(config: &Config, path: &Path) -> String {
    let of = match path.to_str() {
        Some("gaiola.toml") => String::new(),
        _ => format!(" -f {}", path.display()),
    };
    match config.machines {
        Some(_) => format!("gaiola doctor{of}   gaiola up{of}"),
        None => format!("gaiola up{of}"),
    }
}
