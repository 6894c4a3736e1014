//! `gaiola man`: the manual page gaiola(1), from the definitions of the command line.
//!
//! One page has every command with its own options; those of all commands are listed once.

use crate::args::Args;
use crate::output::{self, Exit};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io;

/// What clap does not know.
const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "GAIOLA_STATE",
        "The directory for state. Default: /var/lib/gaiola for root, else ~/.local/state/gaiola.",
    ),
    (
        "GAIOLA_LOG",
        "How much Gaiola's own processes log: error, warn, info, debug or trace.",
    ),
    (
        "GAIOLA_SSH_CONFIG",
        "A configuration file for ssh -F, instead of ~/.ssh/config.",
    ),
    ("NO_COLOR", "No colour."),
];
const FILES: [(&str, &str); 3] = [
    ("gaiola.toml", "The site, in the current directory."),
    ("/var/lib/gaiola/SITE", "The data of a site."),
    (
        "/etc/gaiola/proxy.toml",
        "The standalone proxy that gaiola-proxy.service runs.",
    ),
];

/// `gaiola man`.
pub(crate) fn man() -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    write(&mut page)?;
    output::print(&String::from_utf8_lossy(&page));
    Ok(Exit::Ok)
}

fn write(page: &mut Vec<u8>) -> io::Result<()> {
    let whole = whole();
    let top = Man::new(whole.clone()).manual("Gaiola");
    top.render_title(page)?;
    top.render_name_section(page)?;
    top.render_synopsis_section(page)?;
    top.render_description_section(page)?;
    top.render_options_section(page)?;
    let mut commands = Roff::new();
    commands.control("SH", ["COMMANDS"]);
    commands.to_writer(page)?;
    for command in visible(&whole) {
        write_command(command, page)?;
    }
    list("ENVIRONMENT", &ENVIRONMENT, page)?;
    list("FILES", &FILES, page)
}

/// The command line, with the full names of all commands.
fn whole() -> Command {
    let mut whole = Args::command().disable_help_subcommand(true);
    whole.build();
    whole
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|command| !command.is_hide_set())
}

/// A command, and those below it.
fn write_command(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let own = command.clone().mut_args(|argument| {
        let is_of_all =
            argument.is_global_set() || ["help", "version"].contains(&argument.get_id().as_str());
        if is_of_all {
            argument.hide(true)
        } else {
            argument
        }
    });
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut heading = Roff::new();
    heading.control("SS", [name]);
    heading.to_writer(page)?;
    let man = Man::new(own);
    let mut sections = Vec::new();
    man.render_synopsis_section(&mut sections)?;
    man.render_description_section(&mut sections)?;
    man.render_options_section(&mut sections)?;
    if command.get_after_help().is_some() {
        man.render_extra_section(&mut sections)?;
    }
    page.extend(as_paragraphs(&sections));
    visible(command).try_for_each(|below| write_command(below, page))
}

/// The same with a paragraph for each heading.
fn as_paragraphs(sections: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(sections);
    let lines = text.lines().map(|line| {
        if line.starts_with(".SH ") {
            ".PP\n".to_owned()
        } else {
            format!("{line}\n")
        }
    });
    lines.collect::<String>().into_bytes()
}

fn list(heading: &str, entries: &[(&str, &str)], page: &mut Vec<u8>) -> io::Result<()> {
    let mut section = Roff::new();
    section.control("SH", [heading]);
    for (name, meaning) in entries {
        section.control("TP", []);
        section.text([bold(*name)]);
        section.text([roman(*meaning)]);
    }
    section.to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that users see, with those below it.
    fn all(command: &Command) -> Vec<&Command> {
        let below = visible(command).flat_map(|command| [vec![command], all(command)].concat());
        below.collect()
    }

    fn page() -> String {
        let mut page = Vec::new();
        write(&mut page).unwrap();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn the_page_has_every_command_with_its_options_and_no_hidden_one() {
        let page = page();
        let whole = whole();
        let commands = all(&whole);
        assert!(commands.len() > 15, "{}", commands.len());
        for command in commands {
            let heading = format!(".SS \"{}\"\n", command.get_bin_name().unwrap());
            let part = page.split_once(&heading);
            let part = part.unwrap_or_else(|| panic!("{heading} in {page}")).1;
            let part = part.split("\n.S").next().unwrap();
            let own = command.get_arguments();
            let own = own.filter(|of| !of.is_global_set() && !of.is_hide_set());
            for long in own
                .filter_map(|of| of.get_long())
                .filter(|long| !["help", "version"].contains(long))
            {
                let option = format!("\\-\\-{}", long.replace('-', "\\-"));
                assert!(part.contains(&option), "{option} in {part}");
            }
            assert!(!part.contains("\\-\\-no\\-color"), "{part}");
        }
        for hidden in ["pid1", "keeper", "visit"] {
            assert!(!page.contains(&format!("gaiola {hidden}")), "{hidden}");
        }
    }
}
