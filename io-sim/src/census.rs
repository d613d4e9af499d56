//! What really happened: counts by kind, and the faults one by one.

use kimberlite_io::Place;
use kimberlite_types::Instant;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::NodeId;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

named! {
    /// A fault that took effect, not one that was only configured.
    Fault {
        /// A packet was lost.
        PacketLost = "packet_lost",
        /// A packet was delivered twice.
        PacketDuplicated = "packet_duplicated",
        /// An old packet was delivered again.
        PacketReplayed = "packet_replayed",
        /// A bit of a packet's head was flipped.
        PacketHeadCorrupted = "packet_head_corrupted",
        /// A bit of a packet's body was flipped.
        PacketBodyCorrupted = "packet_body_corrupted",
        /// A packet was dropped because its path was full.
        PacketEvicted = "packet_evicted",
        /// A packet or stream met a blocked path.
        PathBlocked = "path_blocked",
        /// A packet or stream waited for a clogged path.
        PathClogged = "path_clogged",
        /// A packet took much longer than the others.
        PacketDelayed = "packet_delayed",
        /// A packet was overtaken by one sent later on the same path.
        PacketReordered = "packet_reordered",
        /// A packet was put on the network that no node sent.
        PacketForged = "packet_forged",
        /// A stream was reset.
        StreamReset = "stream_reset",
        /// A stream stood still for a while.
        StreamStalled = "stream_stalled",
        /// A stream's bytes were cut in the middle of what was handed over.
        StreamCut = "stream_cut",
        /// A bit of a stream was flipped.
        StreamCorrupted = "stream_corrupted",
        /// A connection could not be opened.
        StreamRefused = "stream_refused",
        /// A stream was closed because its reader was too slow.
        StreamOverflowed = "stream_overflowed",
        /// A crash left a part of a write in flight.
        WriteTorn = "write_torn",
        /// A crash left nothing of a write in flight.
        WriteDropped = "write_dropped",
        /// A sector became unreadable until it is rewritten.
        LatentError = "latent_error",
        /// Stored bits changed.
        BitRot = "bit_rot",
        /// A write landed elsewhere and reported success.
        MisdirectedWrite = "misdirected_write",
        /// A read answered with what lies elsewhere.
        MisdirectedRead = "misdirected_read",
        /// A write never reached the medium and reported success.
        PhantomWrite = "phantom_write",
        /// A read failed once.
        ReadError = "read_error",
        /// A write failed.
        WriteError = "write_error",
        /// The flush behind a write failed.
        SyncError = "sync_error",
        /// A write found no space.
        DiskFull = "disk_full",
        /// A disk operation waited for a stalled disk.
        DiskStalled = "disk_stalled",
        /// A disk operation was slowed down.
        DiskSlow = "disk_slow",
        /// A disk lost everything.
        DiskLost = "disk_lost",
        /// A process died.
        Crash = "crash",
        /// A process stood still.
        Pause = "pause",
        /// A wall clock jumped.
        ClockJump = "clock_jump",
        /// A clock began to run at another speed.
        ClockDrift = "clock_drift",
        /// A wall clock stood still.
        ClockFreeze = "clock_freeze",
    }
}

named! {
    /// Something that was delivered to a machine, or that a machine asked.
    Happening {
        /// `Event::Wake`.
        Wake = "wake",
        /// `Event::Read`.
        Read = "read",
        /// `Event::Written`.
        Written = "written",
        /// `Event::Trimmed`.
        Trimmed = "trimmed",
        /// `Event::Message`.
        Message = "message",
        /// `Event::Opened`.
        Opened = "opened",
        /// `Event::Received`.
        Received = "received",
        /// `Event::Sent`.
        Sent = "sent",
        /// `Event::Closed`.
        Closed = "closed",
        /// `Disk::read`.
        AskRead = "ask_read",
        /// `Disk::write`.
        AskWrite = "ask_write",
        /// `Disk::trim`.
        AskTrim = "ask_trim",
        /// `Net::send`.
        AskSend = "ask_send",
        /// `Net::connect`.
        AskConnect = "ask_connect",
        /// `Net::stream`.
        AskStream = "ask_stream",
        /// `Net::grant`.
        AskGrant = "ask_grant",
        /// `Net::close`.
        AskClose = "ask_close",
        /// A timer of the policy.
        Policy = "policy",
        /// A machine was started.
        Start = "start",
        /// A machine was stopped.
        Stop = "stop",
    }
}

/// One fault that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInjected {
    /// When, in world time.
    pub at: Instant,
    /// Whose disk, clock or process; the receiver of a packet or stream.
    pub node: NodeId,
    /// The other end, for the network.
    pub peer: Option<NodeId>,
    /// What.
    pub fault: Fault,
    /// Where on the disk, for disks.
    pub place: Option<Place>,
}

/// Counts per kind of fault and happening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    faults: [u64; Fault::ALL.len()],
    happenings: [u64; Happening::ALL.len()],
}

impl Census {
    pub(crate) const fn new() -> Self {
        Self { faults: [0; Fault::ALL.len()], happenings: [0; Happening::ALL.len()] }
    }

    pub(crate) fn count_fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    pub(crate) fn count(&mut self, happening: Happening) {
        self.happenings[happening as usize] += 1;
    }

    /// How often this fault took effect.
    pub const fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// How often this happened.
    pub const fn happenings(&self, happening: Happening) -> u64 {
        self.happenings[happening as usize]
    }

    /// All counts that are not zero, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let faults = Fault::ALL.iter().map(|fault| (fault.name(), self.faults(*fault)));
        let happenings = Happening::ALL.iter().map(|one| (one.name(), self.happenings(*one)));
        faults.chain(happenings).filter(|(_, count)| *count > 0)
    }
}

impl Serialize for Census {
    /// A map from name to count, without the zeros.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.iter().count()))?;
        for (name, count) in self.iter() {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}
