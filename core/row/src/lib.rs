//! SQL values, their types and their text, schemas, and the facts a statement becomes.
//!
//! A [`Value`] is one of PostgreSQL's values with PostgreSQL's order, arithmetic and text. A [`Catalogue`] says what
//! tables there are at a position.
//!
//! What is left out: SQL text (`query`), pages and trees (`store`), who may do what (`server`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "SQL's own conversions between numbers; each is bounded where it stands"
)]
#![allow(
    clippy::should_implement_trait,
    reason = "arithmetic on decimals can be refused, which the traits cannot say"
)]
#![allow(clippy::match_same_arms, reason = "tables of cases keep one case per line")]
#![allow(clippy::float_cmp, reason = "SQL compares exactly")]

extern crate alloc;

pub mod cast;
pub mod check;
pub mod codec;
pub mod datetime;
mod decimal;
mod error;
pub mod fact;
pub mod json;
pub mod key;
pub mod raw;
#[cfg(test)]
mod row_tests;
pub mod schema;
pub mod text;
mod types;
mod value;
mod wire;

pub use datetime::Interval;
pub use decimal::{DIGITS_MAX, Decimal, DecimalError, SCALE_MAX};
pub use error::{Parts, SqlError, SqlState};
pub use json::Json;
pub use schema::{
    Catalogue, Column, ColumnId, Index, Namespace, Object, ObjectId, Routine, Sequence, Table, View,
};
pub use types::Type;
pub use value::{Row, Value, compare_doubles};
pub use wire::DIMENSIONS_MAX;
