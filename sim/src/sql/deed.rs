//! What a statement is about: what checkers go by, and the text that follows from it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::grammar::{Condition, DataRow};
use super::query::Query;

/// Where lists stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A list is the text of one row of `cells`.
    Cell,
    /// A list is the rows of `entries` with its key, numbered from 1.
    Rows,
}

/// A list that transactions read and append to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct List {
    /// Where it stands.
    pub kind: Kind,
    /// Its key.
    pub key: u64,
}

/// What a statement may look at as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// All of `cells`: key and text.
    Cells,
    /// All of `entries`: key, number, element.
    Entries,
    /// One list of `entries`, which an index may give: number, element.
    EntriesOf(u64),
    /// All of `counters`: key and number.
    Counters,
    /// Rows of `data`: a query of the grammar.
    Data(Query),
}

/// When a statement looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At its own snapshot.
    Now,
    /// At an op of the past.
    Position(u64),
    /// At a time of the past, in microseconds since 1970.
    Time(i64),
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Makes a table, or fills it, if it is not there.
    Prepare(usize),
    /// Begins a transaction block.
    Begin,
    /// Ends it.
    Commit,
    /// Gives it up.
    Rollback,
    /// Marks a place in it.
    Savepoint(u32),
    /// Goes back there.
    RollbackTo(u32),
    /// Forgets the place.
    Release(u32),
    /// Appends an element that nobody else appends.
    Append {
        /// To which list.
        list: List,
        /// The element.
        element: u64,
        /// Its number in a list of rows, if the transaction knows it from a read.
        number: Option<u64>,
        /// Whether the list is made if it is not there.
        upsert: bool,
        /// Bytes of filler.
        filler: usize,
    },
    /// Reads a list.
    Read(List),
    /// Adds to a number that many add to.
    Add {
        /// Which.
        counter: u64,
        /// How much.
        by: u64,
        /// Whether it asks for what came out.
        returning: bool,
    },
    /// Looks at a whole table.
    Look(Look, When),
    /// Inserts rows of `data`.
    Insert {
        /// The rows.
        rows: Vec<DataRow>,
        /// Whether rows that are there are changed instead.
        upsert: bool,
    },
    /// Changes rows of `data`: by a sum, and to another text.
    Update {
        /// Which.
        of: Condition,
        /// What `b` grows by.
        by: i64,
        /// The new text.
        text: Option<&'static str>,
    },
    /// Deletes rows of `data`.
    Delete {
        /// Which.
        of: Condition,
    },
    /// Puts many large rows into `data`, or changes those that are there.
    Bulk {
        /// The first.
        from: u64,
        /// How many.
        count: u64,
        /// Bytes of the text of each.
        size: u64,
    },
    /// Deletes what was put there so, from one on.
    Clear {
        /// The first.
        from: u64,
    },
    /// Makes an index, or drops it.
    Index {
        /// Which.
        index: usize,
        /// Whether it is made.
        create: bool,
    },
}

/// What is there before anything else: tables and first rows.
pub(crate) const PREPARED: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS cells (k BIGINT PRIMARY KEY, v TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS entries (e BIGINT PRIMARY KEY, k BIGINT NOT NULL, n BIGINT NOT NULL, f TEXT)",
    "CREATE TABLE IF NOT EXISTS counters (k BIGINT PRIMARY KEY, n BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS data (id BIGINT PRIMARY KEY, a BIGINT, b BIGINT, s TEXT)",
    "INSERT INTO counters VALUES (0, 0), (1, 0) ON CONFLICT (k) DO NOTHING",
];

/// Numbers that many add to.
pub(crate) const COUNTERS: u64 = 2;

/// Indexes: their names and what they are on.
pub(crate) const INDEXES: [(&str, &str); 6] = [
    ("entries_k", "entries (k, n)"),
    ("entries_n", "entries (n)"),
    ("data_a", "data (a)"),
    ("data_b", "data (b DESC)"),
    ("data_ab", "data (a, b)"),
    ("data_s", "data (s)"),
];

impl When {
    /// What stands behind the name of a table.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Now => String::new(),
            Self::Position(op) => format!(" AT POSITION {op}"),
            Self::Time(micros) => {
                let time = kimberlite_row::Value::TimestampTz(micros);
                let text = kimberlite_row::text::output(&time, &kimberlite_row::Type::TimestampTz);
                format!(" AS OF TIMESTAMP '{}'", text.expect("a time has a text"))
            }
        }
    }
}

fn number(value: Option<i64>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}

impl Deed {
    /// The statement.
    pub fn text(&self) -> String {
        match self {
            Self::Prepare(step) => PREPARED[*step].to_owned(),
            Self::Begin => "BEGIN".to_owned(),
            Self::Commit => "COMMIT".to_owned(),
            Self::Rollback => "ROLLBACK".to_owned(),
            Self::Savepoint(name) => format!("SAVEPOINT s{name}"),
            Self::RollbackTo(name) => format!("ROLLBACK TO SAVEPOINT s{name}"),
            Self::Release(name) => format!("RELEASE SAVEPOINT s{name}"),
            Self::Append { list: List { kind: Kind::Cell, key }, element, upsert: true, filler, .. } => {
                let text = element_text(*element, *filler);
                format!(
                    "INSERT INTO cells VALUES ({key}, '{text}') ON CONFLICT (k) DO UPDATE SET v = cells.v || EXCLUDED.v"
                )
            }
            Self::Append { list: List { kind: Kind::Cell, key }, element, filler, .. } => {
                format!("UPDATE cells SET v = v || '{}' WHERE k = {key}", element_text(*element, *filler))
            }
            Self::Append { list: List { kind: Kind::Rows, key }, element, number, filler, .. } => {
                let filler =
                    if *filler == 0 { "NULL".to_owned() } else { format!("'{}'", "x".repeat(*filler)) };
                match number {
                    Some(number) => {
                        format!(
                            "INSERT INTO entries (e, k, n, f) VALUES ({element}, {key}, {number}, {filler})"
                        )
                    }
                    None => format!(
                        "INSERT INTO entries (e, k, n, f) SELECT {element}, {key}, COALESCE(MAX(n), 0) + 1, {filler} \
                         FROM entries WHERE k = {key}"
                    ),
                }
            }
            Self::Read(List { kind: Kind::Cell, key }) => format!("SELECT v FROM cells WHERE k = {key}"),
            Self::Read(List { kind: Kind::Rows, key }) => {
                format!("SELECT n, e FROM entries WHERE k = {key} ORDER BY n, e")
            }
            Self::Add { counter, by, returning } => {
                let returning = if *returning { " RETURNING n" } else { "" };
                format!("UPDATE counters SET n = n + {by} WHERE k = {counter}{returning}")
            }
            Self::Look(look, when) => look.text(*when),
            Self::Insert { rows, upsert } => {
                let mut text = "INSERT INTO data VALUES ".to_owned();
                for (at, DataRow { id, a, b, s }) in rows.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    let s = s.as_ref().map_or_else(|| "NULL".to_owned(), |s| format!("'{s}'"));
                    write!(text, "{comma}({id}, {}, {}, {s})", number(*a), number(*b)).expect("strings grow");
                }
                if *upsert {
                    text += " ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a, b = data.b + 1, s = EXCLUDED.s";
                }
                text
            }
            Self::Update { of, by, text } => {
                let text = text.map_or_else(String::new, |text| format!(", s = '{text}'"));
                format!("UPDATE data SET b = b + {by}{text} WHERE {of}")
            }
            Self::Delete { of } => format!("DELETE FROM data WHERE {of}"),
            Self::Bulk { from, count, size } => format!(
                "INSERT INTO data SELECT g, g % 5, NULL, repeat('x', {size}) FROM generate_series({from}, {}) AS s (g) \
                 ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a, b = data.b + 1, s = EXCLUDED.s",
                from + count - 1
            ),
            Self::Clear { from } => format!("DELETE FROM data WHERE id >= {from}"),
            Self::Index { index, create: true } => {
                let (name, on) = INDEXES[*index];
                format!("CREATE INDEX IF NOT EXISTS {name} ON {on}")
            }
            Self::Index { index, create: false } => format!("DROP INDEX IF EXISTS {}", INDEXES[*index].0),
        }
    }

    /// The clauses it is made of.
    pub fn clauses(&self) -> BTreeSet<&'static str> {
        let mut clauses = BTreeSet::new();
        match self {
            Self::Prepare(_) => drop(clauses.insert("CREATE TABLE")),
            Self::Begin => drop(clauses.insert("BEGIN")),
            Self::Commit => drop(clauses.insert("COMMIT")),
            Self::Rollback => drop(clauses.insert("ROLLBACK")),
            Self::Savepoint(_) => drop(clauses.insert("SAVEPOINT")),
            Self::RollbackTo(_) => drop(clauses.insert("ROLLBACK TO")),
            Self::Release(_) => drop(clauses.insert("RELEASE")),
            Self::Append { list, number, upsert, .. } => match (list.kind, upsert, number) {
                (Kind::Cell, true, _) => clauses.extend(["INSERT", "ON CONFLICT"]),
                (Kind::Cell, false, _) => clauses.extend(["UPDATE", "="]),
                (Kind::Rows, _, Some(_)) => clauses.extend(["INSERT"]),
                (Kind::Rows, _, None) => clauses.extend(["INSERT", "INSERT from SELECT", "MAX"]),
            },
            Self::Read(_) => clauses.extend(["rows", "="]),
            Self::Add { returning, .. } => {
                clauses.extend(["UPDATE", "=", "arithmetic"]);
                clauses.extend(returning.then_some("RETURNING"));
            }
            Self::Look(look, when) => {
                match look {
                    Look::Data(query) => clauses.extend(query.clauses()),
                    _ => clauses.extend(["rows"]),
                }
                match when {
                    When::Now => {}
                    When::Position(_) => clauses.extend(["AT POSITION"]),
                    When::Time(_) => clauses.extend(["AS OF TIMESTAMP"]),
                }
            }
            Self::Insert { rows, upsert } => {
                clauses.extend(["INSERT"]);
                clauses.extend((rows.len() > 1).then_some("several VALUES"));
                clauses.extend(upsert.then_some("ON CONFLICT"));
            }
            Self::Update { of, .. } => {
                clauses.extend(["UPDATE"]);
                of.clauses(&mut clauses);
            }
            Self::Delete { of } => {
                clauses.extend(["DELETE"]);
                of.clauses(&mut clauses);
            }
            Self::Bulk { .. } => clauses.extend(["INSERT", "INSERT from SELECT", "ON CONFLICT", "many rows"]),
            Self::Clear { .. } => clauses.extend(["DELETE", "many rows"]),
            Self::Index { create, .. } => {
                clauses.extend([if *create { "CREATE INDEX" } else { "DROP INDEX" }]);
            }
        }
        clauses
    }

    /// Whether it changes rows or tables.
    pub const fn writes(&self) -> bool {
        matches!(
            self,
            Self::Prepare(_)
                | Self::Append { .. }
                | Self::Add { .. }
                | Self::Insert { .. }
                | Self::Update { .. }
                | Self::Delete { .. }
                | Self::Bulk { .. }
                | Self::Clear { .. }
                | Self::Index { .. }
        )
    }
}

/// An element in the text of a list: each stands behind a comma, its filler in brackets.
fn element_text(element: u64, filler: usize) -> String {
    if filler == 0 { format!(",{element}") } else { format!(",{element}({})", "x".repeat(filler)) }
}

/// The elements of a list that is a text.
pub fn elements_of(text: &str) -> Option<Vec<u64>> {
    text.strip_prefix(',')?
        .split(',')
        .map(|element| element.split_once('(').map_or(element, |(element, _)| element).parse().ok())
        .collect()
}

impl Look {
    /// The statement.
    pub fn text(&self, when: When) -> String {
        let when_text = when.text();
        match self {
            Self::Cells => format!("SELECT k, v FROM cells{when_text} ORDER BY k"),
            Self::Entries => format!("SELECT k, n, e FROM entries{when_text} ORDER BY k, n, e"),
            Self::EntriesOf(key) => {
                format!("SELECT n, e FROM entries{when_text} WHERE k = {key} ORDER BY n, e")
            }
            Self::Counters => format!("SELECT k, n FROM counters{when_text} ORDER BY k"),
            Self::Data(query) => query.text(when),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_a_cell_is_read_back_with_and_without_filler() {
        let text = element_text(7, 0) + &element_text(8, 3) + &element_text(9, 0);
        assert_eq!(text, ",7,8(xxx),9");
        assert_eq!(elements_of(&text), Some(vec![7, 8, 9]));
        assert_eq!(elements_of(""), None);
        assert_eq!(elements_of("7"), None);
        assert_eq!(elements_of(",7,a"), None);
    }
}
