//! Marks: places and conditions that a swarm must have seen, or it has shown nothing.
//!
//! Every mark is declared in [`ALL`], with what it means and the file it stands in; one that is used and not declared
//! does not compile, and tidy holds the table against the sources. So a mark that was never reached is known.
//!
//! Counts belong to a world: they lie in the thread that runs it, [`begin`] sets them to zero when a world starts
//! and [`take`] hands them out when it ends, however it ends. Without the feature `marks` a mark is not there at
//! all: neither a count nor its condition, which is then checked by the compiler and never evaluated.

pub use crate::table::ALL;

/// What a mark says about the place where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The condition holds each time. If it does not, the run has failed.
    Always,
    /// The condition holds now and then: counted when it does.
    Sometimes,
    /// The place is reached now and then.
    Reachable,
    /// The place is never reached. If it is, the run has failed.
    Unreachable,
}

impl Kind {
    /// The macro's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Sometimes => "sometimes",
            Self::Reachable => "reachable",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether a swarm that never counted such a mark has shown less than it should.
    pub const fn is_to_be_reached(self) -> bool {
        !matches!(self, Self::Unreachable)
    }
}

/// A mark, as it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its name, unique.
    pub name: &'static str,
    /// What it says.
    pub kind: Kind,
    /// Whether a hundred random clusters may well miss it. A swarm is not vacuous for want of such a mark.
    pub rare: bool,
    /// The file it stands in, from the root of the tree.
    pub file: &'static str,
    /// What it means to have been there; of an `always`, what holds there.
    pub meaning: &'static str,
}

/// Marks there are.
pub const COUNT: usize = ALL.len();

/// The mark of this name, if one is declared.
pub fn named(name: &str) -> Option<&'static Mark> {
    ALL.iter().find(|mark| mark.name == name)
}

/// The position of a mark in [`ALL`], looked up while compiling.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Index(#[cfg_attr(not(feature = "marks"), expect(dead_code, reason = "nothing counts"))] usize);

/// Looks a mark up. Refuses, at compile time, one that is not declared or is of another kind.
#[doc(hidden)]
pub const fn find(name: &str, kind: Kind) -> Index {
    let mut index = 0;
    while index < ALL.len() {
        if is_same(ALL[index].name, name) {
            assert!(ALL[index].kind as u8 == kind as u8, "the mark is declared as another kind");
            return Index(index);
        }
        index += 1;
    }
    panic!("the mark is not declared in core/probe/src/mark.rs")
}

const fn is_same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// States what holds each time this place is reached. Breaking it fails the run.
#[macro_export]
macro_rules! always {
    ($name:literal, $holds:expr) => {{
        const MARK: $crate::mark::Index = $crate::mark::find($name, $crate::mark::Kind::Always);
        $crate::mark::always(MARK, || $holds);
    }};
}

/// Counts how often the condition holds here.
#[macro_export]
macro_rules! sometimes {
    ($name:literal, $holds:expr) => {{
        const MARK: $crate::mark::Index = $crate::mark::find($name, $crate::mark::Kind::Sometimes);
        $crate::mark::sometimes(MARK, || $holds);
    }};
}

/// Counts how often this place is reached.
#[macro_export]
macro_rules! reachable {
    ($name:literal) => {{
        const MARK: $crate::mark::Index = $crate::mark::find($name, $crate::mark::Kind::Reachable);
        $crate::mark::reachable(MARK);
    }};
}

/// States that this place is never reached. Reaching it fails the run, and the code goes on.
#[macro_export]
macro_rules! unreachable {
    ($name:literal) => {{
        const MARK: $crate::mark::Index = $crate::mark::find($name, $crate::mark::Kind::Unreachable);
        $crate::mark::unreachable(MARK);
    }};
}

#[cfg(not(feature = "marks"))]
mod silent {
    use super::Index;

    #[doc(hidden)]
    #[inline(always)]
    pub fn always(_: Index, _: impl FnOnce() -> bool) {}

    #[doc(hidden)]
    #[inline(always)]
    pub fn sometimes(_: Index, _: impl FnOnce() -> bool) {}

    #[doc(hidden)]
    #[inline(always)]
    pub const fn reachable(_: Index) {}

    #[doc(hidden)]
    #[inline(always)]
    pub const fn unreachable(_: Index) {}
}
#[cfg(not(feature = "marks"))]
pub use silent::*;

#[cfg(feature = "marks")]
mod counting {
    use core::cell::Cell;
    use core::panic::Location;

    use super::{ALL, COUNT, Index, Mark};

    /// A mark that was broken, and where.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Broken {
        /// Which.
        pub mark: &'static Mark,
        /// The line it stands on.
        pub line: u32,
    }

    /// What a world counted.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Counts(Box<[u64; COUNT]>);

    impl Default for Counts {
        fn default() -> Self {
            Self(Box::new([0; COUNT]))
        }
    }

    impl Counts {
        /// Every mark and its count.
        pub fn iter(&self) -> impl Iterator<Item = (&'static Mark, u64)> + '_ {
            ALL.iter().zip(self.0.iter().copied())
        }

        /// The count of the mark of this name; none if there is no such mark.
        pub fn of(&self, name: &str) -> Option<u64> {
            self.iter().find(|(mark, _)| mark.name == name).map(|(_, count)| count)
        }
    }

    std::thread_local! {
        static COUNTS: [Cell<u64>; COUNT] = const { [const { Cell::new(0) }; COUNT] };
        static BROKEN: Cell<Option<Broken>> = const { Cell::new(None) };
        static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    /// A world begins on this thread: whatever was counted here before is not its own.
    pub fn begin() {
        take();
    }

    /// Does some work that counts at most so many marks. At the next one it panics: work that goes on for ever passes the same
    /// marks again and again, and nothing else in a simulated world would ever end it.
    pub fn within<R>(marks: u64, work: impl FnOnce() -> R) -> R {
        let outer = LEFT.replace(marks);
        let done = work();
        LEFT.set(outer);
        done
    }

    /// The world on this thread has ended, in whatever way: what it counted. Nothing is left behind.
    pub fn take() -> (Counts, Option<Broken>) {
        let mut counts = Counts::default();
        COUNTS.with(|cells| {
            for (count, cell) in counts.0.iter_mut().zip(cells) {
                *count = cell.take();
            }
        });
        LEFT.set(u64::MAX);
        (counts, BROKEN.take())
    }

    /// The first mark that the world on this thread broke.
    pub fn broken() -> Option<Broken> {
        BROKEN.get()
    }

    #[track_caller]
    fn count(index: Index) {
        COUNTS.with(|cells| cells[index.0].set(cells[index.0].get() + 1));
        match LEFT.get().checked_sub(1) {
            Some(left) => LEFT.set(left),
            None => panic!("the work of one event does not end: it has come to {} again", ALL[index.0].name),
        }
    }

    #[track_caller]
    fn breaks(index: Index) {
        if BROKEN.get().is_none() {
            BROKEN.set(Some(Broken { mark: &ALL[index.0], line: Location::caller().line() }));
        }
    }

    #[doc(hidden)]
    #[track_caller]
    pub fn always(index: Index, holds: impl FnOnce() -> bool) {
        count(index);
        if !holds() {
            breaks(index);
        }
    }

    #[doc(hidden)]
    #[track_caller]
    pub fn sometimes(index: Index, holds: impl FnOnce() -> bool) {
        if holds() {
            count(index);
        }
    }

    #[doc(hidden)]
    #[track_caller]
    pub fn reachable(index: Index) {
        count(index);
    }

    #[doc(hidden)]
    #[track_caller]
    pub fn unreachable(index: Index) {
        count(index);
        breaks(index);
    }
}
#[cfg(feature = "marks")]
pub use counting::*;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_mark_says_what_it_means() {
        let names: BTreeSet<_> = ALL.iter().map(|mark| mark.name).collect();
        assert_eq!(names.len(), COUNT);
        assert!(ALL.iter().all(|mark| !mark.meaning.is_empty() && mark.file.starts_with("core/")));
        assert_eq!(named("merge.cuts").map(|mark| mark.kind), Some(Kind::Reachable));
        assert_eq!(named("merge.cut"), None);
    }

    #[cfg(not(feature = "marks"))]
    #[test]
    fn without_the_feature_a_condition_is_not_evaluated() {
        let mut evaluated = false;
        let mut holds = || {
            evaluated = true;
            true
        };
        crate::sometimes!("merge.mixed_logs", holds());
        crate::always!("reads.see_inherited", holds());
        assert!(!evaluated);
    }

    #[cfg(feature = "marks")]
    mod counted {
        use super::super::*;

        /// What a world does: one break, and something often.
        fn world(panics: bool) {
            begin();
            for round in 0..3 {
                crate::reachable!("merge.cuts");
                crate::sometimes!("merge.mixed_logs", round == 1);
                crate::always!("reads.see_inherited", round < 2);
            }
            assert!(!panics, "a world that panics");
        }

        #[test]
        fn a_world_counts_what_it_reached_and_names_what_it_broke() {
            world(false);
            let (counts, broken) = take();
            assert_eq!(counts.of("merge.cuts"), Some(3));
            assert_eq!(counts.of("merge.mixed_logs"), Some(1));
            assert_eq!(counts.of("reads.see_inherited"), Some(3));
            assert_eq!(counts.iter().filter(|(_, count)| *count > 0).count(), 3);
            assert_eq!(broken.map(|broken| broken.mark.name), Some("reads.see_inherited"));
            assert_eq!(take(), (Counts::default(), None));
        }

        #[test]
        fn what_is_never_to_be_reached_breaks_and_the_first_break_is_kept() {
            begin();
            crate::unreachable!("merge.voters_contradict");
            crate::always!("reads.see_inherited", false);
            let line = broken().expect("it was reached").line;
            assert!(line > 0 && line < line!());
            let (counts, broken) = take();
            assert_eq!(broken.map(|broken| broken.mark.name), Some("merge.voters_contradict"));
            assert_eq!(counts.of("merge.voters_contradict"), Some(1));
        }

        #[test]
        fn a_world_that_panics_leaves_nothing_to_the_next() {
            assert!(std::panic::catch_unwind(|| world(true)).is_err());
            begin();
            assert_eq!(take(), (Counts::default(), None));
        }

        #[test]
        #[should_panic(expected = "does not end: it has come to merge.cuts again")]
        fn work_that_passes_the_same_mark_for_ever_is_ended() {
            begin();
            within(7, || {
                for _ in 0..7 {
                    crate::reachable!("merge.cuts");
                }
            });
            // Each piece of work has a measure of its own.
            within(7, || {
                loop {
                    crate::reachable!("merge.cuts");
                }
            });
        }

        #[test]
        fn worlds_on_other_threads_are_counted_apart() {
            world(false);
            let other = std::thread::spawn(|| {
                begin();
                crate::reachable!("merge.cuts");
                take().0.of("merge.cuts")
            });
            assert_eq!(other.join().unwrap(), Some(1));
            assert_eq!(take().0.of("merge.cuts"), Some(3));
        }
    }
}
