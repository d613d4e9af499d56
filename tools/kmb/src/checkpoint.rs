//! The checkpoint in a data directory, page by page.

use kimberlite_io::Place;
use kimberlite_storage::inspect::{CheckpointFields, SuperblockCopy, superblock, superblock_offset};
use kimberlite_storage::{CheckpointSurvey, PAGE_SIZE, page_place};
use kimberlite_types::Op;
use kimberlite_types::limits::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use serde_json::{Value, json};

use crate::output::thousands;
use crate::read::hex;
use crate::walk::Stopped;
use crate::{Failure, files};

/// Damaged pages that are named; the others are counted.
const NAMED_MAX: usize = 16;

/// A checkpoint, and how it was found.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    fields: CheckpointFields,
    /// Pages that are whole.
    pages: u64,
    /// Bytes of these.
    bytes: u64,
    /// Places in use that no page names.
    unnamed: u64,
    /// Pages that are not whole.
    damaged: u64,
    /// The first of them.
    places: Vec<Place>,
}

/// The checkpoint that the newest intact copy of the superblock names.
pub(crate) fn named(stopped: &Stopped) -> Result<Option<CheckpointFields>, Failure> {
    let mut newest: Option<(u64, Option<CheckpointFields>)> = None;
    for copy in 0..SUPERBLOCK_COPIES {
        let bytes = stopped.read(Place::superblock(superblock_offset(copy)), SUPERBLOCK_COPY_SIZE)?;
        if let SuperblockCopy::Intact(fields) = superblock(&bytes)
            && newest.is_none_or(|(sequence, _)| fields.sequence > sequence)
        {
            newest = Some((fields.sequence, fields.checkpoint));
        }
    }
    Ok(newest.and_then(|(_, checkpoint)| checkpoint))
}

/// Reads all pages of the checkpoint, if there is one.
pub(crate) fn check(stopped: &Stopped) -> Result<Option<Checked>, Failure> {
    let Some(fields) = named(stopped)? else { return Ok(None) };
    let mut survey = CheckpointSurvey::new(fields.root);
    let (mut damaged, mut places) = (0, Vec::new());
    while let Some(at) = survey.next_page() {
        let place = page_place(at.address);
        if survey.take(&stopped.read(place, PAGE_SIZE)?).is_err() {
            damaged += 1;
            if places.len() < NAMED_MAX {
                places.push(place);
            }
        }
    }
    // A directory whose pages are whole and that is none all the same has nowhere to point at but its root.
    damaged += u64::from(survey.is_lost() && damaged == 0);
    let whole = damaged == 0;
    let unnamed = survey.places().filter(|_| whole).map_or(0, |in_use| in_use.abs_diff(survey.pages()));
    Ok(Some(Checked { fields, pages: survey.pages(), bytes: survey.bytes(), unnamed, damaged, places }))
}

impl Checked {
    /// Whether all of it is there.
    pub(crate) const fn is_whole(&self) -> bool {
        self.damaged == 0 && self.unnamed == 0
    }

    /// What is wrong, and what follows from it, if anything is.
    pub(crate) fn trouble(&self, stopped: &Stopped) -> Option<String> {
        let CheckpointFields { op, .. } = self.fields;
        let consequence = "the log is whole, so nothing is lost: a replica gets such pages from a peer, or makes its \
                           tables anew from the log";
        if let Some(place) = self.places.first() {
            let at = files::locate(*place, &stopped.geometry());
            let others = match self.damaged - 1 {
                0 => String::new(),
                others => format!(" and {} others", thousands(others)),
            };
            return Some(format!("the checkpoint of op {op} is damaged at {at}{others}; {consequence}"));
        }
        if self.damaged > 0 {
            return Some(format!("the checkpoint of op {op} is none of this release; {consequence}"));
        }
        (self.unnamed > 0).then(|| {
            format!("the checkpoint of op {op} holds {} places that nothing names", thousands(self.unnamed))
        })
    }

    /// For people; `end`: the last op there is.
    pub(crate) fn text(&self, end: Op) -> String {
        let CheckpointFields { op, number, .. } = self.fields;
        let age = thousands(end.0.saturating_sub(op.0));
        let (pages, bytes) = (thousands(self.pages), thousands(self.bytes));
        let damaged = match self.damaged {
            0 => String::new(),
            pages => format!(", {} damaged", thousands(pages)),
        };
        format!("number {number}, of op {op} ({age} ops ago), {pages} pages{damaged}, {bytes} bytes")
    }

    /// The same for programs.
    pub(crate) fn json(&self, end: Op, stopped: &Stopped) -> Value {
        let CheckpointFields { op, number, digest, .. } = self.fields;
        let named = self.places.iter().map(|place| {
            let at = files::locate(*place, &stopped.geometry());
            json!({ "file": at.name, "offset": at.offset })
        });
        json!({
            "op": op, "number": number, "digest": hex(digest.as_bytes()), "age": end.0.saturating_sub(op.0),
            "pages": self.pages, "bytes": self.bytes, "whole": self.is_whole(), "damaged_pages": self.damaged,
            "damage": named.collect::<Vec<_>>(), "unnamed_places": self.unnamed,
        })
    }
}
