//! What the replicated state may hold at most. Part of the protocol: replicas that disagree on one diverge.

/// Tenants of a cluster. With the longest name a tenant takes under 512 bytes: 65,536 x 512 B = 32 MiB.
pub const TENANTS_MAX: u32 = 1 << 16;

/// Streams of all tenants together. With the longest name a stream takes under 512 bytes besides its
/// extents: 1,048,576 x 512 B = 512 MiB.
pub const STREAMS_MAX: u32 = 1 << 20;

/// Tables, views and sequences of a tenant. The catalogue is kept in memory and read by every statement.
pub const OBJECTS_MAX: usize = 1 << 14;

/// Rows that one command may index or check because their table got an index or a constraint: as many as a batch of the
/// store can give an entry each.
pub const CHECKED_ROWS_MAX: usize = kimberlite_store::BATCH_WRITES_MAX;
