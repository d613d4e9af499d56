//! Any schemas, facts and guards, planned on the present or on what was once there, against the model: what becomes of
//! each command, and then every read at every position; with all pages at hand, and with each first touch missing.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use kimberlite_row::fact::{
    Facts, Guard, KeyRange, RowId, Rows, Scan, SchemaFact, TimePoint, Write, provisional,
};
use kimberlite_row::schema::{ForeignKey, IndexColumn, PrimaryKey};
use kimberlite_row::{
    Catalogue, Column, ColumnId, Decimal, Index, Object, ObjectId, Row, Table, Type, Value,
};
use kimberlite_types::{LogPosition, Op};
use kimberlite_wire::command::{Command, Outcome, Refusal};
use proptest::prelude::*;

use super::model::{CONFLICT, Expected, Model, Moment, Version, range};
use super::{CLINIC, Cluster, Memory};
use crate::staged::commands;

/// Choices, one byte each; 0 when there are no more, so that shorter is simpler.
struct Script<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl Script<'_> {
    fn below(&mut self, bound: usize) -> usize {
        usize::from(*self.bytes.next().unwrap_or(&0)) % bound.max(1)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        from.get(self.below(from.len()))
    }

    fn value(&mut self, kind: &Type) -> Value {
        let choice = self.below(6);
        let small = i64::try_from(choice).unwrap() - 2;
        match kind {
            _ if choice == 5 => Value::Null,
            Type::Integer => Value::Int(small * 100),
            Type::Decimal(_) => {
                let scale = u8::from(choice == 2);
                Value::Decimal(
                    Decimal::new(i128::from(small) * if scale == 1 { 10 } else { 1 }, scale).unwrap(),
                )
            }
            Type::Bool => Value::Bool(choice > 2),
            _ => Value::text(["", "a", "a\0", "b", "\u{7ff}"][choice]),
        }
    }

    fn kind(&mut self) -> Type {
        [Type::Integer, Type::Text, Type::Decimal(None), Type::Bool][self.below(4)].clone()
    }

    fn bound(&mut self, kind: &Type) -> Bound<Value> {
        match self.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(self.value(kind)),
            _ => Bound::Excluded(self.value(kind)),
        }
    }

    fn range(&mut self, table: &Table, index: Option<&Index>) -> KeyRange {
        let columns: Vec<ColumnId> = match (index, &table.primary_key) {
            (Some(index), _) => index.columns.iter().map(|column| column.column).collect(),
            (None, Some(key)) => key.columns.clone(),
            (None, None) => return KeyRange::ALL,
        };
        let kinds: Vec<Type> =
            table.places(&columns).iter().map(|at| table.columns[*at].kind.clone()).collect();
        let equal = self.below(kinds.len() + 1);
        let values = kinds[..equal].iter().map(|kind| self.value(kind)).collect();
        let Some(next) = kinds.get(equal) else { return KeyRange::equal(values) };
        range(values, self.bound(next), self.bound(next))
    }

    fn columns(&mut self, table: &Table) -> Vec<ColumnId> {
        let mut ids: Vec<ColumnId> = table.columns.iter().map(|column| column.id).collect();
        let count = 1 + self.below(ids.len().min(2));
        (0..count).map(|_| ids.remove(self.below(ids.len()))).collect()
    }
}

/// Makes facts, as a planner that reads one moment would.
struct Planner<'a, 's> {
    script: &'a mut Script<'s>,
    moment: &'a Moment,
    catalogue: Catalogue,
    facts: Facts,
    fresh: u32,
    truncated: BTreeSet<ObjectId>,
}

impl Planner<'_, '_> {
    fn tables(&self) -> Vec<Arc<Table>> {
        let tables = self.catalogue.objects().filter_map(|object| match object {
            Object::Table(table) => Some(table.clone()),
            _ => None,
        });
        tables.collect()
    }

    fn put(&mut self, mut table: Table) {
        table.version += 1;
        match self.catalogue.table(table.id) {
            Some(old) => self.facts.guards.push(Guard::Schema(old.id, old.version)),
            None => self.facts.guards.push(Guard::NameFree(table.name.clone())),
        }
        let object = Object::Table(Arc::new(table));
        self.catalogue.put(object.clone());
        self.facts.schema.push(SchemaFact::Put(object));
    }

    fn column(&mut self, table: &mut Table) {
        let id = ColumnId(table.next_column);
        table.next_column += 1;
        let kind = self.script.kind();
        let missing = self.script.one_in(2).then(|| match kind {
            Type::Bool => "true".to_owned(),
            _ => "7".to_owned(),
        });
        table.columns.push(Column {
            id,
            name: format!("c{}", id.0),
            kind,
            not_null: self.script.one_in(5),
            default: None,
            missing,
            identity: None,
            owns: None,
            generated: None,
        });
    }

    fn index(&mut self, table: &mut Table) {
        let id = self.catalogue.take_id();
        let columns = self.script.columns(table).into_iter().map(|column| IndexColumn {
            column,
            descending: self.script.one_in(2),
            nulls_first: self.script.one_in(2),
        });
        let columns = columns.collect();
        let unique = self.script.one_in(3);
        table.indexes.push(Index { id, name: format!("i{}", id.0), columns, unique, constraint: false });
    }

    fn foreign_key(&mut self, table: &mut Table) {
        let parents: Vec<_> = self.tables().into_iter().filter(|table| table.primary_key.is_some()).collect();
        let Some(parent) = self.script.pick(&parents).cloned() else { return };
        let key = parent.primary_key.clone().unwrap().columns;
        let mut columns = Vec::new();
        for column in &key {
            let kind = &parent.columns[parent.place(*column).unwrap()].kind;
            let mine = table.columns.iter().find(|c| c.kind == *kind && !columns.contains(&c.id));
            let Some(mine) = mine else { return };
            columns.push(mine.id);
        }
        let name = format!("f{}", table.foreign_keys.len());
        let (parent, parent_columns) = (parent.id, key);
        let (on_delete, on_update) = Default::default();
        let key = ForeignKey { name, columns, parent, parent_columns, on_delete, on_update };
        table.foreign_keys.push(key);
    }

    fn create(&mut self) {
        let id = self.catalogue.take_id();
        let mut table = Table {
            id,
            name: format!("t{}", id.0),
            version: 0,
            columns: Vec::new(),
            next_column: 0,
            primary_key: None,
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
        };
        for _ in 0..2 + self.script.below(3) {
            self.column(&mut table);
        }
        if !self.script.one_in(4) {
            let columns = self.script.columns(&table);
            table.primary_key = Some(PrimaryKey { name: format!("p{}", id.0), columns });
        }
        for _ in 0..self.script.below(3) {
            self.index(&mut table);
        }
        if self.script.one_in(2) {
            self.foreign_key(&mut table);
        }
        self.put(table);
    }

    fn alter(&mut self) {
        let tables = self.tables();
        let Some(old) = self.script.pick(&tables).cloned() else { return self.create() };
        let mut table = (*old).clone();
        let parent = self.catalogue.children(old.id).next().is_some();
        match self.script.below(8) {
            0 => self.column(&mut table),
            1 | 2 => self.index(&mut table),
            3 => drop(table.indexes.pop()),
            4 => {
                if let Some(column) = table.columns.last_mut() {
                    column.not_null = !column.not_null;
                }
            }
            5 => self.foreign_key(&mut table),
            6 => {
                let last = table.columns.last().unwrap().id;
                let used = table.primary_key.iter().any(|key| key.columns.contains(&last))
                    || table.indexes.iter().any(|i| i.columns.iter().any(|c| c.column == last))
                    || table.foreign_keys.iter().any(|key| key.columns.contains(&last))
                    || parent
                    || table.columns.len() == 1;
                if !used {
                    table.columns.pop();
                }
            }
            _ if parent => return,
            _ => {
                self.facts.guards.push(Guard::Schema(old.id, old.version));
                self.truncated.insert(old.id);
                if self.script.one_in(2) {
                    self.catalogue.remove(old.id);
                    self.facts.schema.push(SchemaFact::Drop(old.id));
                } else {
                    self.facts.schema.push(SchemaFact::Truncate(old.id));
                }
                return;
            }
        }
        self.put(table);
    }

    fn write(&mut self) {
        let tables = self.tables();
        let Some(table) = self.script.pick(&tables).cloned() else { return };
        self.facts.guards.push(Guard::Schema(table.id, table.version));
        let stored: Vec<(RowId, Row)> = if self.truncated.contains(&table.id) {
            Vec::new()
        } else {
            self.moment.of(table.id).map(|(id, version)| (id.clone(), version.row(&table))).collect()
        };
        let mut after: Row = table.columns.iter().map(|column| self.script.value(&column.kind)).collect();
        let (id, before, after) = match (self.script.below(5), self.script.pick(&stored).cloned()) {
            (0..=1, Some((id, before))) => {
                // The key stays; of the other columns about half change.
                let key = table.key_places().unwrap_or_default();
                for (at, value) in before.iter().enumerate() {
                    if key.contains(&at) || self.script.one_in(2) {
                        after[at] = value.clone();
                    }
                }
                (id, Some(before), Some(after))
            }
            (2, Some((id, before))) => (id, Some(before), None),
            _ => {
                self.fresh += 1;
                (RowId::of(&table, &after, Some(provisional(self.fresh))), None, Some(after))
            }
        };
        if self.facts.writes.iter().any(|write| (write.table, &write.id) == (table.id, &id)) {
            return;
        }
        if before.is_some() && !self.script.one_in(8) {
            self.facts.guards.push(Guard::Version(table.id, id.clone(), self.moment.at));
        }
        self.facts.writes.push(Write { table: table.id, id, before, after });
    }

    fn guard(&mut self) {
        let tables = self.tables();
        let Some(table) = self.script.pick(&tables).cloned() else { return };
        let index = match self.script.below(table.indexes.len() + 1) {
            0 => None,
            at => Some(&table.indexes[at - 1]),
        };
        let range = self.script.range(&table, index);
        let known = self.moment.catalogue.table(table.id);
        let stored = known.is_some_and(|known| {
            index.is_none_or(|index| known.indexes.iter().any(|other| other.id == index.id))
        });
        let index = index.map(|index| index.id);
        let guard = if self.script.one_in(3) && stored {
            Guard::Absent(table.id, index, range.equal)
        } else if stored {
            Guard::Unchanged(table.id, index, range, self.moment.at)
        } else {
            return;
        };
        self.facts.guards.push(guard);
    }
}

fn plan(script: &mut Script<'_>, model: &Model) -> Facts {
    let back = if script.one_in(4) { 1 + script.below(3) } else { 0 };
    let moment = &model.moments[model.moments.len().saturating_sub(1 + back)];
    let catalogue = moment.catalogue.clone();
    let (facts, truncated) = (Facts::default(), BTreeSet::new());
    let mut planner = Planner { script, moment, catalogue, facts, fresh: 0, truncated };
    if planner.tables().is_empty() || planner.script.one_in(10) {
        planner.create();
    } else if planner.script.one_in(5) {
        planner.alter();
    }
    for _ in 0..planner.script.below(5) {
        planner.write();
    }
    for _ in 0..planner.script.below(2) {
        planner.guard();
    }
    planner.facts
}

/// Every read of a moment.
fn compare(cluster: &mut Cluster, script: &mut Script<'_>, moment: &Moment, at: LogPosition) {
    for object in moment.catalogue.objects() {
        let Object::Table(table) = object else { continue };
        for index in std::iter::once(None).chain(table.indexes.iter().map(Some)) {
            for range in [KeyRange::ALL, script.range(table, index)] {
                let expected = moment.scan(table, index, &range);
                let step = 1 + script.below(4);
                for replica in &mut cluster.replicas {
                    let mut found: Vec<(RowId, LogPosition, Row)> = Vec::new();
                    let mut after: Option<Vec<u8>> = None;
                    loop {
                        let (rows, last) = replica.rows(|rows| {
                            let (mut page, mut last) = (Vec::new(), None);
                            let after = after.as_deref();
                            let scan = Scan { table, index, at, range: &range, after, reader: None };
                            rows.scan(&scan, &mut |found| {
                                let id = RowId::of(table, found.row, found.hidden);
                                page.push((id, found.version, found.row.to_vec()));
                                last = Some(found.key.to_vec());
                                page.len() < step
                            })?;
                            Ok((page, last))
                        });
                        let done = rows.len() < step;
                        found.extend(rows);
                        after = last;
                        if done {
                            break;
                        }
                    }
                    assert_eq!(found, expected, "{} by {index:?} in {range:?} at {at}", table.name);
                }
            }
        }
    }
    for replica in &mut cluster.replicas {
        let catalogue = replica.rows(|rows| rows.catalogue(at));
        assert!(catalogue.objects().eq(moment.catalogue.objects()), "the catalogue at {at}");
        assert_eq!(catalogue.next_id(), moment.catalogue.next_id());
        assert_eq!(replica.rows(|rows| rows.time_of(at)), moment.micros, "the time of {at}");
    }
}

/// The history of every table of a moment, in steps.
fn histories(
    cluster: &mut Cluster,
    script: &mut Script<'_>,
    model: &Model,
    moment: &Moment,
    at: LogPosition,
) {
    for object in moment.catalogue.objects() {
        let Object::Table(table) = object else { continue };
        for range in [KeyRange::ALL, script.range(table, None)] {
            let expected = model.history(table, &range, at);
            let step = 1 + script.below(4);
            for replica in &mut cluster.replicas {
                let mut found: Vec<(RowId, Row)> = Vec::new();
                let mut after: Option<Vec<u8>> = None;
                loop {
                    let before = found.len();
                    let (rows, last) = replica.rows(|rows| {
                        let (mut page, mut last) = (Vec::new(), None);
                        let after = after.as_deref();
                        let scan = Scan { table, index: None, at, range: &range, after, reader: None };
                        rows.history(&scan, &mut |found| {
                            page.push((RowId::of(table, found.row, found.hidden), found.row.to_vec()));
                            last = Some(found.key.to_vec());
                            page.len() < step
                        })?;
                        Ok((page, last))
                    });
                    found.extend(rows);
                    after = last;
                    if found.len() - before < step {
                        break;
                    }
                }
                assert_eq!(found, expected, "the history of {} in {range:?} at {at}", table.name);
            }
        }
    }
}

fn times(cluster: &mut Cluster, model: &Model) {
    for (moment, next) in model.moments.iter().zip(model.moments.iter().skip(1).map(Some).chain([None])) {
        let Some(micros) = moment.micros else { continue };
        let last = next.map_or(micros, |next| next.micros.unwrap() - 1);
        for replica in &mut cluster.replicas {
            for micros in [micros, last] {
                assert_eq!(replica.rows(|rows| rows.position_at(micros)), TimePoint::At(moment.at));
            }
            if next.is_none() {
                assert_eq!(replica.rows(|rows| rows.position_at(micros + 1)), TimePoint::Future);
            }
        }
    }
}

/// Bytes of a command, where facts come in pieces: more than the largest fact, and less than most facts together.
const PIECE_SIZE: usize = 700;

fn run(bytes: &[u8], counts: &mut [usize; 3]) {
    let mut script = Script { bytes: bytes.iter() };
    let mut cluster = Cluster::new(&[Memory::Whole, Memory::Slow, Memory::OneByOne]);
    let mut model = Model::new();
    let mut clock = 1_000;
    while script.bytes.len() > 0 {
        let facts = plan(&mut script, &model);
        if facts.is_empty() {
            continue;
        }
        // Often no time passes between two commands.
        clock += script.below(3) as u64 * 5;
        // Some come in pieces, which is another way to say the same.
        let size_max = if script.below(4) == 0 { PIECE_SIZE } else { usize::MAX };
        let ops = commands(&facts, size_max).expect("each fact is smaller than that").len() as u64;
        let at = LogPosition { op: Op(cluster.parent.op.0 + ops), index: 0 };
        let given = (clock * 1_000).max(cluster.parent.timestamp.0 + ops) / 1_000;
        let micros = model.now().micros.map_or(given.cast_signed(), |last| given.cast_signed().max(last + 1));
        let said = cluster.staged(clock, &facts, size_max);
        match (model.expect(&facts, at, micros), said) {
            (Expected::Written(after), Ok(Outcome::Written { rows })) => {
                assert_eq!(rows as usize, facts.writes.len());
                model.moments.push(*after);
                counts[0] += 1;
            }
            (Expected::Refused(why), Err(Refusal::Conflict)) if why.contains(CONFLICT) => counts[1] += 1,
            (Expected::Refused(why), Err(Refusal::Sql { code })) if why.contains(code.as_str()) => {
                counts[2] += 1;
            }
            (expected, said) => panic!("{said:?}, not {expected:?} for {facts:?}"),
        }
    }
    for moment in &model.moments {
        compare(&mut cluster, &mut script, moment, moment.at);
    }
    let middle = &model.moments[model.moments.len() / 2];
    histories(&mut cluster, &mut script, &model, middle, middle.at);
    let now = model.now().clone();
    let last = cluster.replicas[0].rows(|rows| Ok(rows.last()));
    assert_eq!(last, LogPosition { op: cluster.parent.op, index: u32::MAX });
    compare(&mut cluster, &mut script, &now, last);
    histories(&mut cluster, &mut script, &model, &now, last);
    compare(&mut cluster, &mut script, &now, LogPosition { op: Op(1 << 40), index: 0 });
    times(&mut cluster, &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_their_model_says(bytes in prop::collection::vec(any::<u8>(), 0..1_200)) {
        run(&bytes, &mut [0; 3]);
    }
}

/// Facts whose bytes were changed may be refused or not; whatever they become, it is sound.
fn run_damaged(bytes: &[u8], damage: &[(u16, u8)]) {
    let mut script = Script { bytes: bytes.iter() };
    let mut cluster = Cluster::new(&[Memory::Whole]);
    let mut model = Model::new();
    let mut damage = damage.iter();
    for round in 0..20 {
        let facts = plan(&mut script, &model);
        let mut bytes = postcard::to_allocvec(&facts).unwrap();
        for (at, value) in damage.by_ref().take(round % 3) {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *value;
        }
        let command = Command::Facts { facts: &bytes, reply: b"" }.encode();
        cluster.commit(CLINIC, round as u64, &[command]);
        // What is planned next is planned on what there is.
        let replica = &mut cluster.replicas[0];
        let catalogue = replica.rows(|rows| rows.catalogue(rows.last()));
        let mut rows = std::collections::BTreeMap::new();
        for object in catalogue.objects() {
            let Object::Table(table) = object else { continue };
            let mut counts = Vec::new();
            for index in std::iter::once(None).chain(table.indexes.iter().map(Some)) {
                counts.push(replica.rows(|kernel| {
                    let mut count = 0;
                    let at = kernel.last();
                    let scan = Scan { table, index, at, range: &KeyRange::ALL, after: None, reader: None };
                    kernel.scan(&scan, &mut |found| {
                        let id = RowId::of(table, found.row, found.hidden);
                        rows.insert((table.id, id), Version::new(table, found.version, found.row));
                        count += 1;
                        true
                    })?;
                    Ok(count)
                }));
            }
            assert!(counts.iter().all(|count| *count == counts[0]), "an index has an entry for each row");
        }
        let at = LogPosition { op: cluster.parent.op, index: 0 };
        model.moments.push(Moment { at, micros: None, catalogue: (*catalogue).clone(), rows });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn damaged_facts_give_a_decision_and_a_sound_state(
        bytes in prop::collection::vec(any::<u8>(), 0..1_000),
        damage in prop::collection::vec(any::<(u16, u8)>(), 0..40),
    ) {
        run_damaged(&bytes, &damage);
    }
}

#[test]
fn all_ways_to_end_are_met() {
    let mut rng = kimberlite_types::Streams::new(7).stream("tables", 0);
    let mut counts = [0; 3];
    for _ in 0..12 {
        let bytes: Vec<u8> = (0..2_000).map(|_| rng.below(256) as u8).collect();
        run(&bytes, &mut counts);
    }
    assert!(counts.iter().all(|count| *count > 20), "written, conflicts, refused: {counts:?}");
}
