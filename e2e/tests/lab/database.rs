//! Every tier, the database with it.

use gaiola_e2e::{Site, Who};
use std::time::Duration;

const WRITE: &str = "create table entries (text text); insert into entries values ('kept');\n";
/// Fails where what the first release wrote is not there any more.
const CHECK: &str = "select 1 / count(*) from entries where text = 'kept';\n";

fn site(who: Who, name: &str) -> Site {
    let release = r#"psql -v ON_ERROR_STOP=1 "$DATABASE_URL" -f migrate.sql"#;
    let tiers = "[balancer]\n[web]\n[app]\nservers = 2\nrun = \"{run}\"\n";
    let file = format!("{tiers}release = '{release}'\n[database]\nservers = 2\n");
    let site = Site::new(who, name, &file);
    site.write("public/page.html", "a page\n");
    site.write("migrate.sql", WRITE);
    site
}

fn keeps_what_was_written(who: Who) {
    if !who.is_here() {
        return;
    }
    let site = site(who, "written");
    site.up();
    assert!(site.is_healthy());
    site.write("migrate.sql", CHECK);
    site.kill_everything();
    site.up();
    assert!(site.is_healthy());
    assert_eq!(site.get("/").unwrap().field("release"), "2");
    site.down();
    site.wait_for_nothing();
}

#[test]
fn what_was_written_outlives_the_death_of_everything_as_root() {
    keeps_what_was_written(Who::Root);
}

#[test]
fn what_was_written_outlives_the_death_of_everything_rootless() {
    keeps_what_was_written(Who::Rootless);
}

#[test]
fn fewer_than_two_database_servers_need_a_yes() {
    let site = site(Who::caller(), "fewer");
    site.up();
    site.gaiola(&["scale", "database=1"]).expect(1, &["--yes"]);
    site.edit("[database]\nservers = 2", "");
    site.gaiola(&["plan"]).expect(0, &["refused"]);
    site.gaiola(&["up", "-d"]).expect(1, &["--yes"]);
    assert!(site.is_healthy());
    site.gaiola(&["scale", "database=1", "--yes"])
        .expect(0, &[]);
    assert!(site.is_healthy());
    site.wait_for("db2 is off", Duration::from_secs(20), || {
        site.server("db2").is_none()
    });
}
