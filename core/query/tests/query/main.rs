//! The query layer over rows in memory.

mod generate;
mod guards;
mod limits;
mod logic;
mod plans;
mod refusals;
mod rows;
mod values;
mod writes;
