//! A rehearsed failure: what is done to whom, what was seen meanwhile, and what that means.
//!
//! `node::drill` loads the site, does the harm and fills a [`Ledger`]; everything that is concluded from it is
//! concluded here.

mod ledger;
mod render;
mod report;
mod target;
mod template;

pub use ledger::{Kind, Ledger, Sample};
pub use render::{render, render_all};
pub use report::{DrillReport, KindReport, Marks, SCHEMA, Verdict, Writes};
pub use target::{Process, Selection, Target, TargetError};
pub use template::{fill_body, fill_path};
