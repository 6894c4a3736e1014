use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, btree_map};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use tar::{Builder, EntryType, Header};

const RULES: Rules = Rules {
    entries: 50,
    files: 5,
    file_bytes: 1000,
    bytes: 2000,
    names: 20_000,
    links: true,
    directory: 0o755,
    file: 0o444,
    executable: 0o555,
};

/// One entry as `tar` would never write it.
struct Raw {
    kind: EntryType,
    path: &'static [u8],
    target: &'static [u8],
    contents: Vec<u8>,
}

fn raw(kind: EntryType, path: &'static str) -> Raw {
    Raw {
        kind,
        path: path.as_bytes(),
        target: b"",
        contents: Vec::new(),
    }
}

fn file(path: &'static str) -> Raw {
    raw(EntryType::Regular, path)
}

fn directory(path: &'static str) -> Raw {
    raw(EntryType::Directory, path)
}

fn link(path: &'static str, target: &'static str) -> Raw {
    Raw {
        target: target.as_bytes(),
        ..raw(EntryType::Symlink, path)
    }
}

fn record(kind: EntryType, contents: impl Into<Vec<u8>>) -> Raw {
    Raw {
        contents: contents.into(),
        ..raw(kind, "record")
    }
}

fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(0o644);
        header.set_size(entry.contents.len() as u64);
        header.as_old_mut().name[..entry.path.len()].copy_from_slice(entry.path);
        header.set_link_name_literal(entry.target).unwrap();
        header.set_cksum();
        builder.append(&header, &entry.contents[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What stands below a directory: mode, and contents or target, by path. Links are not followed.
fn below(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let held = fs::symlink_metadata(&path).unwrap();
            let contents = if held.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else if held.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(directory).unwrap().to_path_buf();
            all.insert(name, (held.permissions().mode() & 0o777, contents));
        }
    }
    all
}

fn unpacked(archive: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
    let place = tempfile::tempdir().unwrap();
    let into = place.path().join("in/there");
    fs::create_dir_all(&into).unwrap();
    let unpacked = unpack(archive, &into, &RULES);
    let beside = below(place.path());
    let escaped = beside.keys().find(|path| !path.starts_with("in"));
    assert_eq!(escaped, None, "nothing is made beside the directory");
    unpacked
}

fn why(entries: &[Raw]) -> Reason {
    match unpacked(&archive(entries)) {
        Err(ArchiveError::Rejected { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_would_lead_out_of_the_directory_is_rejected() {
    for path in [
        "/etc/passwd",
        "../out",
        "a/../../out",
        "a/..",
        "..",
        ".",
        "",
        "/",
        "./a",
    ] {
        assert_eq!(why(&[directory("a"), file(path)]), Reason::Path, "{path}");
    }
    for path in ["up/out", "up/there/out"] {
        let through = [link("up", ".."), file(path)];
        assert_eq!(why(&through), Reason::Parent, "{path}");
    }
    let over = [link("up", "../out"), file("up")];
    assert_eq!(why(&over), Reason::Twice);
    let replaced = [directory("a"), link("a", "..")];
    assert_eq!(why(&replaced), Reason::Twice);
    let long = format!("../{}", "x/".repeat(100));
    let long = [record(EntryType::GNULongName, long), file("short")];
    assert_eq!(why(&long), Reason::Path);
}

#[test]
fn links_that_lead_out_are_rejected_however_they_get_there() {
    for (path, target) in [
        ("a/absolute", "/etc"),
        ("a/absent", "/nowhere"),
        ("a/up", "../../out"),
        ("a/again", "../../there/a"),
        ("a/by-another", "dir/../../x"),
        ("a/dangling", "../../nowhere"),
    ] {
        let entries = [
            directory("a"),
            link("dir", "."),
            link("a/dir", ".."),
            link(path, target),
        ];
        assert_eq!(why(&entries), Reason::LinkOutside, "{target}");
    }
    let fine = [
        directory("a"),
        file("a/x"),
        link("a/y", "../a/x"),
        link("b", "a"),
        link("left-out", "a/.env"),
        link("circle", "circle"),
    ];
    assert_eq!(unpacked(&archive(&fine)).unwrap().len(), 6);
}

#[test]
fn only_files_directories_and_links_are_accepted() {
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::XGlobalHeader,
        EntryType::new(b'Z'),
    ] {
        assert_eq!(why(&[raw(kind, "x")]), Reason::Kind, "{kind:?}");
    }
    for kind in [EntryType::Directory, EntryType::Symlink] {
        let with_contents = Raw {
            contents: b"x".to_vec(),
            target: b"x",
            ..raw(kind, "x")
        };
        assert_eq!(why(&[with_contents]), Reason::Kind, "{kind:?}");
    }
    let place = tempfile::tempdir().unwrap();
    let rules = Rules {
        links: false,
        ..RULES
    };
    let archive = archive(&[link("a", "b")]);
    assert!(unpack(&archive[..], place.path(), &rules).is_err());
}

#[test]
fn records_belong_to_the_entry_that_follows_and_are_short() {
    use EntryType::{GNULongLink, GNULongName, XHeader};
    let time = || record(XHeader, *b"21 mtime=1.500000000\n");
    assert!(unpacked(&archive(&[time(), file("x")])).is_ok());
    for entries in [
        vec![time()],
        vec![time(), time(), file("x")],
        vec![
            record(GNULongName, *b"a"),
            record(GNULongName, *b"b"),
            file("x"),
        ],
        vec![record(XHeader, *b"10 size=9\n"), file("x")],
        vec![record(XHeader, *b"no record"), file("x")],
        vec![
            record(XHeader, *b"21 mtime=1.500000000\n12 size=999\n"),
            file("x"),
        ],
        vec![record(GNULongName, vec![b'x'; 5000]), file("x")],
        vec![record(GNULongLink, *b"a\0b"), link("x", "")],
        vec![link("x", "")],
    ] {
        assert_eq!(why(&entries), Reason::Records);
    }
    assert_eq!(
        why(&[record(GNULongName, *b"a\0b"), file("x")]),
        Reason::Path
    );
    let mut behind = archive(&[file("x")]);
    behind.extend_from_slice(&archive(&[file("y")]));
    assert!(matches!(
        unpacked(&behind),
        Err(ArchiveError::Rejected {
            why: Reason::Records,
            ..
        })
    ));
}

#[test]
fn each_limit_is_enforced() {
    let what = |archive: &[u8]| match unpacked(archive) {
        Err(ArchiveError::TooLarge { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let of = |path, length| Raw {
        contents: vec![b'x'; length],
        ..file(path)
    };
    let names = ["a", "b", "c", "d", "e", "f"];
    assert!(
        unpacked(&archive(
            &names[..5].iter().map(|name| file(name)).collect::<Vec<_>>()
        ))
        .is_ok()
    );
    assert_eq!(what(&archive(&names.map(file))), "files");
    assert_eq!(what(&archive(&[of("a", 1001)])), "bytes in one file");
    assert_eq!(
        what(&archive(
            &names[..3]
                .iter()
                .map(|name| of(name, 900))
                .collect::<Vec<_>>()
        )),
        "bytes"
    );
    let many: Vec<Raw> = (0..51)
        .map(|_| record(EntryType::GNULongName, *b"x"))
        .collect();
    assert!(matches!(
        unpacked(&archive(&many)),
        Err(ArchiveError::Rejected { .. })
    ));
    let mut deep = Vec::new();
    for number in 0..20_u8 {
        let name = format!("{}{number}", "x".repeat(240));
        deep.push(record(EntryType::GNULongName, name));
        deep.push(link("short", "target"));
    }
    assert!(unpacked(&archive(&deep)).is_ok());
    deep.extend((20..40_u8).map(|number| record(EntryType::GNULongLink, vec![number; 4000])));
    let huge: Vec<Raw> = (0..6_u8)
        .flat_map(|number| {
            let name = [b'a' + number].to_vec();
            let target = vec![b'x'; 4000];
            [
                record(EntryType::GNULongName, name),
                record(EntryType::GNULongLink, target),
                link("short", ""),
            ]
        })
        .collect();
    assert_eq!(what(&archive(&huge)), "bytes in names");
    let directories: Vec<Raw> = (0..51_u8)
        .flat_map(|number| {
            [
                record(EntryType::GNULongName, [b'0' + number]),
                directory("x"),
            ]
        })
        .collect();
    assert_eq!(what(&archive(&directories)), "entries");
}

#[test]
fn a_header_that_claims_more_than_there_is_is_an_error() {
    let mut short = archive(&[Raw {
        contents: vec![b'x'; 600],
        ..file("x")
    }]);
    short.truncate(512 + 300);
    assert!(matches!(unpacked(&short), Err(ArchiveError::Read(_))));
    let mut garbled = archive(&[file("x")]);
    garbled[0] = b'y';
    assert!(matches!(unpacked(&garbled), Err(ArchiveError::Read(_))));
}

#[test]
fn a_time_is_kept_to_the_nanosecond_and_before_1970_too() {
    for (seconds, nanoseconds, text) in [
        (0, 0, "0.000000000"),
        (1_700_000_000, 7_000, "1700000000.000007000"),
        (-2, 500_000_000, "-1.500000000"),
        (-1, 1, "-0.999999999"),
        (-3, 0, "-3.000000000"),
    ] {
        let time = Time {
            seconds,
            nanoseconds,
        };
        assert_eq!(time.to_decimal(), text);
        assert_eq!(Time::from_decimal(text), Some(time));
    }
    for none in [
        "",
        ".",
        "1.",
        "-",
        "1.0000000000",
        "+1",
        "1e9",
        "99999999999999999999",
        "1.-5",
    ] {
        assert_eq!(Time::from_decimal(none), None, "{none}");
    }
}

/// Names as a file system has them: any bytes but `/` and NUL.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(b'\n'), Just(0xff), 1_u8..=255];
    prop::collection::vec(byte, 1..130).prop_filter("a name", |name| {
        !name.contains(&b'/') && name != b"." && name != b".."
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_packed_is_unpacked(
        folder in name(),
        names in prop::collection::btree_map(name(), prop::collection::vec(any::<u8>(), 0..300), 0..5),
        link in name(),
        time in (-2_000_000_000_i64..2_000_000_000, 0_u32..1_000_000_000),
        executable: bool,
    ) {
        let folder = PathBuf::from(OsString::from_vec(folder));
        let time = Time { seconds: time.0, nanoseconds: time.1 };
        let mut archive = Vec::new();
        let mut packer = Packer::new(&mut archive);
        packer.directory(&folder).unwrap();
        let mut expected = BTreeMap::from([(folder.clone(), (0o755, Vec::new()))]);
        for (name, contents) in &names {
            let path = folder.join(OsString::from_vec(name.clone()));
            packer
                .file(&path, executable, Some(time), contents.len() as u64, &mut &contents[..])
                .unwrap();
            let mode = if executable { 0o555 } else { 0o444 };
            expected.insert(path, (mode, contents.clone()));
        }
        let link = folder.join(OsString::from_vec(link));
        if let btree_map::Entry::Vacant(vacant) = expected.entry(link) {
            let target = OsString::from_vec(b".///././".to_vec());
            packer.link(vacant.key(), Path::new(&target)).unwrap();
            vacant.insert((0o777, target.into_vec()));
        }
        packer.finish().unwrap();

        let place = tempfile::tempdir().unwrap();
        let entries = unpack(&archive[..], place.path(), &RULES).unwrap();
        prop_assert_eq!(below(place.path()), expected.clone());
        let paths: std::collections::BTreeSet<_> = entries.iter().map(|e| e.path.clone()).collect();
        prop_assert_eq!(paths, expected.into_keys().collect());
        for name in names.keys() {
            let path = place.path().join(&folder).join(OsString::from_vec(name.clone()));
            let held = fs::metadata(path).unwrap();
            prop_assert_eq!((held.mtime(), held.mtime_nsec()), (time.seconds, i64::from(time.nanoseconds)));
        }
    }

    #[test]
    fn no_bytes_cause_a_panic_or_leave_the_directory(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        at in 0_usize..2048,
    ) {
        let _ = unpacked(&bytes);
        let mut whole = archive(&[directory("a"), file("a/b"), link("a/c", "b")]);
        for (place, byte) in whole.iter_mut().skip(at).zip(&bytes[..bytes.len().min(8)]) {
            *place = *byte;
        }
        let _ = unpacked(&whole);
    }
}
