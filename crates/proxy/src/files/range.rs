//! `Range` (RFC 9110, section 14): one range of bytes.

/// What a `Range` field requests of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// The whole file: there is no range, several, or an unreadable one.
    Whole,
    /// From `start` to `end`, inclusive.
    Part { start: u64, end: u64 },
    /// Nothing within the file.
    Outside,
}

/// Parses the field value for a file of `size` bytes.
pub(super) fn parse(value: &str, size: u64) -> Range {
    let ends = |range: &str| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        match (number(first)?, number(last)?) {
            (None, None) => None,
            (None, Some(0)) => Some(Range::Outside),
            (None, Some(count)) => part(size.saturating_sub(count), size.saturating_sub(1), size),
            (Some(start), None) => part(start, size.saturating_sub(1), size),
            (Some(start), Some(end)) if start <= end => {
                part(start, end.min(size.saturating_sub(1)), size)
            }
            (Some(_), Some(_)) => None,
        }
    };
    ends(value.trim()).unwrap_or(Range::Whole)
}

fn part(start: u64, end: u64, size: u64) -> Option<Range> {
    Some(if start < size {
        Range::Part { start, end }
    } else {
        Range::Outside
    })
}

/// Digits, or nothing at all.
fn number(text: &str) -> Option<Option<u64>> {
    match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file() {
        let part = |start, end| Range::Part { start, end };
        assert_eq!(parse("bytes=0-0", 10), part(0, 0));
        assert_eq!(parse("bytes=2-", 10), part(2, 9));
        assert_eq!(parse("bytes=2-99", 10), part(2, 9));
        assert_eq!(parse("bytes=-3", 10), part(7, 9));
        assert_eq!(parse("bytes=-99", 10), part(0, 9));
    }

    #[test]
    fn a_range_outside_is_reported() {
        for value in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(parse(value, 10), Range::Outside, "{value}");
        }
        assert_eq!(parse("bytes=0-", 0), Range::Outside);
    }

    #[test]
    fn what_cannot_be_read_asks_for_all() {
        for value in [
            "bytes=5-2",
            "bytes=-",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=+1-2",
        ] {
            assert_eq!(parse(value, 10), Range::Whole, "{value}");
        }
    }
}
