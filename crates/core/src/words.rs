//! Lists in sentences.

/// `app1`, `app1 and db1`, `lb1, web1 and app1`.
pub(crate) fn all_of(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        items => items.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_is_joined_by_and() {
        assert_eq!(all_of(["app1"]), "app1");
        assert_eq!(all_of(["app1", "db1"]), "app1 and db1");
        assert_eq!(all_of(["lb1", "web1", "app1"]), "lb1, web1 and app1");
    }
}
