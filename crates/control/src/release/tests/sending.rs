//! Releases on their way to the site.

use super::*;

/// What a site made by an earlier version has is not sent again.
#[test]
fn the_digest_is_that_of_earlier_versions() {
    let place = Place::new();
    fs::create_dir(place.site().join("a")).unwrap();
    symlink("bin/run", place.site().join("run")).unwrap();
    let expected = "bbaa917be7182b67525ca590f68fa10793eb2a8b1b430af237388a615f86ac1a";
    assert_eq!(place.look().digest.as_str(), expected);
    assert_eq!(place.make(None).release.digest, expected);
}

#[test]
fn an_unchanged_release_is_not_sent() {
    let place = Place::new();
    let made = place.make(None);
    let look = place.look();
    assert!(has(&place.releases(), &look.digest, Some(&made.release)));
    let last = Some(&made.release);
    assert_eq!(
        number(&place.releases(), &look.digest, last)
            .unwrap()
            .release,
        made.release
    );
    // Without the last one nobody knows what a number stands for.
    assert!(!has(&place.releases(), &look.digest, None));
    let absent = number(&place.releases(), &look.digest, None).unwrap_err();
    assert!(matches!(absent, ReleaseError::Absent(_)), "{absent}");
}

#[test]
fn what_breaks_off_leaves_nothing() {
    let place = Place::new();
    let look = place.look();
    let archive = packed(&look);
    for length in (0..archive.len() - 1024).step_by(200) {
        let cut = receive(&archive[..length], &place.releases(), &look.digest);
        assert!(cut.is_err(), "{length}");
    }
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let broken = io::Read::chain(&archive[..archive.len() - 1024], Broken);
    let why = receive(broken, &place.releases(), &look.digest).unwrap_err();
    assert!(matches!(why, ReleaseError::NotUnpacked(_)), "{why}");
    assert_eq!(copy::names(&place.releases()).unwrap(), [""; 0]);
}

#[test]
fn other_contents_than_was_said_are_rejected() {
    let place = Place::new();
    let before = place.look();
    let archive = packed(&before);
    place.write("public/index.html", "hullo");
    let now = place.look();
    let why = receive(&archive[..], &place.releases(), &now.digest).unwrap_err();
    assert!(
        matches!(&why, ReleaseError::OtherContents { received, .. } if *received == before.digest),
        "{why}"
    );
    assert_eq!(copy::names(&place.releases()).unwrap(), [""; 0]);
}

#[test]
fn what_is_sent_waits_until_it_is_numbered_or_something_else_is_sent() {
    let place = Place::new();
    let receive_now = || {
        let look = place.look();
        let received = receive(&packed(&look)[..], &place.releases(), &look.digest);
        received.unwrap().hold().unwrap();
        look.digest
    };
    let first = receive_now();
    assert!(has(&place.releases(), &first, None));
    assert_eq!(numbers(&place.releases()).unwrap(), []);
    place.write("public/index.html", "hullo");
    let second = receive_now();
    assert!(!has(&place.releases(), &first, None));
    let made = number(&place.releases(), &second, None).unwrap();
    assert_eq!((made.release.number, made.new), (ReleaseNumber(1), true));
    let page = fs::read_to_string(made.path.join("public/index.html"));
    assert_eq!(page.unwrap(), "hullo");
    assert!(!has(&place.releases(), &second, None));
    assert_eq!(copy::names(&place.releases()).unwrap(), ["1"]);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_named() {
    let place = Place::new();
    place.write("public/other", "x");
    for change in [
        (|place: &Place| place.write("public/index.html", "hullo")) as fn(&Place),
        |place| place.write("public/index.html", ""),
        |place| fs::remove_file(place.site().join("public/index.html")).unwrap(),
    ] {
        place.write("public/index.html", "hello");
        let look = place.look();
        change(&place);
        let why = look.pack(&mut Vec::new(), &mut |_| {}).unwrap_err();
        assert!(
            matches!(&why, ReleaseError::Changing(path) if path.ends_with("public/index.html")),
            "{why}"
        );
    }
    // What was appended since is of the next look.
    place.write("public/index.html", "hello");
    let look = place.look();
    place.write("public/index.html", "hello, world");
    let archive = packed(&look);
    assert!(receive(&archive[..], &place.releases(), &look.digest).is_ok());
}

#[test]
fn a_link_that_leads_out_and_in_again_by_name_is_refused() {
    let place = Place::new();
    symlink("../site/public", place.site().join("again")).unwrap();
    let why = place.try_look().unwrap_err();
    assert!(matches!(why, ReleaseError::LinkOutside { .. }), "{why}");
}
