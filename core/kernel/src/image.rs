//! The state beside the trees of tables, as bytes: what a checkpoint holds of sessions, what they staged, tenants and streams.
//!
//! Two bytes say which version of the layout it is, then the whole is encoded as `postcard` does: numbers as varints,
//! sequences with their length, everything in the order of ids. The same state gives the same bytes. Decoding believes
//! nothing: what no kernel can hold is [`OpenError::Malformed`], and so is a state whose digest, computed anew
//! from its items, is not the one that was kept.
//!
//! It is written whole at each checkpoint: up to 200 bytes for a session, and about ten for an entry of a stream.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use kimberlite_crypto::ChainHash;
use kimberlite_probe::mutant;
use kimberlite_store::Miss;
use kimberlite_types::{Op, RequestNumber, SessionId, StreamId, TenantId, WallTime};
use kimberlite_wire::command::Verdict;
use serde::{Deserialize, Serialize};

use crate::digest::ItemSum;
use crate::kernel::Since;
use crate::session::Sessions;
use crate::staged::Stages;
use crate::stream::Tenants;
use crate::tables::Tables;
use crate::{Extent, Kernel, StateDigest};

/// The version of the layout.
const VERSION: u16 = 2;

/// Why a state cannot be opened from a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Pages are missing: fetch them and open again.
    Miss(Miss),
    /// The checkpoint is none that this release with this configuration takes. The log still has it all.
    Malformed(&'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Miss(miss) => write!(f, "{} pages of the checkpoint are missing", miss.pages().len()),
            Self::Malformed(what) => write!(f, "the checkpoint cannot be opened: {what}"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<kimberlite_store::OpenError> for OpenError {
    fn from(error: kimberlite_store::OpenError) -> Self {
        match error {
            kimberlite_store::OpenError::Miss(miss) => Self::Miss(miss),
            kimberlite_store::OpenError::Malformed => Self::Malformed("its directory of tables is none"),
        }
    }
}

/// All that an image holds.
#[derive(Serialize, Deserialize)]
struct Image<'a> {
    applied: Op,
    chain: ChainHash,
    digest: StateDigest,
    written: ItemSum,
    sessions: Vec<SessionImage>,
    #[serde(borrow)]
    tenants: Vec<TenantImage<'a>>,
    #[serde(borrow)]
    staged: Vec<StagedImage<'a>>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StagedImage<'a> {
    pub(crate) session: SessionId,
    pub(crate) tenant: TenantId,
    pub(crate) touched: WallTime,
    #[serde(borrow)]
    pub(crate) pieces: Vec<&'a [u8]>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SessionImage {
    pub(crate) id: SessionId,
    pub(crate) last: RequestNumber,
    pub(crate) verdict: Verdict,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct TenantImage<'a> {
    pub(crate) id: TenantId,
    pub(crate) name: &'a str,
    #[serde(borrow)]
    pub(crate) streams: Vec<StreamImage<'a>>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StreamImage<'a> {
    pub(crate) id: StreamId,
    pub(crate) name: &'a str,
    pub(crate) extents: Cow<'a, [Extent]>,
}

/// The image of a state between two ops.
pub(crate) fn encode(kernel: &Kernel) -> Vec<u8> {
    let (mut sessions, mut digest) = (kernel.sessions.image(), kernel.digest());
    if mutant!(SessionsNotInCheckpoint, !sessions.is_empty()) {
        let mut bare = kernel.clone();
        bare.sessions.items().for_each(|session| bare.items.remove(session.lanes()));
        (sessions, digest) = (Vec::new(), bare.digest());
    }
    let mut staged = kernel.stages.image();
    if mutant!(StagedNotInCheckpoint, !staged.is_empty()) {
        let mut bare = kernel.clone();
        bare.stages.items().for_each(|set| bare.items.remove(set));
        (staged, digest) = (Vec::new(), bare.digest());
    }
    let image = Image {
        applied: kernel.applied,
        chain: kernel.chain,
        digest,
        written: kernel.written,
        sessions,
        tenants: kernel.tenants.image(),
        staged,
    };
    postcard::to_extend(&image, VERSION.to_le_bytes().to_vec()).expect("an image encodes")
}

/// Makes the state of its image and its tables.
pub(crate) fn decode(sessions_max: u32, bytes: &[u8], tables: Tables) -> Result<Kernel, OpenError> {
    let (version, rest) = bytes.split_at_checked(2).ok_or(OpenError::Malformed("its image is cut short"))?;
    if version != VERSION.to_le_bytes() {
        return Err(OpenError::Malformed("its image is of another version"));
    }
    let Ok((image, [])) = postcard::take_from_bytes::<Image<'_>>(rest) else {
        return Err(OpenError::Malformed("its image does not decode"));
    };
    let applied = image.applied;
    let written = tables.newest();
    if written.op > applied {
        return Err(OpenError::Malformed("its tables are newer than its image"));
    }
    let mut kernel = Kernel::new(sessions_max);
    kernel.sessions = Sessions::of_image(sessions_max, &image.sessions, applied)
        .ok_or(OpenError::Malformed("its sessions are not those of a state, or more than sessions_max"))?;
    kernel.tenants = Tenants::of_image(image.tenants, applied)
        .ok_or(OpenError::Malformed("its streams are not those of a state"))?;
    kernel.stages =
        Stages::of_image(&image.staged).ok_or(OpenError::Malformed("what is staged is of no state"))?;
    for session in kernel.sessions.items() {
        kernel.items.add(session.lanes());
    }
    let items = &mut kernel.items;
    kernel.stages.items().for_each(|set| items.add(set));
    kernel.tenants.for_each_item(|item| items.add(item.lanes()));
    kernel.applied = applied;
    kernel.chain = image.chain;
    kernel.written = image.written;
    kernel.tables = tables;
    kernel.since = Since { companion: bytes.len() as u64, ..Since::default() };
    if kernel.digest() != image.digest && !mutant!(PageUnchecked) {
        return Err(OpenError::Malformed("its digest is another"));
    }
    Ok(kernel)
}
