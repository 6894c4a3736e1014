//! Metrics as Prometheus text (exposition format 0.0.4), and back.
//!
//! ```
//! use gaiola_model::metric;
//! use gaiola_wire::metrics::{Line, Text};
//!
//! let mut text = Text::default();
//! text.family(&metric::SERVER_UP).sample(["app", "app1.1"], true);
//! let text = text.into_string();
//! assert!(text.ends_with("gaiola_server_up{backend=\"app\",server=\"app1.1\"} 1\n"));
//!
//! let samples = text.lines().filter_map(Line::read).filter_map(Line::sample);
//! let up: Vec<_> = samples.filter_map(|sample| sample.of(&metric::SERVER_UP)).collect();
//! assert_eq!(up, [["app", "app1.1"]]);
//! ```

mod read;
mod write;

pub use read::{Line, Sample};
pub use write::{Histogram, Number, Samples, Text};

/// The label of a histogram's buckets: their upper bound.
const BOUND: &str = "le";
