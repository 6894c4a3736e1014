//! How both proxies are set up for a conversation: HAProxy's lines, and what says the same in Gaiola's file.

/// One setup in both languages.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Bytes rather than HTTP.
    pub(crate) tcp: bool,
    /// HAProxy's words behind `bind`.
    pub(crate) bind: &'static str,
    /// HAProxy's lines in the frontend, and in the backend.
    pub(crate) frontend: &'static str,
    pub(crate) backend: &'static str,
    /// HAProxy's words behind the first server, and behind each further one.
    pub(crate) servers: [&'static str; 2],
    /// The same for Gaiola.
    pub(crate) gaiola: Toml,
}

/// Parts of Gaiola's file. `BACKEND` in them becomes the backend's name, which no other conversation has.
#[derive(Clone, Copy)]
pub(crate) struct Toml {
    /// Keys of the bind, in the table where its address stands.
    pub(crate) bind: &'static str,
    /// Lines in the frontend's section, and in the backend's.
    pub(crate) frontend: &'static str,
    pub(crate) backend: &'static str,
    /// Keys of the first server, and of each further one.
    pub(crate) servers: [&'static str; 2],
    /// Sections of their own.
    pub(crate) sections: &'static str,
}

impl Setup {
    /// Nothing but the servers.
    pub(crate) const fn plain() -> Self {
        Self {
            tcp: false,
            bind: "",
            frontend: "",
            backend: "",
            servers: ["", ""],
            gaiola: Toml::plain(),
        }
    }
}

impl Toml {
    /// Nothing but the servers.
    pub(crate) const fn plain() -> Self {
        Self {
            bind: "",
            frontend: "",
            backend: "",
            servers: ["", ""],
            sections: "",
        }
    }
}
