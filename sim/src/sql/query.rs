//! Queries over the table `data`: shapes around a condition, as text, and what they answer by a plain evaluation.

use std::collections::{BTreeMap, BTreeSet};

use super::deed::When;
use super::grammar::{Ask, Column, Condition, DataRow};

/// Rows of an answer, in text.
pub type Cells = Vec<Vec<Option<String>>>;

/// What is asked about the rows of which a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Which they are.
    Rows,
    /// How many, by a filter: what a planner may answer by an index.
    Count,
    /// How many, by a sum over all rows: what no index helps with (NoREC).
    SumOfCases,
    /// Which they are, in three parts: of which it holds, of which it does not, of which it is NULL (TLP).
    Parts,
    /// Numbers by group.
    Groups,
    /// The groups that are large enough.
    LargeGroups,
    /// The first few in another order, NULL first or last.
    First {
        /// Whether in descending order.
        descending: bool,
        /// Whether NULL stands first.
        nulls_first: bool,
        /// How many are left out.
        offset: u64,
        /// How many at most.
        limit: u64,
    },
    /// Each number once.
    Distinct,
    /// With the rows that have the same number.
    Join,
    /// With the rows that have the same number, or NULL.
    LeftJoin,
    /// Those with a number that another row has, by EXISTS.
    Exists,
    /// Those with a number that is none of others, by NOT IN: NULL makes the difference.
    NotIn,
    /// Two sets as one, each row once.
    Union,
    /// How many there are before each, by a window.
    Window,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What is asked.
    pub shape: Shape,
    /// Of which rows.
    pub of: Condition,
}

const SHAPES: u64 = 16;

impl Query {
    /// A query by luck.
    pub(crate) fn draw(ask: &mut Ask<'_>) -> Self {
        let of = if ask(3) == 0 { Condition::simple(ask) } else { Condition::draw(ask) };
        let shape = match ask(SHAPES) {
            0..=2 => Shape::Rows,
            3 => Shape::Count,
            4 => Shape::SumOfCases,
            5 => Shape::Parts,
            6 => Shape::Groups,
            7 => Shape::LargeGroups,
            8 | 9 => Shape::First {
                descending: ask(2) == 0,
                nulls_first: ask(2) == 0,
                offset: ask(3),
                limit: ask(6),
            },
            10 => Shape::Distinct,
            11 => Shape::Join,
            12 => Shape::LeftJoin,
            13 => Shape::Exists,
            14 => {
                if ask(2) == 0 {
                    Shape::NotIn
                } else {
                    Shape::Union
                }
            }
            _ => Shape::Window,
        };
        Self { shape, of }
    }

    /// The statement.
    pub fn text(&self, when: When) -> String {
        let (data, of) = (format!("data{}", when.text()), &self.of);
        match self.shape {
            Shape::Rows => format!("SELECT id, a, b, s FROM {data} WHERE {of} ORDER BY id"),
            Shape::Count => format!("SELECT COUNT(*) FROM {data} WHERE {of}"),
            Shape::SumOfCases => {
                format!("SELECT COALESCE(SUM(CASE WHEN {of} THEN 1 ELSE 0 END), 0) FROM {data}")
            }
            Shape::Parts => format!(
                "SELECT 1 AS part, id FROM {data} WHERE {of} UNION ALL SELECT 2, id FROM {data} WHERE NOT ({of}) \
                 UNION ALL SELECT 3, id FROM {data} WHERE ({of}) IS NULL ORDER BY part, id"
            ),
            Shape::Groups => format!(
                "SELECT a, COUNT(*), COUNT(b), SUM(b), MIN(id), MAX(b) FROM {data} WHERE {of} GROUP BY a \
                 ORDER BY a NULLS LAST"
            ),
            Shape::LargeGroups => format!(
                "SELECT b, COUNT(*) FROM {data} WHERE {of} GROUP BY b HAVING COUNT(*) > 1 ORDER BY b NULLS FIRST"
            ),
            Shape::First { descending, nulls_first, offset, limit } => {
                let direction = if descending { "DESC" } else { "ASC" };
                let nulls = if nulls_first { "FIRST" } else { "LAST" };
                format!(
                    "SELECT a, id FROM {data} WHERE {of} ORDER BY a {direction} NULLS {nulls}, id LIMIT {limit} \
                     OFFSET {offset}"
                )
            }
            Shape::Distinct => {
                format!("SELECT DISTINCT b FROM {data} WHERE {of} ORDER BY b NULLS LAST")
            }
            Shape::Join => format!(
                "SELECT x.id, y.id FROM (SELECT * FROM {data} WHERE {of}) x JOIN {data} y ON x.a = y.b \
                 ORDER BY x.id, y.id"
            ),
            Shape::LeftJoin => format!(
                "SELECT x.id, y.id FROM (SELECT * FROM {data} WHERE {of}) x LEFT JOIN {data} y \
                 ON x.b = y.a AND y.id > x.id ORDER BY x.id, y.id NULLS LAST"
            ),
            Shape::Exists => format!(
                "SELECT x.id FROM (SELECT * FROM {data} WHERE {of}) x WHERE EXISTS \
                 (SELECT 1 FROM {data} y WHERE y.a = x.a AND y.id <> x.id) ORDER BY x.id"
            ),
            Shape::NotIn => format!(
                "SELECT x.id FROM {data} x WHERE x.a NOT IN (SELECT b FROM {data} WHERE {of}) ORDER BY x.id"
            ),
            Shape::Union => format!(
                "SELECT a AS c FROM {data} WHERE {of} UNION SELECT b FROM {data} ORDER BY c NULLS LAST"
            ),
            Shape::Window => format!(
                "SELECT id, ROW_NUMBER() OVER (PARTITION BY a ORDER BY id), COUNT(*) OVER (PARTITION BY a) \
                 FROM {data} WHERE {of} ORDER BY id"
            ),
        }
    }

    /// What it answers about these rows, which stand in the order of their keys.
    pub fn answer(&self, rows: &[DataRow]) -> Cells {
        let of = &self.of;
        let holds = |row: &&DataRow| of.of(row) == Some(true);
        let held: Vec<&DataRow> = rows.iter().filter(holds).collect();
        match self.shape {
            Shape::Rows => {
                held.iter().map(|row| vec![cell(row.id), cell(row.a), cell(row.b), row.s.clone()]).collect()
            }
            Shape::Count | Shape::SumOfCases => vec![vec![cell(count(held.len()))]],
            Shape::Parts => {
                let part = |number: i64, wanted: Option<bool>| {
                    rows.iter()
                        .filter(move |row| of.of(row) == wanted)
                        .map(move |row| vec![cell(number), cell(row.id)])
                };
                part(1, Some(true)).chain(part(2, Some(false))).chain(part(3, None)).collect()
            }
            Shape::Groups => groups(&held, Column::A)
                .into_iter()
                .map(|(a, rows)| {
                    let known = || rows.iter().filter_map(|row| row.b);
                    let sum = known().next().map(|_| known().sum::<i64>());
                    vec![
                        cell(a.value()),
                        cell(count(rows.len())),
                        cell(count(known().count())),
                        cell(sum),
                        cell(rows.iter().map(|row| row.id).min()),
                        cell(known().max()),
                    ]
                })
                .collect(),
            Shape::LargeGroups => {
                let groups = groups(&held, Column::B);
                let large = |(b, rows): (NullsLast, Vec<&DataRow>)| {
                    (rows.len() > 1).then(|| vec![cell(b.value()), cell(count(rows.len()))])
                };
                let (nulls, others): (Vec<_>, Vec<_>) =
                    groups.into_iter().partition(|(b, _)| b.value().is_none());
                nulls.into_iter().chain(others).filter_map(large).collect()
            }
            Shape::First { descending, nulls_first, offset, limit } => {
                let mut held = held;
                held.sort_by(|x, y| {
                    let nulls = |row: &DataRow| row.a.is_none() != nulls_first;
                    let order = x.a.cmp(&y.a);
                    let order = if descending { order.reverse() } else { order };
                    (nulls(x).cmp(&nulls(y))).then(order).then(x.id.cmp(&y.id))
                });
                let rows = held.iter().skip(offset as usize).take(limit as usize);
                rows.map(|row| vec![cell(row.a), cell(row.id)]).collect()
            }
            Shape::Distinct => {
                let each: BTreeSet<NullsLast> = held.iter().map(|row| NullsLast::of(row.b)).collect();
                each.into_iter().map(|b| vec![cell(b.value())]).collect()
            }
            Shape::Join => pairs(&held, rows, false, |x, y| x.a.is_some() && x.a == y.b),
            Shape::LeftJoin => pairs(&held, rows, true, |x, y| x.b.is_some() && x.b == y.a && y.id > x.id),
            Shape::Exists => held
                .iter()
                .filter(|x| rows.iter().any(|y| x.a.is_some() && x.a == y.a && x.id != y.id))
                .map(|x| vec![cell(x.id)])
                .collect(),
            Shape::NotIn => rows
                .iter()
                .filter(|x| {
                    held.is_empty() || x.a.is_some() && held.iter().all(|y| y.b.is_some() && y.b != x.a)
                })
                .map(|x| vec![cell(x.id)])
                .collect(),
            Shape::Union => {
                let numbers = held.iter().map(|row| row.a).chain(rows.iter().map(|row| row.b));
                let each: BTreeSet<NullsLast> = numbers.map(NullsLast::of).collect();
                each.into_iter().map(|c| vec![cell(c.value())]).collect()
            }
            Shape::Window => {
                let same = |x: &DataRow| count(held.iter().filter(move |y| x.a == y.a).count());
                let before =
                    |x: &DataRow| count(held.iter().filter(move |y| x.a == y.a && y.id <= x.id).count());
                held.iter().map(|row| vec![cell(row.id), cell(before(row)), cell(same(row))]).collect()
            }
        }
    }

    /// The clauses it is made of.
    pub fn clauses(&self) -> BTreeSet<&'static str> {
        let mut clauses = BTreeSet::new();
        clauses.insert(self.shape.name());
        self.of.clauses(&mut clauses);
        clauses
    }
}

impl Shape {
    /// Its name in the coverage of the grammar.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Count => "COUNT",
            Self::SumOfCases => "SUM of CASE",
            Self::Parts => "UNION ALL of three parts",
            Self::Groups => "GROUP BY",
            Self::LargeGroups => "HAVING",
            Self::First { .. } => "ORDER BY LIMIT",
            Self::Distinct => "DISTINCT",
            Self::Join => "JOIN",
            Self::LeftJoin => "LEFT JOIN",
            Self::Exists => "EXISTS",
            Self::NotIn => "NOT IN subquery",
            Self::Union => "UNION",
            Self::Window => "window",
        }
    }
}

/// How many, as SQL counts.
fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn cell(value: impl Into<Option<i64>>) -> Option<String> {
    value.into().map(|value| value.to_string())
}

/// A number that sorts behind all others if it is NULL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NullsLast(bool, Option<i64>);

impl NullsLast {
    const fn of(value: Option<i64>) -> Self {
        Self(value.is_none(), value)
    }

    const fn value(self) -> Option<i64> {
        self.1
    }
}

fn groups<'a>(rows: &[&'a DataRow], by: Column) -> BTreeMap<NullsLast, Vec<&'a DataRow>> {
    let mut groups: BTreeMap<NullsLast, Vec<&DataRow>> = BTreeMap::new();
    for row in rows {
        groups.entry(NullsLast::of(by.of(row))).or_default().push(row);
    }
    groups
}

fn pairs(
    left: &[&DataRow],
    right: &[DataRow],
    outer: bool,
    on: impl Fn(&DataRow, &DataRow) -> bool,
) -> Cells {
    let mut cells = Cells::new();
    for x in left {
        let before = cells.len();
        cells.extend(right.iter().filter(|y| on(x, y)).map(|y| vec![cell(x.id), cell(y.id)]));
        if outer && cells.len() == before {
            cells.push(vec![cell(x.id), None]);
        }
    }
    cells
}
