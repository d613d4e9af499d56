//! Clients that speak SQL, beside those that append and read.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | what distinguishes one run's SQL from another's, as data |
//! | `work` | what a client says next, and how far it got with a transaction block |
//! | `deed` | what a statement is about, and its text |
//! | `coverage` | which clauses were said, and which together |
//! | `query`, `grammar` | queries and conditions at random, and what they answer by a second evaluation |
//!
//! Each client is a session of one tenant and says one statement after the other. What it was told goes to the checkers
//! as it is: an outcome that nobody knows is one of the things to be told.

mod coverage;
pub mod deed;
pub mod grammar;
pub mod plan;
pub mod query;
mod work;

pub use coverage::Coverage;
pub use deed::{Deed, Kind, List, Look, When};
pub use plan::{SqlPlan, Theme};
pub(crate) use work::{Say, SqlWork};
