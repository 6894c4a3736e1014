//! A rehearsed failure: the harm, its target, what was observed meanwhile, and the verdict.
//!
//! `control::drill` loads the site, does the harm and fills a [`Ledger`]; all conclusions from it are drawn here.

mod contents;
mod ledger;
mod machines;
mod process;
mod render;
mod report;
mod selection;
mod server_ref;
mod target;
mod template;

pub use contents::{Contents, Holding, Rows, compare};
pub use ledger::{Kind, KindError, Ledger, Sample};
pub use machines::{MachineHarm, MachineHarms, NotOnMachines, on_machines};
pub use process::Process;
pub use render::{render, render_all};
pub use report::{DrillReport, Findings, KindReport, Marks, SCHEMA, Verdict, Writes};
pub use selection::Selection;
pub use server_ref::{Roles, ServerRef};
pub use target::{RequestedTarget, Target, TargetError};
pub use template::{TemplateError, fill_body, fill_path};
