//! The rooms of the house: which crate may use which, and what some of them must never touch. ARCHITECTURE.md, "Rooms".

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Each room with the rooms that it may use.
const ARROWS: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("wire", &["model"]),
    ("core", &["model"]),
    ("sim", &["core", "model", "wire"]),
    ("os", &[]),
    ("net", &["model", "os", "wire"]),
    ("store", &["core", "model", "net", "os", "wire"]),
    ("proxy", &["core", "model", "os", "wire"]),
    ("agent", &["core", "model", "net", "os", "store", "wire"]),
    (
        "control",
        &[
            "agent", "core", "model", "net", "os", "proxy", "store", "wire",
        ],
    ),
    (
        "cli",
        &[
            "agent", "control", "core", "model", "net", "os", "proxy", "store", "wire",
        ],
    ),
    ("e2e", &["control", "core", "model", "net", "os"]),
];

/// Rooms without IO, and what would be IO.
const PURE: [&str; 3] = ["model", "wire", "core"];
const IO: [&str; 6] = ["tokio", "rustix", "hyper", "socket2", "libc", "gaiola-os"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn folder(room: &str) -> PathBuf {
    match room {
        "e2e" => root().join(room),
        room => root().join("crates").join(room),
    }
}

/// What a room's manifest says that it uses, tests apart.
fn dependencies(room: &str) -> Vec<String> {
    let text = fs::read_to_string(folder(room).join("Cargo.toml")).unwrap();
    let manifest: Table = text.parse().unwrap();
    let dependencies = manifest.get("dependencies").and_then(Value::as_table);
    let names = dependencies.into_iter().flat_map(Table::keys);
    names.cloned().collect()
}

/// Every Rust file below a path, which may be a file itself, without its tests.
fn sources(path: &Path) -> Vec<(PathBuf, String)> {
    let file = path.with_extension("rs");
    let mut found: Vec<PathBuf> = file.is_file().then_some(file).into_iter().collect();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(ending) if ending == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let parts = text.split("#[cfg(test)]\n");
        let is_tests = |part: &&str| {
            part.lines()
                .next()
                .is_some_and(|line| line.contains("mod tests {"))
        };
        let code: Vec<&str> = parts.take_while(|part| !is_tests(part)).collect();
        (path, code.join("#[cfg(test)]\n"))
    };
    found.into_iter().map(text).collect()
}

/// Lines of these sources that name something forbidden.
fn naming(sources: &[(PathBuf, String)], forbidden: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, text) in sources {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let found = code.filter(|line| line.contains(forbidden));
        lines.extend(found.map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    lines
}

#[test]
fn each_room_uses_only_the_rooms_below_it() {
    let mut wrong = BTreeMap::new();
    for (room, allowed) in ARROWS {
        let used = dependencies(room);
        let rooms = used.iter().filter_map(|name| name.strip_prefix("gaiola-"));
        let upwards: Vec<&str> = rooms.filter(|name| !allowed.contains(name)).collect();
        if !upwards.is_empty() {
            wrong.insert(room, upwards.join(", "));
        }
    }
    assert!(wrong.is_empty(), "used from the wrong room: {wrong:?}");
}

#[test]
fn every_room_is_listed() {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    for entry in crates {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(ARROWS.iter().any(|(room, _)| *room == name), "{name}");
    }
}

#[test]
fn decisions_and_decoders_do_no_io() {
    for room in PURE {
        let used = dependencies(room);
        let io: Vec<_> = used.iter().filter(|name| IO.contains(&&***name)).collect();
        assert!(io.is_empty(), "{room} uses {io:?}");
        let sources = sources(&folder(room).join("src"));
        for forbidden in [
            "std::net::Tcp",
            "std::net::Udp",
            "std::fs",
            "Instant::now",
            "SystemTime::now",
        ] {
            assert_eq!(naming(&sources, forbidden), [""; 0], "{room}");
        }
    }
}

#[test]
fn the_vip_keeper_has_no_runtime() {
    let sources = sources(&folder("agent").join("src/keeper/vip"));
    assert!(!sources.is_empty());
    assert_eq!(naming(&sources, "tokio"), [""; 0]);
}

#[test]
fn only_the_provider_knows_the_lab() {
    for module in [
        "api",
        "archive",
        "certificates",
        "change",
        "drill",
        "monitor",
        "release",
        "site",
        "socket",
        "traffic",
    ] {
        let sources = sources(&folder("control").join("src").join(module));
        assert!(!sources.is_empty(), "{module}");
        assert_eq!(naming(&sources, "provider::lab"), [""; 0], "{module}");
    }
}

#[test]
fn only_the_lab_chooses_its_addresses() {
    let lab = Path::new("crates/control/src/provider/lab");
    for (room, _) in ARROWS
        .iter()
        .filter(|(room, _)| !matches!(*room, "e2e" | "sim"))
    {
        let all = sources(&folder(room).join("src"));
        let is_test = |path: &Path| {
            path.iter()
                .any(|part| part.to_string_lossy().starts_with("tests"))
        };
        let all = all.into_iter().filter(|(path, _)| !is_test(path));
        let (labs, others): (Vec<_>, Vec<_>) = all.partition(|(path, _)| {
            let path = path.canonicalize().unwrap();
            path.starts_with(root().join(lab).canonicalize().unwrap())
        });
        assert_eq!(labs.is_empty(), *room != "control");
        for address in ["10.77.", "[10, 77"] {
            assert_eq!(naming(&others, address), [""; 0], "{room}");
        }
        let interface = naming(&others, "\"eth0\"");
        // Boot files of 0.1, which had a lab alone, do not name it.
        let allowed = usize::from(*room == "agent");
        assert_eq!(interface.len(), allowed, "{room}: {interface:?}");
    }
}

#[test]
fn only_os_is_unsafe() {
    for (room, _) in ARROWS.iter().filter(|(room, _)| *room != "os") {
        let sources = sources(&folder(room).join("src"));
        assert_eq!(naming(&sources, "unsafe {"), [""; 0], "{room}");
        assert_eq!(naming(&sources, "allow(unsafe_code)"), [""; 0], "{room}");
    }
}

/// The paths of a `use` statement, one by one: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.trim().to_string()];
    };
    let inside = inside.trim_end().strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inside.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match letter {
            ',' if depth == 0 => parts.push(String::new()),
            letter => parts.last_mut().unwrap().push(letter),
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    let each = parts.flat_map(|part| paths(part));
    each.map(|path| format!("{}{path}", before.trim()))
        .collect()
}

/// The folder of the crate that a path leads to from a file, where it leads to another one.
fn folder_of(module: &[&str], path: &str) -> Option<String> {
    let mut words = path.split("::").peekable();
    let mut depth = module.len();
    match words.peek() {
        Some(&"crate") => (depth, _) = (0, words.next()),
        Some(&"super" | &"self") => {}
        _ => return None,
    }
    while let Some(&word) = words.peek() {
        match word {
            "super" => depth -= 1,
            "self" => {}
            word if depth == 0 => return Some(word.to_string()),
            _ => return None,
        }
        words.next();
    }
    None
}

/// From each top folder of a crate (a file with its children) to those that it uses.
fn arrows(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources(src) {
        let place = path.strip_prefix(src).unwrap().with_extension("");
        let module: Vec<&str> = place.iter().filter_map(|word| word.to_str()).collect();
        let [top, ..] = *module else { continue };
        if ["lib", "main"].contains(&top) || module.contains(&"tests") {
            continue;
        }
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code = code.collect::<Vec<_>>().join(" ");
        let uses = code
            .split("use ")
            .skip(1)
            .filter_map(|rest| rest.split(';').next());
        let found = uses
            .flat_map(paths)
            .filter_map(|path| folder_of(&module, &path));
        arrows.entry(top.to_string()).or_default().extend(found);
    }
    let folders: BTreeSet<String> = arrows.keys().cloned().collect();
    for (from, to) in &mut arrows {
        to.retain(|name| name != from && folders.contains(name));
    }
    arrows
}

#[test]
fn no_circle_of_files_is_larger_than_a_folder_with_its_children() {
    for (room, _) in ARROWS.iter().filter(|(room, _)| *room != "e2e") {
        let mut arrows = arrows(&folder(room).join("src"));
        // Whatever uses nothing any more is taken out, until only circles are left.
        while let Some(leaf) = arrows
            .iter()
            .find_map(|(name, to)| to.is_empty().then(|| name.clone()))
        {
            arrows.remove(&leaf);
            arrows.values_mut().for_each(|to| _ = to.remove(&leaf));
        }
        assert!(arrows.is_empty(), "{room}: a circle is among {arrows:?}");
    }
}

#[test]
fn the_paths_of_a_use_statement_are_found() {
    assert_eq!(
        paths("super::a::{self, b::{C, d}, E as F}"),
        [
            "super::a::self",
            "super::a::b::C",
            "super::a::b::d",
            "super::a::E"
        ]
    );
    assert_eq!(
        folder_of(&["http", "body"], "super::super::io::Buffer").as_deref(),
        Some("io")
    );
    assert_eq!(folder_of(&["http", "body"], "super::record"), None);
    assert_eq!(
        folder_of(&["http"], "crate::log::Leg").as_deref(),
        Some("log")
    );
}
