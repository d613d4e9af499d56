//! Named limits. What passes one is refused by name.

/// Bytes of a statement.
pub const STATEMENT_BYTES_MAX: usize = 16 << 20;
/// Words, signs and spaces of a statement: about 100 bytes each while it is read.
pub const TOKENS_MAX: usize = 4 << 20;
/// Nesting of expressions and queries. One level takes about 2 KiB of stack in a release build, 20 KiB in a debug one;
/// a thread has at least 8 MiB.
pub const NESTING_MAX: usize = 180;
/// Operators in one chain (`a + b + c`, `a OR b OR c`, `… UNION …`): the parser leans them to the left, one level each,
/// and a level takes less than 1 KiB of stack to copy, show and drop.
pub const CHAIN_MAX: usize = 1000;
/// Columns of a result or of one side of a join.
pub const COLUMNS_MAX: usize = 4096;
/// Bytes of rows that one statement may hold in memory.
pub const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Grouping expressions beside `GROUPING()`: its answer has a bit for each.
pub const GROUPING_MAX: usize = 62;
/// Rows of a batch.
pub const BATCH_ROWS: usize = 256;
/// Rows of a batch that a scan of a table gives.
pub const SCAN_BATCH_ROWS: usize = 1024;
/// Rows that a scan looks at in one step.
pub const SCAN_ROWS_MAX: usize = 4096;
/// Bytes of a stream's records that are read in one step, besides those of the last one.
pub const STREAM_STEP_BYTES: usize = 1 << 20;
/// Rows one recursive query may produce.
pub const RECURSION_ROWS_MAX: usize = 5_000_000;
/// Pairs of rows that a join looks at in one step.
pub const STEP_ROWS_MAX: usize = 1 << 16;
/// Rows and elements of `generate_series` and arrays.
pub const SERIES_MAX: u64 = 100_000_000;
/// Characters a function may produce (`repeat`, `lpad`).
pub const TEXT_MAX: usize = 64 << 20;
/// Bytes of a compiled regular expression.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// Nesting of a regular expression.
pub const REGEX_NESTING_MAX: u32 = 64;
/// States of a regular expression times bytes of the text it is held against: a few seconds.
pub const REGEX_WORK_MAX: usize = 1 << 28;
/// Rows that one statement may pass from stage to stage: an endless cross join ends here, not the node.
pub const WORK_ROWS_MAX: u64 = 2_000_000_000;
/// Ranges a statement guards one by one; beyond, it guards whole tables.
pub const RANGES_MAX: usize = 256;
/// Rows that indexes led to and a statement guards one by one; beyond, it guards whole tables.
pub const ROWS_GUARDED_MAX: usize = 1024;
/// Rows of a LIMIT at most for which the sort below it forgets those behind them.
pub const SORT_BOUND_MAX: usize = 1 << 20;
