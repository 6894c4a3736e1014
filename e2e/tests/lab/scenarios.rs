//! What holds for a site on machines too.

use gaiola_e2e::scenarios::play;
use gaiola_e2e::{Site, Who};

const FILE: &str = r#"
[balancer]
servers = 2
[web]
servers = 2
[app]
servers = 2
instances = 2
run = "bin/guestbook"
release = "bin/guestbook migrate"
health = "/up"
[database]
servers = 2
"#;

#[test]
fn what_holds_on_machines_holds_in_the_lab() {
    let site = Site::new(Who::caller(), "scenarios", FILE);
    site.put_guest_book();
    site.up();
    play(&site);
}
