//! Facts that come in pieces: what a session has staged for a commit to come.
//!
//! They are a part of the state until the session commits them or asks anything else, is evicted, or has not added to them for
//! [`STAGED_IDLE_MAX`] when another session stages. Nobody reads them before.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kimberlite_row::fact::Facts;
use kimberlite_types::{SessionId, TenantId, WallTime};
use kimberlite_wire::command::{Command, Refusal, SqlCode, staged_digest};
use serde::Serialize;

use crate::digest::{Item, Lanes};
use crate::image::StagedImage;
use crate::limits::{COMMAND_WRITES_MAX, STAGED_BYTES_MAX, STAGED_IDLE_MAX};

/// Writes that are first tried as one command.
const WRITES_SMALL: usize = 4096;

/// Bytes that a command takes besides a piece of facts, at most.
const STAGE_HEAD: usize = 16;

/// What one session has staged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    tenant: TenantId,
    pieces: Vec<Arc<[u8]>>,
    digest: [u8; 32],
    /// The time of the last piece.
    touched: WallTime,
}

impl Set {
    fn lanes(&self, session: SessionId) -> Lanes {
        let (pieces, digest) = (self.pieces.len() as u32, self.digest);
        Item::Staged { session, tenant: self.tenant, pieces, digest, touched: self.touched }.lanes()
    }

    fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }
}

/// A piece that is to be added, and whose sets go first.
#[derive(Debug)]
pub(crate) struct Staging {
    session: SessionId,
    tenant: TenantId,
    piece: Arc<[u8]>,
    time: WallTime,
    gone: Vec<SessionId>,
}

/// What all sessions have staged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stages {
    sets: BTreeMap<SessionId, Set>,
    bytes: usize,
}

impl Stages {
    /// What adding a piece does, and how many the session has then.
    pub(crate) fn stage(
        &self,
        (session, tenant): (SessionId, TenantId),
        number: u32,
        piece: &[u8],
        time: WallTime,
    ) -> Result<(u32, Staging), Refusal> {
        let own = self.sets.get(&session);
        let known = own.map_or(0, |set| set.pieces.len() as u32);
        if number > 0 && (number != known || own.is_some_and(|set| set.tenant != tenant)) {
            kimberlite_probe::reachable!("kernel.stage_is_gone");
            return Err(Refusal::Conflict);
        }
        let idle = |set: &Set| time.0.saturating_sub(set.touched.0) > STAGED_IDLE_MAX;
        let goes = |(id, set): &(&SessionId, &Set)| if **id == session { number == 0 } else { idle(set) };
        let gone: Vec<SessionId> = self.sets.iter().filter(goes).map(|(id, _)| *id).collect();
        let left = self.bytes - gone.iter().map(|id| self.sets[id].bytes()).sum::<usize>();
        if left + piece.len() > STAGED_BYTES_MAX {
            return Err(Refusal::Sql { code: SqlCode::new("53200").expect("five characters") });
        }
        kimberlite_probe::sometimes!("kernel.stages_expire", gone.iter().any(|id| *id != session));
        Ok((number + 1, Staging { session, tenant, piece: piece.into(), time, gone }))
    }

    /// Adds the piece, and answers the hashes of the items that go and of the one that comes.
    pub(crate) fn install(&mut self, staging: Staging) -> (Vec<Lanes>, Lanes) {
        let Staging { session, tenant, piece, time, gone } = staging;
        let mut before: Vec<Lanes> = gone.into_iter().filter_map(|id| self.drop_of(id)).collect();
        before.extend(self.sets.get(&session).map(|set| set.lanes(session)));
        let empty = Set { tenant, pieces: Vec::new(), digest: [0; 32], touched: time };
        let set = self.sets.entry(session).or_insert(empty);
        self.bytes += piece.len();
        set.digest = staged_digest(set.digest, &piece);
        set.pieces.push(piece);
        set.touched = time;
        (before, set.lanes(session))
    }

    /// The pieces that a session commits, if they are these.
    pub(crate) fn of(
        &self,
        (session, tenant): (SessionId, TenantId),
        pieces: u32,
        digest: &[u8; 32],
    ) -> Option<&[Arc<[u8]>]> {
        let set = self.sets.get(&session)?;
        let same = set.tenant == tenant && set.pieces.len() as u32 == pieces && set.digest == *digest;
        same.then_some(&set.pieces[..])
    }

    /// Drops what a session has staged, and answers the hash of the item it was.
    pub(crate) fn drop_of(&mut self, session: SessionId) -> Option<Lanes> {
        let set = self.sets.remove(&session)?;
        self.bytes -= set.bytes();
        Some(set.lanes(session))
    }

    /// The hash of every item, computed anew.
    pub(crate) fn items(&self) -> impl Iterator<Item = Lanes> {
        assert_eq!(self.bytes, self.sets.values().map(Set::bytes).sum::<usize>(), "staged bytes are counted");
        self.sets.iter().map(|(session, set)| {
            let digest = set.pieces.iter().fold([0; 32], |before, piece| staged_digest(before, piece));
            assert_eq!(digest, set.digest, "the digest is that of the pieces");
            set.lanes(*session)
        })
    }

    /// Everything, by session.
    pub(crate) fn image(&self) -> Vec<StagedImage<'_>> {
        let image = |(session, set): (&SessionId, &'_ Set)| (*session, set.tenant, set.touched);
        let sets = self.sets.iter();
        sets.map(|of| {
            let (session, tenant, touched) = image(of);
            StagedImage {
                session,
                tenant,
                touched,
                pieces: of.1.pieces.iter().map(|piece| &piece[..]).collect(),
            }
        })
        .collect()
    }

    /// What an image is of; `None` if no state has it.
    pub(crate) fn of_image(image: &[StagedImage<'_>]) -> Option<Self> {
        let mut stages = Self::default();
        for StagedImage { session, tenant, touched, pieces } in image {
            if pieces.is_empty() || stages.sets.last_key_value().is_some_and(|(last, _)| last >= session) {
                return None;
            }
            for piece in pieces {
                let (piece, gone) = ((*piece).into(), Vec::new());
                stages.install(Staging { session: *session, tenant: *tenant, piece, time: *touched, gone });
            }
        }
        (stages.bytes <= STAGED_BYTES_MAX).then_some(stages)
    }
}

/// The commands of up to `size_max` bytes that facts become: one, or as many pieces as they take and what commits those. Says
/// what is too large.
pub fn commands(facts: &Facts, size_max: usize) -> Result<Vec<Vec<u8>>, String> {
    if facts.writes.len() > COMMAND_WRITES_MAX {
        let count = facts.writes.len();
        return Err(format!(
            "{count} rows are written, and a transaction writes at most {COMMAND_WRITES_MAX}"
        ));
    }
    if facts.writes.len() <= WRITES_SMALL {
        let bytes = postcard::to_allocvec(facts).expect("facts encode");
        let command = Command::Facts { facts: &bytes, reply: &[] }.encode();
        if command.len() <= size_max {
            return Ok(vec![command]);
        }
    }
    let pieces = pieces(facts, size_max.saturating_sub(STAGE_HEAD));
    if let [facts] = &pieces[..] {
        let command = Command::Facts { facts, reply: &[] }.encode();
        if command.len() <= size_max {
            return Ok(vec![command]);
        }
    }
    let total: usize = pieces.iter().map(Vec::len).sum();
    if total > STAGED_BYTES_MAX {
        return Err(format!(
            "the writes take {total} bytes, and a transaction has at most {STAGED_BYTES_MAX}"
        ));
    }
    let digest = pieces.iter().fold([0; 32], |before, piece| staged_digest(before, piece));
    let mut commands = Vec::with_capacity(pieces.len() + 1);
    for (number, facts) in (0..).zip(&pieces) {
        commands.push(Command::Stage { number, facts }.encode());
    }
    if let Some(large) = commands.iter().map(Vec::len).find(|size| *size > size_max) {
        return Err(format!(
            "a row takes {large} bytes as it was and as it will be, and a command has at most {size_max}"
        ));
    }
    commands.push(Command::Commit { pieces: pieces.len() as u32, digest, reply: &[] }.encode());
    Ok(commands)
}

/// Facts in pieces of so many bytes, each an encoding of facts of its own: what all of them together hold is this, in the same
/// order. What takes more alone is a piece alone.
fn pieces(facts: &Facts, bytes_max: usize) -> Vec<Vec<u8>> {
    let mut pieces = Pieces { bytes_max, done: Vec::new(), parts: Default::default() };
    facts.guards.iter().for_each(|guard| pieces.add(0, guard));
    facts.schema.iter().for_each(|fact| pieces.add(1, fact));
    facts.writes.iter().for_each(|write| pieces.add(2, write));
    pieces.close();
    pieces.done
}

/// Facts on their way into pieces.
struct Pieces {
    bytes_max: usize,
    done: Vec<Vec<u8>>,
    /// Of guards, changes of the schema and writes: how many, and their encodings.
    parts: [(u32, Vec<u8>); 3],
}

impl Pieces {
    /// Bytes that the numbers of the three parts take at most.
    const COUNTS: usize = 3 * 5;

    fn add(&mut self, part: usize, item: &impl Serialize) {
        let before: usize = self.parts.iter().map(|(_, bytes)| bytes.len()).sum();
        let start = self.parts[part].1.len();
        let bytes = core::mem::take(&mut self.parts[part].1);
        let mut bytes = postcard::to_extend(item, bytes).expect("facts encode");
        if before > 0 && before + bytes.len() - start + Self::COUNTS > self.bytes_max {
            let item = bytes.split_off(start);
            self.parts[part].1 = bytes;
            self.close();
            bytes = item;
        }
        self.parts[part].0 += 1;
        self.parts[part].1 = bytes;
    }

    fn close(&mut self) {
        let size: usize = self.parts.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut piece = Vec::with_capacity(size + Self::COUNTS);
        for (count, bytes) in core::mem::take(&mut self.parts) {
            piece = postcard::to_extend(&count, piece).expect("a number encodes");
            piece.extend_from_slice(&bytes);
        }
        self.done.push(piece);
    }
}
