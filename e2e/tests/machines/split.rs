//! One machine with all tiers, then three with everything on each, then eight with one tier each.

use gaiola_e2e::machines::{Image, MachineSite};

const RATE: u32 = 60;

#[test]
#[ignore = "make machines runs it"]
fn a_site_is_split_from_one_machine_to_three_and_to_eight_under_load() {
    let Some(site) = MachineSite::start("split", 8, Image::Prepared) else {
        return;
    };
    let one: &[&str] = &["m1"];
    site.write([one; 4], "");
    site.up();
    let client = site.client(RATE);
    let three: &[&str] = &["m1", "m2", "m3"];
    site.write([three; 4], "");
    site.up();
    let seen = client.end();
    println!("to three machines: {seen:?}");
    seen.assert_nothing_failed();

    let client = site.client(RATE);
    site.write(
        [&["m1", "m2"], &["m3", "m4"], &["m5", "m6"], &["m7", "m8"]],
        "",
    );
    site.up();
    let seen = client.end();
    println!("to eight machines: {seen:?}");
    seen.assert_nothing_failed();
    let may_fail = site.status()["may_fail"].clone();
    assert_eq!(may_fail, serde_json::json!([]), "any one may be lost");
}
