//! The guest book on machines, brought up by an operator's `gaiola`.

use super::client::Helper;
use super::{Client, Image, Machines};
use crate::binaries;
use crate::site::{Ran, input, put_guest_book, run};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// The site's address.
const DOOR: &str = "10.78.0.100:80";
/// The longest that a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(420);

/// A cloud's API beside a site.
#[derive(Debug)]
pub struct CloudApi(#[expect(dead_code, reason = "dropping it ends the API")] Helper);

/// Machines, and a site's file that names them.
#[derive(Debug)]
pub struct MachineSite {
    machines: Machines,
    folder: TempDir,
}

impl MachineSite {
    /// Machines of which none belongs to a site yet. `None`, and it is reported, where there can be none.
    ///
    /// # Panics
    /// Where they cannot be brought up.
    pub fn start(name: &str, count: u8, image: Image) -> Option<Self> {
        let machines = Machines::start(name, count, image)?;
        let folder = tempfile::tempdir().expect("a temporary directory is made");
        put_guest_book(folder.path());
        Some(Self { machines, folder })
    }

    /// The machines.
    pub const fn machines(&self) -> &Machines {
        &self.machines
    }

    /// Writes the file: the machines of each tier, and `more` at its end.
    pub fn write(&self, [balancer, web, app, database]: [&[&str]; 4], more: &str) {
        let text = format!(
            "site = \"guestbook\"\n\
             [balancer]\nservers = {balancer:?}\nvips = [\"10.78.0.100/24\"]\n\
             [web]\nservers = {web:?}\nroot = \"public\"\n\
             [app]\nservers = {app:?}\ninstances = 2\nrun = \"bin/guestbook\"\n\
             release = \"bin/guestbook migrate\"\nhealth = \"/up\"\n\
             [database]\nservers = {database:?}\n{more}"
        );
        self.write_file("gaiola.toml", &text);
    }

    /// Writes another file of the site.
    pub fn write_file(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("the file is written");
    }

    /// Replaces text in the site's file.
    ///
    /// # Panics
    /// If it is not there.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.folder.path().join("gaiola.toml");
        let text = fs::read_to_string(&path).expect("the file is read");
        assert!(text.contains(from), "{from:?} is not in the file");
        self.write_file("gaiola.toml", &text.replace(from, to));
    }

    /// Where a client outside finds a page.
    pub fn url(&self, path: &str) -> String {
        format!("http://{DOOR}{path}")
    }

    /// Runs `gaiola ARGS` beside the file.
    #[track_caller]
    pub fn gaiola(&self, args: &[&str]) -> Ran {
        self.gaiola_within(args, COMMAND_LIMIT)
    }

    /// The same, with this on its standard input.
    #[track_caller]
    pub fn gaiola_given(&self, given: &str, args: &[&str]) -> Ran {
        let mut command = self.machines.gaiola(args);
        command.current_dir(self.folder.path()).stdin(input(given));
        run(command, COMMAND_LIMIT)
    }

    /// The same with another limit.
    #[track_caller]
    pub fn gaiola_within(&self, args: &[&str], limit: Duration) -> Ran {
        let mut command = self.machines.gaiola(args);
        command.current_dir(self.folder.path());
        run(command, limit)
    }

    /// Runs `gaiola ARGS` of another version beside the file: the same program with one byte more.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[track_caller]
    pub fn other_gaiola(&self, args: &[&str]) -> Ran {
        self.copied_gaiola(&binaries::gaiola_for_machines(), b"x", args)
    }

    /// The same of a version whose documents have a newer schema.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[track_caller]
    pub fn next_gaiola(&self, args: &[&str]) -> Ran {
        self.copied_gaiola(&binaries::next_for_machines(), b"", args)
    }

    #[track_caller]
    fn copied_gaiola(&self, from: &Path, more: &[u8], args: &[&str]) -> Ran {
        let folder = tempfile::tempdir().expect("a temporary directory is made");
        let program = folder.path().join("gaiola");
        fs::copy(from, &program).expect("the program is copied");
        let mut file = fs::File::options().append(true).open(&program);
        let opened = file.as_mut().expect("the copy is opened");
        opened.write_all(more).expect("the copy is written");
        // What is open for writing cannot be run.
        drop(file);
        let mut command = self.machines.command(&program);
        command.args(args).current_dir(self.folder.path());
        run(command, COMMAND_LIMIT * 2)
    }

    /// `gaiola up`, which must succeed and leave the site healthy.
    #[track_caller]
    pub fn up(&self) -> Ran {
        let ran = self.gaiola(&["up", "-d"]).expect(0, &[]);
        assert!(self.is_healthy(), "{:#?}", self.gaiola(&["status"]));
        ran
    }

    /// The status, as JSON.
    #[track_caller]
    pub fn status(&self) -> Value {
        let ran = self.gaiola(&["status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_default()
    }

    /// Whether the status reports the site as healthy.
    #[track_caller]
    pub fn is_healthy(&self) -> bool {
        self.gaiola(&["status", "--json"]).code == 0
    }

    /// A cloud's API, which ends when this is dropped. The network is a cloud's from now on.
    ///
    /// # Panics
    /// If it does not serve.
    #[track_caller]
    pub fn cloud(&self) -> CloudApi {
        let mut command = self.machines.command(binaries::machines());
        command.arg("api");
        CloudApi(Helper::start(command, "serves\n").expect("the API serves"))
    }

    /// A client that sends requests until it is asked what it saw.
    #[track_caller]
    pub fn client(&self, rate: u32) -> Client {
        self.client_with(rate, 0)
    }

    /// The same, which also keeps WebSockets open, and returns once they are.
    #[track_caller]
    pub fn client_with(&self, rate: u32, sockets: u32) -> Client {
        let door: SocketAddr = DOOR.parse().expect("it is an address");
        self.machines.client(door, rate, sockets)
    }
}
