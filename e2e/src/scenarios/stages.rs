//! The lab, and machines.

use super::Stage;
use crate::http::{Answer, parse};
use crate::machines::{Client, MachineSite, Seen};
use crate::site::{Ran, Site};

const RATE: u32 = 60;

impl Stage for Site {
    fn gaiola(&self, args: &[&str]) -> Ran {
        Self::gaiola(self, args)
    }

    fn gaiola_given(&self, input: &str, args: &[&str]) -> Ran {
        Self::gaiola_given(self, input, args)
    }

    fn edit(&self, from: &str, to: &str) {
        Self::edit(self, from, to);
    }

    fn write(&self, name: &str, text: &str) {
        Self::write(self, name, text);
    }

    fn under_load(&self, work: &mut dyn FnMut()) -> Seen {
        let client = Client::beside(self.door(), RATE).expect("a client starts");
        work();
        client.end()
    }

    fn answer(&self, path: &str) -> Answer {
        self.get(path).expect("the site answers")
    }
}

impl Stage for MachineSite {
    fn gaiola(&self, args: &[&str]) -> Ran {
        Self::gaiola(self, args)
    }

    fn gaiola_given(&self, input: &str, args: &[&str]) -> Ran {
        Self::gaiola_given(self, input, args)
    }

    fn edit(&self, from: &str, to: &str) {
        Self::edit(self, from, to);
    }

    fn write(&self, name: &str, text: &str) {
        Self::write_file(self, name, text);
    }

    fn under_load(&self, work: &mut dyn FnMut()) -> Seen {
        let client = self.client(RATE);
        work();
        client.end()
    }

    fn answer(&self, path: &str) -> Answer {
        let url = self.url(path);
        let curl = ["curl", "-sSi", "--max-time", "10", &url];
        let said = self.machines().run(&curl).expect(0, &[]).stdout;
        parse(&said).expect("it is a response")
    }
}
