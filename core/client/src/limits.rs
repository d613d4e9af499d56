//! What a client holds at most.

/// Commands that wait behind the one in flight. 64 x 1 MiB is the worst case a client must hold.
pub const COMMANDS_QUEUED_MAX: usize = 64;

/// Queries in flight. An answer is at most a frame, and they arrive one after the other.
pub const QUERIES_MAX: usize = 64;

/// Redirects followed in a row before the client waits and tries another replica. One is usual; two happen
/// while a view changes; in a circle, more than the six replicas there can be is futile.
pub const REDIRECTS_MAX: u32 = 6;

/// How often in a row a replica may say that it knows no primary before another one is asked: it may be the
/// only one that does not know.
pub const LATER_MAX: u32 = 3;
