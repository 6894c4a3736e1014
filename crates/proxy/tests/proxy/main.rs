//! The whole proxy as a process of its own, between real clients and real servers on loopback.

mod admission;
mod authority;
mod balance;
mod busy;
mod compress;
mod configuration;
mod early;
mod encrypted;
#[path = "../../../wire/tests/exposition/strict.rs"]
mod exposition;
mod failures;
mod files;
mod flow;
mod harness;
mod hostile;
mod http;
mod logs;
mod metrics;
mod mutual_tls;
mod operate;
mod passive;
mod private;
mod rules;
mod standalone;
mod standalone_rules;
mod streams;
mod take_over;
mod tcp;
mod tls;
mod tls_servers;

use gaiola_proxy::{ProxyArgs, TakeOver, read_file, run, serve_file};

/// The proxy itself: each test starts this binary once more with this test alone.
#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn proxy_process() {
    let Ok(directory) = std::env::var(harness::DIRECTORY) else {
        return;
    };
    let directory = std::path::Path::new(&directory);
    let file = |name: &str| Some(directory.join(name)).filter(|file| file.exists());
    if let Some(file) = file("proxy.toml") {
        return serve_file(&file, read_file(&file).unwrap()).unwrap();
    }
    let admin = std::fs::read_to_string(directory.join("admin")).unwrap();
    run(ProxyArgs {
        control: Some(directory.join("proxy.sock")),
        admin: Some(admin.parse().unwrap()),
        keeper: file("keeper.sock"),
        config: file("config.json")
            .map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()),
        access_log: Some(directory.join("access.log").into()),
        workers: std::num::NonZeroUsize::new(2),
        reload: None,
        hard_stop_after: gaiola_proxy::END_LIMIT,
        take_over_limit: gaiola_proxy::TAKE_OVER_LIMIT,
        take_over: TakeOver::Control,
    })
    .unwrap();
}
