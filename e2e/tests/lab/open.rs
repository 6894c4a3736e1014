//! `gaiola open`: the status page of a lab, and of a site that is reached by `ssh`.

use gaiola_e2e::{Site, Who, get, post, processes};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

/// An `ssh` whose machines are this one. Each can be switched off by a file of its name.
fn put_ssh(site: &Site) {
    let (base, ssh) = (site.base().display(), site.base().join("bin/ssh"));
    let text = format!(
        "#!/bin/sh\n\
         for last; do host=$previous; previous=$last; done\n\
         if [ \"$1\" = -G ]; then echo hostname 127.0.0.1; exit; fi\n\
         if [ -e '{base}'/\"$host\" ]; then echo 'ssh: connect to host: No route to host' >&2; exit 255; fi\n\
         exec sh -c \"$(printf %s \"$last\" | sed 's|/opt/gaiola/current|{base}/bin|')\"\n"
    );
    fs::write(&ssh, text).unwrap();
    fs::set_permissions(ssh, fs::Permissions::from_mode(0o755)).unwrap();
}

fn switch_off(site: &Site, machine: &str) {
    fs::write(site.base().join(machine), "").unwrap();
    let program = site.base().join("bin/gaiola");
    let program = program.to_str().unwrap();
    let is_connection = |args: &[String]| args.starts_with(&[program.into(), "connect".into()]);
    let connections = processes().into_iter();
    connections
        .filter(|process| is_connection(&process.args))
        .for_each(|process| process.kill());
}

/// `gaiola open` by `ssh`, and the address that it printed.
fn open(site: &Site) -> (Child, SocketAddr) {
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}/bin:{path}", site.base().display());
    let page = ["open", "-f", "machines.toml", "--page", "127.0.0.1:0"];
    let mut command = site.command(&page);
    command
        .env("PATH", path)
        .env("XDG_RUNTIME_DIR", site.base());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://");
    let address = address.and_then(|rest| rest.strip_suffix('/')?.parse().ok());
    let address = address.unwrap_or_else(|| panic!("{line:?}, {}", end(&mut child).1));
    (child, address)
}

/// Interrupts it; its exit code and what it reported.
fn end(child: &mut Child) -> (Option<i32>, String) {
    gaiola_os::process::signal(child.id(), rustix::process::Signal::INT);
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

fn status_with_host(address: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().into()
}

#[test]
fn the_page_answers_here_and_by_ssh() {
    let who = Who::Root;
    if !who.is_here() {
        return;
    }
    let site = Site::app(who, "tab", 1, 1);
    site.up();
    let here = format!("http://{}/", site.page());
    site.gaiola(&["open", "--no-browser"]).expect(0, &[&here]);
    site.gaiola(&["open", "--page", "127.0.0.1:1"])
        .expect(1, &["the status page of tab is at"]);

    put_ssh(&site);
    let file = "site = \"tab\"\n[app]\nservers = [\"m1\", \"m2\"]\nrun = \"x\"\n";
    site.write("machines.toml", file);
    switch_off(&site, "m2");
    let (mut opened, page) = open(&site);
    let answer = get(page, "/").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer
            .head
            .contains("content-security-policy: default-src 'none'"),
        "{answer:?}"
    );
    assert!(answer.body.contains("healthy"), "{answer:?}");
    let style = get(page, "/style.css").unwrap();
    assert!(style.head.contains("content-type: text/css"), "{style:?}");
    assert_eq!(get(page, "/status.json").unwrap().field("site"), "tab");
    // Nothing but the page can be reached.
    assert_eq!(get(page, "/status").unwrap().status, 404);
    assert_eq!(post(page, "/down").unwrap().status, 405);
    assert_eq!(status_with_host(page, "evil.example"), "421");

    // A machine that is lost is not the end of it.
    fs::remove_file(site.base().join("m2")).unwrap();
    switch_off(&site, "m1");
    assert_eq!(get(page, "/").unwrap().status, 200);
    let (code, said) = end(&mut opened);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("now m2 is asked"), "{said}");
    site.down();
    site.wait_for_nothing();
}
