//! Planted bugs, each at its real site in the code.
//!
//! A mutant is one small wrong turn, written where a slip of the hand would have written it:
//!
//! ```ignore
//! if slot.held == Held::Durable || mutant!(AckBeforeDurable, slot.held == Held::Writing) {
//! ```
//!
//! Without the feature `mutants` that is `false`, and the compiler drops it. With it, one mutant may be switched on for
//! the running thread ([`planted`]), and two things are counted of it: that its line was **reached**, and that it was
//! **triggered**, which is to say that what it did differs from what is right.

macro_rules! mutants {
    ($($mutant:ident, $name:literal, $site:literal, $story:literal;)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = $story] $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$mutant,)*];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$mutant => $name,)* }
            }

            /// The file it sits in, and the function.
            pub const fn site(self) -> &'static str {
                match self { $(Self::$mutant => $site,)* }
            }

            /// What goes wrong, in one sentence.
            pub const fn story(self) -> &'static str {
                match self { $(Self::$mutant => $story,)* }
            }
        }
    };
}

mutants! {
    // Agreement: acknowledge and commit.
    AckBeforeDurable, "ack-before-durable", "core/vsr/src/normal.rs accept",
        "A backup acknowledges a prepare when it gives it to the journal, before it is durable.";
    CommitQuorumShort, "commit-quorum-short", "core/vsr/src/normal.rs commit_pipeline",
        "An op is committed with one acknowledgement fewer than a replication quorum.";
    DuplicateAckCounted, "duplicate-ack-counted", "core/vsr/src/normal.rs count_ack",
        "A second acknowledgement by the same replica counts as another replica's.";
    AckOfAnotherPrepare, "ack-of-another-prepare", "core/vsr/src/normal.rs on_prepare_ok",
        "Prepares and their acknowledgements count by op number alone, whatever view they are of.";
    CommitPastGap, "commit-past-gap", "core/vsr/src/normal.rs commit_pipeline",
        "A quorum for an op commits the ops in front of it, too, though acknowledgements are per op.";
    StaleSuffixCommitted, "stale-suffix-committed", "core/vsr/src/normal.rs on_commit",
        "A backup applies the commit number of a newer view to the log of the view it is in.";
    CommitAheadOfLog, "commit-ahead-of-log", "core/vsr/src/normal.rs commit_to",
        "A backup takes more for committed than its log holds.";
    NetworkAssertion, "network-assertion", "core/vsr/src/repair.rs on_request_prepare",
        "A peer that asks for an op behind the head meets an assertion.";
    ResendNotRearmed, "resend-not-rearmed", "core/vsr/src/normal.rs on_resend_due",
        "The resend timer fires once and is never set again.";

    // Agreement: view changes.
    ViewNotAwaited, "view-not-awaited", "core/vsr/src/view_change.rs enter",
        "A replica votes in a view that is not durable yet.";
    ViewNotPersisted, "view-not-persisted", "core/vsr/src/view_change.rs enter",
        "A replica votes in a view that it never writes to its superblock.";
    SuffixOverwrittenEarly, "suffix-overwritten-early", "core/vsr/src/view_change.rs adopt",
        "A new log is taken over, and written over the old one, before it is durable together with log_view.";
    PrimaryResumes, "primary-resumes", "core/vsr/src/replica.rs open",
        "A restarted primary resumes its view.";
    LongestLogWins, "longest-log-wins", "core/vsr/src/merge.rs choose",
        "A view change takes the longest log instead of that of the newest log_view.";
    ViewChangeQuorumShort, "view-change-quorum-short", "core/vsr/src/merge.rs choose",
        "A view starts with one DoViewChange fewer than a view-change quorum.";
    NackQuorumShort, "nack-quorum-short", "core/vsr/src/merge.rs choose",
        "An op is cut with one nack fewer than the nack quorum.";
    ConflictNotCompared, "conflict-not-compared", "core/storage/src/journal/adopting.rs adopt",
        "An adopted header is taken for that of the prepare which the journal holds at the same op.";
    VoteCutsGap, "vote-cuts-gap", "core/vsr/src/view_change.rs vote",
        "A replica that lacks an op inside its log, or has a damaged copy of it, votes with a log that ends in front of it.";
    CorruptNacked, "corrupt-nacked", "core/vsr/src/log.rs mark",
        "A replica whose copy is damaged claims never to have held the op.";
    DoubtForgotten, "doubt-forgotten", "core/vsr/src/view_change.rs vote",
        "A replica with an uncertain head votes as if its log certainly ended there.";
    StartViewNonceIgnored, "start-view-nonce-ignored", "core/vsr/src/view_change.rs on_start_view",
        "A replica that lost its head believes a StartView of its view that was sent before it did.";

    // Repair.
    RepairAsksSamePeer, "repair-asks-same-peer", "core/vsr/src/repair.rs ask_wanted",
        "A repair always asks the peer that it asked first, be it dead.";
    RepairNotVerified, "repair-not-verified", "core/vsr/src/repair.rs take_repair",
        "A repaired prepare is taken and executed by its op number, whatever its checksum and its parent.";
    DoubtVouchedFor, "doubt-vouched-for", "core/vsr/src/repair.rs on_fetched",
        "What the journal holds in doubt is had by its op alone, and sent with a commit number that vouches for it (once a real bug; \
         asked for by its checksum, it hardly ever meets somebody who wants it by its op).";
    VouchForAsked, "vouch-for-asked", "core/vsr/src/repair.rs on_fetched",
        "A replica takes the checksum that a peer asked about for that of its own log: it vouches for it, and wants it (once a real \
         bug; its word alone misleads only a peer that has since adopted a log with a hole there).";
    RepairBudgetStarves, "repair-budget-starves", "core/vsr/src/repair.rs may_mend",
        "Repairs that wait for ring slots count as under way, and leave no room for the one that execution waits for (once a real bug; \
         either rule alone covers for the other).";
    MendDuringAdoption, "mend-during-adoption", "core/vsr/src/repair.rs take_repair",
        "A repair is taken while the journal is about to switch logs (once a real bug).";

    // Reads.
    ReadUnconfirmed, "read-unconfirmed", "core/vsr/src/reads.rs finish_round",
        "A primary, deposed or not, answers reads without asking anybody.";
    ReadOlderRound, "read-older-round", "core/vsr/src/reads.rs on_round_ok",
        "An acknowledgement of an older leadership round confirms a newer one.";
    ReadBeforeInherited, "read-before-inherited", "core/vsr/src/reads.rs confirm_reads",
        "A new primary answers reads before it has executed what it inherited.";

    // Storage: writing.
    FailedWriteSwallowed, "failed-write-swallowed", "core/storage/src/asks.rs take_write",
        "A write that failed counts as durable.";
    FailedWriteAgain, "failed-write-again", "core/storage/src/asks.rs take_write",
        "A write that failed is asked again, as if it had found the disk full.";
    SuperblockNotAwaited, "superblock-not-awaited", "core/storage/src/storage.rs on",
        "A view is said to be durable when the superblock's write is asked.";
    OverlappingWrites, "overlapping-writes", "core/storage/src/journal.rs pump",
        "A prepare is written where another write is still in flight.";
    RingBeforePrepare, "ring-before-prepare", "core/storage/src/journal.rs begin",
        "A prepare's ring slot is written while the prepare is still on its way.";
    RingOutOfOrder, "ring-out-of-order", "core/storage/src/journal.rs advance",
        "Ring slots behind the adopted head are written in any order.";
    RingNotAwaited, "ring-not-awaited", "core/storage/src/journal.rs advance",
        "A prepare is said to be durable before its ring slot is.";
    RingSlotReusedEarly, "ring-slot-reused-early", "core/storage/src/journal.rs slot_is_free",
        "A ring slot passes on before its op's segment is sealed, and one that names a later op denies the older.";
    RingSlotTakenBack, "ring-slot-taken-back", "core/storage/src/journal.rs advance",
        "An op that fills a hole takes the slot of a newer, acknowledged op (once a real bug).";
    LogViewWithoutHeaders, "log-view-without-headers", "core/storage/src/view.rs write_copy",
        "A log view is written to the superblock with the first only of the headers adopted with it.";

    // Storage: opening and reading.
    CorruptTailIsEnd, "corrupt-tail-is-end", "core/storage/src/recovery.rs judge",
        "A damaged op behind the adopted head is taken for the end of the log.";
    TornBodyAccepted, "torn-body-accepted", "core/wire/src/prepare.rs parse",
        "The checksum of a prepare's body is not compared.";
    TornHeaderAccepted, "torn-header-accepted", "core/wire/src/prepare.rs decode",
        "The checksum of a prepare's header is not compared.";
    SuperblockUnsealed, "superblock-unsealed", "core/storage/src/superblock.rs decode",
        "The superblock's checksum is compared with itself, and what was decoded is not compared with the copy.";
    MisdirectedAccepted, "misdirected-accepted", "core/storage/src/storage.rs expect",
        "Whatever whole prepare stands at a place is taken for the one that should.";
    StaleAccepted, "stale-accepted", "core/storage/src/decision.rs accepts",
        "An intact prepare that an older view left behind the adopted head is taken into the log.";
    HoleFrontTrusted, "hole-front-trusted", "core/storage/src/recovery/search.rs open_hole",
        "What stands in front of a hole is trusted though nothing proves it committed (once a real bug).";
    DoubtOneOp, "doubt-one-op", "core/storage/src/ring.rs doubt_behind",
        "An uncertain head reaches no further than one op (once a real bug).";

    CheckpointNamedEarly, "checkpoint-named-early", "core/storage/src/grid/mod.rs write_more",
        "The superblock names a checkpoint when its pages are asked to be written, not when they are durable.";
    PlaceReusedEarly, "place-reused-early", "core/store/src/checkpoint.rs checkpoint_with",
        "A checkpoint writes over pages that the one before it still needs.";
    PageUnchecked, "page-unchecked", "core/storage/src/grid/mod.rs on_read",
        "The bytes of a page are not compared with the digest that its parent names, nor is the state with its own.";

    PageAskedOnce, "page-asked-once", "core/runtime/src/pages.rs go_on",
        "A peer is asked once for a page, however long it does not answer.";

    // The state machine, the node and the client.
    SessionsNotInCheckpoint, "sessions-not-in-checkpoint", "core/kernel/src/image.rs encode",
        "A checkpoint holds no sessions, and the digest of what it holds.";
    CheckpointByWhim, "checkpoint-by-whim", "core/kernel/src/kernel.rs is_checkpoint_due",
        "Whether a checkpoint is due depends on what no replica shares, as the room in its memory would.";
    SessionsNotKept, "sessions-not-kept", "core/kernel/src/kernel.rs decide",
        "What became of a session's last request is not kept.";
    SessionsForgotten, "sessions-forgotten", "core/runtime/src/node.rs open",
        "A restart rebuilds the session table with room for the last session alone, and forgets all others.";
    DuplicatesFilteredOnly, "duplicates-filtered-only", "core/kernel/src/kernel.rs decide",
        "Duplicates are looked for when a request arrives, and not where it is decided.";
    EvictionByWhim, "eviction-by-whim", "core/kernel/src/session.rs to_evict",
        "The session to evict depends on what no replica shares, as the order of a hash table would.";
    ReadOvertakesAll, "read-overtakes-all", "core/runtime/src/applying.rs overtake",
        "A read waits for nothing that is to be applied (planted so that it loses both rules that hold it: what it may pass takes many \
         steps, and nobody can have been told of it).";
    StageLost, "stage-lost", "core/kernel/src/kernel.rs begin_staged",
        "Facts that were staged in pieces are committed without the last piece.";
    StagedNotInCheckpoint, "staged-not-in-checkpoint", "core/kernel/src/image.rs encode",
        "A checkpoint leaves out what sessions have staged.";
    AsOfEarly, "as-of-early", "core/kernel/src/tables/read.rs interval",
        "What is read of the past is read one op too early.";
    WriteCheckSkipped, "write-check-skipped", "core/kernel/src/tables/guard.rs check_one",
        "A row that was changed since it was read is replaced (planted so that it loses all three rules that hold it: the guard of \
         the row, that of what was read to find it, and the comparison with what is replaced).";
    PhantomMissed, "phantom-missed", "core/kernel/src/tables/guard.rs unchanged",
        "A guard of a range looks after the rows that were there, and misses one that is new.";
    ConstraintsPlanned, "constraints-planned", "core/kernel/src/tables/decide.rs constraints",
        "Constraints are decided where a statement is planned, and not again where its facts are installed.";
    IndexDropsNull, "index-drops-null", "core/kernel/src/tables/decide.rs put_row",
        "A row with a NULL in an index has no entry in it.";
    IndexEntryStays, "index-entry-stays", "core/kernel/src/tables/decide.rs put_row",
        "The entry of a row stays in an index when the row moves in it, so that scans find it twice.";
    FactsReversed, "facts-reversed", "core/kernel/src/kernel.rs apply",
        "Facts that share a prepare are applied in the opposite order.";
    StatementUnconfirmed, "statement-unconfirmed", "core/runtime/src/sql.rs next",
        "A statement runs without asking whether this node still speaks for the cluster.";
    ReadsUnguarded, "reads-unguarded", "core/runtime/src/sql/proposals.rs commit",
        "A transaction block is committed without the guards of what it read.";
    DoneTwice, "done-twice", "core/runtime/src/sql/proposals.rs decided",
        "A statement that was planned again is planned once more after it was done.";
    ProposedTurnedAway, "proposed-turned-away", "core/runtime/src/sql.rs resigned",
        "A primary that resigns turns statements away, to be sent again, that it had proposed.";
    AheadTrusted, "ahead-trusted", "core/runtime/src/sql.rs stands_ahead",
        "What a statement read of rows that are only proposed is taken for granted.";
    BlockRunsOn, "block-runs-on", "core/runtime/src/sql.rs plan",
        "A statement of a transaction block that is gone is run by itself.";
    ReplyNotMatched, "reply-not-matched", "core/client/src/client.rs on_reply",
        "A client takes the reply to an earlier request for that to the one in flight.";
    DamagedAnswerRefused, "damaged-answer-refused", "core/client/src/client.rs on_answer",
        "A client takes the answer that records are damaged for malformed, and asks for ever (once a real bug).";
}

impl Mutant {
    /// The mutant of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

/// How often a planted bug came into play.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Times its line ran.
    pub reached: u64,
    /// Times it did something else than what is right.
    pub triggered: u64,
}

/// Whether a planted bug is switched on here. A constant `false` unless the feature `mutants` is on.
///
/// The second argument, if there is one, says whether the bug makes a difference here: only then is it acted out.
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant!($name, true)
    };
    ($name:ident, $differs:expr) => {
        ($crate::__mutant::is_on($crate::Mutant::$name) && ($differs) && $crate::__mutant::acts())
    };
}

/// Runs something with a planted bug switched on for this thread, and tells how often it came into play.
#[cfg(feature = "mutants")]
pub fn planted<R>(mutant: Mutant, run: impl FnOnce() -> R) -> (R, Sight) {
    __private::switch(Some(mutant));
    let off = __private::Off;
    let result = run();
    let sight = __private::sight();
    drop(off);
    (result, sight)
}

#[doc(hidden)]
pub mod __private {
    /// Never, in a build that holds no mutants.
    #[cfg(not(feature = "mutants"))]
    #[inline]
    pub const fn is_on(_: super::Mutant) -> bool {
        false
    }

    /// Never asked, in a build that holds no mutants.
    #[cfg(not(feature = "mutants"))]
    #[inline]
    pub const fn acts() -> bool {
        false
    }

    /// Never asked, in a build that holds no mutants.
    #[cfg(not(feature = "mutants"))]
    #[inline]
    pub const fn whim(_: usize) -> usize {
        0
    }

    #[cfg(feature = "mutants")]
    pub use planted::{Off, acts, is_on, sight, switch, whim};

    #[cfg(feature = "mutants")]
    mod planted {
        use super::super::{Mutant, Sight};
        use core::cell::Cell;

        std::thread_local! {
            static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
            static SEEN: Cell<Sight> = const { Cell::new(Sight { reached: 0, triggered: 0 }) };
        }

        /// Switches a mutant on for this thread, or all off, and counts anew.
        pub fn switch(mutant: Option<Mutant>) {
            ON.set(mutant);
            SEEN.set(Sight::default());
        }

        /// How often the mutant came into play.
        pub fn sight() -> Sight {
            SEEN.get()
        }

        /// Switches off, also when what ran panicked.
        #[derive(Debug)]
        pub struct Off;

        impl Drop for Off {
            fn drop(&mut self) {
                switch(None);
            }
        }

        /// Whether this thread's world has switched it on. Its line was reached.
        pub fn is_on(mutant: Mutant) -> bool {
            let on = ON.get() == Some(mutant);
            if on {
                let seen = SEEN.get();
                SEEN.set(Sight { reached: seen.reached + 1, ..seen });
            }
            on
        }

        /// The mutant that is on makes a difference. Always true, to stand at the end of a condition.
        pub fn acts() -> bool {
            let seen = SEEN.get();
            SEEN.set(Sight { triggered: seen.triggered + 1, ..seen });
            true
        }

        /// A number below `bound` that differs from call to call: what a mutant does that depends on what replicas do
        /// not share. The same in each run of the same world.
        pub fn whim(bound: usize) -> usize {
            let turn = SEEN.get().triggered.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            turn as usize % bound.max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_mutant_has_a_name_a_site_and_a_story_of_its_own() {
        let names: BTreeSet<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        let stories: BTreeSet<_> = Mutant::ALL.iter().map(|mutant| mutant.story()).collect();
        assert_eq!((names.len(), stories.len()), (Mutant::ALL.len(), Mutant::ALL.len()));
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::named(mutant.name()), Some(*mutant));
            assert!(mutant.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", mutant.name());
            assert!(mutant.story().ends_with('.'), "{}", mutant.name());
        }
        assert_eq!(Mutant::named("nonsense"), None);
    }

    #[test]
    fn every_mutant_is_planted_where_it_says() {
        for mutant in Mutant::ALL {
            let (file, _) = mutant.site().split_once(' ').expect("a file and a function");
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
            let text = std::fs::read_to_string(&path).expect("the file is there");
            assert!(text.contains(&format!("mutant!({mutant:?}")), "{mutant:?} is not in {file}");
        }
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn without_the_feature_no_mutant_is_ever_on() {
        const NEVER: bool = mutant!(AckBeforeDurable);
        const { assert!(!NEVER) };
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_mutant_is_on_in_its_thread_while_it_is_planted_and_counts_what_it_does() {
        let ((), sight) = planted(Mutant::AckBeforeDurable, || {
            assert!(mutant!(AckBeforeDurable));
            assert!(!mutant!(AckBeforeDurable, 1 > 2));
            assert!(!mutant!(CorruptNacked));
            std::thread::scope(|scope| {
                scope.spawn(|| assert!(!mutant!(AckBeforeDurable)));
            });
        });
        assert_eq!(sight, Sight { reached: 2, triggered: 1 });
        assert!(!mutant!(AckBeforeDurable));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_panic_switches_the_mutant_off() {
        let caught = std::panic::catch_unwind(|| planted(Mutant::AckBeforeDurable, || panic!("as planted")));
        assert!(caught.is_err());
        assert!(!mutant!(AckBeforeDurable));
    }
}
