//! Every cause with what HAProxy writes in the same case, and the answer that HAProxy gives.

use super::{Cause, CookieState, Phase, Received, Sent};

const fn rejected(phase: Phase, status: u16) -> Cause {
    Cause::Rejected { phase, status }
}

#[test]
fn letters_and_status_are_those_of_haproxy() {
    let table = [
        (Cause::Completed, b"--", None),
        (Cause::Answered, b"LR", None),
        (Cause::NoBackend, b"LR", Some(404)),
        (Cause::NothingServed, b"PR", Some(503)),
        (rejected(Phase::Request, 403), b"PR", Some(403)),
        (rejected(Phase::Response, 400), b"PH", Some(400)),
        (rejected(Phase::Data, 413), b"PD", Some(413)),
        (Cause::OutOfMemory, b"RR", Some(503)),
        (Cause::ClientLeft(Phase::Request), b"CR", Some(499)),
        (Cause::ClientLeft(Phase::Queue), b"CQ", Some(499)),
        (Cause::ClientLeft(Phase::Connect), b"CC", Some(499)),
        (Cause::ClientLeft(Phase::Response), b"CH", Some(499)),
        (Cause::ClientLeft(Phase::Data), b"CD", Some(499)),
        (Cause::ClientTimedOut(Phase::Request), b"cR", Some(408)),
        (Cause::ClientTimedOut(Phase::Response), b"cH", Some(408)),
        (Cause::ClientTimedOut(Phase::Data), b"cD", Some(408)),
        (Cause::NoServer, b"SC", Some(503)),
        (Cause::QueueFull, b"PQ", Some(503)),
        (Cause::QueueTimedOut, b"sQ", Some(503)),
        (Cause::ServerFailed(Phase::Connect), b"SC", Some(503)),
        (Cause::ServerFailed(Phase::Response), b"SH", Some(502)),
        (Cause::ServerFailed(Phase::Data), b"SD", Some(502)),
        (Cause::ServerTimedOut(Phase::Connect), b"sC", Some(503)),
        (Cause::ServerTimedOut(Phase::Response), b"sH", Some(504)),
        (Cause::ServerTimedOut(Phase::Data), b"sD", Some(504)),
        (Cause::BadResponse(Phase::Response), b"PH", Some(502)),
        (Cause::BadResponse(Phase::Data), b"PD", Some(502)),
        (Cause::ServerDown(Phase::Data), b"DD", Some(502)),
        (Cause::ServerDead(Phase::Response), b"DH", Some(502)),
        (Cause::SessionsShutdown(Phase::Data), b"KD", Some(502)),
    ];
    for (cause, letters, status) in table {
        assert_eq!(
            (cause.letters(), cause.status()),
            (*letters, status),
            "{cause:?}"
        );
    }
}

#[test]
fn whatever_is_no_good_end_has_words() {
    assert_eq!(Cause::default().words(), "");
    assert_eq!(Cause::Answered.words(), "");
    for phase in [
        Phase::Request,
        Phase::Queue,
        Phase::Connect,
        Phase::Response,
        Phase::Data,
    ] {
        for cause in [
            Cause::ClientLeft(phase),
            Cause::ClientTimedOut(phase),
            Cause::ServerFailed(phase),
            Cause::ServerTimedOut(phase),
            Cause::BadResponse(phase),
            rejected(phase, 400),
        ] {
            assert_ne!(cause.words(), "", "{cause:?}");
        }
    }
}

#[test]
fn a_cookie_has_the_letters_of_haproxy() {
    let letters = |received, sent| CookieState { received, sent }.letters();
    assert_eq!(CookieState::default().letters(), *b"--");
    assert_eq!(letters(Received::Absent, Sent::Inserted), *b"NI");
    assert_eq!(letters(Received::Invalid, Sent::Inserted), *b"II");
    assert_eq!(letters(Received::Down, Sent::Inserted), *b"DI");
    assert_eq!(letters(Received::Valid, Sent::Nothing), *b"VN");
    assert_eq!(letters(Received::Valid, Sent::Updated), *b"VU");
}
