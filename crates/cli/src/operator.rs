//! Who gives the commands.

/// The operator, for people: `root@laptop`.
pub(crate) fn name() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
    let host = rustix::system::uname();
    format!("{user}@{}", host.nodename().to_string_lossy())
}
