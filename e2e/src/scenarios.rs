//! What holds for a site whatever provides its servers: one list, played on the lab and on machines.
//!
//! The site is the guest book on at least two servers of each tier, with room for a third web server.

mod stages;

use crate::http::Answer;
use crate::machines::Seen;
use crate::site::Ran;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A site that scenarios are played on.
pub trait Stage {
    /// Runs `gaiola ARGS` beside the site's file.
    fn gaiola(&self, args: &[&str]) -> Ran;

    /// The same, with this on its standard input.
    fn gaiola_given(&self, input: &str, args: &[&str]) -> Ran;

    /// Replaces text in the site's file.
    fn edit(&self, from: &str, to: &str);

    /// Writes another file of the site.
    fn write(&self, name: &str, text: &str);

    /// Does `work` under pages, reads and writes.
    fn under_load(&self, work: &mut dyn FnMut()) -> Seen;

    /// What a client outside gets, whatever its status.
    fn answer(&self, path: &str) -> Answer;

    /// The body of a page, as a client outside gets it.
    fn page(&self, path: &str) -> String {
        self.answer(path).body
    }
}

impl dyn Stage + '_ {
    fn up(&self) -> Ran {
        self.gaiola(&["up", "-d"])
    }

    fn status(&self) -> Value {
        let ran = self.gaiola(&["status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_default()
    }

    #[track_caller]
    fn is_whole(&self) {
        let ran = self.gaiola(&["status", "--json"]);
        assert_eq!(ran.code, 0, "{ran:#?}");
    }

    /// The names of a tier's servers.
    fn servers(&self, tier: &str) -> Vec<String> {
        let status = self.status();
        let servers = status["servers"].as_array().cloned().unwrap_or_default();
        let of_tier = servers.iter().filter(|server| server["tier"] == tier);
        let names = of_tier.filter_map(|server| Some(server["name"].as_str()?.to_string()));
        names.collect()
    }
}

/// A scenario: it begins and ends with a site that is whole.
type Scenario = fn(&dyn Stage);

/// All of them, in the order in which they are played.
const ALL: [(&str, Scenario); 15] = [
    ("a second up changes nothing", changes_nothing),
    ("a tier is scaled", scales),
    ("servers are drained", drains),
    ("a release rolls through", releases),
    ("a site goes back to an earlier release", goes_back),
    ("another environment replaces the instances", sets),
    (
        "secrets reach the instances and nothing else",
        keeps_secrets,
    ),
    ("maintenance refuses clients", maintains),
    ("workers run beside the instances", works),
    ("a cron runs once for the whole site", keeps_time),
    ("a release that cannot start is given up", gives_up),
    ("a release that makes it worse is given up", stops_itself),
    ("commands reach the servers", reaches),
    ("what cannot be done is said", refuses),
    ("a command rolls over the servers", rolls),
];

/// Plays all of them, and at last what is served after everything was stopped.
pub fn play(stage: &dyn Stage) {
    for (name, scenario) in ALL {
        println!("{name}");
        scenario(stage);
    }
    stops(stage);
}

/// What the others wrote is there after everything was stopped. The last one, since nothing is served meanwhile.
pub fn stops(stage: &dyn Stage) {
    let before = stage.page("/api/entries");
    assert!(before.contains("drill"), "{before}");
    stage.gaiola(&["down"]).expect(0, &[]);
    assert_ne!(stage.gaiola(&["status"]).code, 0, "it is down");
    stage.up().expect(0, &[]);
    stage.is_whole();
    let entries = |page: &str| {
        let page: Value = serde_json::from_str(page).unwrap_or_default();
        page["entries"].clone()
    };
    assert_eq!(entries(&stage.page("/api/entries")), entries(&before));
}

fn changes_nothing(stage: &dyn Stage) {
    stage.up().expect(0, &["nothing to change"]);
}

fn scales(stage: &dyn Stage) {
    let before = stage.servers("web");
    let more = format!("web={}", before.len() + 1);
    let fewer = format!("web={}", before.len());
    let seen = stage.under_load(&mut || {
        stage.gaiola(&["scale", &more]).expect(0, &[]);
        assert_eq!(stage.servers("web").len(), before.len() + 1);
        stage.gaiola(&["scale", &fewer]).expect(0, &[]);
    });
    seen.assert_nothing_failed();
    assert_eq!(stage.servers("web"), before);
    stage.is_whole();
}

fn drains(stage: &dyn Stage) {
    let seen = stage.under_load(&mut || {
        for server in ["web1", "app2", "lb1"] {
            stage.gaiola(&["drain", server]).expect(0, &[]);
            stage.gaiola(&["undrain", server]).expect(0, &[]);
        }
    });
    // The VIP moves, and home again.
    seen.assert_nothing_failed();
    stage.is_whole();
}

fn releases(stage: &dyn Stage) {
    stage.write("public/new.html", "a new page\n");
    let seen = stage.under_load(&mut || _ = stage.up().expect(0, &[]));
    seen.assert_nothing_failed();
    for _ in 0..10 {
        assert_eq!(stage.page("/new.html"), "a new page\n");
    }
}

/// Back by hand, under load, with the variables of that time; the next `up` goes forth again.
fn goes_back(stage: &dyn Stage) {
    let all = || -> Vec<Value> {
        let ran = stage.gaiola(&["releases", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_default()
    };
    let before = all()[0]["release"].as_u64().unwrap_or_default();
    stage.write("public/new.html", "a newer page\n");
    stage.edit("[app]\n", "[env]\nERA = \"new\"\n[app]\n");
    let planned = format!("release {before} -> {}", before + 1);
    stage.gaiola(&["plan"]).expect(0, &[&planned]);
    let seen = stage.under_load(&mut || _ = stage.gaiola(&["deploy"]).expect(0, &[]));
    seen.assert_nothing_failed();
    assert_eq!(stage.page("/new.html"), "a newer page\n");
    let newest = &all()[0];
    assert_eq!(
        (newest["release"].as_u64(), &newest["serves"]),
        (Some(before + 1), &Value::Bool(true))
    );
    let end = &newest["end"];
    assert!(
        end["requests"].as_u64() > Some(0) && end["failed"] == 0,
        "{newest}"
    );
    let by = newest["by"].as_str().unwrap_or_default();
    assert!(by.contains('@'), "{newest}");
    let began = Instant::now();
    let seen = stage.under_load(&mut || _ = stage.gaiola(&["rollback"]).expect(0, &[]));
    println!("  back in {:.1} s", began.elapsed().as_secs_f32());
    seen.assert_nothing_failed();
    assert_eq!(stage.page("/new.html"), "a new page\n");
    assert!(!environment(stage).stdout.contains("ERA="));
    let last = &all()[0];
    assert_eq!(
        (last["release"].as_u64(), last["back_from"].as_u64()),
        (Some(before), Some(before + 1))
    );
    let words = [
        format!("back from {}, came up in", before + 1),
        format!("{before}  "),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    stage.gaiola(&["releases"]).expect(0, &words);
    let none = "release 77 is not known; there are";
    stage.gaiola(&["rollback", "77"]).expect(1, &[none]);
    let same = format!("release {before} is what the site has already");
    let number = before.to_string();
    stage.gaiola(&["rollback", &number]).expect(1, &[&same]);
    // The directory is as it was: it is put out again, under a number of its own.
    stage.up().expect(0, &[]);
    assert_eq!(stage.page("/new.html"), "a newer page\n");
    assert_eq!(all()[0]["release"].as_u64(), Some(before + 2));
    stage.edit("[env]\nERA = \"new\"\n", "");
    stage.write("public/new.html", "a new page\n");
    stage.up().expect(0, &[]);
    stage.is_whole();
}

/// The environment of an instance on app1.
fn environment(stage: &dyn Stage) -> Ran {
    let of_instance = "tr '\\0' '\\n' < /proc/$(pgrep -x guestbook | head -n 1)/environ";
    stage.gaiola(&["exec", "app1", "--", "sh", "-c", of_instance])
}

fn sets(stage: &dyn Stage) {
    stage.edit("[app]\n", "[env]\nCOLOUR = \"red\"\nSHAPE = 4\n[app]\n");
    let planned =
        "app: the environment changes (COLOUR, SHAPE added): instances are replaced one at a time";
    stage.gaiola(&["plan"]).expect(0, &[planned]);
    let seen = stage.under_load(&mut || _ = stage.up().expect(0, &[]));
    seen.assert_nothing_failed();
    environment(stage).expect(0, &["COLOUR=red", "SHAPE=4"]);
    stage.edit("[env]\nCOLOUR = \"red\"\nSHAPE = 4\n", "");
    stage.up().expect(0, &[]);
    let ran = environment(stage);
    assert!(
        !ran.stdout.contains("COLOUR") && ran.stdout.contains("PORT="),
        "{ran:#?}"
    );
    stage.is_whole();
}

fn keeps_secrets(stage: &dyn Stage) {
    let set = |value: &str| stage.gaiola_given(value, &["secret", "set", "TOKEN"]);
    set("s3cret-one\n").expect(0, &["no variable refers to it yet"]);
    stage.edit("[app]\n", "[env]\nAPI = \"x-{secret.NONE}\"\n[app]\n");
    let missing = "`API` refers to the secret NONE, which is not there";
    stage.gaiola(&["check"]).expect(3, &[missing]);
    stage.up().expect(3, &[missing]);
    stage.edit("{secret.NONE}", "{secret.TOKEN}");
    let seen = stage.under_load(&mut || _ = stage.up().expect(0, &[]));
    seen.assert_nothing_failed();
    environment(stage).expect(0, &["API=x-s3cret-one"]);
    let seen = stage.under_load(&mut || _ = set("s3cret-two").expect(0, &[]));
    seen.assert_nothing_failed();
    environment(stage).expect(0, &["API=x-s3cret-two"]);
    set("s3cret-two").expect(0, &["nothing to change"]);
    let unset = || stage.gaiola(&["secret", "unset", "TOKEN"]);
    unset().expect(1, &["TOKEN is used by API"]);
    for shows in [
        &["secret", "list"][..],
        &["secret", "list", "--json"],
        &["status", "--json"],
        &["events", "--last", "200"],
        &["check", "--json"],
    ] {
        let ran = stage.gaiola(shows);
        assert!(
            ran.code == 0 && !ran.stdout.contains("s3cret"),
            "{shows:?}: {ran:#?}"
        );
    }
    stage.edit("[env]\nAPI = \"x-{secret.TOKEN}\"\n", "");
    stage.up().expect(0, &[]);
    unset().expect(0, &[]);
    unset().expect(2, &["there is no secret TOKEN"]);
    stage.is_whole();
}

/// Where clients of the lab and of machines are.
const CLIENTS: [&str; 4] = ["--allow", "127.0.0.0/8", "--allow", "10.78.0.0/24"];

fn maintains(stage: &dyn Stage) {
    // Requests go to all balancers in turn, or to whoever holds the VIP.
    let all = |status: u16| {
        let answers = (0..10).map(|_| stage.answer("/api/entries"));
        let answers: Vec<Answer> = answers.collect();
        let wrong = answers.iter().find(|answer| answer.status != status);
        assert_eq!(wrong, None, "not all are {status}");
        answers.into_iter().next().expect("there are ten")
    };
    stage.write("closed.html", "back at noon\n");
    let on = ["maintenance", "on"];
    let seen = stage.under_load(&mut || {
        let page = [&on[..], &["--page", "closed.html", "--retry-after", "90"]].concat();
        stage.gaiola(&page).expect(0, &["503 from lb1, lb2"]);
        let refused = all(503);
        let fields = ["\r\nretry-after: 90\r\n", "\r\ncache-control: no-store\r\n"];
        assert!(
            fields.iter().all(|field| refused.head.contains(field)),
            "{refused:?}"
        );
        assert_eq!(refused.body, "back at noon\n");
        stage
            .gaiola(&["status"])
            .expect(0, &["maintenance is on since", "end it with"]);
        let allowed = [&on[..], &CLIENTS].concat();
        stage.gaiola(&allowed).expect(0, &[]);
        all(200);
        let others = [&on[..], &["--allow", "192.0.2.0/24"]].concat();
        stage.gaiola(&others).expect(0, &[]);
        all(503);
        // A deployment goes on behind it.
        stage.write("public/meanwhile.html", "deployed meanwhile\n");
        stage.up().expect(0, &[]);
        all(503);
        stage
            .gaiola(&["maintenance", "off"])
            .expect(0, &["serve clients"]);
        all(200);
    });
    seen.assert_nothing_lost();
    let refused = |why: &&String| why.ends_with("HTTP 503");
    let others: Vec<&String> = seen.failures.iter().filter(|why| !refused(why)).collect();
    assert!(others.is_empty() && !seen.failures.is_empty(), "{seen:#?}");
    assert_eq!(stage.page("/meanwhile.html"), "deployed meanwhile\n");
    stage
        .gaiola(&["maintenance", "off"])
        .expect(0, &["nothing to change"]);
    let said = ["maintenance is on by", "maintenance is over"];
    stage.gaiola(&["events", "--last", "200"]).expect(0, &said);
    stage.is_whole();
}

fn works(stage: &dyn Stage) {
    let beat = "[worker.beat]\nservers = 1\nrun = \"while sleep 1; do echo beat $INSTANCE of $RELEASE; done\"\n";
    let both = format!("{beat}[worker.mail]\nrun = \"exec sleep 100000\"\n[app]\n");
    stage.edit("[app]\n", &both);
    let planned = "worker mail: is started once the instances are up";
    stage.gaiola(&["plan"]).expect(0, &[planned]);
    stage.up().expect(0, &[]);
    let names = |stage: &dyn Stage| {
        let status = stage.status();
        let servers = status["servers"].as_array().cloned().unwrap_or_default();
        let workers = servers
            .iter()
            .flat_map(|server| server["workers"].as_array().cloned().unwrap_or_default());
        let ready = workers.filter(|worker| worker["state"] == "ready");
        let names = ready.filter_map(|worker| Some(worker["name"].as_str()?.to_string()));
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(stage), ["app1.beat.1", "app1.mail.1", "app2.mail.1"]);
    stage
        .gaiola(&["logs", "-n", "app1", "--last", "50"])
        .expect(0, &["beat app1.beat.1 of"]);
    // One that is drained runs none; what runs on one server alone moves.
    stage.gaiola(&["drain", "app1"]).expect(0, &[]);
    assert_eq!(names(stage), ["app2.beat.1", "app2.mail.1"]);
    stage.gaiola(&["undrain", "app1"]).expect(0, &[]);
    assert_eq!(names(stage), ["app1.mail.1", "app2.beat.1", "app2.mail.1"]);
    // One that keeps ending fails the change, and requests do not notice.
    stage.edit("exec sleep 100000", "echo no queue; exit 3");
    let seen = stage.under_load(&mut || _ = stage.up().expect(1, &["app1.mail.1", "no queue"]));
    seen.assert_nothing_failed();
    stage.edit("echo no queue; exit 3", "exec sleep 200000");
    stage.up().expect(0, &[]);
    let without = |stage: &dyn Stage| stage.edit(&both.replace("100000", "200000"), "[app]\n");
    without(stage);
    stage.up().expect(0, &[]);
    assert!(names(stage).is_empty());
    stage.is_whole();
}

fn keeps_time(stage: &dyn Stage) {
    let cron = "[cron.tick]\nschedule = \"* * * * *\"\nrun = \"echo once for all\"\n\
                [cron.bad]\nschedule = \"* * * * *\"\nrun = \"echo no mail; exit 3\"\n[app]\n";
    stage.edit("[app]\n", cron);
    let planned = "cron tick: is run on its schedule";
    stage.gaiola(&["plan"]).expect(0, &[planned]);
    stage.up().expect(0, &[]);
    let last = |name: &str| {
        let status = stage.status();
        let crons = status["crons"].as_array().cloned().unwrap_or_default();
        let cron = crons.into_iter().find(|cron| cron["name"] == *name);
        let last = cron.map(|cron| cron["last"].as_array().cloned().unwrap_or_default());
        last.unwrap_or_default()
    };
    let deadline = Instant::now() + Duration::from_secs(90);
    while last("tick").is_empty() || last("bad").is_empty() {
        assert!(Instant::now() < deadline, "{}", stage.status());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(last("tick")[0]["outcome"], "succeeded");
    assert_eq!(
        (&last("bad")[0]["outcome"], &last("bad")[0]["status"]),
        (&"failed".into(), &3.into())
    );
    let failed = [
        "tick  * * * * * (UTC)  next ",
        "bad of ",
        "failed on app",
        "exited with status 3: no mail",
    ];
    stage.gaiola(&["status"]).expect(0, &failed);
    // Of two servers one has run it.
    let log = |server| {
        stage
            .gaiola(&["logs", "-n", server, "--last", "1000"])
            .stdout
    };
    let ticks = [log("app1"), log("app2")]
        .join("\n")
        .matches("once for all")
        .count();
    std::thread::sleep(Duration::from_secs(1));
    assert!((1..=last("tick").len()).contains(&ticks), "{ticks} ticks");
    stage.edit(cron, "[app]\n");
    stage.up().expect(0, &[]);
    assert_eq!(stage.status()["crons"], Value::Null);
    stage.is_whole();
}

fn gives_up(stage: &dyn Stage) {
    stage.edit("run = \"bin/guestbook\"", "run = \"bin/missing\"");
    let seen = stage.under_load(&mut || _ = stage.up().expect(1, &["bin/missing"]));
    seen.assert_nothing_failed();
    stage.edit("run = \"bin/missing\"", "run = \"bin/guestbook\"");
    stage.up().expect(0, &[]);
    stage.is_whole();
}

/// Its instances are ready, and fail whatever needs the database.
fn stops_itself(stage: &dyn Stage) {
    let (good, bad) = (
        "run = \"bin/guestbook\"",
        "run = \"DATABASE_URL=postgres://nobody@127.0.0.1:1/none bin/guestbook\"",
    );
    stage.edit(good, bad);
    let both = ["given up", " failed ", "in the same time"];
    let seen = stage.under_load(&mut || _ = stage.up().expect(1, &both));
    seen.assert_nothing_lost();
    let failed = seen.failed_at.len() as u64;
    println!("  failed {failed} of {}", seen.sent);
    assert!(failed > 0 && failed * 20 <= seen.sent, "{seen:#?}");
    let status = stage.gaiola(&["status"]).stdout;
    assert!(status.contains("in the same time"), "{status}");
    stage.edit(bad, good);
    stage.up().expect(0, &[]);
    stage.is_whole();
}

fn reaches(stage: &dyn Stage) {
    let ran = stage.gaiola(&["exec", "app1", "--", "sh", "-c", "echo here; exit 7"]);
    assert_eq!((ran.code, ran.stdout.trim()), (7, "here"), "{ran:#?}");
    let one_off =
        "test -x bin/guestbook && echo $INSTANCE of $SITE with ${DATABASE_URL%%:*}; exit 7";
    let ran = stage.gaiola(&["run", "--", "sh", "-c", one_off]);
    let said = ran.stdout.trim();
    assert!(
        ran.code == 7 && said.starts_with("run of ") && said.ends_with(" with postgres"),
        "{ran:#?}"
    );
    let ran = stage.gaiola_given("echo $INSTANCE\n", &["run"]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "run"), "{ran:#?}");
    stage
        .gaiola(&["logs", "-n", "app1"])
        .expect(0, &["serves on"]);
    stage.gaiola(&["events"]).expect(0, &["app1"]);
    stage.gaiola(&["plan"]).expect(0, &["nothing would change"]);
    stage.gaiola(&["check"]).expect(0, &[]);
}

fn refuses(stage: &dyn Stage) {
    let refused = [
        (&["drain", "web9"][..], "web9"),
        (&["scale", "cache=2"], "cache"),
        (&["exec", "db9", "--", "true"], "db9"),
        (&["run", "-n", "db1", "--", "true"], "db1"),
        (&["drill", "kill", "web9"], "web9"),
        (&["roll", "web9", "--", "true"], "web9"),
    ];
    for (args, word) in refused {
        let ran = stage.gaiola(args);
        assert!(
            ran.code != 0 && ran.stderr.contains(word),
            "{args:?}: {ran:#?}"
        );
    }
    stage.is_whole();
}

fn rolls(stage: &dyn Stage) {
    let seen = stage.under_load(&mut || {
        let roll = [
            "roll",
            "web",
            "app",
            "--",
            "sh",
            "-c",
            "echo it is its turn",
        ];
        stage.gaiola(&roll).expect(0, &["it is its turn"]);
    });
    // On machines balancers stand beside web servers: the VIP moves for each, and home again.
    seen.assert_nothing_failed();
    stage.is_whole();
}
