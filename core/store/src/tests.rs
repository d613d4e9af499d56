//! Stories of a store and its model. Each is told twice: all pages at hand, and every first touch of a page missing.

pub(crate) mod check;
mod disk;
mod golden;
mod malformed;
mod model;
mod property;
mod stories;
