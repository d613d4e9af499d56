//! The constraints, decided on the net write set: types, not null, primary key, unique, parent present, no child left.
//!
//! A pure function of the schema, the writes and the rows under them, so that the planner can ask it early and the
//! kernel decides by it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use kimberlite_types::LogPosition;

use crate::cast::kind_fits;
use crate::fact::{KeyRange, Miss, RowId, Rows, Scan, Write};
use crate::schema::{Catalogue, ColumnId, ForeignKey, Index, ObjectId, Table};
use crate::text::output;
use crate::{Row, SqlError, SqlState, Value};

/// Why there is no verdict, or what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Pages are missing: run again when they are there.
    Miss(Miss),
    /// Refused.
    Refused(SqlError),
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        Self::Refused(error)
    }
}

/// More rows than that are first looked for together.
const MANY: usize = 8;

/// The writes by table and row.
enum Net<'a> {
    /// Nobody asks for one.
    Unasked,
    /// They come in this order.
    Sorted(&'a [Write]),
    Map(BTreeMap<(ObjectId, &'a RowId), &'a Write>),
}

impl<'a> Net<'a> {
    fn get(&self, table: ObjectId, id: &RowId) -> Option<&'a Write> {
        match self {
            Self::Unasked => None,
            Self::Sorted(writes) => {
                let at = writes.binary_search_by(|write| (write.table, &write.id).cmp(&(table, id)));
                at.ok().map(|at| &writes[at])
            }
            Self::Map(map) => map.get(&(table, id)).copied(),
        }
    }

    /// Whether a write of a table fits.
    fn any(&self, table: ObjectId, fits: impl Fn(&Write) -> bool) -> bool {
        match self {
            Self::Unasked => false,
            Self::Sorted(writes) => {
                let from = writes.partition_point(|write| write.table < table);
                writes[from..].iter().take_while(|write| write.table == table).any(fits)
            }
            Self::Map(map) => {
                let first = RowId::Key(Vec::new());
                map.range((table, &first)..)
                    .take_while(|(key, _)| key.0 == table)
                    .any(|(_, write)| fits(write))
            }
        }
    }
}

/// What unique indexes get by the parts of some writes that were checked so far.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<ObjectId, BTreeSet<Vec<Value>>>);

/// What they get by one part.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<(ObjectId, Vec<Value>)>);

impl Seen {
    /// Adds what a part gives that was checked.
    pub fn add(&mut self, Keys(keys): Keys) {
        for (index, values) in keys {
            self.0.entry(index).or_default().insert(values);
        }
    }
}

/// Decides it for the next part of writes that come in the order of their tables and rows: as if all were installed, but
/// two that give one key of a unique index are found when the second one comes. Takes time in proportion to the part. Gives
/// its keys, which are to be added to those that were seen.
pub fn check_next(
    catalogue: &Catalogue,
    writes: &[Write],
    part: Range<usize>,
    rows: &dyn Rows,
    at: LogPosition,
    seen: &Seen,
) -> Result<Keys, Stop> {
    let checker = Checker { catalogue, rows, at, net: Net::Sorted(writes) };
    let mut given = Keys::default();
    for group in writes[part].chunk_by(|a, b| a.table == b.table) {
        let group: Vec<&Write> = group.iter().collect();
        checker.table(group[0].table, None, &group, &mut Given { seen, given: &mut given })?;
    }
    Ok(given)
}

/// Keys of unique indexes that earlier parts give, and those of this one.
struct Given<'a> {
    seen: &'a Seen,
    given: &'a mut Keys,
}

struct Checker<'a> {
    catalogue: &'a Catalogue,
    rows: &'a dyn Rows,
    at: LogPosition,
    net: Net<'a>,
}

/// Decides whether the writes may be installed on the rows at `at`. The writes are net: one per row.
pub fn check(catalogue: &Catalogue, writes: &[Write], rows: &dyn Rows, at: LogPosition) -> Result<(), Stop> {
    check_part(catalogue, writes, 0..writes.len(), rows, at)
}

/// Decides it for a part of the writes, as if all were installed: who does so for every part has decided it for all, and
/// needs the pages of one part at a time.
pub fn check_part(
    catalogue: &Catalogue,
    writes: &[Write],
    part: Range<usize>,
    rows: &dyn Rows,
    at: LogPosition,
) -> Result<(), Stop> {
    // Only constraints between rows ask what becomes of others.
    let between = |id: ObjectId| {
        catalogue.table(id).is_some_and(|table| {
            !table.foreign_keys.is_empty() || table.indexes.iter().any(|index| index.unique)
        }) || catalogue.children(id).next().is_some()
    };
    let mut asked: Option<(ObjectId, bool)> = None;
    let needed = writes.iter().any(|write| match asked {
        Some((id, needed)) if id == write.table => needed,
        _ => {
            let needed = between(write.table);
            asked = Some((write.table, needed));
            needed
        }
    });
    let net = if needed {
        Net::Map(writes.iter().map(|write| ((write.table, &write.id), write)).collect())
    } else {
        Net::Unasked
    };
    let checker = Checker { catalogue, rows, at, net };
    let mut unseen = Given { seen: &Seen::default(), given: &mut Keys::default() };
    if let Some(first) = writes.first()
        && writes.iter().all(|write| write.table == first.table)
    {
        if !needed && let Some(table) = catalogue.table(first.table) {
            return checker.alone(table, &writes[part]);
        }
        let all: Vec<&Write> = writes.iter().collect();
        return checker.table(first.table, Some(&all), &all[part], &mut unseen);
    }
    let mut by_table: BTreeMap<ObjectId, (Vec<&Write>, Vec<&Write>)> = BTreeMap::new();
    for (at, write) in writes.iter().enumerate() {
        let (all, here) = by_table.entry(write.table).or_default();
        all.push(write);
        if part.contains(&at) {
            here.push(write);
        }
    }
    for (id, (all, writes)) in by_table {
        checker.table(id, Some(&all), &writes, &mut unseen)?;
    }
    Ok(())
}

/// Decides whether rows of a table keep its constraints, as after one was added: those that are next, where the keys of those in
/// front were seen. `writes` holds each of them as both what was there and what will be.
pub fn check_stored(
    catalogue: &Catalogue,
    table: &Table,
    writes: &[Write],
    rows: &dyn Rows,
    at: LogPosition,
    seen: &Seen,
) -> Result<Keys, Stop> {
    let checker = Checker { catalogue, rows, at, net: Net::Unasked };
    let mut given = Keys::default();
    let all: Vec<&Write> = writes.iter().collect();
    for write in writes {
        check_row(table, write)?;
    }
    for index in table.indexes.iter().filter(|index| index.unique) {
        checker.unique(table, index, None, &all, &mut Given { seen, given: &mut given })?;
    }
    if table.foreign_keys.is_empty() {
        return Ok(given);
    }
    // Without a state before, every parent is looked for.
    let fresh: Vec<Write> = writes.iter().map(|w| Write { before: None, ..w.clone() }).collect();
    let fresh: Vec<&Write> = fresh.iter().collect();
    for key in &table.foreign_keys {
        checker.parents(table, key, &fresh)?;
    }
    Ok(given)
}

/// The constraints that concern a row alone: its types, and not null.
pub fn check_row(table: &Table, write: &Write) -> Result<(), SqlError> {
    let Some(row) = &write.after else { return Ok(()) };
    if row.len() != table.columns.len() {
        return Err(SqlError::new(SqlState::DatatypeMismatch, "the row does not fit its table"));
    }
    for (column, value) in table.columns.iter().zip(row) {
        if value.is_null() && column.not_null {
            return Err(SqlError::new(
                SqlState::NotNullViolation,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, table.name
                ),
            ));
        }
        if !kind_fits(value, &column.kind) {
            return Err(SqlError::new(
                SqlState::DatatypeMismatch,
                format!("a value of column \"{}\" is not of type {}", column.name, column.kind.name()),
            ));
        }
    }
    Ok(())
}

fn project(row: &[Value], places: &[usize]) -> Vec<Value> {
    places.iter().map(|at| row[*at].clone()).collect()
}

/// `(a, b)=(1, 2)`.
fn key_text(table: &Table, places: &[usize], key: &[Value]) -> String {
    let names: Vec<&str> = places.iter().map(|at| table.columns[*at].name.as_str()).collect();
    let values: Vec<String> = places
        .iter()
        .zip(key)
        .map(|(at, value)| output(value, &table.columns[*at].kind).unwrap_or_else(|| "null".into()))
        .collect();
    format!("({})=({})", names.join(", "), values.join(", "))
}

fn duplicate(table: &Table, constraint: &str, places: &[usize], key: &[Value]) -> SqlError {
    SqlError::new(
        SqlState::UniqueViolation,
        format!("duplicate key value violates unique constraint \"{constraint}\""),
    )
    .detail(format!("Key {} already exists.", key_text(table, places, key)))
}

/// A scan that finds rows by some columns: the key or an index that starts with them, or else all rows. It is what
/// [`find`] reads.
pub fn access<'a>(table: &'a Table, columns: &[ColumnId], values: &[Value]) -> (Option<&'a Index>, KeyRange) {
    let prefix = |of: &[ColumnId]| -> Option<Vec<Value>> {
        let head = of.get(..columns.len())?;
        head.iter().map(|c| columns.iter().position(|d| d == c).map(|at| values[at].clone())).collect()
    };
    if let Some(key) = &table.primary_key
        && let Some(equal) = prefix(&key.columns)
    {
        return (None, KeyRange::equal(equal));
    }
    for index in &table.indexes {
        let of: Vec<ColumnId> = index.columns.iter().map(|c| c.column).collect();
        if let Some(equal) = prefix(&of) {
            return (Some(index), KeyRange::equal(equal));
        }
    }
    (None, KeyRange::ALL)
}

/// Gives the rows of a table whose columns have these values, with their identity, until `each` answers `false`.
pub fn find(
    rows: &dyn Rows,
    at: LogPosition,
    table: &Table,
    columns: &[ColumnId],
    values: &[Value],
    each: &mut dyn FnMut(RowId, &[Value]) -> bool,
) -> Result<(), Miss> {
    let places = table.places(columns);
    let (index, range) = access(table, columns, values);
    let scan = Scan { table, index, at, range: &range, after: None, reader: None };
    rows.scan(&scan, &mut |found| {
        let fits = places.iter().zip(values).all(|(at, value)| found.row[*at] == *value);
        !fits || each(RowId::of(table, found.row, found.hidden), found.row)
    })
}

impl Checker<'_> {
    /// Whether a row that is stored is still there, with the same values in these places, after the writes.
    fn stays(&self, table: ObjectId, id: &RowId, places: &[usize], values: &[Value]) -> bool {
        match self.net.get(table, id) {
            None => true,
            Some(write) => write.after.as_ref().is_some_and(|row| project(row, places) == values),
        }
    }

    /// The constraints of a table that has none between rows but its key.
    fn alone(&self, table: &Table, writes: &[Write]) -> Result<(), Stop> {
        for write in writes {
            check_row(table, write)?;
        }
        self.primary_key(table, writes.iter())
    }

    /// All constraints that concern these of all writes to a table. Without all, those in front were seen.
    fn table(
        &self,
        id: ObjectId,
        all: Option<&[&Write]>,
        writes: &[&Write],
        given: &mut Given<'_>,
    ) -> Result<(), Stop> {
        if writes.is_empty() {
            return Ok(());
        }
        let Some(table) = self.catalogue.table(id) else {
            return Err(SqlError::new(SqlState::UndefinedTable, "the table does not exist").into());
        };
        for write in writes {
            check_row(table, write)?;
        }
        self.primary_key(table, writes.iter().copied())?;
        for index in table.indexes.iter().filter(|index| index.unique) {
            self.unique(table, index, all, writes, given)?;
        }
        for key in &table.foreign_keys {
            self.parents(table, key, writes)?;
        }
        for (child, key) in self.catalogue.children(id) {
            self.children(table, child, key, writes)?;
        }
        Ok(())
    }

    fn primary_key<'w>(
        &self,
        table: &Table,
        writes: impl Iterator<Item = &'w Write> + Clone,
    ) -> Result<(), Stop> {
        let (Some(key), Some(places)) = (&table.primary_key, table.key_places()) else { return Ok(()) };
        let added = writes.filter(|write| write.before.is_none() && write.after.is_some());
        // Where no row stands between the least of them and the greatest, none has to be looked for.
        let ids = || {
            added.clone().filter_map(|write| match &write.id {
                RowId::Key(id) if id.len() == places.len() => Some(id),
                _ => None,
            })
        };
        if added.clone().nth(MANY).is_some()
            && let (Some(first), Some(last)) = (ids().min(), ids().max())
            && ids().count() == added.clone().count()
            && self.rows.holds_none(table, first, Some(last), self.at)?
        {
            return Ok(());
        }
        for write in added {
            let Some(row) = &write.after else { continue };
            let values = project(row, &places);
            if self.rows.holds_key(table, &values, self.at)? {
                return Err(duplicate(table, &key.name, &places, &values).into());
            }
        }
        Ok(())
    }

    /// No two of all writes give one key, and none of these gives one that a stored row has.
    fn unique(
        &self,
        table: &Table,
        index: &Index,
        all: Option<&[&Write]>,
        writes: &[&Write],
        given: &mut Given<'_>,
    ) -> Result<(), Stop> {
        let columns: Vec<ColumnId> = index.columns.iter().map(|c| c.column).collect();
        let places = table.places(&columns);
        let key_of = |write: &Write| {
            let values = project(write.after.as_ref()?, &places);
            (!values.iter().any(Value::is_null)).then_some(values)
        };
        let seen = given.seen.0.get(&index.id);
        let mut new: BTreeSet<Vec<Value>> = BTreeSet::new();
        for values in all.unwrap_or(writes).iter().filter_map(|write| key_of(write)) {
            if new.contains(&values) || seen.is_some_and(|seen| seen.contains(&values)) {
                return Err(duplicate(table, &index.name, &places, &values).into());
            }
            new.insert(values);
        }
        if all.is_none() {
            given.given.0.extend(new.into_iter().map(|values| (index.id, values)));
        }
        for write in writes {
            let Some(values) = key_of(write) else { continue };
            if write.before.as_ref().is_some_and(|before| project(before, &places) == values) {
                continue;
            }
            let mut taken = false;
            find(self.rows, self.at, table, &columns, &values, &mut |id, _| {
                // A row that is written as well was compared through `new`, or leaves the key.
                taken |= self.net.get(table.id, &id).is_none();
                !taken
            })?;
            if taken {
                return Err(duplicate(table, &index.name, &places, &values).into());
            }
        }
        Ok(())
    }

    /// Whether a parent with that key is there after the writes.
    fn parent_there(&self, parent: &Table, columns: &[ColumnId], values: &[Value]) -> Result<bool, Miss> {
        let places = parent.places(columns);
        if parent.primary_key.as_ref().is_some_and(|key| key.columns == columns) {
            if let Some(write) = self.net.get(parent.id, &RowId::Key(values.to_vec())) {
                return Ok(write.after.is_some());
            }
        } else if self
            .net
            .any(parent.id, |write| write.after.as_ref().is_some_and(|row| project(row, &places) == values))
        {
            return Ok(true);
        }
        let mut there = false;
        find(self.rows, self.at, parent, columns, values, &mut |id, _| {
            there |= self.stays(parent.id, &id, &places, values);
            !there
        })?;
        Ok(there)
    }

    fn parents(&self, child: &Table, key: &ForeignKey, writes: &[&Write]) -> Result<(), Stop> {
        let places = child.places(&key.columns);
        for write in writes {
            let Some(row) = &write.after else { continue };
            let values = project(row, &places);
            let same = write.before.as_ref().is_some_and(|before| project(before, &places) == values);
            if same || values.iter().any(Value::is_null) {
                continue;
            }
            let Some(parent) = self.catalogue.table(key.parent) else { continue };
            if !self.parent_there(parent, &key.parent_columns, &values)? {
                let message = format!(
                    "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
                    child.name, key.name
                );
                let detail = format!(
                    "Key {} is not present in table \"{}\".",
                    key_text(child, &places, &values),
                    parent.name
                );
                return Err(SqlError::new(SqlState::ForeignKeyViolation, message).detail(detail).into());
            }
        }
        Ok(())
    }

    fn children(
        &self,
        parent: &Table,
        child: &Table,
        key: &ForeignKey,
        writes: &[&Write],
    ) -> Result<(), Stop> {
        let parent_places = parent.places(&key.parent_columns);
        let child_places = child.places(&key.columns);
        for write in writes {
            let Some(before) = &write.before else { continue };
            let values = project(before, &parent_places);
            let kept = |row: &Row| project(row, &parent_places) == values;
            if values.iter().any(Value::is_null) || write.after.as_ref().is_some_and(kept) {
                continue;
            }
            let mut left = false;
            find(self.rows, self.at, child, &key.columns, &values, &mut |id, _| {
                left |= self.stays(child.id, &id, &child_places, &values);
                !left
            })?;
            if left && !self.parent_there(parent, &key.parent_columns, &values)? {
                let message = format!(
                    "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
                    parent.name, key.name, child.name
                );
                let detail = format!(
                    "Key {} is still referenced from table \"{}\".",
                    key_text(parent, &parent_places, &values),
                    child.name
                );
                return Err(SqlError::new(SqlState::ForeignKeyViolation, message).detail(detail).into());
            }
        }
        Ok(())
    }
}
