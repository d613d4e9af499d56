//! SQL: text to plans, plans to rows and facts.
//!
//! `parse` reads PostgreSQL's dialect, `bind` resolves names and types under a catalogue, `optimize` plans, `exec` runs
//! push pipelines in which only the sources see pages, and `session` turns statements into answers and facts.
//!
//! What is left out: pages (`store`), deciding and installing facts (`kernel`), connections (`server`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "SQL's own conversions between numbers; each is bounded where it stands"
)]
#![allow(clippy::needless_for_each, reason = "callbacks that are handed down go to `for_each` as they are")]
#![allow(clippy::unnecessary_wraps, reason = "the code of all functions of a table has one signature")]
#![allow(clippy::match_same_arms, reason = "tables of cases keep one case per line")]
#![allow(clippy::too_many_lines, reason = "one arm per form of a statement or clause")]
#![allow(
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_pass_by_value,
    reason = "callbacks share a signature"
)]
#![allow(
    clippy::items_after_statements,
    reason = "names are brought in where the table that uses them stands"
)]
#![allow(clippy::type_complexity, reason = "pairs of lists between two functions of one file")]
#![allow(
    clippy::unused_self,
    clippy::only_used_in_recursion,
    reason = "all of the binder and the definer are methods"
)]
#![allow(clippy::wrong_self_convention, reason = "`from` is a clause here")]
#![allow(clippy::float_cmp, reason = "SQL compares exactly")]

extern crate alloc;

pub mod bind;
mod dialect;
pub mod eval;
pub mod exec;
pub mod expr;
pub mod function;
pub mod limits;
pub mod optimize;
pub mod overlay;
pub mod parse;
pub mod plan;
pub mod session;
