//! SQL: text to plans, plans to rows and facts.
//!
//! `parse` reads PostgreSQL's dialect, `bind` resolves names and types under a catalogue, `optimize` plans, `exec` runs
//! push pipelines in which only the sources see pages, and `session` turns statements into answers and facts.
//!
//! What is left out: pages (`store`), deciding and installing facts (`kernel`), connections (`server`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bind;
pub mod copy;
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
pub mod statistics;
