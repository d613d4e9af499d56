//! From plans to programs: names become places, subqueries become sources of their own.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::codec::Layout;
use kimberlite_row::{SqlError, SqlState, Value};

use super::{
    AggregateSpec, ApplySource, Asked, Pipeline, Program, RecursiveSource, ScanSource, Sink, Source, Stage,
    StreamSource, Test,
};
use crate::expr::{Ask, Col, Comparison, Expr};
use crate::limits::SORT_BOUND_MAX;
use crate::plan::{
    AggregateCall, FrameBound, JoinKind, Plan, ScanPlan, SetOp, SortKey, StreamPlan, WindowCall,
    WindowFunction,
};

/// A subquery of an expression that is evaluated when the program has run to its end: it leaves its answer in a slot.
#[derive(Debug)]
pub struct LateQuery {
    /// Its plan.
    pub plan: Plan,
    ask: Ask,
    slot: usize,
}

/// Compiles a plan, with subqueries that are asked for later. `slots` counts slots used so far in the statement, and columns behind `next_column` are free.
pub fn compile(plan: Plan, late: Vec<LateQuery>, slots: &mut usize) -> Result<Program, SqlError> {
    let order = plan.columns();
    let mut compiler = Compiler { pipelines: Vec::new(), slots, outer: Vec::new(), fresh: FRESH };
    for query in late {
        compiler.asked(&query.ask, query.plan, query.slot)?;
    }
    let mut open = compiler.node(plan)?;
    if open.layout != order {
        let places = order.iter().map(|c| place(&open.layout, *c)).collect::<Result<_, _>>()?;
        open.stages.push(Stage::Pick(places));
        open.layout.clone_from(&order);
    }
    compiler.close(open, Sink::Output);
    Ok(Program { pipelines: compiler.pipelines, outer: compiler.outer, layout: order })
}

/// Compiles an expression over rows of these columns; subqueries are refused.
pub fn compile_expression(expr: &mut Expr, layout: &[Col]) -> Result<(), SqlError> {
    if expr.has_subquery() {
        return Err(SqlError::new(SqlState::FeatureNotSupported, "a subquery is not supported here"));
    }
    let mut slots = 0;
    let mut compiler = Compiler { pipelines: Vec::new(), slots: &mut slots, outer: Vec::new(), fresh: FRESH };
    compiler.resolve(expr, layout);
    if compiler.outer.is_empty() {
        Ok(())
    } else {
        Err(SqlError::new(SqlState::UndefinedColumn, "a column is not visible here"))
    }
}

/// Compiles an expression over rows of these columns, which is evaluated when the program has run: its subqueries are to
/// be compiled with that. One that looks at the row is refused.
pub fn compile_late(
    expr: &mut Expr,
    layout: &[Col],
    late: &mut Vec<LateQuery>,
    slots: &mut usize,
) -> Result<(), SqlError> {
    lift(expr, layout, late, slots)?;
    compile_expression(expr, layout)
}

fn lift(
    expr: &mut Expr,
    layout: &[Col],
    late: &mut Vec<LateQuery>,
    slots: &mut usize,
) -> Result<(), SqlError> {
    let mut lifted = Ok(());
    expr.parts_mut(&mut |part| {
        if lifted.is_ok() {
            lifted = lift(part, layout, late, slots);
        }
    });
    lifted?;
    let Expr::Subquery(ask, plan) = expr else { return Ok(()) };
    let mut tied = false;
    plan.free_columns(&mut |c| tied |= layout.contains(&c));
    if tied {
        return Err(SqlError::new(
            SqlState::FeatureNotSupported,
            "a subquery that looks at the row is not supported here",
        ));
    }
    let (slot, plan, ask) = (*slots, core::mem::replace(&mut **plan, Plan::one_row()), (**ask).clone());
    *slots += 1;
    late.push(LateQuery { plan, ask: ask.clone(), slot });
    *expr = Expr::Answer(Box::new(ask), slot);
    Ok(())
}

/// Columns that hold answers of subqueries are numbered from here: the binder never gets so far.
const FRESH: Col = 1 << 30;

struct Compiler<'a> {
    pipelines: Vec<Pipeline>,
    slots: &'a mut usize,
    outer: Vec<Col>,
    fresh: Col,
}

/// A pipeline without its end.
struct Open {
    source: Source,
    stages: Vec<Stage>,
    layout: Vec<Col>,
}

fn place(layout: &[Col], col: Col) -> Result<usize, SqlError> {
    layout.iter().position(|c| *c == col).ok_or_else(|| {
        SqlError::new(SqlState::FeatureNotSupported, "a column is not visible where it is read")
    })
}

impl Open {
    fn new(source: Source, layout: Vec<Col>) -> Self {
        Self { source, stages: Vec::new(), layout }
    }
}

impl Compiler<'_> {
    fn slot(&mut self) -> usize {
        *self.slots += 1;
        *self.slots - 1
    }

    fn close(&mut self, open: Open, sink: Sink) {
        self.pipelines.push(Pipeline { source: open.source, stages: open.stages, sink });
    }

    /// Ends a pipeline in a slot and starts the next one from there.
    fn through(&mut self, open: Open, layout: Vec<Col>, sink: impl FnOnce(usize) -> Sink) -> Open {
        let slot = self.slot();
        self.close(open, sink(slot));
        Open::new(Source::Slot(slot, None), layout)
    }

    fn outer_place(&mut self, col: Col) -> usize {
        if let Some(at) = self.outer.iter().position(|c| *c == col) {
            return at;
        }
        self.outer.push(col);
        self.outer.len() - 1
    }

    fn resolve(&mut self, expr: &mut Expr, layout: &[Col]) {
        if let Expr::Col(col) = expr {
            *expr = match layout.iter().position(|c| c == col) {
                Some(at) => Expr::At(at),
                None => Expr::Outer(self.outer_place(*col)),
            };
            return;
        }
        expr.parts_mut(&mut |part| self.resolve(part, layout));
    }

    fn resolve_all(&mut self, list: &mut [Expr], layout: &[Col]) {
        for expr in list {
            self.resolve(expr, layout);
        }
    }

    /// Compiles a subplan as a program of its own, with expressions that give its outer values.
    fn program(&mut self, plan: Plan, layout: &[Col]) -> Result<(Arc<Program>, Vec<Expr>), SqlError> {
        let program = compile(plan, Vec::new(), self.slots)?;
        let mut outer: Vec<Expr> = program.outer.iter().map(|c| Expr::Col(*c)).collect();
        self.resolve_all(&mut outer, layout);
        Ok((Arc::new(program), outer))
    }

    /// A subquery that does not look at the row leaves its answer in a slot.
    fn asked(&mut self, ask: &Ask, plan: Plan, slot: usize) -> Result<(), SqlError> {
        let plan = match ask {
            Ask::Exists => Plan::Limit(Box::new(plan), Some(Expr::Const(1.into())), None, None),
            _ => plan,
        };
        let columns = plan.columns();
        let mut inner = self.node(plan)?;
        let places = columns.iter().map(|c| place(&inner.layout, *c)).collect::<Result<_, _>>()?;
        inner.stages.push(Stage::Pick(places));
        let lookup = matches!(
            ask,
            Ask::Quantified { comparison: Comparison::Eq, all: false, .. }
                | Ask::Quantified { comparison: Comparison::Ne, all: true, .. }
        );
        self.close(inner, if lookup { Sink::KeepSet(slot) } else { Sink::Keep(slot) });
        Ok(())
    }

    /// Takes the subqueries out of expressions: their answers become slots, or columns of the rows.
    fn prepare(&mut self, expr: &mut Expr, open: &mut Open) -> Result<(), SqlError> {
        let mut failed = Ok(());
        expr.parts_mut(&mut |part| {
            if failed.is_ok() {
                failed = self.prepare(part, open);
            }
        });
        failed?;
        let Expr::Subquery(ask, plan) = expr else { return Ok(()) };
        let mut tied = false;
        plan.free_columns(&mut |c| tied |= open.layout.contains(&c));
        let plan = core::mem::replace(&mut **plan, Plan::one_row());
        let ask = core::mem::replace(&mut **ask, Ask::Exists);
        if !tied {
            let slot = self.slot();
            self.asked(&ask, plan, slot)?;
            *expr = Expr::Answer(Box::new(ask), slot);
            return Ok(());
        }
        let volatile = {
            let mut volatile = false;
            plan.all_expressions(&mut |e| {
                volatile |= e.any(&mut |e| e.is_volatile_itself());
            });
            volatile
        };
        let mut ask = ask;
        if let Ask::Quantified { left, .. } = &mut ask {
            self.resolve_all(left, &open.layout);
        }
        let (program, outer) = self.program(plan, &open.layout)?;
        let input = self.slot();
        let layout = core::mem::take(&mut open.layout);
        let before = core::mem::replace(open, Open::new(Source::Values(Vec::new()), Vec::new()));
        self.close(before, Sink::Keep(input));
        let answer = self.fresh;
        self.fresh += 1;
        open.source = Source::Apply(ApplySource {
            input,
            program,
            outer,
            asked: Asked::Value(ask),
            repeatable: !volatile,
        });
        open.layout = layout;
        open.layout.push(answer);
        *expr = Expr::Col(answer);
        Ok(())
    }

    /// Prepares and resolves.
    fn ready(&mut self, expr: &mut Expr, open: &mut Open) -> Result<(), SqlError> {
        self.prepare(expr, open)?;
        self.resolve(expr, &open.layout);
        Ok(())
    }

    fn ready_all(&mut self, list: &mut [Expr], open: &mut Open) -> Result<(), SqlError> {
        for expr in list.iter_mut() {
            self.prepare(expr, open)?;
        }
        self.resolve_all(list, &open.layout);
        Ok(())
    }

    fn ready_keys(&mut self, keys: &mut [SortKey], open: &mut Open) -> Result<(), SqlError> {
        for key in keys.iter_mut() {
            self.prepare(&mut key.expr, open)?;
        }
        for key in keys {
            self.resolve(&mut key.expr, &open.layout);
        }
        Ok(())
    }

    #[allow(clippy::too_many_lines, reason = "one arm per node")]
    fn node(&mut self, plan: Plan) -> Result<Open, SqlError> {
        match plan {
            Plan::Values(mut rows, cols) => {
                let mut open = Open::new(Source::Values(Vec::new()), Vec::new());
                if rows.iter().flatten().any(Expr::has_subquery) {
                    // Each row is a projection of one empty row; they meet in a slot.
                    let slot = self.slot();
                    for mut row in rows {
                        let mut one = Open::new(Source::Values([Vec::new()].into()), Vec::new());
                        self.ready_all(&mut row, &mut one)?;
                        one.stages.push(Stage::Project(row));
                        self.close(one, Sink::Keep(slot));
                    }
                    return Ok(Open::new(Source::Slot(slot, None), cols));
                }
                for row in &mut rows {
                    self.resolve_all(row, &[]);
                }
                open.source = Source::Values(rows);
                open.layout = cols;
                Ok(open)
            }
            Plan::Scan(mut scan) => {
                let layout = {
                    let mut cols: Vec<Col> = scan.columns.iter().map(|c| c.0).collect();
                    cols.extend(scan.identity.iter().flat_map(|(a, b)| [*a, *b]));
                    cols
                };
                self.resolve_all(&mut scan.range.equal, &[]);
                self.resolve_all(&mut scan.range.any, &[]);
                for bound in scan.range.low.iter_mut().chain(&mut scan.range.high) {
                    self.resolve(&mut bound.0, &[]);
                }
                let places: Vec<usize> = scan.columns.iter().map(|c| c.1).collect();
                let mut wanted = places.clone();
                if scan.index.is_some() {
                    wanted.extend(scan.table.key_places().into_iter().flatten());
                }
                let reader = Layout::of(&scan.table)?.projection(Some(&wanted));
                Ok(Open::new(
                    Source::Scan(Box::new(ScanSource {
                        places,
                        reader,
                        identity: scan.identity.is_some(),
                        table: scan.table,
                        index: scan.index,
                        at: scan.at,
                        versions: scan.versions,
                        equal: scan.range.equal,
                        low: scan.range.low,
                        high: scan.range.high,
                        any: scan.range.any,
                        tests: Vec::new(),
                    })),
                    layout,
                ))
            }
            Plan::Stream(mut stream) => {
                self.resolve(&mut stream.name, &[]);
                for bound in stream.low.iter_mut().chain(&mut stream.high) {
                    self.resolve(&mut bound.0, &[]);
                }
                let (layout, places) = stream.columns.into_iter().unzip();
                let StreamPlan { name, at, low, high, .. } = *stream;
                let source = StreamSource { name, places, at, low, high };
                Ok(Open::new(Source::Stream(Box::new(source)), layout))
            }
            Plan::Function(function, mut arguments, cols, ordinal) => {
                // Subqueries in the arguments: through one row that holds them is not needed by PostgreSQL's tests.
                self.resolve_all(&mut arguments, &[]);
                let with = ordinal.is_some();
                Ok(Open::new(
                    Source::Function(function, arguments, with),
                    cols.into_iter().chain(ordinal).collect(),
                ))
            }
            Plan::Filter(input, mut conditions) => {
                if let Plan::Scan(scan) = &*input {
                    conditions.retain(|condition| !is_in_range(condition, scan));
                }
                let mut open = self.node(*input)?;
                // Conditions without subqueries first: they keep rows from needing the others.
                conditions.sort_by_key(Expr::has_subquery);
                let split = conditions.iter().position(Expr::has_subquery).unwrap_or(conditions.len());
                let mut late = conditions.split_off(split);
                self.resolve_all(&mut conditions, &open.layout);
                if let (Source::Scan(scan), true) = (&mut open.source, open.stages.is_empty()) {
                    let width = scan.places.len();
                    conditions =
                        conditions.into_iter().filter_map(|c| tested(c, width, &mut scan.tests)).collect();
                }
                if !conditions.is_empty() {
                    open.stages.push(Stage::Filter(conditions));
                }
                for condition in &mut late {
                    self.ready(condition, &mut open)?;
                    let condition = core::mem::replace(condition, Expr::TRUE);
                    open.stages.push(Stage::Filter([condition].into()));
                }
                Ok(open)
            }
            Plan::Project(input, list) => {
                let mut open = self.node(*input)?;
                let (mut exprs, cols): (Vec<Expr>, Vec<Col>) = list.into_iter().unzip();
                self.ready_all(&mut exprs, &mut open)?;
                // The columns of a table as they are need no stage.
                let same = matches!(open.source, Source::Scan(_))
                    && exprs.len() == open.layout.len()
                    && exprs.iter().enumerate().all(|(at, expr)| *expr == Expr::At(at));
                if !same {
                    open.stages.push(Stage::Project(exprs));
                }
                open.layout = cols;
                Ok(open)
            }
            Plan::Join(kind, left, right, on) => self.join(kind, *left, *right, on),
            Plan::Lateral(left, right, keep, mut on) => {
                let left = self.node(*left)?;
                let layout = left.layout.clone();
                let input = self.slot();
                self.close(left, Sink::Keep(input));
                let width = right.columns().len();
                let (program, outer) = self.program(*right, &layout)?;
                let mut all = layout;
                all.extend(&program.layout);
                let mut condition = None;
                if !on.is_empty() {
                    self.resolve_all(&mut on, &all);
                    condition = Expr::all(on);
                }
                let asked = Asked::Rows(keep, width, condition);
                Ok(Open::new(
                    Source::Apply(ApplySource { input, program, outer, asked, repeatable: false }),
                    all,
                ))
            }
            Plan::Aggregate(input, groups, calls, sets, grouping) => {
                let mut open = self.node(*input)?;
                let (mut groups, mut cols): (Vec<Expr>, Vec<Col>) = groups.into_iter().unzip();
                let (mut calls, call_cols): (Vec<AggregateCall>, Vec<Col>) = calls.into_iter().unzip();
                for expr in &mut groups {
                    self.prepare(expr, &mut open)?;
                }
                for call in &mut calls {
                    self.prepare_call(call, &mut open)?;
                }
                let layout = open.layout.clone();
                self.resolve_all(&mut groups, &layout);
                for call in &mut calls {
                    self.resolve_call(call, &layout);
                }
                cols.extend(call_cols);
                cols.extend(grouping);
                let spec = AggregateSpec { groups, calls, sets, grouping: grouping.is_some() };
                Ok(self.through(open, cols, |slot| Sink::Aggregate(slot, spec)))
            }
            Plan::Window(input, calls) => {
                let mut open = self.node(*input)?;
                let (mut calls, cols): (Vec<WindowCall>, Vec<Col>) = calls.into_iter().unzip();
                for call in &mut calls {
                    self.prepare_window(call, &mut open)?;
                }
                let layout = open.layout.clone();
                for call in &mut calls {
                    self.resolve_all(&mut call.arguments, &layout);
                    self.resolve_all(&mut call.partition, &layout);
                    for key in &mut call.order {
                        self.resolve(&mut key.expr, &layout);
                    }
                    for bound in [&mut call.start, &mut call.end] {
                        if let FrameBound::Before(e) | FrameBound::Behind(e) = bound {
                            self.resolve(e, &layout);
                        }
                    }
                    if let WindowFunction::Aggregate(inner) = &mut call.function {
                        self.resolve_call(inner, &layout);
                    }
                }
                let mut all = layout;
                all.extend(cols);
                Ok(self.through(open, all, |slot| Sink::Window(slot, calls)))
            }
            Plan::Sort(input, mut keys) => {
                let mut open = self.node(*input)?;
                self.ready_keys(&mut keys, &mut open)?;
                let layout = open.layout.clone();
                Ok(self.through(open, layout, |slot| Sink::Sort(slot, keys, None)))
            }
            Plan::Limit(input, mut limit, mut offset, mut ties) => {
                let mut open = self.node(*input)?;
                if ties.is_none() {
                    self.bound_sort(&open, limit.as_ref(), offset.as_ref());
                }
                for expr in limit.iter_mut().chain(&mut offset) {
                    let mut nowhere = Open::new(Source::Values([Vec::new()].into()), Vec::new());
                    self.prepare(expr, &mut nowhere)?;
                    self.resolve(expr, &[]);
                }
                if let Some(keys) = &mut ties {
                    self.ready_keys(keys, &mut open)?;
                }
                open.stages.push(Stage::Limit { limit, offset, ties });
                Ok(open)
            }
            Plan::Distinct(input, cols) => {
                let mut open = self.node(*input)?;
                let places = cols.iter().map(|c| place(&open.layout, *c)).collect::<Result<_, _>>()?;
                open.stages.push(Stage::Distinct(places));
                Ok(open)
            }
            Plan::DistinctOn(input, mut keys) => {
                let mut open = self.node(*input)?;
                self.ready_all(&mut keys, &mut open)?;
                open.stages.push(Stage::DistinctOn(keys));
                Ok(open)
            }
            Plan::SetOp(op, all, left, right, cols) => self.set_op(op, all, *left, *right, &cols),
            Plan::Slot(slot, cols) => {
                let (places, layout) = cols.into_iter().unzip();
                Ok(Open::new(Source::Slot(slot, Some(places)), layout))
            }
            Plan::With(list, rest) => {
                for (slot, plan, cols) in list {
                    let mut open = self.node(plan)?;
                    let places = cols.iter().map(|c| place(&open.layout, *c)).collect::<Result<_, _>>()?;
                    open.stages.push(Stage::Pick(places));
                    self.close(open, Sink::Keep(slot));
                }
                self.node(*rest)
            }
            Plan::Recursive(slot, first, step, distinct, cols) => {
                let (first, first_outer) = self.program(*first, &[])?;
                let (step, step_outer) = self.program(*step, &[])?;
                let first_places =
                    cols.iter().map(|c| place(&first.layout, c.0)).collect::<Result<_, _>>()?;
                let step_places = cols.iter().map(|c| place(&step.layout, c.1)).collect::<Result<_, _>>()?;
                let source = RecursiveSource {
                    slot,
                    first,
                    step,
                    first_outer,
                    step_outer,
                    first_places,
                    step_places,
                    distinct,
                };
                Ok(Open::new(Source::Recursive(source), cols.iter().map(|c| c.2).collect()))
            }
        }
    }

    /// Lets the sort that a limit looks at, row by row, keep no more than that.
    fn bound_sort(&mut self, open: &Open, limit: Option<&Expr>, offset: Option<&Expr>) {
        let count = |expr: &Expr| match expr {
            Expr::Const(Value::Int(n)) => usize::try_from(*n).ok(),
            _ => None,
        };
        let Some(most) = limit.and_then(count).zip(offset.map_or(Some(0), count)) else { return };
        let whole = |stage: &Stage| matches!(stage, Stage::Project(_) | Stage::Pick(_));
        if let Source::Slot(from, None) = &open.source
            && open.stages.iter().all(whole)
            && let Some(Pipeline { sink: Sink::Sort(slot, _, bound), .. }) = self.pipelines.last_mut()
            && slot == from
        {
            *bound = most.0.checked_add(most.1).filter(|most| *most <= SORT_BOUND_MAX);
        }
    }

    fn prepare_call(&mut self, call: &mut AggregateCall, open: &mut Open) -> Result<(), SqlError> {
        for expr in call.arguments.iter_mut().chain(&mut call.filter) {
            self.prepare(expr, open)?;
        }
        for key in &mut call.order {
            self.prepare(&mut key.expr, open)?;
        }
        Ok(())
    }

    fn resolve_call(&mut self, call: &mut AggregateCall, layout: &[Col]) {
        self.resolve_all(&mut call.arguments, layout);
        if let Some(filter) = &mut call.filter {
            self.resolve(filter, layout);
        }
        for key in &mut call.order {
            self.resolve(&mut key.expr, layout);
        }
    }

    fn prepare_window(&mut self, call: &mut WindowCall, open: &mut Open) -> Result<(), SqlError> {
        for expr in call.arguments.iter_mut().chain(&mut call.partition) {
            self.prepare(expr, open)?;
        }
        for key in &mut call.order {
            self.prepare(&mut key.expr, open)?;
        }
        for bound in [&mut call.start, &mut call.end] {
            if let FrameBound::Before(e) | FrameBound::Behind(e) = bound {
                self.prepare(e, open)?;
            }
        }
        if let WindowFunction::Aggregate(inner) = &mut call.function {
            self.prepare_call(inner, open)?;
        }
        Ok(())
    }

    fn join(&mut self, kind: JoinKind, left: Plan, right: Plan, on: Vec<Expr>) -> Result<Open, SqlError> {
        if kind == JoinKind::Inner && on.iter().any(Expr::has_subquery) {
            // What an inner join asks for may as well be asked of its rows, where subqueries can look at them.
            let (asking, on) = on.into_iter().partition(Expr::has_subquery);
            let joined = Plan::Join(kind, Box::new(left), Box::new(right), on);
            return self.node(Plan::Filter(Box::new(joined), asking));
        }
        let (left_cols, right_cols) = (left.columns(), right.columns());
        let right_open = self.node(right)?;
        let right_layout = right_open.layout.clone();
        let (mut left_keys, mut right_keys, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for condition in on {
            match equality(condition, &left_cols, &right_cols) {
                Ok((a, b)) => {
                    left_keys.push(a);
                    right_keys.push(b);
                }
                Err(condition) => rest.push(condition),
            }
        }
        let slot = self.slot();
        self.resolve_all(&mut right_keys, &right_layout);
        let hash = !left_keys.is_empty();
        self.close(right_open, if hash { Sink::Build(slot, right_keys) } else { Sink::Keep(slot) });
        let mut open = self.node(left)?;
        let left_layout = open.layout.clone();
        let mut all = left_layout.clone();
        all.extend(&right_layout);
        let mut rest = Expr::all(rest);
        if let Some(rest) = &mut rest {
            // Subqueries that depend on the pair were lifted by the planner; others have one answer.
            let mut nowhere = Open::new(Source::Values(Vec::new()), all.clone());
            self.prepare(rest, &mut nowhere)?;
            if nowhere.layout.len() != all.len() {
                return Err(SqlError::new(
                    SqlState::FeatureNotSupported,
                    "a correlated subquery in the condition of an outer join is not supported",
                )
                .hint("Move the condition to a subquery in FROM."));
            }
            self.resolve(rest, &all);
        }
        self.resolve_all(&mut left_keys, &left_layout);
        let (left_width, right_width) = (left_layout.len(), right_layout.len());
        open.stages.push(if hash {
            Stage::HashJoin { slot, kind, keys: left_keys, rest, left_width, right_width }
        } else {
            Stage::LoopJoin { slot, kind, on: rest, left_width, right_width }
        });
        open.layout = if matches!(kind, JoinKind::Semi | JoinKind::Anti) { left_layout } else { all };
        Ok(open)
    }

    fn set_op(
        &mut self,
        op: SetOp,
        all: bool,
        left: Plan,
        right: Plan,
        cols: &[(Col, Col, Col)],
    ) -> Result<Open, SqlError> {
        let layout: Vec<Col> = cols.iter().map(|c| c.2).collect();
        let places = |layout: &[Col], of: fn(&(Col, Col, Col)) -> Col| -> Result<Vec<usize>, SqlError> {
            cols.iter().map(|c| place(layout, of(c))).collect()
        };
        let slot = self.slot();
        let mut open = if op == SetOp::Union {
            for (plan, of) in [(left, (|c| c.0) as fn(&(Col, Col, Col)) -> Col), (right, |c| c.1)] {
                let mut side = self.node(plan)?;
                let places = places(&side.layout, of)?;
                side.stages.push(Stage::Pick(places));
                self.close(side, Sink::Keep(slot));
            }
            Open::new(Source::Slot(slot, None), layout.clone())
        } else {
            let right_open = self.node(right)?;
            let right = places(&right_open.layout, |c| c.1)?;
            self.close(right_open, Sink::Keep(slot));
            let mut open = self.node(left)?;
            let left = places(&open.layout, |c| c.0)?;
            open.stages.push(Stage::SetProbe { slot, op, all, left, right });
            open.layout.clone_from(&layout);
            open
        };
        if !all {
            open.stages.push(Stage::Distinct((0..layout.len()).collect()));
        }
        Ok(open)
    }
}

/// Whether a condition is what the range of a scan says of one of its first columns: keys are equal if values are.
fn is_in_range(condition: &Expr, scan: &ScanPlan) -> bool {
    let Expr::Compare(Comparison::Eq, a, b) = condition else { return false };
    let places = match scan.index {
        Some(at) => {
            scan.table.indexes[at].columns.iter().filter_map(|c| scan.table.place(c.column)).collect()
        }
        None => scan.table.key_places().unwrap_or_default(),
    };
    scan.range.equal.iter().zip(&places).any(|(value, place)| {
        let is_column = |e: &Expr| {
            matches!(e, Expr::Col(col) if scan.columns.iter().any(|(c, at)| c == col && at == place))
        };
        is_column(a) && **b == *value || is_column(b) && **a == *value
    })
}

/// Makes a condition a test of the scan, if it compares a column with what is known and cannot fail; else gives it back.
fn tested(condition: Expr, width: usize, tests: &mut Vec<Test>) -> Option<Expr> {
    let Expr::Compare(comparison, a, b) = condition else { return Some(condition) };
    let known = |e: &Expr| matches!(e, Expr::Const(_) | Expr::Outer(_));
    let (place, comparison, value) = match (*a, *b) {
        (Expr::At(place), value) if place < width && known(&value) => (place, comparison, value),
        (value, Expr::At(place)) if place < width && known(&value) => (place, comparison.flipped(), value),
        (a, b) => return Some(Expr::Compare(comparison, Box::new(a), Box::new(b))),
    };
    tests.push(Test { place, comparison, value });
    None
}

/// Splits `a = b` into a side for each input.
fn equality(condition: Expr, left: &[Col], right: &[Col]) -> Result<(Expr, Expr), Expr> {
    let Expr::Compare(Comparison::Eq, a, b) = condition else { return Err(condition) };
    let side = |e: &Expr| -> (bool, bool) {
        let (mut in_left, mut in_right) = (false, false);
        e.columns(&mut |c| {
            in_left |= left.contains(&c);
            in_right |= right.contains(&c);
        });
        (in_left, in_right)
    };
    let plain = !a.has_subquery() && !b.has_subquery();
    match (side(&a), side(&b)) {
        ((true, false), (false, true)) if plain => Ok((*a, *b)),
        ((false, true), (true, false)) if plain => Ok((*b, *a)),
        _ => Err(Expr::Compare(Comparison::Eq, a, b)),
    }
}
