//! What holds for a site in the lab too.

use gaiola_e2e::machines::{Image, MachineSite};
use gaiola_e2e::scenarios::{play, stops};

#[test]
#[ignore = "make machines runs it"]
fn what_holds_in_the_lab_holds_on_machines() {
    let Some(site) = MachineSite::start("scenarios", 4, Image::Prepared) else {
        return;
    };
    let two: &[&str] = &["m1", "m2"];
    let spare = "[machines]\nspare = [\"m4\"]\n";
    site.write([two, two, &["m2", "m3"], two], spare);
    site.up();
    play(&site);
}

/// The only test on machines that `make test` has: it counts no failed requests, which a busy host would cause.
#[test]
fn a_site_on_machines_comes_up_and_keeps_what_was_written() {
    let Some(site) = MachineSite::start("keeps", 2, Image::Prepared) else {
        return;
    };
    let both: &[&str] = &["m1", "m2"];
    site.write([both; 4], "");
    site.up();
    let client = site.client(20);
    site.gaiola(&["up", "-d"]).expect(0, &["nothing to change"]);
    site.machines().reboot("m2");
    let seen = client.end();
    assert!(seen.acknowledged > 0, "{seen:?}");
    seen.assert_nothing_lost();
    site.gaiola(&["up", "-d"]).expect(0, &[]);
    stops(&site);
}
