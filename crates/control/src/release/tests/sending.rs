//! Releases on their way to the site.

use super::*;

/// What a site made by an earlier version has is not sent again.
#[test]
fn the_digest_is_that_of_earlier_versions() {
    let dir = Directory::new();
    fs::create_dir(dir.site().join("a")).unwrap();
    symlink("bin/run", dir.site().join("run")).unwrap();
    let expected = "bbaa917be7182b67525ca590f68fa10793eb2a8b1b430af237388a615f86ac1a";
    assert_eq!(dir.scan().digest.as_str(), expected);
    assert_eq!(dir.make(None).release.digest, expected);
}

#[test]
fn an_unchanged_release_is_not_sent() {
    let dir = Directory::new();
    let made = dir.make(None);
    let scan = dir.scan();
    assert!(has(&dir.releases(), &scan.digest, Some(&made.release)));
    let last = Some(&made.release);
    assert_eq!(
        number(&dir.releases(), &scan.digest, last, highest(last))
            .unwrap()
            .release,
        made.release
    );
    // Without the last one nobody knows what a number stands for.
    assert!(!has(&dir.releases(), &scan.digest, None));
    let absent = number(&dir.releases(), &scan.digest, None, highest(None)).unwrap_err();
    assert!(matches!(absent, ReleaseError::Absent(_)), "{absent}");
}

#[test]
fn what_breaks_off_leaves_nothing() {
    let dir = Directory::new();
    let scan = dir.scan();
    let archive = packed(&scan);
    for length in (0..archive.len() - 1024).step_by(200) {
        let cut = receive(&archive[..length], &dir.releases(), &scan.digest);
        assert!(cut.is_err(), "{length}");
    }
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let broken = io::Read::chain(&archive[..archive.len() - 1024], Broken);
    let why = receive(broken, &dir.releases(), &scan.digest).unwrap_err();
    assert!(matches!(why, ReleaseError::NotUnpacked(_)), "{why}");
    assert_eq!(copy::names(&dir.releases()).unwrap(), [""; 0]);
}

#[test]
fn other_contents_than_was_said_are_rejected() {
    let dir = Directory::new();
    let before = dir.scan();
    let archive = packed(&before);
    dir.write("public/index.html", "hullo");
    let now = dir.scan();
    let why = receive(&archive[..], &dir.releases(), &now.digest).unwrap_err();
    assert!(
        matches!(&why, ReleaseError::OtherContents { received, .. } if *received == before.digest),
        "{why}"
    );
    assert_eq!(copy::names(&dir.releases()).unwrap(), [""; 0]);
}

#[test]
fn what_is_sent_waits_until_it_is_numbered_or_something_else_is_sent() {
    let dir = Directory::new();
    let receive_now = || {
        let scan = dir.scan();
        let received = receive(&packed(&scan)[..], &dir.releases(), &scan.digest);
        received.unwrap().hold().unwrap();
        scan.digest
    };
    let first = receive_now();
    assert!(has(&dir.releases(), &first, None));
    assert_eq!(numbers(&dir.releases()).unwrap(), []);
    dir.write("public/index.html", "hullo");
    let second = receive_now();
    assert!(!has(&dir.releases(), &first, None));
    let made = number(&dir.releases(), &second, None, highest(None)).unwrap();
    assert_eq!((made.release.number, made.new), (ReleaseNumber(1), true));
    let page = fs::read_to_string(made.path.join("public/index.html"));
    assert_eq!(page.unwrap(), "hullo");
    assert!(!has(&dir.releases(), &second, None));
    assert_eq!(copy::names(&dir.releases()).unwrap(), ["1"]);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_named() {
    let dir = Directory::new();
    dir.write("public/other", "x");
    for change in [
        (|dir: &Directory| dir.write("public/index.html", "hullo")) as fn(&Directory),
        |dir| dir.write("public/index.html", ""),
        |dir| fs::remove_file(dir.site().join("public/index.html")).unwrap(),
    ] {
        dir.write("public/index.html", "hello");
        let scan = dir.scan();
        change(&dir);
        let why = scan.pack(&mut Vec::new(), &mut |_| {}).unwrap_err();
        assert!(
            matches!(&why, ReleaseError::Changing(path) if path.ends_with("public/index.html")),
            "{why}"
        );
    }
    // What was appended since is of the next scan.
    dir.write("public/index.html", "hello");
    let scan = dir.scan();
    dir.write("public/index.html", "hello, world");
    let archive = packed(&scan);
    assert!(receive(&archive[..], &dir.releases(), &scan.digest).is_ok());
}

#[test]
fn a_link_that_leads_out_and_in_again_by_name_is_refused() {
    let dir = Directory::new();
    symlink("../site/public", dir.site().join("again")).unwrap();
    let why = dir.try_scan().unwrap_err();
    assert!(matches!(why, ReleaseError::LinkOutside { .. }), "{why}");
}

/// A release made beside, with this text on its page, as another machine sends it.
fn received(dir: &Directory, text: &str) -> (Received, Digest) {
    dir.write("public/index.html", text);
    let scan = dir.scan();
    let received = receive(&packed(&scan)[..], &dir.releases(), &scan.digest);
    (received.unwrap(), scan.digest)
}

#[test]
fn what_a_failed_change_left_under_a_number_gives_way_to_what_belongs_there() {
    let dir = Directory::new();
    let number = ReleaseNumber(7);
    let page = || fs::read_to_string(dir.releases().join("7/public/index.html")).unwrap();
    let (left, left_digest) = received(&dir, "left");
    left.keep_as(number).unwrap();
    let (new, digest) = received(&dir, "new");
    let is = |digest: &Digest| contents(&dir.releases(), number, digest).unwrap();
    assert_eq!(is(&left_digest), Contents::Expected);
    assert_eq!(is(&digest), Contents::Other);
    new.keep_as(number).unwrap();
    assert_eq!((is(&digest), page()), (Contents::Expected, "new".into()));
    // The same again: what is there stays.
    let there = fs::metadata(dir.releases().join("7")).unwrap();
    received(&dir, "new").0.keep_as(number).unwrap();
    let after = fs::metadata(dir.releases().join("7")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(there.ino(), after.ino());
    assert_eq!(copy::names(&dir.releases()).unwrap(), ["7"]);
}

#[test]
fn what_an_earlier_version_made_is_known_by_its_contents() {
    let dir = Directory::new();
    let made = dir.make(None).release;
    let digest: Digest = made.digest.parse().unwrap();
    let noted = gaiola_agent::state::release_digest(&dir.releases(), made.number);
    fs::remove_file(&noted).unwrap();
    let is = |digest: &Digest| contents(&dir.releases(), made.number, digest).unwrap();
    assert_eq!(is(&Digest::of(&[7; 32])), Contents::Other);
    assert_eq!(fs::read_to_string(&noted).unwrap(), made.digest);
    assert_eq!(is(&digest), Contents::Expected);
    let absent = contents(&dir.releases(), ReleaseNumber(9), &digest).unwrap();
    assert_eq!(absent, Contents::Absent);
}

#[test]
fn a_site_does_not_have_its_last_release_where_other_contents_have_its_number() {
    let dir = Directory::new();
    received(&dir, "left").0.keep_as(ReleaseNumber(8)).unwrap();
    dir.write("public/index.html", "desired");
    let scan = dir.scan();
    let last = Release {
        number: ReleaseNumber(8),
        digest: scan.digest.to_string(),
    };
    assert!(!has(&dir.releases(), &scan.digest, Some(&last)));
    let made = send(&scan, &dir.releases(), Some(&last)).unwrap();
    assert_eq!(made.release, last);
    let page = fs::read_to_string(made.path.join("public/index.html"));
    assert_eq!(page.unwrap(), "desired");
}

#[test]
fn the_digest_goes_with_its_release() {
    let dir = Directory::new();
    for number in 1..=KEPT as u64 + 1 {
        let (new, _) = received(&dir, &number.to_string());
        new.keep_as(ReleaseNumber(number)).unwrap();
    }
    let noted = |number| copy::known_digest(&dir.releases(), ReleaseNumber(number));
    assert!(noted(1).is_some());
    assert_eq!(prune(&dir.releases(), &[]).unwrap(), [ReleaseNumber(1)]);
    assert!(noted(1).is_none() && noted(2).is_some());
}
