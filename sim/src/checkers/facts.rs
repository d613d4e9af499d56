//! What the tables of the committed log are, at every position: a plain model, to hold tables and answers against.
//!
//! It reads facts, which are data of the log, and puts each row where they say. Whether they should have been installed,
//! it decides anew by looking through all of its rows. It calls nothing of the kernel or the store.

use std::collections::BTreeMap;
use std::ops::Bound;

use kimberlite_kernel::EntryVerdict;
use kimberlite_row::fact::{Facts, Guard, KeyRange, RowId, SchemaFact};
use kimberlite_row::schema::{Object, Table};
use kimberlite_row::{ObjectId, Row, Value};
use kimberlite_types::{LogPosition, Op, SessionId, TenantId};
use kimberlite_wire::Entry;
use kimberlite_wire::command::{Command, Outcome};

/// Versions of something: from where on it is what, nothing where it is gone.
type Versions<T> = Vec<(LogPosition, Option<T>)>;

fn at<T>(versions: &Versions<T>, position: LogPosition) -> Option<&T> {
    versions.iter().rev().find(|(since, _)| *since <= position).and_then(|(_, version)| version.as_ref())
}

/// The tables of one tenant.
#[derive(Debug, Default)]
struct Ward {
    tables: BTreeMap<ObjectId, Versions<Table>>,
    rows: BTreeMap<ObjectId, BTreeMap<RowId, Versions<Row>>>,
    /// The time of each command, in microseconds.
    times: Vec<(i64, LogPosition)>,
}

/// The tables of all tenants.
#[derive(Debug, Default)]
pub(super) struct TableModel {
    wards: BTreeMap<TenantId, Ward>,
    /// Facts that sessions have staged.
    staged: BTreeMap<SessionId, Vec<Vec<u8>>>,
}

/// What is wrong with facts that were installed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A row was not what they say it was.
    Before(String),
    /// A guard did not hold.
    Guard(String),
}

impl TableModel {
    /// The next entry, and what became of it. Tells what was wrong, and whether it wrote tables.
    pub(super) fn apply(&mut self, entry: &Entry<'_>, said: &EntryVerdict) -> Result<bool, Wrong> {
        if said.duplicate {
            return Ok(false);
        }
        let pieces = match (Command::decode(entry.command), said.verdict.result) {
            (Ok(Command::Stage { number, facts }), Ok(_)) => {
                let staged = self.staged.entry(entry.header.session).or_default();
                staged.truncate(number as usize);
                staged.push(facts.to_vec());
                return Ok(false);
            }
            (Ok(Command::Facts { facts, .. }), Ok(Outcome::Written { .. })) => vec![facts.to_vec()],
            (Ok(Command::Commit { .. }), Ok(Outcome::Written { .. })) => {
                self.staged.remove(&entry.header.session).unwrap_or_default()
            }
            _ => return Ok(false),
        };
        let mut facts = Facts::default();
        for piece in pieces {
            let Ok(Facts { guards, schema, writes }) = postcard::from_bytes(&piece) else {
                return Err(Wrong::Before("what is no facts was installed".to_owned()));
            };
            facts.guards.extend(guards);
            facts.schema.extend(schema);
            facts.writes.extend(writes);
        }
        let position = entry.header.position;
        let ward = self.wards.entry(entry.header.tenant).or_default();
        for guard in &facts.guards {
            ward.guard(guard, &facts)?;
        }
        if facts.is_empty() {
            return Ok(false);
        }
        let micros = (entry.header.timestamp.0 / 1_000).cast_signed();
        let micros = ward.times.last().map_or(micros, |(last, _)| micros.max(last + 1));
        ward.times.push((micros, position));
        for fact in &facts.schema {
            ward.schema(fact, position);
        }
        for write in &facts.writes {
            let rows = ward.rows.entry(write.table).or_default();
            let versions = rows.entry(write.id.clone()).or_default();
            let stood = versions.last().and_then(|(_, row)| row.as_ref());
            if stood != write.before.as_ref() {
                return Err(Wrong::Before(format!(
                    "{:?} of table {:?} was {stood:?}, and {:?} is replaced",
                    write.id, write.table, write.before
                )));
            }
            versions.push((position, write.after.clone()));
        }
        Ok(true)
    }

    /// The rows of a table of this name at a position, in the order of their keys; none if there is no such table.
    pub(super) fn rows(&self, tenant: TenantId, name: &str, position: LogPosition) -> Option<Vec<&Row>> {
        let ward = self.wards.get(&tenant)?;
        let (id, _) = ward.tables.iter().find_map(|(id, versions)| {
            at(versions, position).filter(|table| table.name == name).map(|table| (*id, table))
        })?;
        let rows = ward.rows.get(&id);
        Some(rows.into_iter().flatten().filter_map(|(_, versions)| at(versions, position)).collect())
    }

    /// The tables that there are at a position, by name.
    pub(super) fn tables(&self, tenant: TenantId, position: LogPosition) -> Vec<&Table> {
        let ward = self.wards.get(&tenant);
        ward.into_iter()
            .flat_map(|ward| ward.tables.values())
            .filter_map(|table| at(table, position))
            .collect()
    }

    /// The last op at or before a position that wrote tables of a tenant.
    pub(super) fn written_before(&self, tenant: TenantId, position: LogPosition) -> Option<Op> {
        let times = &self.wards.get(&tenant)?.times;
        times.iter().rev().find(|(_, at)| *at <= position).map(|(_, at)| at.op)
    }

    /// All tenants with tables.
    pub(super) fn tenants(&self) -> impl Iterator<Item = TenantId> + '_ {
        self.wards.keys().copied()
    }

    /// The last command at or before a time; none if a later one is not known.
    pub(super) fn position_at(&self, tenant: TenantId, micros: i64) -> Option<LogPosition> {
        let times = &self.wards.get(&tenant)?.times;
        times.last().filter(|(last, _)| micros <= *last)?;
        let before = times.iter().rev().find(|(time, _)| *time <= micros);
        Some(before.map_or_else(LogPosition::default, |(_, position)| *position))
    }
}

impl Ward {
    fn schema(&mut self, fact: &SchemaFact, position: LogPosition) {
        match fact {
            SchemaFact::Put(Object::Table(table)) => {
                self.tables.entry(table.id).or_default().push((position, Some((**table).clone())));
            }
            SchemaFact::Put(_) | SchemaFact::Sequence(..) => {}
            SchemaFact::Drop(id) => {
                if let Some(table) = self.tables.get_mut(id) {
                    table.push((position, None));
                }
                self.empty(*id, position);
            }
            SchemaFact::Truncate(id) => self.empty(*id, position),
        }
    }

    fn empty(&mut self, id: ObjectId, position: LogPosition) {
        for versions in self.rows.entry(id).or_default().values_mut() {
            if versions.last().is_some_and(|(_, row)| row.is_some()) {
                versions.push((position, None));
            }
        }
    }

    fn table(&self, id: ObjectId) -> Option<&Table> {
        self.tables.get(&id)?.last()?.1.as_ref()
    }

    /// The values of a row by which a table or an index of it is sorted.
    fn key(table: &Table, index: Option<ObjectId>, row: &Row) -> Option<Vec<Value>> {
        let places: Vec<usize> = match index {
            None => table.key_places().unwrap_or_default(),
            Some(id) => {
                let index = table.indexes.iter().find(|index| index.id == id)?;
                index.columns.iter().filter_map(|column| table.place(column.column)).collect()
            }
        };
        Some(places.iter().map(|place| row[*place].clone()).collect())
    }

    fn guard(&self, guard: &Guard, facts: &Facts) -> Result<(), Wrong> {
        let made = |id: &ObjectId| {
            facts.schema.iter().any(|fact| matches!(fact, SchemaFact::Put(object) if object.id() == *id))
        };
        let holds =
            match guard {
                // Views, sequences and streams are not kept here.
                Guard::StreamEnds(..) => true,
                Guard::NameFree(name) => self.tables.values().all(|versions| {
                    versions
                        .last()
                        .is_none_or(|(_, table)| table.as_ref().is_none_or(|table| table.name != *name))
                }),
                Guard::Schema(id, version) => {
                    made(id) || self.table(*id).is_none_or(|table| table.version == *version)
                }
                Guard::Version(table, id, since) => {
                    let versions = self.rows.get(table).and_then(|rows| rows.get(id));
                    versions.and_then(|versions| versions.last()).is_none_or(|(changed, _)| changed <= since)
                }
                Guard::Absent(id, index, key) => self.table(*id).is_none_or(|table| {
                    let rows = self.rows.get(id).into_iter().flat_map(BTreeMap::values);
                    rows.filter_map(|versions| versions.last()?.1.as_ref())
                        .all(|row| Self::key(table, *index, row).is_none_or(|found| !found.starts_with(key)))
                }),
                Guard::Unchanged(id, index, range, since) => self.table(*id).is_none_or(|table| {
                    let rows = self.rows.get(id).into_iter().flat_map(BTreeMap::values);
                    rows.filter(|versions| versions.last().is_some_and(|(changed, _)| changed > since)).all(
                        |versions| {
                            // What it is now, and what it was when it was read.
                            let then = versions.iter().enumerate().rev();
                            let from = then.clone().find(|(_, (at, _))| at <= since).map_or(0, |(at, _)| at);
                            versions[from..].iter().filter_map(|(_, row)| row.as_ref()).all(|row| {
                                Self::key(table, *index, row).is_none_or(|key| !holds(range, &key))
                            }) || unmoved(table, *index, &versions[from..])
                        },
                    )
                }),
            };
        if holds { Ok(()) } else { Err(Wrong::Guard(format!("{guard:?}"))) }
    }
}

/// Whether an index shows nothing of what happened to a row: its entries stay where other columns change.
fn unmoved(table: &Table, index: Option<ObjectId>, versions: &[(LogPosition, Option<Row>)]) -> bool {
    let key = |row: &Option<Row>| row.as_ref().and_then(|row| Ward::key(table, index, row));
    index.is_some() && versions.windows(2).all(|pair| key(&pair[0].1) == key(&pair[1].1))
}

/// Whether a key lies in a range, by the meaning of ranges.
fn holds(range: &KeyRange, key: &[Value]) -> bool {
    let Some((first, rest)) = key.split_at_checked(range.equal.len()) else { return false };
    let within = |next: &Value| {
        let above = match &range.low {
            Bound::Included(low) => next >= low,
            Bound::Excluded(low) => next > low,
            Bound::Unbounded => true,
        };
        let below = match &range.high {
            Bound::Included(high) => next <= high,
            Bound::Excluded(high) => next < high,
            Bound::Unbounded => true,
        };
        above && below
    };
    first == range.equal && rest.first().is_none_or(within)
}
