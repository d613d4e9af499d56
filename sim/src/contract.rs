//! The non-vacuity contract: what a swarm must have seen, or its green shows nothing.
//!
//! A scenario declares minimum counts, marks and fault × state cells. A swarm of at least
//! [`Scenario::SWARM_MIN`](crate::Scenario::SWARM_MIN) seeds that misses one of them is *vacuous*, which is a verdict
//! of its own; a smaller one only says what it has not seen.

use std::collections::BTreeMap;
use std::fmt;

use kimberlite_probe::mark;

use crate::Report;
use crate::cells::Cell;

/// Which marks a swarm must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// All that are declared, but for the rare ones and those never to be reached.
    Common,
    /// These.
    These(&'static [&'static str]),
}

/// What a swarm must have seen.
#[derive(Clone, Copy, Debug)]
pub struct Contract {
    /// Counts by name, and how high they must be.
    pub counts: &'static [(&'static str, u64)],
    /// Marks that must be counted.
    pub marks: Marks,
    /// Cells that must be hit.
    pub cells: &'static [Cell],
    /// Clauses of SQL that must be said, and pairs of them.
    pub clauses: &'static [&'static str],
}

impl Contract {
    /// The names of the marks it wants.
    pub fn marks(&self) -> Vec<&'static str> {
        match self.marks {
            Marks::These(names) => names.to_vec(),
            Marks::Common => mark::ALL
                .iter()
                .filter(|mark| mark.kind.is_to_be_reached() && !mark.rare)
                .map(|mark| mark.name)
                .collect(),
        }
    }

    /// What of it `evidence` does not show.
    pub fn missing(&self, evidence: &Evidence) -> Vec<Missing> {
        let counts = self.counts.iter().map(|(name, wanted)| {
            (
                Missing { what: What::Count, name: (*name).to_owned(), wanted: *wanted, had: 0 },
                &evidence.counts,
            )
        });
        let marks = self.marks().into_iter().map(|name| {
            (Missing { what: What::Mark, name: name.to_owned(), wanted: 1, had: 0 }, &evidence.marks)
        });
        let cells = self.cells.iter().map(|cell| {
            (Missing { what: What::Cell, name: cell.name(), wanted: 1, had: 0 }, &evidence.cells)
        });
        let clauses = self.clauses.iter().map(|clause| {
            let name = (*clause).to_owned();
            (Missing { what: What::Clause, name, wanted: 1, had: 0 }, &evidence.grammar)
        });
        let all = counts.chain(marks).chain(cells).chain(clauses);
        all.map(|(missing, found)| Missing {
            had: found.get(&missing.name).map_or(0, |sum| sum.count),
            ..missing
        })
        .filter(|missing| missing.had < missing.wanted)
        .collect()
    }
}

/// The three kinds of things a contract asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A count of the census.
    Count,
    /// A mark in the code.
    Mark,
    /// A fault that hits a replica in some state.
    Cell,
    /// A clause of SQL, or two in one statement.
    Clause,
}

impl What {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Mark => "mark",
            Self::Cell => "cell",
            Self::Clause => "clause",
        }
    }
}

/// Something that a contract asks for and that was not seen often enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What kind of thing.
    pub what: What,
    /// Its name.
    pub name: String,
    /// How often it should have been seen.
    pub wanted: u64,
    /// How often it was.
    pub had: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, wanted, had } = self;
        write!(f, "{} {name}", what.name())?;
        if *wanted > 1 { write!(f, " ({had} of {wanted})") } else { Ok(()) }
    }
}

/// How often something was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Times in all runs together.
    pub count: u64,
    /// Runs in which it was seen at all.
    pub seeds: u64,
}

/// What the runs of a swarm showed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Counts of the census.
    pub counts: BTreeMap<String, Sum>,
    /// Marks.
    pub marks: BTreeMap<String, Sum>,
    /// Cells.
    pub cells: BTreeMap<String, Sum>,
    /// Clauses of SQL, and pairs of them.
    pub grammar: BTreeMap<String, Sum>,
}

impl Evidence {
    /// Adds what one run showed.
    pub fn add(&mut self, report: &Report) {
        for (name, count) in report.counts.iter() {
            self.count(What::Count, name, count);
        }
        for (mark, count) in report.marks.iter() {
            self.count(What::Mark, mark.name, count);
        }
        for (cell, count) in report.cells.iter() {
            self.count(What::Cell, &cell.name(), count);
        }
        for (clause, count) in report.grammar.iter() {
            self.count(What::Clause, &clause, count);
        }
    }

    /// Adds one thing that one run showed.
    pub fn count(&mut self, what: What, name: &str, count: u64) {
        let sums = match what {
            What::Count => &mut self.counts,
            What::Mark => &mut self.marks,
            What::Cell => &mut self.cells,
            What::Clause => &mut self.grammar,
        };
        if count > 0 {
            let sum = sums.entry(name.to_owned()).or_default();
            sum.count += count;
            sum.seeds += 1;
        }
    }
}
