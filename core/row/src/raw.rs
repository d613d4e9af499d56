//! Inserted rows as they stand in the encoding of facts: who only stores them makes no values of them.
//!
//! A value is written in facts by the same bytes as in a row, but for the byte that says its kind. So a row is put together
//! from pieces of the facts, each held against the type of its column. Nothing here refuses: what is not plainly right is
//! for those to judge who decode it.

use alloc::vec::Vec;

use crate::cast::kind_fits;
use crate::codec::{Layout, Reader, decode_value};
use crate::fact::{Hidden, provisional};
use crate::key::{KeyOrder, encode};
use crate::schema::{ObjectId, Table};
use crate::{Type, Value};

/// The kinds of the codec that are looked at here.
const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const TEXT: u8 = 7;

/// The writes of facts, as long as they insert rows. Of an array of writes in their encoding by postcard.
#[derive(Debug)]
pub struct Inserts<'b> {
    reader: Reader<'b>,
    left: usize,
    table: ObjectId,
    hidden: Option<Hidden>,
    /// The encoded values of the row's key, and of the row.
    key: Vec<&'b [u8]>,
    row: Vec<&'b [u8]>,
}

impl<'b> Inserts<'b> {
    /// The writes of facts whose encoding goes on like this behind their guards; `None` if they change the schema.
    pub fn of(behind_guards: &'b [u8]) -> Option<Self> {
        let mut reader = Reader { bytes: behind_guards };
        if reader.byte().ok()? != 0 {
            return None;
        }
        let left = reader.count().ok()?;
        Some(Self { reader, left, table: ObjectId(0), hidden: None, key: Vec::new(), row: Vec::new() })
    }

    /// How many there are behind the one at hand.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The table of the write at hand.
    pub fn table(&self) -> ObjectId {
        self.table
    }

    /// Goes on to the next write: `Some(false)` behind the last, `None` if it is no insertion.
    pub fn advance(&mut self) -> Option<bool> {
        let reader = &mut self.reader;
        if self.left == 0 {
            return reader.bytes.is_empty().then_some(false);
        }
        self.left -= 1;
        self.table = ObjectId(u32::try_from(reader.number().ok()?).ok()?);
        match reader.byte().ok()? {
            0 => {
                self.hidden = None;
                values(reader, &mut self.key)?;
            }
            1 => self.hidden = Some(reader.array().ok()?),
            _ => return None,
        }
        // Nothing before, something after.
        if reader.array::<2>().ok()? != [0, 1] {
            return None;
        }
        values(reader, &mut self.row)?;
        Some(true)
    }

    /// The count that the planner gave to the row at hand, if it is one of a table without a key.
    pub fn hidden_count(&self) -> Option<u32> {
        let hidden = self.hidden?;
        let (front, count) = hidden.split_last_chunk::<4>()?;
        (*front == provisional(0)[..12]).then(|| u32::from_be_bytes(*count))
    }

    /// Appends the key of the row at hand, which must stand in these places of it; else `None`.
    pub fn put_key(&self, places: &[usize], to: &mut Vec<u8>) -> Option<()> {
        if self.hidden.is_some() || self.key.len() != places.len() {
            return None;
        }
        for (value, at) in self.key.iter().zip(places) {
            if self.row.get(*at)? != value {
                return None;
            }
            encode(&decode_value(value).ok()?, KeyOrder::ASCENDING, to);
        }
        Some(())
    }

    /// Appends the values in these places of the row at hand as an index keeps them, and says whether one is NULL; `None` if
    /// there is no such place.
    pub fn put_columns(&self, columns: &[(usize, KeyOrder)], to: &mut Vec<u8>) -> Option<bool> {
        let mut null = false;
        for (at, order) in columns {
            let value = decode_value(self.row.get(*at)?).ok()?;
            null |= value.is_null();
            encode(&value, *order, to);
        }
        Some(null)
    }

    /// Appends the row at hand as it is stored: the same bytes that [`Layout::encode`] gives for its values. `None` if it is
    /// no row of the table, or has no value where one must be.
    pub fn put_row(&self, table: &Table, layout: &Layout, to: &mut Vec<u8>) -> Option<()> {
        if self.row.len() != table.columns.len() || layout.len() != table.columns.len() {
            return None;
        }
        let fits = |place: usize| {
            let column = &table.columns[place];
            let (kind, rest) = self.row[place].split_first()?;
            let sound = if *kind == NULL {
                rest.is_empty() && !column.not_null
            } else {
                fits(*kind, rest, self.row[place], &column.kind)
            };
            sound.then_some((*kind, rest))
        };
        layout.encode_with(fits, to)
    }
}

/// Reads the values of a row, and leaves them as they are.
fn values<'b>(reader: &mut Reader<'b>, to: &mut Vec<&'b [u8]>) -> Option<()> {
    to.clear();
    for _ in 0..reader.count().ok()? {
        to.push(reader.sized().ok()?);
    }
    Some(())
}

/// Whether this is the one encoding of a value that a column of this type holds.
fn fits(kind: u8, rest: &[u8], whole: &[u8], column: &Type) -> bool {
    let mut reader = Reader { bytes: rest };
    match (kind, column) {
        (FALSE | TRUE, Type::Bool) => rest.is_empty(),
        (INT, _) => {
            reader.int().is_ok_and(|value| kind_fits(&Value::Int(value), column)) && reader.bytes.is_empty()
        }
        (TEXT, Type::Text | Type::Varchar(_) | Type::Char(_)) => {
            let Ok(text) = reader.str() else { return false };
            let short = match column {
                Type::Varchar(Some(length)) | Type::Char(length) => text.chars().count() <= *length as usize,
                _ => true,
            };
            short && reader.bytes.is_empty()
        }
        _ => {
            let Ok(value) = decode_value(whole) else { return false };
            let mut again = Vec::with_capacity(whole.len());
            crate::codec::encode_value(&value, &mut again);
            again == whole && kind_fits(&value, column)
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::fact::{Facts, RowId, Write};
    use crate::schema::{Column, ColumnId, PrimaryKey};
    use crate::{Decimal, Row};

    fn table() -> Table {
        let kinds = [
            Type::BigInt,
            Type::Text,
            Type::Varchar(Some(3)),
            Type::Bool,
            Type::Decimal(Some((5, 2))),
            Type::SmallInt,
        ];
        let column = |(at, kind): (usize, &Type)| Column {
            // Ids with a gap, not in the order of the columns.
            id: ColumnId([30, 2, 3, 4, 5, 12][at]),
            name: alloc::format!("c{at}"),
            kind: kind.clone(),
            not_null: at == 0,
            default: None,
            missing: None,
            identity: None,
            owns: None,
            generated: None,
        };
        Table {
            id: ObjectId(7),
            name: "t".into(),
            version: 1,
            next_column: 31,
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
            columns: kinds.iter().enumerate().map(column).collect(),
            primary_key: Some(PrimaryKey { name: "t_pkey".into(), columns: [ColumnId(30)].into() }),
        }
    }

    fn row() -> Row {
        let cents = Value::Decimal(Decimal::new(1_250, 2).unwrap());
        [Value::Int(-300), Value::text("näh"), Value::text("äöü"), Value::Bool(true), cents, Value::Null]
            .into()
    }

    /// What becomes of one row: its key and its bytes, if it is taken as it is.
    fn taken(id: RowId, before: Option<Row>, after: Option<Row>) -> Option<(Vec<u8>, Vec<u8>)> {
        let table = table();
        let writes = [Write { table: table.id, id, before, after }].into();
        let facts = postcard::to_allocvec(&Facts { writes, ..Facts::default() }).unwrap();
        let mut inserts = Inserts::of(&facts[1..])?;
        assert!(inserts.advance()?);
        let (mut key, mut bytes) = (Vec::new(), Vec::new());
        inserts.put_key(&[0], &mut key)?;
        inserts.put_row(&table, &Layout::of(&table).unwrap(), &mut bytes)?;
        assert_eq!(inserts.advance(), Some(false));
        Some((key, bytes))
    }

    fn with(at: usize, value: Value) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut row = row();
        row[at] = value;
        taken(RowId::Key([row[0].clone()].into()), None, Some(row))
    }

    #[test]
    fn a_row_is_stored_by_the_bytes_that_its_values_are() {
        let row = row();
        let (mut key, mut bytes) = (Vec::new(), Vec::new());
        encode(&row[0], KeyOrder::ASCENDING, &mut key);
        Layout::of(&table()).unwrap().encode(&row, &mut bytes).unwrap();
        let given = taken(RowId::Key([row[0].clone()].into()), None, Some(row));
        assert_eq!(given, Some((key, bytes)));
    }

    #[test]
    fn what_is_no_plain_insertion_is_left_to_others() {
        let key = || RowId::Key([Value::Int(-300)].into());
        assert!(taken(key(), None, Some(row())).is_some());
        assert!(taken(RowId::Key([Value::Int(1)].into()), None, Some(row())).is_none());
        assert!(taken(RowId::Key([].into()), None, Some(row())).is_none());
        assert!(taken(RowId::Hidden([0xff; 16]), None, Some(row())).is_none());
        assert!(taken(key(), Some(row()), Some(row())).is_none());
        assert!(taken(key(), Some(row()), None).is_none());
        assert!(taken(key(), None, None).is_none());
        assert!(taken(key(), None, Some(row()[..5].to_vec())).is_none());
        assert!(with(0, Value::Null).is_none());
        assert!(with(1, Value::Null).is_some());
        assert!(with(1, Value::Int(1)).is_none());
        assert!(with(2, Value::text("abcd")).is_none());
        assert!(with(4, Value::Decimal(Decimal::new(1, 0).unwrap())).is_none());
        assert!(with(5, Value::Int(1 << 15)).is_none());
        assert!(with(5, Value::Int(1 << 14)).is_some());
        assert!(with(5, Value::Array(Arc::from([]))).is_none());
    }

    #[test]
    fn bytes_that_are_no_facts_are_not_taken() {
        let table = table();
        let id = RowId::Key([Value::Int(-300)].into());
        let writes = [Write { table: table.id, id, before: None, after: Some(row()) }].into();
        let facts = postcard::to_allocvec(&Facts { writes, ..Facts::default() }).unwrap();
        let layout = Layout::of(&table).unwrap();
        let mut unlike = 0;
        for at in 1..facts.len() {
            for bit in 0..8 {
                let mut damaged = facts.clone();
                damaged[at] ^= 1 << bit;
                let Some(mut inserts) = Inserts::of(&damaged[1..]) else { continue };
                let (mut key, mut bytes) = (Vec::new(), Vec::new());
                let whole = inserts.advance() == Some(true)
                    && inserts.table() == table.id
                    && inserts.put_key(&[0], &mut key).is_some()
                    && inserts.put_row(&table, &layout, &mut bytes).is_some()
                    && inserts.advance() == Some(false);
                if !whole {
                    continue;
                }
                // What is taken is what those make of it who decode it.
                let known: Facts = postcard::from_bytes(&damaged).unwrap();
                let mut stored = Vec::new();
                layout.encode(known.writes[0].after.as_ref().unwrap(), &mut stored).unwrap();
                assert_eq!(bytes, stored, "byte {at}, bit {bit}");
                unlike += 1;
            }
        }
        assert!(unlike > 10, "only {unlike}");
        assert!(Inserts::of(&[]).is_none());
        assert!(Inserts::of(&[1]).is_none());
    }
}
