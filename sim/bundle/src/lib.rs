//! The `.kmb` file: one container, two kinds.
//!
//! | module | holds |
//! |---|---|
//! | `container` | the head that both kinds share: magic, version, kind, hash, and who wrote it |
//! | `identity` | what a program was built from |
//! | `recording` | the life of a production node: how it is written along, and how it is read |
//! | `block` | one entry of a recording as bytes |
//!
//! The other kind, a simulated failure, is a value of the simulator and is packed by it in this container.
//!
//! # What it promises
//!
//! - Bytes from outside give an error with a reason, never a panic, and never more memory than the named limits.
//! - A file of another format version is refused by name: which format, and who wrote it.
//! - What a recording holds of an event has reached the kernel before the event is handled: a process that aborts or
//!   is killed loses nothing.
//! - No key, no secret and no authenticator under one is ever in a recording. The data of clients is: whoever may not
//!   read a node's log may not read its recording.
#![forbid(unsafe_code)]

mod block;
mod container;
mod identity;
mod recording;

pub use block::{Ended, Entry, Standing};
pub use container::{
    BODY_SIZE_MAX, FILE_SIZE_MAX, FORMAT_VERSION, FormatError, HEAD_SIZE, Head, Kind, MAGIC, pack, unpack,
};
pub use identity::Identity;
pub use recording::{Flight, Gone, OPENING_SIZE_MAX, Opening, ReadError, Reader, Tail};
