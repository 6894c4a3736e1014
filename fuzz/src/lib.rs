//! What the fuzz targets share.

use std::fmt::Debug;

/// Checks that what a decoder said of a beginning of the bytes is what it says of all of them, unless it asked for
/// more.
pub fn assert_stands<T: PartialEq + Debug>(beginning: T, all: &T, partial: &T) {
    assert!(
        beginning == *partial || beginning == *all,
        "{beginning:?} of a beginning, but {all:?} of all"
    );
}

/// Takes the first byte as a place to split the rest at.
pub fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&place, rest) = data.split_first()?;
    let place = usize::from(place) * rest.len() / 255;
    Some((&rest[..place], rest))
}
