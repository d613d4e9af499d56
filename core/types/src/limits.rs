//! Named limits. Each says what it bounds and the arithmetic behind it.

/// The unit of every disk transfer, in bytes: offsets, lengths and addresses are multiples of it.
pub const SECTOR_SIZE: usize = 4096;

/// The head of a frame between replicas or between client and node, in bytes.
pub const FRAME_HEADER_SIZE: usize = 128;

/// The part of that head which says something, in bytes. Behind it stand the authenticator and a checksum over both:
/// they follow from this part and a secret, so whoever must not know the secret compares this part alone.
pub const FRAME_SAID_SIZE: usize = 96;

/// The header of a prepare, in bytes. One ring slot; one unit in which a disk may tear a write.
pub const PREPARE_HEADER_SIZE: usize = 512;

/// The fixed part of an entry, in bytes.
pub const ENTRY_HEADER_SIZE: usize = 136;

/// Replicas that vote. Six allow flexible quorums; the majority of six is four.
pub const REPLICAS_MAX: usize = 6;

/// Prepares proposed but not committed. 8 x 1 MiB in flight hides a 10 ms round trip at 800 MB/s.
pub const PIPELINE_MAX: usize = 8;

/// The largest prepare a configuration may allow, in bytes: header and body.
pub const PREPARE_SIZE_LIMIT: u32 = (1 << 20) + (1 << 16);

/// The largest command in one request, in bytes. 8,000 records of 128 bytes with their lengths fit (1,056,000), and a
/// prepare of the default size holds at least one.
pub const COMMAND_SIZE_LIMIT: u32 = (1 << 20) + (1 << 15);

/// The largest body of any frame, in bytes: a whole prepare, or a command or read reply with its envelope.
pub const FRAME_BODY_SIZE_LIMIT: u32 = PREPARE_SIZE_LIMIT;

/// Client connections a node serves at once. 1,024 x 1 MiB of receive credit is the worst case it must hold.
pub const CONNECTIONS_MAX: usize = 1024;

/// Entries in one prepare: 1 MiB of the smallest entries (136 bytes and a one-byte command).
pub const ENTRIES_MAX: u32 = 8192;

/// Records in one `AppendBatch` command.
pub const BATCH_RECORDS_MAX: u32 = 65_536;

/// Bytes of a tenant's or stream's name, in UTF-8.
pub const NAME_SIZE_MAX: usize = 255;

/// Bytes a fresh client stream may receive before its machine grants more.
pub const STREAM_CREDIT_INITIAL: u32 = 64 << 10;

/// Messages queued for one replica before one of them is dropped. Two pipelines of prepares and their
/// acknowledgements, and a view change on top: 8 x 2 x 2 + 32.
pub const LINK_QUEUE_MAX: usize = 64;

/// Bytes queued for one client stream before the node closes it as a slow reader: four full replies.
pub const STREAM_QUEUE_MAX: u64 = 4 * FRAME_BODY_SIZE_LIMIT as u64;

/// Copies of the superblock.
pub const SUPERBLOCK_COPIES: usize = 4;

/// Bytes of one copy of the superblock, and the distance between copies.
pub const SUPERBLOCK_COPY_SIZE: usize = 4 * SECTOR_SIZE;

/// Headers of the newest ops that a replica keeps in memory. A suffix that a view change cuts is at most one
/// pipeline long, and the headers it is replaced by reach one pipeline further back: 2 x 8 and as much again.
pub const HEADER_WINDOW: usize = 32;

/// Views, ops and commit numbers in frames and prepares stay below this: at a million a second it takes 36,000
/// years to get there, and nothing that is added to one overflows.
pub const COUNTER_LIMIT: u64 = 1 << 60;

/// Timestamps stay below this: nanoseconds until the year 2116.
pub const TIMESTAMP_LIMIT: u64 = 1 << 62;
