//! How contents are served: files, and compression. A site's file and a proxy's configuration say the same of both.

mod compression;
mod file_options;

pub use compression::Compression;
pub use file_options::{CacheControl, FileOptions, FilePattern};
