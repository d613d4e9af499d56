//! The command line.

use clap::{Parser, Subcommand};

use crate::append::Append;
use crate::demo::Demo;
use crate::dev::Dev;
use crate::format::Format;
use crate::inspect::Inspect;
use crate::load::Load;
use crate::read::Read;
use crate::sql::Sql;
use crate::start::Start;
use crate::status::Status;
use crate::streams::Streams;
use crate::torture::Torture;
use crate::verify::Verify;
use crate::{
    Failure, append, demo, dev, format, inspect, load, read, sql, start, status, streams, torture, verify,
};

/// Kimberlite: an immutable, hash-chained, replicated log. Node, client and administration in one program.
#[derive(Parser, Debug)]
#[command(
    name = "kmb",
    version,
    propagate_version = true,
    after_help = "\
Try it:
  kmb demo README.md                             a cluster's life in one command
  kmb dev                                        three nodes on this machine, until Ctrl-C
  kmb append --stream readme --file README.md    in another terminal
  kmb read --stream readme --limit 3
  kmb status"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a data directory for one replica
    Format(Format),
    /// Run one node
    Start(Start),
    /// Run a whole cluster on this machine, for trying things out
    Dev(Dev),
    /// Show a cluster's life in one go: append a file, kill the primary, read back, verify
    Demo(Demo),
    /// Append lines to a stream
    Append(Append),
    /// Print records of a stream
    Read(Read),
    /// List the streams of a tenant
    Streams(Streams),
    /// Run SQL: statements, files, or a prompt
    Sql(Sql),
    /// Say how each node stands
    Status(Status),
    /// Check the whole log of a stopped node
    Verify(Verify),
    /// Show what stands in the data directory of a stopped node
    Inspect(Inspect),
    /// Append without end and keep a journal of what was acknowledged
    #[command(hide = true)]
    Load(Load),
    /// Kill nodes again and again under load, then check that nothing was lost
    #[command(hide = true)]
    Torture(Torture),
}

impl Cli {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Format(args) => format::run(&args),
            Command::Start(args) => start::run(&args),
            Command::Dev(args) => dev::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Append(args) => append::run(&args),
            Command::Read(args) => read::run(&args),
            Command::Streams(args) => streams::run(&args),
            Command::Sql(args) => sql::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Load(args) => load::run(&args),
            Command::Torture(args) => torture::run(&args),
        }
    }
}
