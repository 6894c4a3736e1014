//! What is written is read again by the decoder of the file.

use super::draft::{Draft, Wishes};
use super::placement::{Placement, Wanted};
use super::procfile::Procfile;
use super::text;
use gaiola_control::provider;
use gaiola_model::{Config, Tier};
use gaiola_wire::config::{Surroundings, load_in};
use proptest::prelude::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

fn on(machines: &str) -> Wishes {
    Wishes {
        directory: "shop".into(),
        machines: Some(words(machines)),
        run: Some("./bin/server --port $PORT".into()),
        roots: vec!["public".into()],
        ..Wishes::default()
    }
}

fn lab() -> Wishes {
    Wishes {
        machines: None,
        ..on("")
    }
}

fn written(wishes: &Wishes) -> String {
    text::write(&Draft::of(wishes).unwrap())
}

fn read(text: &str) -> Config {
    let around = Surroundings {
        directory: None,
        vips: Some(provider::vips()),
        read: None,
        secrets: None,
        proxy: None,
    };
    load_in(text, &around).unwrap_or_else(|errors| panic!("{}{text}", errors.in_file("file")))
}

fn machines(config: &Config, tier: Tier) -> Vec<&str> {
    let machines = config.machines.as_ref().unwrap();
    machines
        .of(tier)
        .map(|(_, machine)| machine.ssh.as_str())
        .collect()
}

#[test]
fn a_file_for_the_lab_has_every_tier() {
    let text = written(&lab());
    let config = read(&text);
    assert_eq!(config.site.as_str(), "shop");
    assert_eq!(config.server_names().count(), 8);
    assert_eq!(config.app.run, "./bin/server --port $PORT");
    assert!(
        text.contains("run = \"./bin/server --port $PORT\"\n"),
        "{text}"
    );
    assert!(
        text.contains("in a lab") && !text.contains("vips"),
        "{text}"
    );
}

#[test]
fn a_file_for_eight_machines_explains_itself() {
    let text = written(&on("m1 m2 m3 m4 m5 m6 m7 m8"));
    let config = read(&text);
    assert_eq!(machines(&config, Tier::Balancer), ["m1", "m2"]);
    assert_eq!(machines(&config, Tier::Database), ["m7", "m8"]);
    for words in [
        "# The machines have their tiers in the order in which they were named",
        "Any one of them may be lost.",
        "# No virtual addresses",
        "vips = []\n",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[test]
fn it_is_said_what_the_loss_of_a_machine_means() {
    for (machines, words) in [
        ("m1", "with three machines any one may be."),
        ("m1 m2", "no standby becomes the primary"),
        (
            "m1 m2 m3",
            "Every machine has every tier. Any one of them may be lost.",
        ),
        (
            "lb-1 lb-2 app-1",
            "Each machine has the tier that its name says. A tier on one machine only",
        ),
    ] {
        let text = written(&on(machines));
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[test]
fn the_directory_says_what_the_operator_does_not() {
    let procfile = Procfile::parse("web: serve $PORT\nrelease: migrate\nMail_Out: work\n2nd: x\n");
    let wishes = Wishes {
        run: None,
        roots: vec!["static".into(), "dist".into()],
        procfile,
        ..lab()
    };
    let text = written(&wishes);
    let config = read(&text);
    assert_eq!(config.app.run, "serve $PORT");
    assert_eq!(config.app.release.as_deref(), Some("migrate"));
    assert_eq!(config.web.unwrap().root, "static");
    assert!(
        text.contains("# Not run by Gaiola, but in the Procfile: 2nd.")
            && text.contains("[worker.mail-out]\nrun = \"work\"\n"),
        "{text}"
    );
    let named = Wishes {
        run: Some("other".into()),
        release: Some("nothing".into()),
        ..wishes
    };
    let config = read(&written(&named));
    assert_eq!(
        (config.app.run.as_str(), config.app.release.as_deref()),
        ("other", Some("nothing"))
    );
}

#[test]
fn without_public_files_or_a_database_there_is_no_such_tier() {
    let wishes = Wishes {
        roots: Vec::new(),
        without_database: true,
        ..lab()
    };
    let text = written(&wishes);
    let config = read(&text);
    assert!(config.web.is_none() && config.database.is_none());
    assert!(
        text.contains("# [web]") && !text.contains("DATABASE_URL"),
        "{text}"
    );
}

#[test]
fn all_mistakes_are_found_at_once() {
    let wishes = Wishes {
        site: Some("postgres".into()),
        machines: Some(words("a web/1 a a deploy@a 10.0.0.7")),
        vips: words("10.0.0.7 10.0.0.8 10.0.0.8/24 here"),
        run: Some(" ".into()),
        release: Some(String::new()),
        ..Wishes::default()
    };
    let mistakes = Draft::of(&wishes).unwrap_err();
    let found: Vec<&str> = mistakes
        .iter()
        .map(|mistake| mistake.what.as_str())
        .collect();
    assert_eq!(
        found,
        [
            "site \"postgres\" is a name reserved by PostgreSQL",
            "command \" \" is empty",
            "release \"\" is empty",
            "machine \"web/1\" is not a name for `ssh`",
            "machine \"a\" is named more than once",
            "\"a\" and \"deploy@a\" are one machine",
            "virtual address 10.0.0.7 is the machine 10.0.0.7",
            "virtual address 10.0.0.8 is named more than once",
            "virtual address \"here\" is not an IP address",
        ]
    );
}

#[test]
fn what_is_missing_is_a_mistake() {
    let what = |wishes: &Wishes| Draft::of(wishes).unwrap_err()[0].what.clone();
    let without = Wishes { run: None, ..lab() };
    assert_eq!(what(&without), "there is no command");
    assert_eq!(what(&on("")), "--machines names none");
    let many: Vec<String> = (0..100).map(|n| format!("m{n}")).collect();
    assert_eq!(what(&on(&many.join(" "))), "there are 100 machines");
    let vips = Wishes {
        vips: words("10.0.0.1"),
        ..lab()
    };
    assert_eq!(what(&vips), "virtual addresses are for machines");
}

fn machine() -> impl Strategy<Value = String> {
    let host = "((lb|web|app|db|pg|spare|m)-?)?[a-z0-9]{1,3}(\\.example\\.net)?";
    (proptest::option::of("[a-z]{1,4}@"), host)
        .prop_map(|(user, host)| user.unwrap_or_default() + &host)
}

/// Some, each with another host.
fn some_machines() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(machine(), 1..30).prop_map(|machines| {
        let numbered = machines.into_iter().enumerate();
        numbered
            .map(|(n, machine)| format!("{machine}{n}"))
            .collect()
    })
}

prop_compose! {
    fn wish()(
        directory in "(?s).{0,40}",
        machines in proptest::option::of(some_machines()),
        vips in proptest::sample::subsequence(vec!["10.0.0.1", "10.0.0.2/24", "10.0.0.3/32"], 0..=3),
        run in proptest::option::weighted(0.8, "(?s)[^\\x00]{0,40}x"),
        procfile in "web: [^\\x00\n]{0,20}x\n(release: [^\\x00\n]{0,20}\n)?(.{0,5}: .{0,9}\n)?",
        release in proptest::option::of("(?s).{1,20}"),
        without_database: bool,
        roots in proptest::sample::subsequence(super::ROOTS.to_vec(), 0..=3),
    ) -> Wishes {
        let owned = |words: Vec<&str>| words.into_iter().map(Into::into).collect();
        Wishes {
            directory,
            site: None,
            vips: machines.as_ref().map_or_else(Vec::new, |_| owned(vips)),
            machines,
            run,
            release,
            without_database,
            procfile: Procfile::parse(&procfile),
            roots: owned(roots),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_accepted_is_read_as_it_was_meant(wishes in wish()) {
        let draft = Draft::of(&wishes);
        prop_assume!(draft.is_ok());
        let draft = draft.unwrap();
        let config = read(&text::write(&draft));
        prop_assert_eq!(config.site.as_str(), &draft.site);
        prop_assert_eq!(&config.app.run, &draft.run);
        prop_assert_eq!(&config.app.release, &draft.release);
        prop_assert_eq!(config.web.as_ref().map(|web| &web.root), draft.root.as_ref());
        prop_assert_eq!(config.machines.is_some(), wishes.machines.is_some());
        if let Some(placement) = &draft.placement {
            let has = |tier| placement.of_tier(tier).iter().map(String::as_str).collect::<Vec<_>>();
            for tier in Tier::ALL {
                prop_assert_eq!(machines(&config, tier), has(tier));
            }
            let spare = &config.machines.as_ref().unwrap().spare;
            let spare: Vec<_> = spare.iter().map(|machine| machine.ssh.clone()).collect();
            prop_assert_eq!(&spare, &placement.spare);
            let vips = config.balancer.as_ref().and_then(|balancer| balancer.vips.as_ref()).unwrap();
            prop_assert_eq!(vips.len(), draft.vips.len());
        }
    }

    #[test]
    fn a_string_is_read_as_it_was_written(text in "(?s).*") {
        let table: toml::Table = format!("key = {}", text::quoted(&text)).parse().unwrap();
        prop_assert_eq!(table["key"].as_str(), Some(text.as_str()));
    }

    #[test]
    fn every_machine_is_placed(machines in proptest::collection::vec(machine(), 1..40), web: bool, database: bool) {
        let placed = Placement::of(&machines, Wanted { web, database });
        for machine in &machines {
            let in_a_tier = placed.tiers.iter().flatten().any(|name| name == machine);
            prop_assert!(in_a_tier || placed.spare.contains(machine), "{machine}");
        }
    }
}
