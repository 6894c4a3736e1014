//! The number of the schema of a command line and a site, in a header of every request and response.
//!
//! A site accepts requests of its own schema and of the one before. Without the header the schema is 1: version 0.1 sent none. `/ping` and
//! `/down` are the same in all of them, so that a site can be brought down by whichever program is installed.

use gaiola_model::schema::{SCHEMA, unnumbered};

/// The header's name.
pub const HEADER: &str = "gaiola-schema";

/// Which program is too old, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The site is older than the command line.
    #[error(
        "the site was brought up by an older gaiola (schema {site}) than this command line (schema {command_line}): \
         bring it down with `gaiola down`, and up again with this one"
    )]
    SiteTooOld {
        /// The site's schema.
        site: u64,
        /// The command line's.
        command_line: u64,
    },
    /// The command line is older than the site and the version before it.
    #[error(
        "this command line is too old (schema {command_line}) for the site, which a newer gaiola brought up (schema {site}): \
         use that one, or another that is at most one schema older"
    )]
    CommandLineTooOld {
        /// The site's schema.
        site: u64,
        /// The command line's.
        command_line: u64,
    },
    /// The command line would install itself over a newer program, whose documents it cannot read.
    #[error(
        "the site's machines run a newer gaiola (schema {site}) than this command line (schema {command_line}), which would take its \
         place: use that one"
    )]
    WouldInstallOlder {
        /// The site's schema.
        site: u64,
        /// The command line's.
        command_line: u64,
    },
    /// The two could not work side by side in one site.
    #[error(
        "the site's machines run a gaiola (schema {site}) that is too old to work beside this one (schema {command_line}): upgrade to a \
         version of schema {} first", site + 1
    )]
    TooFar {
        /// The site's schema.
        site: u64,
        /// The command line's.
        command_line: u64,
    },
}

/// Checks that the programs of a site may be exchanged for this one, of the schema `own`: both kinds work side by side meanwhile.
///
/// # Errors
/// If the site is newer, or more than one schema older.
pub const fn may_upgrade(site: u64, own: u64) -> Result<(), Mismatch> {
    let command_line = own;
    if site > own {
        Err(Mismatch::WouldInstallOlder { site, command_line })
    } else if site.saturating_add(1) < own {
        Err(Mismatch::TooFar { site, command_line })
    } else {
        Ok(())
    }
}

/// The number that this program sends.
pub fn own() -> String {
    SCHEMA.to_string()
}

/// Checks the schemas of both sides, one of which is this program.
///
/// # Errors
/// If they are incompatible.
pub fn check(site: u64, command_line: u64) -> Result<(), Mismatch> {
    if site < command_line {
        Err(Mismatch::SiteTooOld { site, command_line })
    } else if command_line.saturating_add(1) < site {
        Err(Mismatch::CommandLineTooOld { site, command_line })
    } else {
        Ok(())
    }
}

/// Whether a path is served whatever the schemas.
pub fn is_exempt(path: &str) -> bool {
    matches!(path, "/ping" | "/down")
}

/// The number in a header's value; one that cannot be parsed counts as newest.
pub fn read(header: Option<&[u8]>) -> u64 {
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
    header.map_or(unnumbered(), |value| number(value).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_is_too_old_is_named_with_what_to_do() {
        let words = |site, command_line| check(site, command_line).unwrap_err().to_string();
        for site in [5, 6] {
            assert_eq!(check(site, 5), Ok(()));
        }
        let older = words(4, 5);
        assert!(older.contains("an older gaiola (schema 4)"), "{older}");
        assert!(older.contains("gaiola down"), "{older}");
        let newer = words(7, 5);
        assert!(
            newer.contains("this command line is too old (schema 5)"),
            "{newer}"
        );
    }

    #[test]
    fn a_site_is_upgraded_from_its_own_schema_and_the_one_before() {
        assert_eq!(may_upgrade(7, 7), Ok(()));
        assert_eq!(may_upgrade(6, 7), Ok(()));
        let why = |site| may_upgrade(site, 7).unwrap_err().to_string();
        assert!(why(8).contains("would take its place"), "{}", why(8));
        assert!(
            why(5).ends_with("upgrade to a version of schema 6 first"),
            "{}",
            why(5)
        );
    }

    #[test]
    fn what_has_no_number_is_of_the_first_version_and_what_is_garbled_is_newer() {
        assert_eq!(read(None), 1);
        assert_eq!(read(Some(b"3")), 3);
        assert_eq!(read(Some(own().as_bytes())), SCHEMA);
        for garbled in [&b"x"[..], b"", b"-1", b"\xff"] {
            assert_eq!(read(Some(garbled)), u64::MAX);
        }
    }
}
