//! The text of a proxy's file: no panic, and either a whole configuration or at least one mistake that can be printed.

#![no_main]

use gaiola_wire::proxy_file::{ResolveError, Surroundings, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let around = Surroundings {
        directory: std::path::Path::new("/etc/gaiola"),
        host: "edge1",
        resolve: &|_| Err(ResolveError::NoAddress),
        check: &|_| Vec::new(),
    };
    match load(text, &around) {
        Ok(file) => {
            assert!(!file.config.frontends.is_empty());
            assert_eq!(load(text, &around), Ok(file));
        }
        Err(errors) => {
            let text = errors.in_file("proxy.toml").to_string();
            assert_eq!(text.lines().count(), errors.mistakes().len());
            assert!(!text.is_empty());
        }
    }
});
