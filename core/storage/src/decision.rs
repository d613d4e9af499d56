//! What to make of one op when the log is opened: one table.
//!
//! Two witnesses are asked about an op. The **prepare** at the place where it should stand, and the op's **slot** in the
//! header ring. A prepare is written first; its slot only once it is durable; and only then is it
//! acknowledged. So a slot that does not name the op proves that the op was never acknowledged, unless
//! the slot itself is damaged.

use kimberlite_probe::mutant;
use kimberlite_types::{Op, View};
use kimberlite_wire::PrepareHeader;

use crate::ring::Slot;

/// What stands where the prepare should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// The prepare itself: both checksums hold; cluster, op and place are right; and it is the adopted one, or
    /// behind the adopted head it names the op before as its parent and was proposed in the log view or later.
    Fits,
    /// Another whole prepare: what an older log left there.
    Alien,
    /// Not readable, or no whole prepare.
    Bad,
}

/// What the op's slot in the ring says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Names this op, by a header that would fit.
    Names,
    /// Intact, and not about this op: reserved, an older op, or a header of an older log.
    Other,
    /// Names a later op with the same slot: a slot passes on only when the op before it is sealed, so this
    /// op was durable once.
    Later,
    /// Not readable, or not what was written; or it says that the op was sealed, and no longer what it was.
    Bad,
}

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Held.
    Keep,
    /// Held, but its slot does not say so: prepare and slot are written again before anyone hears of it.
    KeepAndSettle,
    /// Was held and is damaged. Its header is known, so the log goes on behind it. Never a nack.
    Faulty,
    /// May have been held; its header is known because it was adopted. Never a nack.
    Lost,
    /// Was never acknowledged; its header is known because it was adopted. A nack.
    Missing,
    /// Was never acknowledged, nor was anything behind it: the log ends here.
    Cut,
    /// May have been held, and nothing is known of it: the log's end is not known.
    Unknown,
}

/// One line of the table: which cases it is for, and what it says.
struct Row {
    label: &'static str,
    /// Whether the op is among the adopted headers; none: both.
    adopted: Option<bool>,
    copies: &'static [Copy],
    says: &'static [Says],
    verdict: Verdict,
}

const ANY: Option<bool> = None;
const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

// A line is about an adopted op, or one that is not, or both.
//
// @Keep        Both witnesses agree. The common case.
// @Sealed      The slot belongs to a later op by now, which proves that this one was sealed: leave the slot alone.
// @Settle      A power cut between prepare and slot, or a damaged slot. Held, though it may not have been
//              acknowledged; and what was read may not be durable yet, so both are written again.
// @Faulty      It was acknowledged and then damaged. The slot tells its size and place: go on behind it.
// @Torn        A power cut while the prepare was written. Nothing behind it can have been acknowledged,
//              because slots are set in the order of ops: cut.
// @Stale       A whole prepare of an older log stands there, and the slot does not name this op: it was never
//              written, or its write was lost and so it was not acknowledged. Cut.
// @Unknown     Both witnesses are lost: beside a damaged slot stands a torn prepare, a damaged one, or an older
//              one that a lost write failed to replace. Say nothing about the end of the log.
// @Gone        The slot proves that the op was sealed, and the prepare is lost together with the segment's
//              footer: its size is not known, so neither is where the log goes on.
// @Adopted     An adopted op that was never acknowledged here: a nack is honest.
// @AdoptedLost An adopted op that was, or may have been. Its header is known, so the log goes on behind it.
//
// A table reads best aligned.
#[rustfmt::skip]
const TABLE: [Row; 10] = [
    Row { label: "@Keep",        adopted: ANY, copies: &[Copy::Fits],              says: &[Says::Names],             verdict: Verdict::Keep },
    Row { label: "@Sealed",      adopted: ANY, copies: &[Copy::Fits],              says: &[Says::Later],             verdict: Verdict::Keep },
    Row { label: "@Settle",      adopted: ANY, copies: &[Copy::Fits],              says: &[Says::Other, Says::Bad],  verdict: Verdict::KeepAndSettle },
    Row { label: "@Faulty",      adopted: ANY, copies: &[Copy::Alien, Copy::Bad],  says: &[Says::Names],             verdict: Verdict::Faulty },
    Row { label: "@Torn",        adopted: NO,  copies: &[Copy::Bad],               says: &[Says::Other],             verdict: Verdict::Cut },
    Row { label: "@Stale",       adopted: NO,  copies: &[Copy::Alien],             says: &[Says::Other],             verdict: Verdict::Cut },
    Row { label: "@Unknown",     adopted: NO,  copies: &[Copy::Alien, Copy::Bad],  says: &[Says::Bad],               verdict: Verdict::Unknown },
    Row { label: "@Gone",        adopted: NO,  copies: &[Copy::Alien, Copy::Bad],  says: &[Says::Later],             verdict: Verdict::Unknown },
    Row { label: "@Adopted",     adopted: YES, copies: &[Copy::Alien, Copy::Bad],  says: &[Says::Other],             verdict: Verdict::Missing },
    Row { label: "@AdoptedLost", adopted: YES, copies: &[Copy::Alien, Copy::Bad],  says: &[Says::Later, Says::Bad],  verdict: Verdict::Lost },
];

impl Row {
    fn matches(&self, adopted: bool, copy: Copy, says: Says) -> bool {
        self.adopted.is_none_or(|wanted| wanted == adopted)
            && self.copies.contains(&copy)
            && self.says.contains(&says)
    }
}

/// Looks the case up. Answers the label of the line, too.
pub(crate) fn decide(adopted: bool, copy: Copy, says: Says) -> (Verdict, &'static str) {
    let mut lines = TABLE.iter().filter(|row| row.matches(adopted, copy, says));
    let row = lines.next().expect("the table covers every case");
    assert!(lines.next().is_none(), "the table's lines do not overlap");
    mark(row.label);
    (row.verdict, row.label)
}

/// Marks the line that was taken.
fn mark(label: &str) {
    match label {
        "@Keep" => kimberlite_probe::reachable!("open.keep"),
        "@Sealed" => kimberlite_probe::reachable!("open.sealed"),
        "@Settle" => kimberlite_probe::reachable!("open.settle"),
        "@Faulty" => kimberlite_probe::reachable!("open.faulty"),
        "@Torn" => kimberlite_probe::reachable!("open.torn"),
        "@Stale" => kimberlite_probe::reachable!("open.stale"),
        "@Unknown" => kimberlite_probe::reachable!("open.unknown"),
        "@Gone" => kimberlite_probe::reachable!("open.gone"),
        "@Adopted" => kimberlite_probe::reachable!("open.adopted_missing"),
        "@AdoptedLost" => kimberlite_probe::reachable!("open.adopted_lost"),
        _ => panic!("every line of the table has a mark"),
    }
}

/// What an op must look like to belong to the log that is being opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// One of the adopted headers.
    Adopted(PrepareHeader),
    /// The successor of this op, proposed in this view or later.
    After(PrepareHeader, View),
}

impl Expect {
    /// The op.
    pub(crate) fn op(&self) -> Op {
        match self {
            Self::Adopted(header) => header.op,
            Self::After(parent, _) => parent.op.next(),
        }
    }

    /// Whether this header is the one, or could be. Its place is for the caller to judge.
    pub(crate) fn accepts(&self, header: &PrepareHeader) -> bool {
        match self {
            Self::Adopted(adopted) => header == adopted,
            Self::After(parent, view) => {
                header.op == parent.op.next()
                    && header.parent == parent.checksum
                    && header.cluster == parent.cluster
                    && (header.view >= *view || mutant!(StaleAccepted))
            }
        }
    }

    /// What a slot says about this op.
    pub(crate) fn ask(&self, slot: &Slot) -> Says {
        match slot {
            Slot::Bad => Says::Bad,
            Slot::Header(header) if self.accepts(header) => Says::Names,
            Slot::Header(header) if header.op > self.op() && !mutant!(RingSlotReusedEarly) => Says::Later,
            // It was held, and what it was is not known: as good as a damaged slot, and no worse.
            Slot::Sealed(op) if *op == self.op() => Says::Bad,
            Slot::Sealed(op) if *op > self.op() => Says::Later,
            Slot::Reserved | Slot::Sealed(_) | Slot::Header(_) => Says::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPIES: [Copy; 3] = [Copy::Fits, Copy::Alien, Copy::Bad];
    const SAYS: [Says; 4] = [Says::Names, Says::Other, Says::Later, Says::Bad];

    fn cases() -> impl Iterator<Item = (bool, Copy, Says)> {
        [false, true]
            .into_iter()
            .flat_map(|adopted| COPIES.map(|copy| (adopted, copy)))
            .flat_map(|(adopted, copy)| SAYS.map(|says| (adopted, copy, says)))
    }

    #[test]
    fn every_case_has_exactly_one_line_and_every_line_a_case() {
        for (adopted, copy, says) in cases() {
            let count = TABLE.iter().filter(|row| row.matches(adopted, copy, says)).count();
            assert_eq!(count, 1, "adopted {adopted}, {copy:?}, {says:?}");
        }
        for row in &TABLE {
            assert!(cases().any(|(adopted, copy, says)| row.matches(adopted, copy, says)), "{}", row.label);
        }
    }

    #[test]
    fn an_op_that_its_slot_names_is_never_cut_nor_nacked() {
        for (adopted, copy, says) in cases().filter(|(_, _, says)| *says == Says::Names) {
            let (verdict, label) = decide(adopted, copy, says);
            assert!(matches!(verdict, Verdict::Keep | Verdict::Faulty), "{label}");
        }
    }

    #[test]
    fn an_adopted_op_never_ends_the_log() {
        for (adopted, copy, says) in cases().filter(|(adopted, _, _)| *adopted) {
            let (verdict, label) = decide(adopted, copy, says);
            assert!(!matches!(verdict, Verdict::Cut | Verdict::Unknown), "{label}");
        }
    }

    #[test]
    fn nothing_is_nacked_or_cut_on_the_word_of_a_damaged_slot_alone() {
        for (adopted, copy, _) in cases().filter(|(_, _, says)| *says == Says::Bad) {
            let (verdict, label) = decide(adopted, copy, Says::Bad);
            let denied = matches!(verdict, Verdict::Cut | Verdict::Missing);
            assert!(!denied, "{label}");
        }
    }
}
