//! All tiers, including the database.

use gaiola_e2e::{Site, Who};
use std::time::Duration;

const WRITE: &str = "create table entries (text text); insert into entries values ('kept');\n";
/// Fails if the first release's data is missing.
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

#[test]
fn a_primary_whose_disk_is_full_hands_its_role_over() {
    if !Who::Root.is_here() {
        return;
    }
    let site = site(Who::Root, "fulldisk");
    let data = |server: &str| {
        site.base()
            .join("state/fulldisk/servers")
            .join(server)
            .join("postgres")
    };
    let small = ["db1", "db2"].map(|server| {
        let data = data(server).display().to_string();
        format!(
            "mkdir -p {data} && mount -t tmpfs -o size=600m,mode=700,uid=$(id -u postgres) tmpfs {data}"
        )
    });
    site.prepared(&small.join(" && "), &["up", "-d"])
        .expect(0, &[]);
    let limit = Duration::from_secs(60);
    let primary = || site.status().1["primary"].as_str().map(String::from);
    site.wait_for("it is healthy", limit, || site.is_healthy());
    let full = primary().unwrap();
    let reserve = data(&full).join("reserve").display().to_string();
    let is_kept = || site.beside_the_lab(&["test", "-e", &reserve]).code == 0;
    site.wait_for("room is kept back", limit, is_kept);
    let filler = data(&full).join("filler").display().to_string();
    site.beside_the_lab(&["sh", "-c", &format!("cat /dev/zero > {filler}")]);
    site.wait_for("another server is the primary", limit, || {
        primary().is_some_and(|now| now != full)
    });
    site.beside_the_lab(&["rm", &filler]).expect(0, &[]);
    site.wait_for("it is whole again", limit, || site.is_healthy());
    assert_ne!(primary().unwrap(), full);
    site.down();
    site.wait_for_nothing();
}
