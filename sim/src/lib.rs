//! VOPR: the experiment on the simulated world. Policy: what is run, what breaks, what must hold.
mod checker;
pub mod checkers;

pub use checker::{Checker, End, Observation, Violation};
