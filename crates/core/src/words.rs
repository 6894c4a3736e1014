//! Lists and durations in sentences.

use std::fmt;
use std::time::Duration;

/// `app1`, `app1 and db1`, `lb1, web1 and app1`.
pub(crate) fn all_of(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        items => items.join(", "),
    }
}

/// Whole minutes, or seconds below two of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Long(pub(crate) Duration);

impl fmt::Display for Long {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ ..120 => write!(f, "{seconds} s"),
            seconds => write!(f, "{} min", seconds / 60),
        }
    }
}

/// Seconds with a fraction, for what took less than two minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took(pub(crate) Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            ..120 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            _ => Long(self.0).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_seconds_then_in_minutes() {
        let long = |seconds| Long(Duration::from_secs(seconds)).to_string();
        assert_eq!(
            [0, 119, 120, 659].map(long),
            ["0 s", "119 s", "2 min", "10 min"]
        );
    }

    #[test]
    fn the_last_of_several_is_joined_by_and() {
        assert_eq!(all_of(["app1"]), "app1");
        assert_eq!(all_of(["app1", "db1"]), "app1 and db1");
        assert_eq!(all_of(["lb1", "web1", "app1"]), "lb1, web1 and app1");
    }
}
