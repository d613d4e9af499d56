//! The program `kmb`: node, client and administration. A package of glue: what it glues is in `core` and
//! `io-real`.
//!
//! # Map
//!
//! - `cli`: the commands; one module for each: `format`, `start`, `dev`, `demo`, `append`, `read`,
//!   `status`, `verify`, `inspect`, and, hidden from the help, `load` and `torture`; `walk` reads what they show
//! - `checkers`: the threads of `verify`
//! - [`connection`]: a blocking client on the client machine, for programs as well
//! - `record`: the flight recorder of a node
//! - `node_file`: what a node must know before it opens its data directory
//! - [`fleet`]: nodes as child processes, to be killed and started again; [`Plan`]: where they are
//! - [`histogram`]: how long things took
//! - `log`: what a node has to tell; `files`: which byte of which file a place is
//! - `address`, `output`, `random`, `signals`, [`failure`]: what their names say
//!
//! # Exit codes
//!
//! 0 done; 1 the thing failed, or damage was found; 2 wrong usage; 3 no node reached, or none answered in
//! time; 5 an I/O error.
#![cfg(target_os = "linux")]

use std::process::ExitCode;

use clap::Parser as _;

mod address;
mod append;
mod checkers;
mod checkpoint;
mod cli;
pub mod connection;
mod demo;
mod dev;
pub mod failure;
mod files;
pub mod fleet;
mod format;
pub mod histogram;
mod inspect;
pub mod load;
mod log;
mod node_file;
pub mod output;
mod random;
mod read;
mod record;
mod signals;
mod sql;
mod start;
mod status;
mod streams;
mod torture;
pub mod verify;
mod walk;

pub use address::Name;
pub use connection::Connection;
pub use dev::{Plan, Temporary};
pub use failure::Failure;
pub use format::LayoutName;
pub use signals::{Stop, on_signal};

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kmb: {failure}");
            failure.exit_code()
        }
    }
}
