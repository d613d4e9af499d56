//! The bodies of the fuzz targets, and the seeds their corpora grow from.
//!
//! A body is a function of bytes that panics when something that must hold does not. `fuzz/` hands it the bytes of
//! libFuzzer (`cargo xtask fuzz`); this package's tests hand it the corpora in `seeds/corpus` on every toolchain;
//! the program hands it one file (`cargo run -p fuzzing -- run TARGET FILE`).
//!
//! | module | holds |
//! |---|---|
//! | `frame`, `body` | what arrives on a port: headers, framing, messages, commands, prepares |
//! | `journal`, `superblock` | what stands on a disk that was damaged |
//! | `bundle` | what stands in a file |
//! | `kernel` | commands that change tables, whole and in pieces, decided at once and in steps |
//! | `tree`, `row` | tables: any commands against a map; keys and rows as bytes |
//! | `query` | SQL as text, and statements run in several ways; `rows`, `generate` are those of the query layer's tests |
//! | `machine`, `client` | real nodes, and the real client, under arbitrary events |
//! | `world` | a simulated cluster whose decisions are the fuzzer's, under all checkers |
//! | `script`, `mend` | bytes as choices; checksums made true again |
//! | `platter`, `desk`, `seat`, `cluster` | a disk in memory, and machines at it |
//! | `images` | data directories that real nodes wrote |
//! | `seeds` | what the corpora grow from |
#![forbid(unsafe_code)]

mod body;
mod bundle;
mod client;
mod cluster;
mod desk;
mod frame;
#[path = "../../../core/query/tests/query/generate.rs"]
mod generate;
mod images;
mod journal;
mod kernel;
mod machine;
mod mend;
mod platter;
mod query;
mod row;
#[path = "../../../core/query/tests/query/rows.rs"]
mod rows;
mod script;
mod seat;
mod seeds;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;
mod world;

pub use seeds::Seed;
pub use world::bundle as bundle_of_world;

/// Bytes of an input at most: the rest of a longer one is cut off.
pub const INPUT_MAX: usize = 64 << 10;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its binary, of its corpus and on the command line.
    pub name: &'static str,
    /// One sentence for people.
    pub summary: &'static str,
    body: fn(&[u8]),
    seeds: fn() -> Vec<Seed>,
}

impl Target {
    /// Runs the body. Panics when something that must hold does not.
    pub fn run(&self, bytes: &[u8]) {
        (self.body)(&bytes[..bytes.len().min(INPUT_MAX)]);
    }

    /// The inputs that its corpus grows from, made by real runs.
    pub fn seeds(&self) -> Vec<Seed> {
        (self.seeds)()
    }

    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

/// All targets.
pub const TARGETS: [Target; 14] = [
    Target {
        name: "frame",
        summary: "frame headers, and cutting a client's stream into frames",
        body: frame::run,
        seeds: seeds::frame,
    },
    Target {
        name: "message_body",
        summary: "bodies of all messages, commands and prepares: what decodes says the same again",
        body: body::run,
        seeds: seeds::body,
    },
    Target {
        name: "journal_recovery",
        summary: "opening a damaged data directory: nothing is invented, nothing promised is denied",
        body: journal::run,
        seeds: seeds::journal,
    },
    Target {
        name: "superblock",
        summary: "four copies of a superblock from anywhere: the newest of two intact ones is taken",
        body: superblock::run,
        seeds: seeds::superblock,
    },
    Target {
        name: "kmb_bundle",
        summary: "the decoder of .kmb files",
        body: bundle::run,
        seeds: seeds::bundle,
    },
    Target {
        name: "machine_under_arbitrary_events",
        summary: "real nodes under an arbitrary order of events, strangers included",
        body: machine::run,
        seeds: seeds::machine,
    },
    Target {
        name: "client_machine",
        summary: "the client before servers that say anything",
        body: client::run,
        seeds: seeds::client,
    },
    Target {
        name: "world_decisions",
        summary: "a simulated cluster whose decisions are the bytes, under all checkers",
        body: world::run,
        seeds: seeds::world,
    },
    Target {
        name: "kernel_commands",
        summary: "commands that change tables, whole and in pieces, honest and not: decided at once and in steps they come to the same",
        body: kernel::run,
        seeds: seeds::kernel,
    },
    Target {
        name: "btree_ops",
        summary: "commands, checkpoints and restarts of the store, against a map, every page missing at first",
        body: tree::run,
        seeds: seeds::tree,
    },
    Target {
        name: "key_encoding",
        summary: "keys from anywhere: what decodes says the same again, in the order of values",
        body: row::keys,
        seeds: seeds::keys,
    },
    Target {
        name: "row_codec",
        summary: "rows from anywhere, for tables of any columns",
        body: row::rows,
        seeds: seeds::rows,
    },
    Target {
        name: "sql_text",
        summary: "SQL from anywhere ends in answers or refusals",
        body: query::text,
        seeds: seeds::sql,
    },
    Target {
        name: "plan_and_execute",
        summary: "statements say the same with and without misses, with and without the planner",
        body: query::differential,
        seeds: seeds::statements,
    },
];
