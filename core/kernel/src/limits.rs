//! What the replicated state may hold at most. Part of the protocol: replicas that disagree on one diverge.

/// Tenants of a cluster. With the longest name a tenant takes under 512 bytes: 65,536 x 512 B = 32 MiB.
pub const TENANTS_MAX: u32 = 1 << 16;

/// Streams of all tenants together. With the longest name a stream takes under 512 bytes besides its
/// extents: 1,048,576 x 512 B = 512 MiB.
pub const STREAMS_MAX: u32 = 1 << 20;

/// Tables, views and sequences of a tenant. The catalogue is kept in memory and read by every statement.
pub const OBJECTS_MAX: usize = 1 << 14;

/// Batches of the store that one command may take: a million writes. Tests of this crate pass it at an eighth.
const COMMAND_BATCHES_MAX: usize = if cfg!(test) { 16 } else { 128 };

/// Rows and index entries that one command may write or remove, however many batches of the store that takes. They are
/// worked out, in steps, before the first is written, and no other command is decided meanwhile: 1,048,576.
pub const COMMAND_WRITES_MAX: usize = COMMAND_BATCHES_MAX * kimberlite_store::BATCH_WRITES_MAX;

/// Bytes of their keys and values, all of which are in memory then: 256 MiB.
pub const COMMAND_BYTES_MAX: usize = COMMAND_BATCHES_MAX / 2 * kimberlite_store::BATCH_BYTES_MAX;

/// Bytes of facts that all sessions together may have staged for commands to come: what one command may write, which says in
/// its facts what is there before and behind.
pub const STAGED_BYTES_MAX: usize = 2 * COMMAND_BYTES_MAX;

/// After how long a session's staged facts may go that no piece was added to: a minute, in nanoseconds of the log's time.
pub const STAGED_IDLE_MAX: u64 = 60_000_000_000;

/// Guards of one command: one for each row that a full command updates, and as many again for what was read.
pub const GUARDS_MAX: usize = 2 * COMMAND_WRITES_MAX;

/// Changes of the schema in one command. Each takes a look at all names of the tenant: 4,096 x 16,384.
pub const SCHEMA_FACTS_MAX: usize = 1 << 12;

/// Rows that one command may index or check because their table got an index or a constraint: as many as it can give an
/// entry each.
pub const CHECKED_ROWS_MAX: usize = COMMAND_WRITES_MAX;

/// Bytes of a key of a row or of an index: its columns, and in an index the row's key behind them.
pub fn key_size_max() -> usize {
    kimberlite_store::Shape::default().key_size_max()
}
