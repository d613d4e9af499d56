//! The query layer over rows in memory.

mod forms;
mod generate;
mod guards;
mod limits;
mod logic;
mod past;
mod plans;
mod refusals;
mod rows;
mod values;
mod writes;

impl rows::Database {
    /// The rows of an answer as text: `a,b` per row, NULL as `null`.
    fn rows(&mut self, sql: &str) -> Result<Vec<String>, kimberlite_row::SqlError> {
        self.run(sql).map(|answer| rows::shown(&answer))
    }
}
