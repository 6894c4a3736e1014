//! The text of a site's file: no panic, and either a whole configuration or at least one mistake that can be printed.

#![no_main]

use gaiola_wire::config::{Surroundings, load_in};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A file of variables that it names has the same text.
    let read = |_: &str| Ok(text.to_owned());
    let around = Surroundings {
        directory: Some("site"),
        vips: None,
        read: Some(&read),
        secrets: None,
        proxy: None,
    };
    match load_in(text, &around) {
        Ok(config) => {
            assert!((1..=1000).contains(&config.server_names().count()));
            assert_eq!(load_in(text, &around), Ok(config));
        }
        Err(errors) => {
            let printed = errors.in_file("gaiola.toml").to_string();
            assert_eq!(printed.lines().count(), errors.mistakes().len());
            assert!(!printed.is_empty());
        }
    }
});
