//! Facts that no planner makes are refused, whatever they say; none changes anything.

use std::sync::Arc;

use kimberlite_row::fact::{Guard, KeyRange, RowId, Rows, Scan, SchemaFact, Write, hidden_at, provisional};
use kimberlite_row::schema::{Action, ForeignKey, IndexColumn, PrimaryKey};
use kimberlite_row::{
    Column, ColumnId, Index, Object, ObjectId, Sequence, Table, Type, Value, View as SqlView,
};
use kimberlite_store::BATCH_WRITES_MAX;
use kimberlite_types::LogPosition;

use super::*;
use crate::limits::{COMMAND_WRITES_MAX, GUARDS_MAX, SCHEMA_FACTS_MAX};
use crate::tables::OBJECT_ID_LIMIT;

const KEYED: ObjectId = ObjectId(1);
const INDEX: ObjectId = ObjectId(2);
const HIDDEN: ObjectId = ObjectId(3);
const NUMBERS: ObjectId = ObjectId(4);

fn index(id: ObjectId, of: u32) -> Index {
    let columns = [IndexColumn { column: ColumnId(of), descending: false, nulls_first: false }].into();
    Index { id, name: format!("i{}", id.0), columns, unique: false, constraint: false }
}

fn keyed() -> Table {
    Table {
        id: KEYED,
        name: "keyed".into(),
        version: 1,
        columns: [column(0, Type::Text), column(1, Type::Integer)].into(),
        next_column: 2,
        primary_key: Some(PrimaryKey { name: "keyed_pkey".into(), columns: [ColumnId(0)].into() }),
        indexes: [index(INDEX, 1)].into(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
    }
}

fn hidden() -> Table {
    Table { id: HIDDEN, name: "hidden".into(), primary_key: None, indexes: Vec::new(), ..keyed() }
}

fn numbers() -> Sequence {
    let (id, name) = (NUMBERS, "numbers".into());
    Sequence { id, name, version: 1, start: 1, step: 1, low: 1, high: 9, cycle: false, last: None }
}

fn put(table: Table) -> SchemaFact {
    SchemaFact::Put(Object::Table(Arc::new(table)))
}

fn changed(change: impl FnOnce(&mut Table)) -> Facts {
    let mut table = Table { version: 2, ..keyed() };
    change(&mut table);
    schema(put(table))
}

fn schema(fact: SchemaFact) -> Facts {
    Facts { schema: [fact].into(), ..Facts::default() }
}

fn guard(guard: Guard) -> Facts {
    Facts { guards: [guard].into(), ..Facts::default() }
}

fn key(text: &str) -> RowId {
    RowId::Key([Value::text(text)].into())
}

fn row(text: &str, number: i64) -> Vec<Value> {
    [Value::text(text), Value::Int(number)].into()
}

fn write(table: ObjectId, id: RowId, before: Option<Vec<Value>>, after: Option<Vec<Value>>) -> Facts {
    Facts { writes: [Write { table, id, before, after }].into(), ..Facts::default() }
}

/// A table with a key, one without, and a sequence; each table has one row.
fn cluster() -> Cluster {
    cluster_of(&[Memory::Whole, Memory::Slow])
}

fn cluster_of(memories: &[Memory]) -> Cluster {
    let mut cluster = Cluster::new(memories);
    let sequence = SchemaFact::Put(Object::Sequence(Arc::new(numbers())));
    let insert = |table, id, text| Write { table, id, before: None, after: Some(row(text, 7)) };
    let facts = Facts {
        guards: Vec::new(),
        schema: [put(keyed()), put(hidden()), sequence].into(),
        writes: [insert(KEYED, key("a"), "a"), insert(HIDDEN, RowId::Hidden(provisional(1)), "h")].into(),
    };
    assert_eq!(cluster.refused(&facts), None);
    cluster
}

/// Rows that come in the order of their keys are stored without being decoded. Whatever they are, and whatever else is
/// said with them, becomes what it becomes in another order.
#[test]
fn rows_in_the_order_of_their_keys_become_what_they_become_in_any() {
    const PLAIN: ObjectId = ObjectId(5);
    let plain = || {
        let primary_key = Some(PrimaryKey { name: "p".into(), columns: [ColumnId(0)].into() });
        Table { id: PLAIN, name: "plain".into(), indexes: Vec::new(), primary_key, ..keyed() }
    };
    let insert = |text: &str, after| Write { table: PLAIN, id: key(text), before: None, after: Some(after) };
    let fresh = |count| {
        let id = RowId::Hidden(provisional(count));
        Write { table: HIDDEN, id, before: None, after: Some(row("h", i64::from(count))) }
    };
    let taken = |text| insert(text, row(text, 1));
    let since = |guard| (guard, [taken("b"), taken("c")].to_vec());
    let at = |op| LogPosition { op: kimberlite_types::Op(op), index: 0 };
    let indexed =
        |text: &str, number| Write { table: KEYED, ..insert(text, [Value::text(text), number].into()) };
    let cases: [(Vec<Guard>, Vec<Write>); 12] = [
        (Vec::new(), [indexed("b", Value::Int(7)), indexed("c", Value::Null), fresh(1)].into()),
        (Vec::new(), [indexed("a", Value::Int(8)), indexed("b", Value::Int(8))].into()),
        (Vec::new(), [fresh(1), fresh(2), taken("b"), taken("c")].into()),
        (Vec::new(), [taken("a"), taken("b")].into()),
        (Vec::new(), [taken("b"), insert("c", [Value::text("c"), Value::Null].into())].into()),
        (Vec::new(), [taken("b"), insert("c", [Value::text("c"), Value::text("7")].into())].into()),
        (Vec::new(), [taken("b"), insert("c", [Value::text("c")].into())].into()),
        (Vec::new(), [taken("b"), insert("c", row("d", 1))].into()),
        since([Guard::Schema(PLAIN, 1)].into()),
        since([Guard::Schema(PLAIN, 2)].into()),
        since([Guard::Unchanged(PLAIN, None, KeyRange::ALL, at(4))].into()),
        since([Guard::Unchanged(PLAIN, None, KeyRange::ALL, at(5))].into()),
    ];
    let mut allowed = 0;
    for (guards, writes) in cases {
        let outcome = |turned: bool| {
            let mut cluster = cluster_of(&[Memory::Whole, Memory::OneByOne]);
            assert_eq!(cluster.refused(&schema(put(plain()))), None);
            assert_eq!(cluster.refused(&write(PLAIN, key("a"), None, Some(row("a", 1)))), None);
            let mut writes = writes.clone();
            if turned {
                writes.reverse();
            }
            let facts = Facts { guards: guards.clone(), writes, ..Facts::default() };
            (cluster.refused(&facts), cluster.replicas[0].kernel.written)
        };
        let (ordered, turned) = (outcome(false), outcome(true));
        assert_eq!(ordered, turned, "{guards:?} {writes:?}");
        allowed += usize::from(ordered.0.is_none());
    }
    assert_eq!(allowed, 5, "some are allowed, and some are not");
}

fn all_rows(cluster: &mut Cluster) -> Vec<(LogPosition, Vec<Value>)> {
    let mut all = Vec::new();
    for table in [keyed(), hidden()] {
        all.extend(cluster.replicas[0].rows(|rows| {
            let mut found = Vec::new();
            let (index, at, range) = (None, rows.last(), &KeyRange::ALL);
            let scan = Scan { table: &table, index, at, range, after: None, reader: None };
            rows.scan(&scan, &mut |row| {
                found.push((row.version, row.row.to_vec()));
                true
            })?;
            Ok(found)
        }));
    }
    all
}

#[test]
fn a_tenant_that_does_not_exist_has_no_tables() {
    let mut cluster = Cluster::new(&[Memory::Whole]);
    let facts = postcard::to_allocvec(&Facts::default()).unwrap();
    let command = Command::Facts { facts: &facts, reply: b"" }.encode();
    assert_eq!(cluster.commit(TenantId(99), 5, std::slice::from_ref(&command)), [Err(Refusal::NoTenant)]);
    assert_eq!(cluster.commit(CLINIC, 6, &[command]), [Ok(Outcome::Written { rows: 0 })]);
    let more = [&facts[..], &[0]].concat();
    let command = Command::Facts { facts: &more, reply: b"" }.encode();
    assert_eq!(cluster.commit(CLINIC, 7, &[command]), [Err(Refusal::Malformed)]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of lies")]
fn each_lie_is_refused_and_changes_nothing() {
    let mut cluster = cluster();
    let before = all_rows(&mut cluster);
    assert_eq!(before.len(), 2);
    let future = LogPosition { op: kimberlite_types::Op(1 << 40), index: 0 };
    let foreign = |parent, columns: &[u32]| ForeignKey {
        name: "f".into(),
        columns: columns.iter().map(|id| ColumnId(*id)).collect(),
        parent,
        parent_columns: [ColumnId(0)].into(),
        on_delete: Action::NoAction,
        on_update: Action::NoAction,
    };
    let view = SqlView {
        id: KEYED,
        name: "view".into(),
        version: 2,
        columns: Vec::new(),
        query: String::new(),
        reads: Vec::new(),
    };
    let fresh = |id: u32| {
        put(Table {
            id: ObjectId(id),
            name: "fresh".into(),
            indexes: Vec::new(),
            primary_key: None,
            ..keyed()
        })
    };
    let mut twice = write(KEYED, key("b"), None, Some(row("b", 1)));
    twice.writes.push(twice.writes[0].clone());
    let long = "x".repeat(3_000);
    let stored_hidden = RowId::Hidden(hidden_at(before[1].0, 1));
    let lies: Vec<(&str, Facts, &str)> = vec![
        ("no table", write(ObjectId(77), key("b"), None, Some(row("b", 1))), "malformed"),
        ("a short row", write(KEYED, key("b"), None, Some(row("b", 1)[..1].to_vec())), "malformed"),
        ("a short row before", write(KEYED, key("a"), Some(row("a", 7)[..1].to_vec()), None), "malformed"),
        (
            "another type",
            write(KEYED, key("b"), None, Some([Value::text("b"), Value::text("")].into())),
            "malformed",
        ),
        ("twice", twice, "malformed"),
        ("another row's key", write(KEYED, key("c"), None, Some(row("b", 1))), "malformed"),
        ("a longer key", write(KEYED, RowId::Key(row("b", 1)), None, Some(row("b", 1))), "malformed"),
        (
            "a hidden key of a keyed table",
            write(KEYED, RowId::Hidden(provisional(1)), None, Some(row("b", 1))),
            "malformed",
        ),
        ("a key of a table without one", write(HIDDEN, key("b"), None, Some(row("b", 1))), "malformed"),
        (
            "a hidden key of its own choice",
            write(HIDDEN, RowId::Hidden([7; 16]), None, Some(row("b", 1))),
            "malformed",
        ),
        ("nothing", write(KEYED, key("b"), None, None), "malformed"),
        ("what was not there", write(KEYED, key("b"), Some(row("b", 1)), None), "conflict"),
        ("what was something else", write(KEYED, key("a"), Some(row("a", 8)), None), "conflict"),
        (
            "a hidden row that was something else",
            write(HIDDEN, stored_hidden, Some(row("h", 8)), None),
            "conflict",
        ),
        ("a row that is there", write(KEYED, key("a"), None, Some(row("a", 8))), "23505"),
        ("a long key", write(KEYED, key(&long), None, Some(row(&long, 1))), "54000"),
        ("a guard on the future", guard(Guard::Version(KEYED, key("a"), future)), "malformed"),
        ("a guard on many columns", guard(Guard::Absent(KEYED, None, row("a", 7))), "malformed"),
        ("a guard that fails", guard(Guard::Absent(KEYED, Some(INDEX), [Value::Int(7)].into())), "conflict"),
        ("a guard on a lost index", guard(Guard::Absent(KEYED, Some(HIDDEN), Vec::new())), "conflict"),
        (
            "many guards",
            Facts { guards: vec![Guard::NameFree("z".into()); GUARDS_MAX + 1], ..Facts::default() },
            "54000",
        ),
        (
            "many changes",
            Facts { schema: vec![SchemaFact::Truncate(KEYED); SCHEMA_FACTS_MAX + 1], ..Facts::default() },
            "54000",
        ),
        ("an id of old", schema(fresh(INDEX.0)), "conflict"),
        ("id 0", schema(fresh(0)), "conflict"),
        ("a far id", schema(fresh(100_000)), "malformed"),
        ("the kernel's own id", schema(fresh(OBJECT_ID_LIMIT)), "malformed"),
        ("the last id", schema(fresh(u32::MAX)), "malformed"),
        ("another kind", schema(SchemaFact::Put(Object::View(Arc::new(view)))), "malformed"),
        ("a name twice", changed(|table| table.name = "hidden".into()), "42P07"),
        ("an index's name twice", changed(|table| table.indexes[0].name = "keyed".into()), "42P07"),
        ("an old version", schema(put(keyed())), "conflict"),
        (
            "an index with its table's id",
            schema(put(Table {
                id: ObjectId(9),
                name: "fresh".into(),
                primary_key: None,
                indexes: [index(ObjectId(9), 1)].into(),
                ..keyed()
            })),
            "malformed",
        ),
        (
            "an index of another table",
            schema(put(Table {
                id: ObjectId(9),
                name: "fresh".into(),
                primary_key: None,
                indexes: [index(INDEX, 1)].into(),
                ..keyed()
            })),
            "conflict",
        ),
        ("an index of no column", changed(|table| table.indexes.push(index(ObjectId(9), 5))), "malformed"),
        (
            "an index of nothing",
            changed(|table| table.indexes.push(Index { columns: Vec::new(), ..index(ObjectId(9), 1) })),
            "malformed",
        ),
        (
            "an index twice",
            changed(|table| table.indexes.push(Index { name: "other".into(), ..index(INDEX, 1) })),
            "malformed",
        ),
        ("an index in place", changed(|table| table.indexes[0].unique = true), "malformed"),
        ("a key in place", changed(|table| table.primary_key = None), "malformed"),
        ("a type in place", changed(|table| table.columns[1].kind = Type::Text), "malformed"),
        (
            "a missing value in place",
            changed(|table| table.columns[1].missing = Some("1".into())),
            "malformed",
        ),
        ("a column's id twice", changed(|table| table.columns[1].id = ColumnId(0)), "malformed"),
        ("a column's name twice", changed(|table| table.columns[1].name = "c0".into()), "malformed"),
        ("a column to come", changed(|table| table.next_column = 1), "malformed"),
        (
            "a missing value of another type",
            changed(|table| {
                table.columns.push(Column { missing: Some("x".into()), ..column(2, Type::Integer) });
                table.next_column = 3;
            }),
            "22P02",
        ),
        ("a parent that is none", changed(|table| table.foreign_keys.push(foreign(INDEX, &[0]))), "42P01"),
        (
            "a parent's column too many",
            changed(|table| table.foreign_keys.push(foreign(KEYED, &[0, 1]))),
            "conflict",
        ),
        (
            "a parent that is not there",
            changed(|table| table.foreign_keys.push(foreign(HIDDEN, &[0]))),
            "23503",
        ),
        (
            "what is stricter than the rows",
            changed(|table| {
                table.columns.push(Column { not_null: true, ..column(2, Type::Integer) });
                table.next_column = 3;
            }),
            "23502",
        ),
        ("dropping nothing", schema(SchemaFact::Drop(ObjectId(77))), "malformed"),
        ("truncating a sequence", schema(SchemaFact::Truncate(NUMBERS)), "malformed"),
        ("numbers of a table", schema(SchemaFact::Sequence(KEYED, Some(1))), "malformed"),
        ("a number too large", schema(SchemaFact::Sequence(NUMBERS, Some(10))), "malformed"),
    ];
    for (what, facts, expected) in lies {
        assert_eq!(cluster.refused(&facts).as_deref(), Some(expected), "{what}");
        assert_eq!(all_rows(&mut cluster), before, "{what}");
    }
    let honest = schema(SchemaFact::Sequence(NUMBERS, Some(9)));
    assert_eq!(cluster.refused(&honest), None);
    assert_eq!(cluster.refused(&changed(|table| table.indexes.push(index(ObjectId(9), 0)))), None);
    assert_eq!(cluster.refused(&write(HIDDEN, stored_hidden_of(&before), Some(row("h", 7)), None)), None);
}

fn stored_hidden_of(rows: &[(LogPosition, Vec<Value>)]) -> RowId {
    RowId::Hidden(hidden_at(rows[1].0, 1))
}

fn many(from: u32, count: u32) -> Facts {
    let write = |n| Write {
        table: HIDDEN,
        id: RowId::Hidden(provisional(n)),
        before: None,
        after: Some(row("", n.into())),
    };
    Facts { writes: (from..from + count).map(write).collect(), ..Facts::default() }
}

fn indexed() -> Facts {
    schema(put(Table { version: 2, indexes: [index(ObjectId(9), 1)].into(), ..hidden() }))
}

#[test]
fn what_is_too_much_for_one_command_is_refused_by_name() {
    let mut cluster = cluster_of(&[Memory::Whole]);
    // With eight indexes a row takes nine keys, and the time of the command takes one.
    let wide =
        |version| Table { version, indexes: (10..18).map(|id| index(ObjectId(id), 1)).collect(), ..hidden() };
    assert_eq!(cluster.refused(&schema(put(wide(2)))), None);
    let most = u32::try_from(COMMAND_WRITES_MAX).expect("it is small") / 9;
    assert_eq!(cluster.refused(&many(0, most + 1)).as_deref(), Some("54000"));
    assert_eq!(cluster.refused(&many(0, most / 2)), None);
    assert_eq!(cluster.refused(&many(0, most - most / 2)), None);
    assert_eq!(cluster.refused(&schema(SchemaFact::Truncate(HIDDEN))).as_deref(), Some("54000"));
    let again = (20..29).map(|id| index(ObjectId(id), 1)).collect();
    let facts = schema(put(Table { indexes: again, ..wide(3) }));
    assert_eq!(cluster.refused(&facts).as_deref(), Some("54000"));
    assert_eq!(all_rows(&mut cluster).len(), 2 + most as usize);
    // What is dropped is only not named any more.
    assert_eq!(cluster.refused(&schema(SchemaFact::Drop(HIDDEN))), None);
}

#[test]
fn a_command_that_takes_several_batches_is_one_for_all_that_misses() {
    let count = 2 * u32::try_from(BATCH_WRITES_MAX).expect("it is small");
    let mut cluster = cluster_of(&[Memory::Whole, Memory::None, Memory::Slow]);
    assert_eq!(cluster.refused(&many(0, count)), None);
    assert_eq!(all_rows(&mut cluster).len(), 2 + count as usize);
    assert_eq!(cluster.refused(&indexed()), None);
    assert_eq!(cluster.refused(&schema(SchemaFact::Truncate(HIDDEN))), None);
    assert_eq!(all_rows(&mut cluster).len(), 1);
    assert!(cluster.replicas[1].misses > 0, "a replica missed pages");
}
