//! `bench`: how fast it is, as ratios.
//!
//! An absolute figure says as much about the machine and its other work as about the program. So each figure
//! here stands beside another one that was measured in the same run, in turn with it, several times: the
//! device's own speed, the hash's own speed, PostgreSQL on the same file system. What is printed is the median of the
//! repetitions, with the lowest and the highest.
//!
//! # Map
//!
//! | module | holds |
//! |---|---|
//! | `arguments` | what can be asked |
//! | `figures` | series of figures, and reports for people and machines |
//! | `machine` | what it is measured on |
//! | `setting` | what measurements share: directory, program, progress |
//! | `floor` | what the device can do |
//! | `cluster` | nodes as processes, filled with records |
//! | `append` | throughput and latency of appends; `postgres` measures its peer |
//! | `verify`, `restart`, `idle` | a data directory verified, replayed, empty |
//! | `sql` | SQL, against SQLite in memory and on disk (feature `sqlite`) |
//! | `store` | the trees of tables, against SQLite in memory (feature `sqlite`) |
//! | `simulator` | what a simulated run costs |
//!
//! # Exit codes
//!
//! 0 measured, however slow it was; 1 something could not be measured; 2 wrong usage; 3 a node did not answer;
//! 5 an I/O error.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod append;
mod arguments;
mod cluster;
mod figures;
mod floor;
mod idle;
mod machine;
mod postgres;
mod restart;
mod setting;
mod simulator;
#[cfg(feature = "sqlite")]
mod sql;
#[cfg(feature = "sqlite")]
mod store;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;
use kmb::Failure;

use arguments::{Arguments, Command};
use figures::Report;
use machine::Machine;
use setting::Setting;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            failure.exit_code()
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let setting = Setting::new(&arguments.common)?;
    let machine = Machine::look(setting.dir())?;
    let reports = measure(&arguments.command, &setting)?;
    setting.finish();
    if arguments.common.json {
        figures::print_json(&machine, &reports);
    } else {
        figures::print(&machine, &reports);
    }
    Ok(())
}

fn measure(command: &Command, setting: &Setting) -> Result<Vec<Report>, Failure> {
    match command {
        Command::Floor => floor::measure(setting),
        Command::Append(append) => append::measure(setting, append),
        Command::Verify(verify) => verify::measure(setting, verify),
        Command::Restart(restart) => restart::measure(setting, restart),
        Command::Idle => idle::measure(setting),
        #[cfg(feature = "sqlite")]
        Command::Store(store) => store::measure(setting, store),
        #[cfg(feature = "sqlite")]
        Command::Sql(sql) => sql::measure(setting, sql),
        #[cfg(not(feature = "sqlite"))]
        Command::Store(_) | Command::Sql(_) => Err(Failure::usage(
            "this build has no SQLite to compare with: build it with cargo build --release -p bench --features sqlite",
        )),
        Command::Sim(sim) => simulator::measure(setting, sim),
        Command::All(all) => {
            let mut reports = floor::measure(setting)?;
            reports.extend(append::measure(setting, &all.append())?);
            reports.extend(verify::measure(setting, &all.verify())?);
            reports.extend(restart::measure(setting, &all.restart())?);
            reports.extend(idle::measure(setting)?);
            reports.extend(simulator::measure(setting, &all.sim())?);
            Ok(reports)
        }
    }
}
