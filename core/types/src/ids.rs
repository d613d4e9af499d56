//! Identifiers. Each is a newtype over the integer it is stored as.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);

            /// The value after this one. Overflow is a bug and aborts.
            #[inline]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The value before this one, or zero.
            #[inline]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id! {
    /// A position in the replicated log: one op is one prepare. Op 0 is the root, which no one proposes.
    Op(u64), "op"
}
id! {
    /// A view: the term of one primary. The primary of view `v` is replica `v mod replicas`.
    View(u64), "view"
}
id! {
    /// A replica's place in the cluster's address list, counted from 0.
    ReplicaId(u8), "r"
}
id! {
    /// One customer of the cluster. Data of two tenants never meets.
    TenantId(u64), "tenant"
}
id! {
    /// One append-only stream within a tenant.
    StreamId(u64), "stream"
}
id! {
    /// The place of one record within its stream, counted from 0 without gaps.
    Offset(u64), "@"
}
id! {
    /// A client's own counter within its session; the first request is 1.
    RequestNumber(u64), "req"
}

/// A cluster's identity, drawn at random when it is formatted. Frames and files of another are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// No cluster: what a client says that was not told which one it talks to. Never drawn for a real one.
    pub const UNNAMED: Self = Self(0);
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster:{:032x}", self.0)
    }
}

/// The place of one entry in the log: the prepare that carries it and its index there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LogPosition {
    /// The prepare.
    pub op: Op,
    /// The entry within the prepare, counted from 0.
    pub index: u32,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.op, self.index)
    }
}

impl fmt::Debug for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.op, self.index)
    }
}

/// A client session, named by the log position of the command that registered it, so it is unique for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub LogPosition);

impl SessionId {
    /// No session: what a client says before it has registered one.
    pub const NONE: Self = Self(LogPosition { op: Op::ZERO, index: 0 });
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session{}", self.0)
    }
}

/// A table, an index, a view or a sequence: whatever of a tenant has rows, entries or a definition. Never used again for
/// another one of the tenant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub u32);
