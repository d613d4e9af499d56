//! Statements out of arbitrary bytes: always well typed, so that what they answer is a value and not a refusal.

/// Choices from the front of some bytes; the first one when there are none left.
pub(crate) struct Choices<'a>(&'a [u8]);

/// The tables that statements are about.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE t (a int PRIMARY KEY, b int, c text, d numeric);
    CREATE INDEX ON t (b);
    CREATE INDEX ON t (c, b DESC);
    CREATE TABLE u (x int, y int, z text, UNIQUE (x, y));
    CREATE INDEX ON u (y);";

const NUMBERS: [&str; 8] = ["0", "1", "2", "3", "-1", "5", "7", "NULL::int"];
const TEXTS: [&str; 6] = ["'a'", "'b'", "'ab'", "''", "'c'", "NULL"];

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % count
    }

    fn of<'s>(&mut self, list: &[&'s str]) -> &'s str {
        list[self.below(list.len())]
    }

    /// Rows for both tables.
    pub(crate) fn inserts(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        for a in 0..self.below(12) {
            let (b, c, d) = (self.of(&NUMBERS), self.of(&TEXTS), self.of(&["1.5", "2", "NULL", "-0.5"]));
            out.push(format!("INSERT INTO t VALUES ({a}, {b}, {c}, {d})"));
        }
        for x in 0..self.below(12) {
            let (y, z) = (self.of(&NUMBERS), self.of(&TEXTS));
            out.push(format!("INSERT INTO u VALUES ({}, {y}, {z}) ON CONFLICT DO NOTHING", x % 5));
        }
        out
    }

    fn number(&mut self, depth: usize, columns: &[&str]) -> String {
        let leaf = depth == 0 || self.is_over();
        match self.below(if leaf { 2 } else { 9 }) {
            0 => self.of(columns).to_string(),
            1 => self.of(&NUMBERS).to_string(),
            2 => format!("({} + {})", self.number(depth - 1, columns), self.number(depth - 1, columns)),
            3 => format!("({} - {})", self.number(depth - 1, columns), self.number(depth - 1, columns)),
            4 => {
                format!("coalesce({}, {})", self.number(depth - 1, columns), self.number(depth - 1, columns))
            }
            5 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.condition(depth - 1, columns),
                self.number(depth - 1, columns),
                self.number(depth - 1, columns)
            ),
            6 => format!("(SELECT count(*) FROM u AS s WHERE s.y = {})", self.number(depth - 1, columns)),
            7 => format!("(SELECT max(s.b) FROM t AS s WHERE s.a <= {})", self.number(depth - 1, columns)),
            _ => format!("abs({})", self.number(depth - 1, columns)),
        }
    }

    fn comparison(&mut self) -> &'static str {
        self.of(&["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
    }

    /// A condition over columns of numbers.
    pub(crate) fn condition(&mut self, depth: usize, columns: &[&str]) -> String {
        let leaf = depth == 0 || self.is_over();
        match self.below(if leaf { 3 } else { 13 }) {
            0 => format!("{} {} {}", self.of(columns), self.comparison(), self.of(&NUMBERS)),
            1 => format!("{} IS NULL", self.of(columns)),
            2 => format!("{} = {}", self.of(columns), self.of(columns)),
            3 => {
                format!("({} AND {})", self.condition(depth - 1, columns), self.condition(depth - 1, columns))
            }
            4 => {
                format!("({} OR {})", self.condition(depth - 1, columns), self.condition(depth - 1, columns))
            }
            5 => format!("NOT ({})", self.condition(depth - 1, columns)),
            6 => {
                let list: Vec<&str> = (0..=self.below(12)).map(|_| self.of(&NUMBERS)).collect();
                let not = self.of(&["", "NOT "]);
                format!("{} {not}IN ({})", self.number(depth - 1, columns), list.join(", "))
            }
            7 => format!("{} BETWEEN {} AND {}", self.of(columns), self.of(&NUMBERS), self.of(&NUMBERS)),
            8 => {
                let not = self.of(&["", "NOT "]);
                format!(
                    "{} {not}IN (SELECT s.y FROM u AS s WHERE {})",
                    self.number(depth - 1, columns),
                    self.condition(depth - 1, &["s.x", "s.y"])
                )
            }
            9 => {
                let not = self.of(&["", "NOT "]);
                format!("{not}EXISTS (SELECT 1 FROM t AS s WHERE s.b = {})", self.of(columns))
            }
            10 => format!("({}) IS NOT TRUE", self.condition(depth - 1, columns)),
            11 => format!(
                "{} > ALL (SELECT s.b FROM t AS s WHERE s.a < {})",
                self.of(columns),
                self.of(&NUMBERS)
            ),
            _ => format!(
                "{} {} {}",
                self.number(depth - 1, columns),
                self.comparison(),
                self.number(depth - 1, columns)
            ),
        }
    }

    /// A FROM clause, with its columns of numbers.
    pub(crate) fn from(&mut self) -> (String, &'static [&'static str]) {
        const BOTH: &[&str] = &["t.a", "t.b", "u.x", "u.y"];
        match self.below(7) {
            0 => ("t".to_string(), &["t.a", "t.b"]),
            1 => ("u".to_string(), &["u.x", "u.y"]),
            2 => ("t, u".to_string(), BOTH),
            3 => (format!("t JOIN u ON {}", self.condition(1, BOTH)), BOTH),
            4 => (format!("t LEFT JOIN u ON t.b = u.y AND {}", self.condition(0, BOTH)), BOTH),
            5 => ("t FULL JOIN u ON t.a = u.x".to_string(), BOTH),
            _ => {
                let condition = self.condition(1, &["i.x", "i.y"]);
                (format!("t, LATERAL (SELECT * FROM u AS i WHERE i.x <= t.a AND {condition}) AS u"), BOTH)
            }
        }
    }

    /// A query whose rows come in an order that it says.
    pub(crate) fn query(&mut self) -> String {
        let (from, columns) = self.from();
        let condition = self.condition(3, columns);
        match self.below(6) {
            0 => format!("SELECT count(*), sum({}) FROM {from} WHERE {condition}", columns[0]),
            1 => format!(
                "SELECT {0}, count(*), max({1}) FROM {from} WHERE {condition} GROUP BY {0} ORDER BY {0}",
                columns[1], columns[0]
            ),
            2 => format!(
                "SELECT DISTINCT {0}, {1} FROM {from} WHERE {condition} ORDER BY 1, 2",
                columns[1],
                columns[columns.len() - 1]
            ),
            3 => format!(
                "SELECT {0} AS n FROM {from} WHERE {condition} UNION SELECT y FROM u ORDER BY n LIMIT {1}",
                columns[0],
                self.below(9)
            ),
            4 => format!("SELECT {0} FROM {from} WHERE {condition} ORDER BY {0}", columns.join(", ")),
            _ => format!(
                "WITH w AS (SELECT {} AS n FROM {from} WHERE {condition})
                 SELECT count(*), sum(w.n) FROM w JOIN t ON t.a = w.n",
                columns[1]
            ),
        }
    }

    /// A statement that writes.
    pub(crate) fn change(&mut self) -> String {
        let at = ["t.a", "t.b"];
        match self.below(8) {
            0 => format!("UPDATE t SET b = {} WHERE {}", self.number(2, &at), self.condition(2, &at)),
            1 => format!("DELETE FROM t WHERE {} RETURNING a", self.condition(2, &at)),
            2 => format!("UPDATE t SET a = a + 20 WHERE {} RETURNING a", self.condition(2, &at)),
            3 => format!(
                "INSERT INTO t SELECT x, y, z FROM u WHERE {} ON CONFLICT (a) DO UPDATE SET b = excluded.b + t.a",
                self.condition(1, &["u.x", "u.y"])
            ),
            4 => format!(
                "INSERT INTO u SELECT a, b, c FROM t WHERE {} ON CONFLICT DO NOTHING",
                self.condition(1, &at)
            ),
            5 => format!(
                "UPDATE u SET y = t.b FROM t WHERE t.a = u.x AND {} RETURNING x",
                self.condition(1, &at)
            ),
            6 => format!("INSERT INTO t VALUES ({}, 1)", self.below(40)),
            _ => format!("DELETE FROM u USING t WHERE u.y = t.b AND {}", self.condition(1, &at)),
        }
    }
}
