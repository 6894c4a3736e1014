//! String values that every file has. Each error is `(what, hint)`.

use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// What is wrong, and what to do.
pub(crate) type Wrong = (String, String);

/// The longest duration that makes sense in a file.
const HOUR: Duration = Duration::from_secs(3600);

/// A number and a unit: `500ms`, `10s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    duration_up_to(HOUR, text)
}

/// A duration of at most `longest`, which is a number of hours.
pub(crate) fn duration_up_to(longest: Duration, text: &str) -> Result<Duration, Wrong> {
    let hours = longest.as_secs() / HOUR.as_secs();
    let hint = || format!("write a number and ms, s, m or h, at most {hours}h: \"500ms\", \"10s\"");
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let millis = measure(text, &units).ok_or_else(|| ("is not a duration".to_owned(), hint()))?;
    match Duration::from_millis(millis) {
        duration if duration <= longest => Ok(duration),
        _ if hours == 1 => Err(("is longer than an hour".into(), hint())),
        _ => Err((format!("is longer than {hours} hours"), hint())),
    }
}

/// A number of bytes: `10MB`, `64KiB`.
pub(crate) fn size(text: &str) -> Result<u64, Wrong> {
    let units = [
        ("B", 1),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    measure(text, &units).ok_or_else(|| {
        let hint = "write a number and B, KB, MB, GB, KiB, MiB or GiB: \"10MB\"";
        ("is not a size".into(), hint.into())
    })
}

/// A number and one of these units, each with its factor.
pub(crate) fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, each) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*each)
}

/// A request path: it begins with `/` and is sent in a request line unchanged.
pub(crate) fn url_path(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        let hint = format!("write it as \"/{}\"", shortened(text));
        return Err(("does not begin with `/`".into(), hint));
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        None => Ok(text.to_owned()),
        Some(c) => Err((
            format!("contains {c:?}, which a request cannot carry"),
            "write such characters percent-encoded: a space is %20".into(),
        )),
    }
}

/// A network, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, Wrong> {
    let address = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(address).map_err(|_| {
        let hint = "write it as \"10.0.0.0/8\" or \"192.0.2.7\"";
        ("is not a network".into(), hint.into())
    })
}

/// A message of several lines as one, without control characters.
pub(crate) fn one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

fn shortened(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_graphic)
        .take(40)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2 m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "61m",
            "99999999999999999999s",
            "18446744073709551615h",
            "10 s ",
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_can_stand_in_a_request_line() {
        assert_eq!(url_path("/a?b=%20"), Ok("/a?b=%20".into()));
        for text in ["up", "", "/a b", "/a\r\nX: y", "/é", "/a#b"] {
            assert!(url_path(text).is_err(), "{text}");
        }
    }
}
