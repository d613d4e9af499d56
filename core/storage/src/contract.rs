//! What goes into storage and what comes out: the words it shares with its parent.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Event, Frame, Place};
use kimberlite_store::{Address, Checkpoint, CheckpointRoot, PageRef};
use kimberlite_types::{ClusterId, Layout, Op, ReplicaId, View};
use kimberlite_wire::message::Mark;
use kimberlite_wire::{Prepare, PrepareHeader};
use serde::{Deserialize, Serialize};

/// All that can ever happen to [`Storage`](crate::Storage).
#[derive(Clone, Debug)]
pub enum Input {
    /// Open the data directory. The first input, once. Answered by [`Output::Opened`] or [`Output::Halted`].
    Start,
    /// An answer to one of storage's own asks.
    Event(Event),
    /// Hold this prepare. Answered by [`Output::Durable`], unless a later input drops the op again.
    ///
    /// The op is at most one behind the head. Behind the head it must name the head as its parent. At or before
    /// the head it repairs the op the journal names there, or fills a hole, or, when its checksum is another,
    /// replaces it and everything that stands on it; only a committed prepare may do that.
    Append(Prepare),
    /// Make a view durable, and the headers adopted with it. Answered by [`Output::ViewDurable`], unless a
    /// newer one follows before this one was begun.
    ///
    /// When the log view or the headers differ from those held, the journal takes the headers as the end of its log at
    /// that moment; when only the view or commit differs, the journal is left alone. Appends wait meanwhile.
    PersistView(ViewState),
    /// Read a prepare back. Answered by [`Output::Fetched`]. In a hole in front of the adopted headers, what is found
    /// without a checksum may belong to an older log: ask with one, or check its parent. What was held there and is
    /// not known to be of the adopted log is found with its checksum only; append it to hold it again.
    Fetch {
        /// The op.
        op: Op,
        /// Only the prepare with this checksum will do.
        checksum: Option<Checksum>,
    },
    /// All ops up to this one are committed *as this journal names them*: segments may seal. A replica that fills a
    /// hole in front of its adopted headers says so op by op, as it has checked that each is the parent of the next.
    Committed(Op),
    /// Say which ops are missing and keep segments from sealing: the lowest few. Answered by [`Output::Fetched`] for each,
    /// as damaged. An op may be missing that the parent has executed long ago, so the parent cannot know by itself.
    Survey,
    /// Write these pages, then name the checkpoint in the superblock. Answered by [`Output::CheckpointDurable`]. The one
    /// before stays named, and whole, until then; so the next one is not begun before the answer.
    Checkpoint(Box<NewCheckpoint>),
    /// Name no checkpoint any more: what it holds is lost, and will be made anew from the log. Answered by
    /// [`Output::CheckpointDropped`]. Nobody waits for pages any more, and none is at hand.
    DropCheckpoint,
    /// Have these pages at hand, and keep them there until they are released. Answered by [`Output::Pages`].
    Want {
        /// For whom. It waits for nothing else.
        waiter: Waiter,
        /// The pages, as their parents name them.
        pages: Vec<PageRef>,
    },
    /// This waiter needs its pages no longer, or is gone.
    Release(Waiter),
    /// The answer to [`Output::PageLost`]. Only what is the page that its parent names is taken, and written to its place again.
    FromPeer {
        /// The page.
        page: PageName,
        /// Its bytes; none: nobody has it.
        bytes: Option<Frame>,
    },
    /// A peer lost this page. Answered by [`Output::Served`], unless too many are read for peers already: then it asks again.
    Serve {
        /// The peer.
        to: ReplicaId,
        /// The page.
        page: PageName,
    },
    /// Time passed.
    Wake,
}

/// What storage tells its parent.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a fetched prepare is moved once, into the hands that asked for it"
)]
pub enum Output {
    /// The data directory is open. Said once, before anything else but notes.
    Opened(Box<Recovered>),
    /// This prepare and its ring entry survive a power cut.
    Durable {
        /// The op.
        op: Op,
        /// Its checksum.
        checksum: Checksum,
    },
    /// This prepare survives a power cut, but its ring entry has to wait for a segment to seal: the parent may hand over
    /// more. [`Output::Durable`] follows in time.
    Stored {
        /// The op.
        op: Op,
    },
    /// The view survives a power cut, and the journal has adopted its headers.
    ViewDurable {
        /// The view.
        view: View,
        /// The last view whose log was adopted.
        log_view: View,
    },
    /// The answer to [`Input::Fetch`]. Also said unasked, as damaged, of an op that is missing and in the way of
    /// others: the first one below the adopted headers, one that the walk of a segment cannot pass, and what a
    /// survey finds.
    Fetched {
        /// As asked.
        op: Op,
        /// As asked.
        checksum: Option<Checksum>,
        /// The prepare, verified, or why there is none.
        result: Result<Prepare, FetchError>,
    },
    /// The superblock names the checkpoint of this op.
    CheckpointDurable {
        /// The op.
        op: Op,
    },
    /// The superblock names no checkpoint.
    CheckpointDropped,
    /// All pages that were wanted are at hand, but for those that are not what their parents name.
    Pages {
        /// Who waited.
        waiter: Waiter,
        /// Pages that could not be read, or are others.
        bad: Vec<PageRef>,
    },
    /// A page that somebody waits for cannot be read, or is another: ask peers for it. Answered by [`Input::FromPeer`]. It may be
    /// that nobody waits any more when the answer comes: then nothing is done. Never said without peers.
    PageLost {
        /// The page.
        page: PageName,
    },
    /// The answer to [`Input::Serve`].
    Served {
        /// As asked.
        to: ReplicaId,
        /// As asked.
        page: PageName,
        /// The page's bytes, verified; none: it is not here.
        bytes: Option<Frame>,
    },
    /// Note: a page that was lost came from a peer, and stands in its place again.
    PageMended {
        /// Where.
        place: Place,
    },
    /// Note: the segment's footer is durable; it never changes again.
    Sealed {
        /// The segment, counted from 0.
        segment: u64,
    },
    /// Note: a damaged prepare was written again.
    Repaired {
        /// The op.
        op: Op,
        /// Where it stands.
        place: Place,
    },
    /// Note: something on disk is not what it should be.
    Damaged {
        /// Where.
        place: Place,
        /// What.
        what: Damage,
        /// The op it belongs to, if that is known.
        op: Option<Op>,
    },
    /// The disk is full. Nothing is lost: the write is tried again until [`Output::Room`]; reads go on.
    Full,
    /// The disk has room again.
    Room,
    /// Storage has stopped for good and asks nothing any more.
    Halted(HaltReason),
}

/// The state of consensus that must survive a power cut before a vote is cast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewState {
    /// The view this replica is in.
    pub view: View,
    /// The last view whose log it adopted; at most `view`.
    pub log_view: View,
    /// What it knew to be committed, as the adopted log names it.
    pub commit: Op,
    /// The last headers of the log adopted with `log_view`, at least one and at most
    /// [`HEADERS_MAX`](kimberlite_wire::message::HEADERS_MAX), each the parent of the next. The last one is the log's head.
    pub headers: Vec<PrepareHeader>,
}

impl ViewState {
    /// The state of a freshly formatted replica: view 0, with the root as its log.
    pub fn initial(cluster: ClusterId) -> Self {
        Self {
            view: View::ZERO,
            log_view: View::ZERO,
            commit: Op::ZERO,
            headers: alloc::vec![PrepareHeader::root(cluster)],
        }
    }

    /// The head of the adopted log.
    pub fn head(&self) -> &PrepareHeader {
        self.headers.last().expect("at least one header is adopted with a log view")
    }
}

/// A checkpoint, as the superblock names it: the state after an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointName {
    /// The op, which is committed.
    pub op: Op,
    /// The checksum of its prepare: what comes next names it as parent.
    pub checksum: Checksum,
    /// The root of its pages.
    pub root: CheckpointRoot,
}

/// A checkpoint that is to be written.
#[derive(Clone, Debug)]
pub struct NewCheckpoint {
    /// The op whose state it is.
    pub op: Op,
    /// The checksum of its prepare.
    pub checksum: Checksum,
    /// Its root, and the pages that earlier ones do not have.
    pub pages: Checkpoint,
}

/// A page by what names it on every replica: its place alone is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageName {
    /// Its place, counted in pages.
    pub address: Address,
    /// Its digest.
    pub digest: Checksum,
}

impl PageName {
    /// The page that a parent names.
    pub const fn of(at: &PageRef) -> Self {
        Self { address: at.address, digest: at.digest }
    }

    /// Where it stands.
    pub const fn place(&self) -> Place {
        crate::page_place(self.address)
    }
}

/// Who waits for pages. Chosen by the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// What a data directory held when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// From the superblock.
    pub view_state: ViewState,
    /// The last headers of the log up to its head, each the parent of the next: at most
    /// [`HEADERS_MAX`](kimberlite_wire::message::HEADERS_MAX); the root is one of them when the log is short. Fewer
    /// where a hole or a damaged ring hides an older one. Ops of sealed segments, which are committed, count as
    /// present without being read.
    pub headers: Vec<(PrepareHeader, Mark)>,
    /// The highest op known to be committed, at most the head: from the superblock and from the
    /// prepares that were kept.
    pub commit: Op,
    /// The last op that may have been held: the head, when that is certain. Behind it, prepares from the one behind
    /// the head up to here may have been held and are lost, while nothing behind them ever was acknowledged: then this
    /// replica must not say what its log's end is before a `StartView` told it.
    pub doubt_until: Op,
    /// The first and the last op behind the adopted headers and in front of the head that are lost together with their
    /// headers, if any: they may have been held. What stands between them and is known is in the log all the same.
    pub gap: Option<(Op, Op)>,
    /// What the log names in front of `headers`, of the last [`HEADERS_MAX`](kimberlite_wire::message::HEADERS_MAX) ops,
    /// in order. Empty without a gap.
    pub below_gap: Vec<(PrepareHeader, Mark)>,
    /// Ops whose prepare was or may have been held and is damaged, with the place where it should be.
    pub unknown: Vec<(Op, Place)>,
    /// The last checkpoint, if there is one. Its pages were not looked at.
    pub checkpoint: Option<CheckpointName>,
}

impl Recovered {
    /// The head of the log: the last op it names.
    pub fn head(&self) -> &PrepareHeader {
        let (head, _) = self.headers.last().expect("the head is among the headers, if it is the root");
        head
    }

    /// Whether no prepare behind the head can have been held.
    pub fn head_certain(&self) -> bool {
        self.doubt_until == self.head().op
    }
}

/// Why a prepare could not be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchError {
    /// The journal holds no prepare at this op.
    Missing,
    /// It was held, and what is on disk now is not it.
    Damaged {
        /// The checksum of the prepare that should be there, if it is known.
        checksum: Option<Checksum>,
        /// Where it should be.
        place: Place,
    },
    /// The journal names another prepare at this op than the one asked for.
    Superseded,
}

/// What was found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Damage {
    /// One copy of the superblock. Written again from the others.
    Superblock,
    /// A slot of the header ring. Written again.
    RingSlot,
    /// A prepare. To be fetched from a peer.
    Prepare,
    /// A segment's footer. Built again from the prepares.
    Footer,
    /// A page of tables, or of what stands beside them.
    Page,
}

/// Why storage stopped. `Display` says what the operator can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HaltReason {
    /// The disk failed a write; what is there now is unknown.
    WriteFailed {
        /// Where.
        place: Place,
    },
    /// The data directory was never formatted.
    NotFormatted,
    /// Formatted for another cluster.
    WrongCluster {
        /// In the superblock.
        found: ClusterId,
        /// In the configuration.
        expected: ClusterId,
    },
    /// Formatted by a release with another format.
    WrongVersion {
        /// In the superblock.
        found: u16,
    },
    /// Formatted for another replica, or for a cluster of another size.
    WrongReplica {
        /// The replica and the size of the cluster in the superblock.
        found: (ReplicaId, u8),
        /// The same in the configuration.
        expected: (ReplicaId, u8),
    },
    /// Formatted with another layout.
    WrongLayout {
        /// In the superblock.
        found: Layout,
    },
    /// Fewer than two copies of the superblock are intact.
    SuperblockLost {
        /// How many copies are intact.
        copies: u8,
    },
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteFailed { place } => write!(
                f,
                "the disk failed a write at {place}: replace the disk, format a new data directory and let the \
                 other replicas fill it"
            ),
            Self::NotFormatted => f.write_str(
                "the data directory is not formatted: run `kmb format`, or give the right directory",
            ),
            Self::WrongCluster { found, expected } => write!(
                f,
                "the data directory belongs to cluster {found}, the configuration names {expected}: give the \
                 right directory or correct the configuration"
            ),
            Self::WrongVersion { found } => write!(
                f,
                "the data directory has format {found}, this release reads {}: run the release that wrote it",
                crate::superblock::SUPERBLOCK_VERSION
            ),
            Self::WrongReplica { found, expected } => write!(
                f,
                "the data directory belongs to replica {} of {}, the configuration names replica {} of {}: give \
                 the right directory or correct the configuration",
                found.0, found.1, expected.0, expected.1
            ),
            Self::WrongLayout { found } => write!(
                f,
                "the data directory was formatted with {found:?}: put that layout into the configuration; it \
                 cannot be changed"
            ),
            Self::SuperblockLost { copies } => write!(
                f,
                "the superblock is lost ({copies} of 4 copies intact, two must be): this replica cannot know \
                 what it promised; format a new data directory and let the other replicas fill it"
            ),
        }
    }
}

impl core::error::Error for HaltReason {}
