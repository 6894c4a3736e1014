//! What holds for a site in the lab too. The only test on machines that `make test` has.

use gaiola_e2e::machines::{Image, MachineSite};
use gaiola_e2e::scenarios::{ALL, Stage, stops};

#[test]
fn what_holds_in_the_lab_holds_on_machines() {
    let Some(site) = MachineSite::start("scenarios", 4, Image::Prepared) else {
        return;
    };
    let two: &[&str] = &["m1", "m2"];
    let spare = "[machines]\nspare = [\"m4\"]\n";
    site.write([two, two, &["m2", "m3"], two], spare);
    site.up();
    let stage: &dyn Stage = &site;
    for (name, scenario) in ALL {
        println!("{name}");
        scenario(stage);
    }
    stops(stage);
}
