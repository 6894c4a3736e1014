//! `Accept-Encoding` (RFC 9110, section 12.5.3): which coding of a response a client gets.

use gaiola_model::http::Coding;

/// A weight in thousandths.
type Weight = u16;

/// What a client accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Weights of [`Coding::ALL`], in this order; `None`: not listed.
    codings: [Option<Weight>; 3],
    /// That of the contents as they are.
    identity: Option<Weight>,
    /// That of all that is not listed.
    rest: Option<Weight>,
}

impl Accepted {
    /// What these values of the field say, one for each line. Without any, a client gets contents as they are. An element
    /// that cannot be read is ignored.
    ///
    /// ```
    /// use gaiola_core::encoding::Accepted;
    /// use gaiola_model::http::Coding;
    ///
    /// let accepted = Accepted::of(["gzip, br;q=0.5"].into_iter());
    /// assert_eq!(accepted.best(&Coding::ALL), Some(Coding::Gzip));
    /// assert_eq!(accepted.best(&[Coding::Zstd]), None);
    /// ```
    pub fn of<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut accepted = Self::default();
        for element in values.flat_map(|value| value.split(',')) {
            accepted.add(element);
        }
        accepted
    }

    fn add(&mut self, element: &str) {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let Some(weight) = weight(parts) else {
            return;
        };
        let is = |token: &str| name.eq_ignore_ascii_case(token);
        if is("identity") {
            self.identity = Some(weight);
        } else if is("*") {
            self.rest = Some(weight);
        }
        for (slot, coding) in self.codings.iter_mut().zip(Coding::ALL) {
            if is(coding.token()) || (coding == Coding::Gzip && is("x-gzip")) {
                *slot = Some(weight);
            }
        }
    }

    /// The coding of the highest weight among those that are on offer, and of equal ones the first; `None`: the contents as
    /// they are, also where the client accepts nothing that is on offer.
    pub fn best(&self, offered: &[Coding]) -> Option<Coding> {
        let mut best: Option<(Weight, Coding)> = None;
        // What is not listed is the last choice.
        let plain = self.identity.unwrap_or(0);
        for &coding in offered {
            let weight = self.weight(coding);
            if weight > 0 && weight >= plain && best.is_none_or(|(highest, _)| weight > highest) {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }

    /// Whether the client accepts no coding at all.
    pub fn is_none(&self) -> bool {
        self.best(&Coding::ALL).is_none()
    }

    /// The codings of [`Coding::ALL`] that the client prefers to the contents as they are, the best first.
    pub fn ranked(&self) -> impl Iterator<Item = Coding> {
        let mut left = Coding::ALL.to_vec();
        std::iter::from_fn(move || {
            let best = self.best(&left)?;
            left.retain(|&coding| coding != best);
            Some(best)
        })
    }

    fn weight(&self, coding: Coding) -> Weight {
        let place = Coding::ALL.iter().position(|&known| known == coding);
        let listed = place.and_then(|place| self.codings[place]);
        listed.or(self.rest).unwrap_or(0)
    }
}

/// The weight among an element's parameters, 1 without any; `None` if it cannot be read.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<Weight> {
    let Some(parameter) = parameters.next() else {
        return Some(1000);
    };
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: Weight = format!("{fraction:0<3}").parse().ok()?;
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn best(value: &str) -> Option<Coding> {
        Accepted::of([value].into_iter()).best(&Coding::ALL)
    }

    #[test]
    fn the_highest_weight_wins_and_of_equal_ones_the_first_on_offer() {
        assert_eq!(best("gzip, deflate, br, zstd"), Some(Coding::Brotli));
        assert_eq!(best("gzip;q=0.9, br;q=0.899"), Some(Coding::Gzip));
        assert_eq!(best("GZIP ; Q=1.0, br;q=0"), Some(Coding::Gzip));
        assert_eq!(best("x-gzip"), Some(Coding::Gzip));
        assert_eq!(best("*"), Some(Coding::Brotli));
        assert_eq!(best("*;q=0.5, gzip"), Some(Coding::Gzip));
        assert_eq!(best("br;q=0, *"), Some(Coding::Zstd));
        let lines = Accepted::of(["deflate", "zstd"].into_iter());
        assert_eq!(lines.best(&Coding::ALL), Some(Coding::Zstd));
    }

    #[test]
    fn contents_stay_as_they_are_where_that_is_preferred_or_nothing_is_accepted() {
        for value in [
            "",
            "deflate",
            "identity",
            "gzip;q=0",
            "gzip;q=0.5, identity",
            "identity;q=0",
            "*;q=0",
            "gzip;q=2",
            "gzip;q=1.5",
            "gzip;q=0.1234",
            "gzip;q=+0",
            "gzip;level=5",
        ] {
            assert_eq!(best(value), None, "{value}");
        }
        assert_eq!(best("gzip, identity;q=0.5"), Some(Coding::Gzip));
        assert_eq!(best("gzip, identity"), Some(Coding::Gzip));
    }

    #[test]
    fn codings_are_ranked() {
        let accepted = Accepted::of(["gzip, zstd;q=0.5, br;q=0.7, identity;q=0.6"].into_iter());
        let ranked: Vec<_> = accepted.ranked().collect();
        assert_eq!(ranked, [Coding::Gzip, Coding::Brotli]);
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in any::<String>()) {
            _ = best(&value);
        }
    }
}
