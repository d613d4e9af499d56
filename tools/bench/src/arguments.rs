//! What can be asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Measures Kimberlite against the machine it runs on and against its peers.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  cargo build --release && target/release/bench all
  bench all --long --json > figures.json
  bench append --nodes 1 --clients 1,64 --shape small
  bench append --postgres

Every figure is the median of several repetitions, with the lowest and the highest; what a ratio compares was
measured in turn in the same run. Slow figures are no failure. Exit codes: 0 measured, 1 something could not
be measured, 2 wrong usage, 3 a node did not answer, 5 an I/O error."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every measurement.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Where data goes, in a directory that is removed at the end [default: the directory for temporary files]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The `kmb` to measure [default: the one beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kmb: Option<PathBuf>,
    /// How often each thing is measured
    #[arg(long, global = true, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repetitions: u32,
    /// How long one measurement takes
    #[arg(long, global = true, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What is measured.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// What the device can do: durable writes of several sizes, one after the other
    Floor,
    /// Appends: records a second, and how long a request takes
    Append(Append),
    /// Verifying a data directory, against the speed of the hash itself
    Verify(Verify),
    /// Starting again on a log of many ops
    Restart(Restart),
    /// A node that has nothing to do: its memory, its disk, its processor time
    Idle,
    /// The trees that hold tables, against SQLite in memory: point reads, a scan, inserts
    Store(Store),
    /// SQL, against SQLite: point reads, scans, inserts, updates, joins; and one hot row of a node
    Sql(Sql),
    /// What a simulated run costs
    Sim(Sim),
    /// All of it
    All(All),
}

/// Whose appends are measured.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  bench append
  bench append --nodes 1 --clients 1,8,64 --shape small --postgres

With --postgres, a PostgreSQL cluster of its own is made in the same directory, with its durable defaults, and
pgbench inserts single rows with prepared statements, in turn with our own appends.")]
pub(crate) struct Append {
    /// Sizes of clusters
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 3],
          value_parser = clap::value_parser!(u8).range(1..=6))]
    pub(crate) nodes: Vec<u8>,
    /// Numbers of clients, each with one request at a time [default: 1,16,64; with --postgres 1,8,64]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) clients: Vec<u16>,
    /// What a request holds
    #[arg(long, value_name = "SHAPE", value_enum, value_delimiter = ',',
          default_values_t = [Shape::Small, Shape::Full])]
    pub(crate) shape: Vec<Shape>,
    /// Measure PostgreSQL, too: one node, small requests
    #[arg(long)]
    pub(crate) postgres: bool,
}

impl Append {
    /// The numbers of clients to measure.
    pub(crate) fn clients(&self) -> Vec<u16> {
        match (self.clients.is_empty(), self.postgres) {
            (false, _) => self.clients.clone(),
            (true, false) => vec![1, 16, 64],
            (true, true) => vec![1, 8, 64],
        }
    }
}

/// What a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// One record of 128 bytes.
    Small,
    /// 8,000 records of 128 bytes.
    Full,
}

/// How much is verified.
#[derive(Args, Clone, Debug)]
pub(crate) struct Verify {
    /// Bytes of records in the log, in MB
    #[arg(long, value_name = "MB", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) megabytes: u64,
}

/// How much is replayed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  bench restart --ops 100000
  bench restart --rows 1000000

With --rows, a node with a table of so many rows is killed and started again, too: until it answers a query by key, and
one that looks at all rows.")]
pub(crate) struct Restart {
    /// Ops in the log
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(crate) ops: u64,
    /// Rows of a table of another node
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=20_000_000))]
    pub(crate) rows: u64,
}

/// How large a table is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Store {
    /// Rows of the table that is read
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=20_000_000))]
    pub(crate) rows: u64,
}

/// What of SQL is measured.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  bench sql
  bench sql --parts point,scan --repetitions 9
  bench sql --parts hot --clients 64 --seconds 3 --json

Point reads, scans and inserts run in this process on both sides; `hot` starts a node.")]
pub(crate) struct Sql {
    /// What to measure [default: all of it]
    #[arg(long, value_name = "PART,PART", value_enum, value_delimiter = ',')]
    pub(crate) parts: Vec<SqlPart>,
    /// Rows of the table that is read
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1_000..=20_000_000))]
    pub(crate) rows: i64,
    /// How often each row is updated
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) versions: u32,
    /// Clients of the node
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) clients: u16,
}

/// Parts of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SqlPart {
    /// One row by its key, by a prepared statement.
    Point,
    /// All rows, with a filter and a sum, and into groups.
    Scan,
    /// Durable commits of 1,000 rows.
    Insert,
    /// Rows that were updated many times: scans of them, of their past, and more updates.
    Update,
    /// Planning joins of 64 tables.
    Join,
    /// Clients that increment one row of a node.
    Hot,
}

/// How much is simulated.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sim {
    /// Seeds of the default swarm
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// The first one
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) start: u64,
}

/// How much of everything.
#[derive(Args, Clone, Debug)]
pub(crate) struct All {
    /// More of everything; give --repetitions and --seconds as well for steadier figures
    #[arg(long)]
    pub(crate) long: bool,
    /// Measure PostgreSQL, too
    #[arg(long)]
    pub(crate) postgres: bool,
}

impl All {
    pub(crate) fn append(&self) -> Append {
        let clients = if self.postgres { vec![1, 8, 16, 64] } else { Vec::new() };
        let shape = vec![Shape::Small, Shape::Full];
        Append { nodes: vec![1, 3], clients, shape, postgres: self.postgres }
    }

    pub(crate) fn verify(&self) -> Verify {
        Verify { megabytes: if self.long { 1000 } else { 200 } }
    }

    pub(crate) fn restart(&self) -> Restart {
        Restart {
            ops: if self.long { 100_000 } else { 10_000 },
            rows: if self.long { 1_000_000 } else { 100_000 },
        }
    }

    pub(crate) fn sim(&self) -> Sim {
        Sim { seeds: if self.long { 1000 } else { 100 }, start: 0 }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.05 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
