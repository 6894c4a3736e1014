//! The text of a site's file: no panic, and either a whole configuration or at least one mistake that can be told.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    |text: &str| match gaiola_wire::config::load_in(text, Some("site")) {
        Ok(config) => {
            assert!((1..=1000).contains(&config.server_names().count()));
            assert_eq!(gaiola_wire::config::load_in(text, Some("site")), Ok(config));
        }
        Err(errors) => {
            let told = errors.in_file("gaiola.toml").to_string();
            assert_eq!(told.lines().count(), errors.mistakes().len());
            assert!(!told.is_empty());
        }
    }
);
