//! Rows on their way from stage to stage.

use alloc::vec::Vec;

use kimberlite_row::{Row, SqlError, Value};

use crate::eval::Scope;
use crate::expr::Expr;

/// Rows of one width, one behind the other in one piece of memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flat {
    width: usize,
    count: usize,
    values: Vec<Value>,
}

impl Flat {
    /// No rows of this width.
    pub(crate) fn new(width: usize) -> Self {
        Self { width, count: 0, values: Vec::new() }
    }

    /// Makes room for so many rows in all, once there is one.
    #[inline]
    pub(crate) fn expect_rows(&mut self, rows: usize) {
        if self.values.capacity() == 0 {
            self.values.reserve_exact(rows * self.width);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Adds a row, of as many values as there are columns.
    pub(crate) fn push(&mut self, values: impl IntoIterator<Item = Value>) {
        self.values.extend(values);
        self.count += 1;
        debug_assert_eq!(self.values.len(), self.count * self.width, "a row has a value for each column");
    }

    /// Adds the columns at these places of a row.
    #[inline]
    pub(crate) fn push_picked(&mut self, row: &[Value], places: &[usize]) {
        match places {
            // An integer is not taken through all other kinds.
            [place] => self.values.push(match &row[*place] {
                Value::Int(value) => Value::Int(*value),
                value => value.clone(),
            }),
            places => self.values.extend(places.iter().map(|place| row[*place].clone())),
        }
        self.count += 1;
    }

    /// Rows of what expressions give of these. A value that is read once is moved.
    pub(crate) fn projected(mut self, list: &[Expr], scope: &mut Scope<'_>) -> Result<Self, SqlError> {
        let mut uses = alloc::vec![0usize; self.width];
        for expr in list {
            expr.any(&mut |part| {
                if let Expr::At(at) = part {
                    uses[*at] += 1;
                }
                false
            });
        }
        // What a subquery's answer is held against is read where it is not seen here.
        let plain = !list.iter().any(|e| e.any(&mut |part| matches!(part, Expr::Answer(..))));
        let mut values = Vec::with_capacity(self.count * list.len());
        for at in 0..self.count {
            let row = &mut self.values[at * self.width..][..self.width];
            for expr in list {
                values.push(match expr {
                    Expr::At(at) if plain && uses[*at] == 1 => core::mem::take(&mut row[*at]),
                    expr => expr.eval(row, scope)?,
                });
            }
        }
        Ok(Self { width: list.len(), count: self.count, values })
    }

    /// The rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[Value]> {
        (0..self.count).map(|at| &self.values[at * self.width..][..self.width])
    }

    /// Keeps the rows that fit, until one says that it cannot tell.
    pub(crate) fn retain<E>(&mut self, mut fits: impl FnMut(&[Value]) -> Result<bool, E>) -> Result<(), E> {
        let mut kept = 0;
        for at in 0..self.count {
            let from = at * self.width;
            if fits(&self.values[from..from + self.width])? {
                if kept != at {
                    for column in 0..self.width {
                        self.values.swap(kept * self.width + column, from + column);
                    }
                }
                kept += 1;
            }
        }
        self.count = kept;
        self.values.truncate(kept * self.width);
        Ok(())
    }

    /// The columns at these places, in this order.
    pub(crate) fn picked(mut self, places: &[usize]) -> Self {
        let mut values = Vec::with_capacity(self.count * places.len());
        let once = (1..places.len()).all(|at| !places[..at].contains(&places[at]));
        for at in 0..self.count {
            let row = &mut self.values[at * self.width..][..self.width];
            if once {
                values.extend(places.iter().map(|place| core::mem::take(&mut row[*place])));
            } else {
                values.extend(places.iter().map(|place| row[*place].clone()));
            }
        }
        Self { width: places.len(), count: self.count, values }
    }

    /// Each row in memory of its own.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.count);
        let mut values = self.values.into_iter();
        for _ in 0..self.count {
            rows.push(values.by_ref().take(self.width).collect());
        }
        rows
    }
}

/// Rows between two stages: as a scan gives them, or each in memory of its own.
#[derive(Debug)]
pub(crate) enum Batch {
    Flat(Flat),
    Rows(Vec<Row>),
}

impl Batch {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Flat(flat) => flat.len(),
            Self::Rows(rows) => rows.len(),
        }
    }

    /// Each row in memory of its own.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        match self {
            Self::Flat(flat) => flat.into_rows(),
            Self::Rows(rows) => rows,
        }
    }

    /// Gives each row.
    pub(crate) fn try_each<E>(&self, mut each: impl FnMut(&[Value]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Flat(flat) => flat.rows().try_for_each(each),
            Self::Rows(rows) => rows.iter().try_for_each(|row| each(row)),
        }
    }
}
