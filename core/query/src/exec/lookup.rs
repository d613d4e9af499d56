//! The most frequent program of all: one row, by its key. It is told apart here, so that a session can answer it in one step,
//! without an execution.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::codec::Projection;
use kimberlite_row::fact::{Miss, Rows};
use kimberlite_row::{Row, Table, Value};
use kimberlite_types::LogPosition;

use super::{Pipeline, Program, ScanSource, Sink, Source, Stage};
use crate::expr::Expr;

/// A program that looks one row up by its whole key and gives some of its columns.
#[derive(Debug)]
pub(crate) struct Lookup {
    table: Arc<Table>,
    reader: Projection,
    key: Vec<Part>,
    /// Places of the columns it gives.
    places: Vec<usize>,
}

/// A value of the key.
#[derive(Debug)]
enum Part {
    Const(Value),
    Param(usize),
}

impl Program {
    /// The values of the row that the whole program gives, if it gives just one, from nowhere.
    pub(crate) fn one_row(&self) -> Option<&[Expr]> {
        match (&self.pipelines[..], &self.outer[..]) {
            ([Pipeline { source: Source::Values(rows), stages, sink: Sink::Output }], [])
                if stages.is_empty() && rows.len() == 1 =>
            {
                rows.first().map(|row| &row[..])
            }
            _ => None,
        }
    }

    /// The lookup that the whole program is, if it is one.
    pub(crate) fn as_lookup(&self) -> Option<Lookup> {
        let [pipeline] = &self.pipelines[..] else { return None };
        let (Source::Scan(scan), Sink::Output, true) =
            (&pipeline.source, &pipeline.sink, self.outer.is_empty())
        else {
            return None;
        };
        let ScanSource {
            table,
            index: None,
            versions: false,
            identity: false,
            at: None,
            low: None,
            high: None,
            ..
        } = &**scan
        else {
            return None;
        };
        let width = table.primary_key.as_ref()?.columns.len();
        if !scan.any.is_empty() || !scan.tests.is_empty() || scan.equal.len() != width {
            return None;
        }
        let key = scan.equal.iter().map(|part| match part {
            Expr::Const(value) => Some(Part::Const(value.clone())),
            Expr::Param(at) => Some(Part::Param(*at)),
            _ => None,
        });
        let places = match &pipeline.stages[..] {
            [] => scan.places.clone(),
            [Stage::Pick(picked)] => picked.iter().map(|at| scan.places[*at]).collect(),
            [Stage::Project(list)] => {
                let place = |expr: &Expr| if let Expr::At(at) = expr { Some(scan.places[*at]) } else { None };
                list.iter().map(place).collect::<Option<_>>()?
            }
            _ => return None,
        };
        Some(Lookup {
            table: table.clone(),
            reader: scan.reader.clone(),
            key: key.collect::<Option<_>>()?,
            places,
        })
    }
}

impl Lookup {
    /// The key that is looked up; `None` if a parameter is not there.
    pub(crate) fn key(&self, params: &[Value]) -> Option<Vec<Value>> {
        let value = |part: &Part| match part {
            Part::Const(value) => Some(value.clone()),
            Part::Param(at) => params.get(*at).cloned(),
        };
        self.key.iter().map(value).collect()
    }

    /// The rows it gives: one, or none.
    pub(crate) fn find(&self, key: Vec<Value>, rows: &dyn Rows, at: LogPosition) -> Result<Vec<Row>, Miss> {
        // What equals NULL is unknown.
        if key.iter().any(Value::is_null) {
            return Ok(Vec::new());
        }
        let Some(mut row) = rows.find(&self.table, key, at, &self.reader)? else { return Ok(Vec::new()) };
        if self.places.iter().copied().ne(0..row.len()) {
            row = self.places.iter().map(|place| row[*place].clone()).collect();
        }
        Ok(alloc::vec![row])
    }
}
