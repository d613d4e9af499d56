//! Facts that come in pieces: what a session has staged for a commit to come.
//!
//! They are a part of the state until the session commits them or asks anything else, is evicted, or has not added to them for
//! [`STAGED_IDLE_MAX`] when another session stages. Nobody reads them before.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::Facts;
use kimberlite_types::{SessionId, TenantId, WallTime};
use kimberlite_wire::command::{Command, Refusal, SqlCode, staged_digest};
use serde::Serialize;

use crate::digest::{Item, Lanes};
use crate::image::StagedImage;
use crate::limits::{COMMAND_WRITES_MAX, STAGED_BYTES_MAX, STAGED_IDLE_MAX};

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
        let mut images = Vec::with_capacity(self.sets.len());
        for (session, set) in &self.sets {
            let pieces = set.pieces.iter().map(|piece| &piece[..]).collect();
            images.push(StagedImage { session: *session, tenant: set.tenant, touched: set.touched, pieces });
        }
        images
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

/// Facts on their way into commands: one, or as many pieces as they take and what commits those. Each is made when it is asked
/// for, so that none of them takes long.
#[derive(Debug)]
pub struct Commands {
    facts: Facts,
    size_max: usize,
    /// How many guards, changes of the schema and writes stand in pieces that were given.
    given: [usize; 3],
    pieces: u32,
    digest: [u8; 32],
    bytes: usize,
}

/// A command of facts, or of a part of them.
#[derive(Debug)]
pub enum Next {
    /// A piece that is to be staged.
    Stage(Vec<u8>),
    /// What does all of it.
    Commit(Vec<u8>),
}

impl Commands {
    /// Commands of up to `size_max` bytes.
    pub const fn new(facts: Facts, size_max: usize) -> Self {
        Self { facts, size_max, given: [0; 3], pieces: 0, digest: [0; 32], bytes: 0 }
    }

    /// All of the facts.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Begins again with the first: what was staged is gone.
    pub fn restart(&mut self) {
        (self.given, self.pieces, self.digest, self.bytes) = ([0; 3], 0, [0; 32], 0);
    }

    /// The next command, or what is too large.
    pub fn make_next(&mut self) -> Result<Next, String> {
        let Facts { guards, schema, writes } = &self.facts;
        if writes.len() > COMMAND_WRITES_MAX {
            let count = writes.len();
            return Err(format!(
                "{count} rows are written, and a transaction writes at most {COMMAND_WRITES_MAX}"
            ));
        }
        let [guarded, changed, written] = self.given;
        if self.pieces > 0 && written == writes.len() && changed == schema.len() && guarded == guards.len() {
            let (pieces, digest) = (self.pieces, self.digest);
            return Ok(Next::Commit(Command::Commit { pieces, digest, reply: &[] }.encode()));
        }
        let mut piece = Piece { room: self.size_max.saturating_sub(STAGE_HEAD + Piece::COUNTS), bytes: 0 };
        let guards = piece.fill(&guards[guarded..]);
        let schema =
            piece.fill(if guarded + guards.0 == self.facts.guards.len() { &schema[changed..] } else { &[] });
        let behind =
            guarded + guards.0 == self.facts.guards.len() && changed + schema.0 == self.facts.schema.len();
        let rows = piece.fill(if behind { &writes[written..] } else { &[] });
        let mut facts = Vec::with_capacity(piece.bytes + Piece::COUNTS);
        for (count, bytes) in [&guards, &schema, &rows] {
            facts = postcard::to_extend(&(*count as u32), facts).expect("a number encodes");
            facts.extend_from_slice(bytes);
        }
        self.given = [guarded + guards.0, changed + schema.0, written + rows.0];
        let whole = self.pieces == 0
            && self.given == [self.facts.guards.len(), self.facts.schema.len(), writes.len()];
        let number = self.pieces;
        let command = if whole {
            Command::Facts { facts: &facts, reply: &[] }.encode()
        } else {
            Command::Stage { number, facts: &facts }.encode()
        };
        self.bytes += facts.len();
        if command.len() > self.size_max {
            return Err(format!(
                "a row takes {} bytes as it was and as it will be, and a command has at most {}",
                command.len(),
                self.size_max
            ));
        }
        if self.bytes > STAGED_BYTES_MAX {
            return Err(format!(
                "the writes take more than {STAGED_BYTES_MAX} bytes, which is what a transaction has at most"
            ));
        }
        if whole {
            return Ok(Next::Commit(command));
        }
        self.pieces += 1;
        self.digest = staged_digest(self.digest, &facts);
        Ok(Next::Stage(command))
    }
}

/// A piece that is being filled.
struct Piece {
    room: usize,
    bytes: usize,
}

impl Piece {
    /// Bytes that the numbers of its three parts take at most.
    const COUNTS: usize = 3 * 5;

    /// As many items as there is room for, at least one in an empty piece: how many, and their encodings.
    fn fill(&mut self, items: &[impl Serialize]) -> (usize, Vec<u8>) {
        let (mut count, mut all) = (0, Vec::new());
        for item in items {
            let start = all.len();
            all = postcard::to_extend(item, all).expect("facts encode");
            let size = all.len() - start;
            if self.bytes > 0 && self.bytes + size > self.room {
                all.truncate(start);
                self.bytes = self.room;
                break;
            }
            self.bytes += size;
            count += 1;
        }
        (count, all)
    }
}

/// All commands of facts.
pub fn commands(facts: &Facts, size_max: usize) -> Result<Vec<Vec<u8>>, String> {
    let mut commands = Commands::new(facts.clone(), size_max);
    let mut all = Vec::new();
    loop {
        match commands.make_next()? {
            Next::Stage(command) => all.push(command),
            Next::Commit(command) => {
                all.push(command);
                return Ok(all);
            }
        }
    }
}
