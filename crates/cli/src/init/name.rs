//! A site's name from that of its directory.

use gaiola_wire::config::rules;

/// The longest name of a site.
const LONGEST: usize = 32;

/// A valid name of a site: the directory's, with `-` for what a site's name cannot have.
pub(super) fn of_directory(directory: &str) -> String {
    let words = directory
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let joined = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let name = joined.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    [cut(name), cut(&format!("site-{name}"))]
        .into_iter()
        .find(|name| rules::site(name).is_ok())
        .unwrap_or_else(|| "site".into())
}

fn cut(name: &str) -> String {
    let short = &name[..name.len().min(LONGEST)];
    short.trim_end_matches('-').into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_as_near_to_the_directorys_as_it_can_be() {
        for (directory, name) in [
            ("shop", "shop"),
            ("My Shop_2", "my-shop-2"),
            ("example.org", "example-org"),
            ("2024-shop", "shop"),
            ("--x--", "x"),
            ("café", "caf"),
            ("postgres", "site-postgres"),
            ("pg-tools", "site-pg-tools"),
            ("", "site"),
            ("2024", "site"),
            ("日本", "site"),
        ] {
            assert_eq!(of_directory(directory), name, "{directory}");
        }
        let long = of_directory(&"abcd ".repeat(20));
        assert_eq!(long, "abcd-abcd-abcd-abcd-abcd-abcd-ab");
    }

    proptest! {
        #[test]
        fn every_name_is_valid(directory in ".*") {
            let name = of_directory(&directory);
            prop_assert!(rules::site(&name).is_ok(), "{name}");
        }
    }
}
