//! Helpers of the fuzz targets.

use std::fmt::Debug;

/// Checks that a decoder's result for a prefix of the bytes is its result for all of them, unless it needs more
/// bytes.
pub fn assert_stands<T: PartialEq + Debug>(beginning: T, all: &T, partial: &T) {
    assert!(
        beginning == *partial || beginning == *all,
        "{beginning:?} of a beginning, but {all:?} of all"
    );
}

/// Splits the input at the position that its first byte gives.
pub fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&place, rest) = data.split_first()?;
    let place = usize::from(place) * rest.len() / 255;
    Some((&rest[..place], rest))
}
