//! What the commands say of what is wrong, to people and to programs.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};

fn file(name: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text).unwrap();
    file
}

fn gaiola(arguments: &[&str], file: &PathBuf) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaiola"));
    let command = command.args(arguments).arg("-f").arg(file);
    command.output().unwrap()
}

#[test]
fn mistakes_are_json_for_programs() {
    let site = file("site.toml", "site = 'a'\n[app]\nrun = 'a'\nservers = 0\n");
    let proxy = file("proxy.toml", "admin = 8404\n[frontend.www]\nbind = ':80'\n");
    for (arguments, file, mistake) in [
        (
            &["check"][..],
            &site,
            json!({ "line": 4, "column": 11, "what": "`servers` is 0", "hint": "it is from 1 to 99" }),
        ),
        (
            &["plan"],
            &site,
            json!({ "line": 4, "column": 11, "what": "`servers` is 0", "hint": "it is from 1 to 99" }),
        ),
        (
            &["proxy", "--check"],
            &proxy,
            json!({ "line": 1, "column": 9, "what": "`admin` is a number, but must be a string", "hint": "write it as admin = \":8404\"" }),
        ),
    ] {
        let output = gaiola(&[arguments, &["--json"]].concat(), file);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let reported: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&reported["file"], &reported["mistakes"][0]),
            (&json!(file), &mistake)
        );
        assert!(output.stderr.is_empty(), "{arguments:?}");
        let output = gaiola(arguments, file);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let reported = String::from_utf8(output.stderr).unwrap();
        let place = format!(
            "{}:{}:{}: ",
            file.display(),
            mistake["line"],
            mistake["column"]
        );
        assert!(
            reported.starts_with(&place) && output.stdout.is_empty(),
            "{reported}"
        );
    }
}

#[test]
fn where_no_proxy_can_be_asked_it_is_said_what_to_look_at() {
    let plain = file("no-socket", "");
    for (socket, words) in [
        (
            plain.with_file_name("nowhere.sock"),
            "no such socket; is the proxy running",
        ),
        (plain, "nobody listens there"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaiola"));
        let command = command
            .args(["proxy", "ctl", "show", "stat", "--socket"])
            .arg(socket);
        let output = command.output().unwrap();
        let reported = String::from_utf8(output.stderr).unwrap();
        assert!(
            reported.contains(words) && !reported.contains("os error"),
            "{reported}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_valid_proxys_file_has_no_mistakes_and_none_of_its_secrets_is_shown() {
    let text = "limit_secret = 'not to be shown to anyone'\n[frontend.www]\nbind = ':80'\nbackend = 'app'\n\
                [backend.app.server]\na = '10.0.0.1:80'\nb = '10.0.0.2:80'\n";
    let file = file("valid.toml", text);
    let output = gaiola(&["proxy", "--check", "--json"], &file);
    let reported: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected =
        json!({ "file": file, "mistakes": [], "frontends": 1, "backends": 1, "servers": 2 });
    assert_eq!((reported, output.status.code()), (expected, Some(0)));
}

/// A program that prints `text`, whatever it is asked.
fn program(path: PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn up_refuses_an_old_patroni_before_it_starts_anything() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("old-patroni");
    let state = folder.join("state");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    program(folder.join("patroni"), "patroni 3.0.2");
    program(folder.join("postgres"), "postgres (PostgreSQL) 15.18");
    program(folder.join("pg_basebackup"), "pg_basebackup 15.18");
    let file = folder.join("gaiola.toml");
    std::fs::write(&file, "site = 'a'\n[app]\nrun = 'a'\n[database]\n").unwrap();
    // One of our own is hidden.
    let script = "if [ -d /opt/gaiola ]; then mount -t tmpfs none /opt/gaiola; fi\n\
                  PATH=$1 exec \"$0\" up -d -f \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]);
    command.args([env!("CARGO_BIN_EXE_gaiola").as_ref(), &*folder, &*file]);
    let output = command.env("GAIOLA_STATE", &state).output().unwrap();
    let reported = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reported}");
    for words in [
        "no Patroni 4.0.7 or newer",
        &format!("{} is 3.0.2", folder.join("patroni").display()),
        "scripts/setup installs one",
    ] {
        assert!(reported.contains(words), "{words} in {reported}");
    }
    assert!(!state.exists());
    std::fs::remove_dir_all(folder).unwrap();
}
