//! Logical plans: what is to be computed. Columns have names that are unique in the statement, so that nodes can be
//! moved past each other without renumbering.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::KeyRange;
use kimberlite_row::{Table, Type, Value};
use kimberlite_types::LogPosition;

use crate::expr::{Col, Expr};

/// How two sides are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinKind {
    /// Pairs that fit.
    Inner,
    /// And left rows without a partner.
    Left,
    /// And rows of both sides without a partner.
    Full,
    /// Left rows with a partner, once.
    Semi,
    /// Left rows without one.
    Anti,
}

/// An aggregate function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aggregate {
    /// `count(*)`.
    CountAll,
    /// `count(x)`.
    Count,
    /// `sum`.
    Sum,
    /// `avg`.
    Avg,
    /// `min`.
    Min,
    /// `max`.
    Max,
    /// `bool_and`, `every`.
    BoolAnd,
    /// `bool_or`.
    BoolOr,
    /// `string_agg`.
    StringAgg,
    /// `array_agg`.
    ArrayAgg,
    /// `json_agg`, `jsonb_agg`.
    JsonAgg,
    /// `jsonb_object_agg`.
    JsonObjectAgg,
    /// `stddev`, `stddev_samp`, `variance`, `var_samp`, `stddev_pop`, `var_pop`: sample or not, root or not.
    Variance {
        /// Divided by n - 1.
        sample: bool,
        /// The root of it.
        root: bool,
    },
    /// `bit_and`.
    BitAnd,
    /// `bit_or`.
    BitOr,
    /// `bit_xor`.
    BitXor,
    /// `percentile_cont`, `percentile_disc`, `mode` within a group.
    Percentile {
        /// Interpolated.
        continuous: bool,
    },
    /// `mode`.
    Mode,
    /// `covar_pop`, `covar_samp`, `corr`, `regr_*`: named by number.
    Pair(PairStatistic),
}

/// A statistic of two variables (y, x).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PairStatistic {
    /// `corr`.
    Corr,
    /// `covar_pop`.
    CovarPop,
    /// `covar_samp`.
    CovarSamp,
    /// `regr_count`.
    Count,
    /// `regr_slope`.
    Slope,
    /// `regr_intercept`.
    Intercept,
    /// `regr_r2`.
    R2,
    /// `regr_avgx`.
    AverageX,
    /// `regr_avgy`.
    AverageY,
    /// `regr_sxx`.
    SquaresX,
    /// `regr_syy`.
    SquaresY,
    /// `regr_sxy`.
    Products,
}

/// A call of an aggregate.
#[derive(Clone, PartialEq, Debug)]
pub struct AggregateCall {
    /// Which.
    pub function: Aggregate,
    /// Its arguments.
    pub arguments: Vec<Expr>,
    /// Each distinct argument once.
    pub distinct: bool,
    /// Only rows for which this holds.
    pub filter: Option<Expr>,
    /// In which order rows come to it.
    pub order: Vec<SortKey>,
    /// The type of its result.
    pub kind: Type,
    /// The type of its first argument.
    pub argument_kind: Type,
}

/// A window function.
#[derive(Clone, PartialEq, Debug)]
pub enum WindowFunction {
    /// `row_number`.
    RowNumber,
    /// `rank`.
    Rank,
    /// `dense_rank`.
    DenseRank,
    /// `percent_rank`.
    PercentRank,
    /// `cume_dist`.
    CumeDist,
    /// `ntile`.
    Ntile,
    /// `lag` (true: `lead`).
    Shift(bool),
    /// `first_value`.
    FirstValue,
    /// `last_value`.
    LastValue,
    /// `nth_value`.
    NthValue,
    /// An aggregate over the frame.
    Aggregate(AggregateCall),
}

/// What a frame counts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameUnit {
    /// Rows.
    Rows,
    /// Values of the one order column.
    Range,
    /// Groups of peers.
    Groups,
}

/// Where a frame begins or ends.
#[derive(Clone, PartialEq, Debug)]
pub enum FrameBound {
    /// The first row of the partition.
    First,
    /// So far before the row.
    Before(Expr),
    /// The row.
    Current,
    /// So far behind the row.
    Behind(Expr),
    /// The last row of the partition.
    Last,
}

/// What a frame leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exclude {
    /// Nothing.
    Nothing,
    /// The row.
    Row,
    /// The row and its peers.
    Group,
    /// The peers of the row, and not itself.
    Ties,
}

/// A call of a window function.
#[derive(Clone, PartialEq, Debug)]
pub struct WindowCall {
    /// Which.
    pub function: WindowFunction,
    /// Its arguments.
    pub arguments: Vec<Expr>,
    /// What a partition has in common.
    pub partition: Vec<Expr>,
    /// The order in it.
    pub order: Vec<SortKey>,
    /// Its frame.
    pub unit: FrameUnit,
    /// Where the frame begins.
    pub start: FrameBound,
    /// Where the frame ends.
    pub end: FrameBound,
    /// What it leaves out.
    pub exclude: Exclude,
}

/// A sort key.
#[derive(Clone, PartialEq, Debug)]
pub struct SortKey {
    /// By what.
    pub expr: Expr,
    /// Largest first.
    pub descending: bool,
    /// NULL first.
    pub nulls_first: bool,
}

/// A set operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetOp {
    /// All rows of both.
    Union,
    /// Rows of both.
    Intersect,
    /// Rows of the left that are not of the right.
    Except,
}

/// A function that gives rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableFunction {
    /// `generate_series`.
    Series,
    /// `unnest`.
    Unnest,
    /// `jsonb_array_elements`: values.
    JsonElements,
    /// `jsonb_array_elements_text`.
    JsonElementsText,
    /// `jsonb_each`: key and value.
    JsonEach,
    /// `jsonb_each_text`.
    JsonEachText,
    /// `jsonb_object_keys`.
    JsonKeys,
    /// `string_to_table`.
    StringToTable,
    /// `regexp_matches`, or `regexp_split_to_table`.
    Regex {
        /// The latter.
        split: bool,
    },
    /// `generate_subscripts`.
    Subscripts,
    /// Several of a select list, each with the number of its arguments: they give their rows side by side, and those that
    /// end before others give NULL.
    Together(Arc<[(TableFunction, usize)]>),
}

/// A table scan.
#[derive(Clone, PartialEq, Debug)]
pub struct ScanPlan {
    /// The table.
    pub table: Arc<Table>,
    /// What it is called in the query.
    pub alias: String,
    /// Columns given, with their place in the table's rows.
    pub columns: Vec<(Col, usize)>,
    /// The hidden key and the version of a row, where it is to be written.
    pub identity: Option<(Col, Col)>,
    /// The snapshot, if not the statement's.
    pub at: Option<LogPosition>,
    /// Whether all versions of the rows are given that began by then; places behind the table's are those of
    /// [`HISTORY_COLUMNS`](kimberlite_row::fact::HISTORY_COLUMNS).
    pub versions: bool,
    /// Which index (its place in the table's list), if not the key.
    pub index: Option<usize>,
    /// Which keys.
    pub range: Access,
    /// Rows that it gives, about: what the trees count, as far as it was asked.
    pub rows: f64,
}

/// Columns of [`StreamPlan`].
pub const STREAM_COLUMNS: [(&str, Type); 6] = [
    ("tenant", Type::Decimal(None)),
    ("stream", Type::Text),
    ("offset", Type::BigInt),
    ("position", Type::BigInt),
    ("time", Type::TimestampTz),
    ("payload", Type::Bytea),
];
/// The place of the offset among them.
pub const STREAM_OFFSET: usize = 2;
/// The places of what stands in the log, and not in the index of streams.
pub const STREAM_WRITTEN: [usize; 2] = [4, 5];

/// The records of a stream.
#[derive(Clone, PartialEq, Debug)]
pub struct StreamPlan {
    /// Its name.
    pub name: Expr,
    /// Columns given, with their place in [`STREAM_COLUMNS`].
    pub columns: Vec<(Col, usize)>,
    /// The snapshot, if not the statement's.
    pub at: Option<LogPosition>,
    /// Lower bound of the offset and whether it is included.
    pub low: Option<(Expr, bool)>,
    /// Upper bound of the offset and whether it is included.
    pub high: Option<(Expr, bool)>,
}

/// Which keys a scan visits; the expressions do not depend on the scan.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Access {
    /// Values of the first columns.
    pub equal: Vec<Expr>,
    /// Lower bound of the next and whether it is included.
    pub low: Option<(Expr, bool)>,
    /// Upper bound of the next and whether it is included.
    pub high: Option<(Expr, bool)>,
    /// Values of the next column, instead of bounds: a range for each.
    pub any: Vec<Expr>,
}

/// A node.
#[derive(Clone, PartialEq, Debug)]
pub enum Plan {
    /// Rows of expressions without input.
    Values(Vec<Vec<Expr>>, Vec<Col>),
    /// A table.
    Scan(Box<ScanPlan>),
    /// A stream.
    Stream(Box<StreamPlan>),
    /// A function.
    Function(TableFunction, Vec<Expr>, Vec<Col>, Option<Col>),
    /// Rows for which all hold.
    Filter(Box<Plan>, Vec<Expr>),
    /// New columns; the input's stay visible to nodes above only through them.
    Project(Box<Plan>, Vec<(Expr, Col)>),
    /// A join on all of these conditions.
    Join(JoinKind, Box<Plan>, Box<Plan>, Vec<Expr>),
    /// The right side once per left row (LATERAL); true keeps left rows without a right one.
    Lateral(Box<Plan>, Box<Plan>, bool, Vec<Expr>),
    /// Groups, with the sets to group by (places in the list).
    Aggregate(Box<Plan>, Vec<(Expr, Col)>, Vec<(AggregateCall, Col)>, Vec<Vec<usize>>, Option<Col>),
    /// Window functions, added to the input's columns.
    Window(Box<Plan>, Vec<(WindowCall, Col)>),
    /// A sort.
    Sort(Box<Plan>, Vec<SortKey>),
    /// LIMIT and OFFSET; true keeps peers of the last row (WITH TIES) in the order of the sort below.
    Limit(Box<Plan>, Option<Expr>, Option<Expr>, Option<Vec<SortKey>>),
    /// Each row once, by these columns.
    Distinct(Box<Plan>, Vec<Col>),
    /// The first row of each group in a sorted input (DISTINCT ON).
    DistinctOn(Box<Plan>, Vec<Expr>),
    /// A set operation; columns of both sides by place, with new names.
    SetOp(SetOp, bool, Box<Plan>, Box<Plan>, Vec<(Col, Col, Col)>),
    /// Rows kept in a slot: a common table expression, or the working table of a recursive one.
    Slot(usize, Vec<(usize, Col)>),
    /// Fills slots, then runs the rest.
    With(Vec<(usize, Plan, Vec<Col>)>, Box<Plan>),
    /// `slot`, the first part, the recursive part (which reads the slot), whether rows are kept once, and the columns.
    Recursive(usize, Box<Plan>, Box<Plan>, bool, Vec<(Col, Col, Col)>),
}

/// The nodes below a node, borrowed one way or the other: the one list of which node has which inputs.
macro_rules! inputs_of {
    ($plan:expr, $iter:ident, $borrow:ident) => {
        match $plan {
            Self::Values(..) | Self::Scan(_) | Self::Stream(_) | Self::Function(..) | Self::Slot(..) => {
                Vec::new()
            }
            Self::Filter(a, _)
            | Self::Project(a, _)
            | Self::Aggregate(a, ..)
            | Self::Window(a, _)
            | Self::Sort(a, _)
            | Self::Limit(a, ..)
            | Self::Distinct(a, _)
            | Self::DistinctOn(a, _) => [a.$borrow()].into(),
            Self::Join(_, a, b, _)
            | Self::Lateral(a, b, ..)
            | Self::SetOp(_, _, a, b, _)
            | Self::Recursive(_, a, b, ..) => [a.$borrow(), b.$borrow()].into(),
            Self::With(list, rest) => list.$iter().map(|(_, plan, _)| plan).chain([rest.$borrow()]).collect(),
        }
    };
}

/// Gives the expressions of a call of an aggregate.
macro_rules! call_expressions {
    ($call:expr, $each:expr, $iter:ident, ($($how:tt)*)) => {{
        let call = $call;
        call.arguments.$iter().chain(call.filter.$iter()).for_each(&mut *$each);
        call.order.$iter().for_each(|key| $each(&$($how)* key.expr));
    }};
}

/// Gives the expressions of a node, borrowed one way or the other: the one list of which node has which.
macro_rules! expressions_of {
    ($plan:expr, $each:expr, $iter:ident, ($($how:tt)*)) => {
        match $plan {
            Self::Values(rows, _) => rows.$iter().flatten().for_each($each),
            Self::Scan(scan) => {
                let Access { equal, low, high, any } = &$($how)* scan.range;
                equal.$iter().chain(any.$iter()).for_each(&mut *$each);
                low.$iter().chain(high.$iter()).for_each(|bound| $each(&$($how)* bound.0));
            }
            Self::Stream(stream) => {
                $each(&$($how)* stream.name);
                let StreamPlan { low, high, .. } = &$($how)* **stream;
                low.$iter().chain(high.$iter()).for_each(|bound| $each(&$($how)* bound.0));
            }
            Self::Function(_, list, ..)
            | Self::Filter(_, list)
            | Self::Join(_, _, _, list)
            | Self::Lateral(_, _, _, list)
            | Self::DistinctOn(_, list) => list.$iter().for_each($each),
            Self::Project(_, list) => list.$iter().for_each(|(expr, _)| $each(expr)),
            Self::Aggregate(_, groups, calls, ..) => {
                for (expr, _) in groups {
                    $each(expr);
                }
                for (call, _) in calls {
                    call_expressions!(call, $each, $iter, ($($how)*));
                }
            }
            Self::Window(_, calls) => {
                for (call, _) in calls {
                    call.arguments.$iter().chain(call.partition.$iter()).for_each(&mut *$each);
                    call.order.$iter().for_each(|key| $each(&$($how)* key.expr));
                    for bound in [&$($how)* call.start, &$($how)* call.end] {
                        if let FrameBound::Before(expr) | FrameBound::Behind(expr) = bound {
                            $each(expr);
                        }
                    }
                    if let WindowFunction::Aggregate(inner) = &$($how)* call.function {
                        call_expressions!(inner, $each, $iter, ($($how)*));
                    }
                }
            }
            Self::Sort(_, keys) => keys.$iter().for_each(|key| $each(&$($how)* key.expr)),
            Self::Limit(_, limit, offset, ties) => {
                limit.$iter().chain(offset.$iter()).for_each(&mut *$each);
                ties.$iter().flatten().for_each(|key| $each(&$($how)* key.expr));
            }
            Self::Distinct(..) | Self::SetOp(..) | Self::Slot(..) | Self::With(..) | Self::Recursive(..) => {}
        }
    };
}

impl Plan {
    /// One row without columns.
    pub fn one_row() -> Self {
        Self::Values([Vec::new()].into(), Vec::new())
    }

    /// The columns of its rows.
    pub fn columns(&self) -> Vec<Col> {
        match self {
            Self::Values(_, cols) => cols.clone(),
            Self::Scan(scan) => {
                let mut cols: Vec<Col> = scan.columns.iter().map(|c| c.0).collect();
                cols.extend(scan.identity.iter().flat_map(|(a, b)| [*a, *b]));
                cols
            }
            Self::Stream(stream) => stream.columns.iter().map(|column| column.0).collect(),
            Self::Function(_, _, cols, ordinal) => cols.iter().copied().chain(*ordinal).collect(),
            Self::Filter(input, _)
            | Self::Sort(input, _)
            | Self::Limit(input, ..)
            | Self::Distinct(input, _)
            | Self::DistinctOn(input, _) => input.columns(),
            Self::Project(_, list) => list.iter().map(|c| c.1).collect(),
            Self::Join(JoinKind::Semi | JoinKind::Anti, left, ..) => left.columns(),
            Self::Join(_, left, right, _) | Self::Lateral(left, right, ..) => {
                let mut cols = left.columns();
                cols.extend(right.columns());
                cols
            }
            Self::Aggregate(_, groups, calls, _, grouping) => {
                groups.iter().map(|c| c.1).chain(calls.iter().map(|c| c.1)).chain(*grouping).collect()
            }
            Self::Window(input, calls) => {
                let mut cols = input.columns();
                cols.extend(calls.iter().map(|c| c.1));
                cols
            }
            Self::SetOp(_, _, _, _, cols) | Self::Recursive(_, _, _, _, cols) => {
                cols.iter().map(|c| c.2).collect()
            }
            Self::Slot(_, cols) => cols.iter().map(|c| c.1).collect(),
            Self::With(_, rest) => rest.columns(),
        }
    }

    /// The nodes below it.
    pub fn inputs(&self) -> Vec<&Plan> {
        inputs_of!(self, iter, as_ref)
    }

    /// The nodes below it, to change them.
    pub fn inputs_mut(&mut self) -> Vec<&mut Plan> {
        inputs_of!(self, iter_mut, as_mut)
    }

    /// The expressions of this node itself.
    pub fn expressions<'a>(&'a self, each: &mut dyn FnMut(&'a Expr)) {
        expressions_of!(self, each, iter, ());
    }

    /// The expressions of this node itself, to change them.
    pub fn expressions_mut(&mut self, each: &mut dyn FnMut(&mut Expr)) {
        expressions_of!(self, each, iter_mut, (mut));
    }

    /// Columns that nodes of it read without an expression.
    fn plain_columns(&self, each: &mut dyn FnMut(Col)) {
        match self {
            Self::Distinct(_, cols) => cols.iter().for_each(|c| each(*c)),
            Self::SetOp(_, _, _, _, cols) | Self::Recursive(_, _, _, _, cols) => {
                for (left, right, _) in cols {
                    each(*left);
                    each(*right);
                }
            }
            Self::With(list, _) => list.iter().for_each(|w| w.2.iter().for_each(|c| each(*c))),
            _ => {}
        }
    }

    /// Every column that is read somewhere in it.
    pub fn read_columns(&self, each: &mut dyn FnMut(Col)) {
        self.plain_columns(each);
        self.expressions(&mut |e| read_in(e, each));
        self.inputs().iter().for_each(|input| input.read_columns(each));
    }

    /// Every column that some node of it makes.
    fn made_columns(&self, each: &mut dyn FnMut(Col)) {
        self.columns().into_iter().for_each(&mut *each);
        self.inputs().iter().for_each(|input| input.made_columns(each));
    }

    /// The columns it reads that it does not make: what ties it to the row of the enclosing query.
    pub fn free_columns(&self, each: &mut dyn FnMut(Col)) {
        let mut made = alloc::collections::BTreeSet::new();
        self.made_columns(&mut |c| {
            made.insert(c);
        });
        let mut free = |c: Col| {
            if !made.contains(&c) {
                each(c);
            }
        };
        self.plain_columns(&mut free);
        self.all_expressions(&mut |e| e.columns(&mut free));
    }

    /// The expressions of it and of all nodes below.
    pub fn all_expressions<'a>(&'a self, each: &mut dyn FnMut(&'a Expr)) {
        self.expressions(each);
        self.inputs().into_iter().for_each(|input| input.all_expressions(each));
    }
}

fn read_in(expr: &Expr, each: &mut dyn FnMut(Col)) {
    if let Expr::Col(col) = expr {
        each(*col);
    }
    if let Expr::Subquery(_, plan) = expr {
        plan.read_columns(each);
        plan.columns().into_iter().for_each(&mut *each);
    }
    expr.parts(&mut |part| read_in(part, each));
}

/// A constant range, once its expressions have values. `None`: nothing can lie in it.
pub fn key_range(
    equal: Vec<Value>,
    low: Option<(Value, bool)>,
    high: Option<(Value, bool)>,
) -> Option<KeyRange> {
    use core::ops::Bound::{Excluded, Included, Unbounded};
    let null = equal.iter().any(Value::is_null)
        || low.as_ref().is_some_and(|b| b.0.is_null())
        || high.as_ref().is_some_and(|b| b.0.is_null());
    if null {
        return None;
    }
    let bounded = low.is_some() || high.is_some();
    let bound = |b: Option<(Value, bool)>| match b {
        None => Unbounded,
        Some((value, true)) => Included(value),
        Some((value, false)) => Excluded(value),
    };
    let mut range = KeyRange { equal, low: bound(low), high: bound(high) };
    if bounded && range.high == Unbounded {
        // NULL, the largest, is above no bound.
        range.high = Excluded(Value::Null);
    }
    Some(range)
}
