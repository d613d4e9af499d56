//! What went wrong, and a name for it that survives the next commit.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use kimberlite_crypto::checksum;
use kimberlite_types::{Instant, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::checker::Violation;

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// A checker's rule was broken.
    Violation,
    /// A node or the simulator panicked.
    Panic,
    /// A node stopped for good without a cause that allows it.
    Halted,
    /// The healed core made no progress.
    Stuck,
}

impl FailureKind {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Violation => "violation",
            Self::Panic => "panic",
            Self::Halted => "halted",
            Self::Stuck => "stuck",
        }
    }
}

/// Names a failure: equal for the same rule, panic or kind of standstill, whatever the seed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A failed run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The checker, file of a panic, or class of a standstill.
    pub place: String,
    /// The rule or message, without what differs from seed to seed.
    pub rule: String,
    /// What was seen, for people.
    pub seen: String,
    /// The replica concerned, if one is.
    pub replica: Option<ReplicaId>,
    /// The number of the event at which it was noticed.
    pub event: u64,
    /// The virtual time at which it was noticed.
    pub at: Instant,
}

impl Failure {
    /// The name of this failure.
    pub fn fingerprint(&self) -> Fingerprint {
        let text = format!("{}\n{}\n{}", self.kind.name(), self.place, self.rule);
        let sum = checksum(text.as_bytes());
        let (head, _) = sum.as_bytes().split_first_chunk().expect("a checksum is longer than eight bytes");
        Fingerprint(u64::from_le_bytes(*head))
    }

    pub(crate) fn of_violation(violation: Violation) -> Self {
        let Violation { checker, rule, seen, replica, op } = violation;
        let seen = match op {
            Some(op) => format!("{seen} (op {op})"),
            None => seen,
        };
        Self::new(FailureKind::Violation, checker, rule, seen, replica)
    }

    pub(crate) fn new(
        kind: FailureKind,
        place: impl Into<String>,
        rule: impl Into<String>,
        seen: impl Into<String>,
        replica: Option<ReplicaId>,
    ) -> Self {
        let (place, rule, seen) = (place.into(), rule.into(), seen.into());
        Self { kind, place, rule, seen, replica, event: 0, at: Instant::ZERO }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind.name(), self.place, self.rule)?;
        if self.seen != self.rule {
            write!(f, ": {}", self.seen)?;
        }
        if let Some(replica) = self.replica {
            write!(f, " [replica {replica}]")?;
        }
        write!(f, " at event {}, {:?}", self.event, self.at)
    }
}

impl std::error::Error for Failure {}

/// A panic that was caught.
#[derive(Clone, Debug)]
pub(crate) struct Caught {
    file: String,
    line: u32,
    message: String,
}

impl Caught {
    /// The failure, named by file and message: lines move, and numbers differ from seed to seed.
    pub(crate) fn into_failure(self) -> Failure {
        let rule = without_numbers(self.message.lines().next().unwrap_or_default());
        let seen = format!("{} at {}:{}", self.message, self.file, self.line);
        Failure::new(FailureKind::Panic, self.file, rule, seen, None)
    }
}

/// The text with each run of digits as one `#`.
pub fn without_numbers(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            plain.push(c);
        } else if !plain.ends_with('#') {
            plain.push('#');
        }
    }
    plain
}

thread_local! {
    /// Whether panics of this thread are part of a run.
    static IN_RUN: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<Caught>> = const { RefCell::new(None) };
}

/// Keeps panics inside runs quiet and remembers where they were; all others are reported as before.
fn hook(previous: Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>) {
    panic::set_hook(Box::new(move |info| {
        if !IN_RUN.get() {
            previous(info);
            return;
        }
        let file = info.location().map_or("nowhere", |location| short(location.file())).to_owned();
        let line = info.location().map_or(0, std::panic::Location::line);
        let message = info.payload_as_str().unwrap_or("a panic without words").to_owned();
        CAUGHT.set(Some(Caught { file, line, message }));
    }));
}

/// The path from the package's folder on: where the tree lies on this machine does not matter.
fn short(file: &str) -> &str {
    ["core/", "io-sim/", "sim/"]
        .iter()
        .filter_map(|root| file.find(&format!("/{root}")).map(|at| &file[at + 1..]))
        .max_by_key(|path| path.len())
        .unwrap_or(file)
}

/// Runs `run`; a panic in it is returned instead of reported.
pub(crate) fn catch<R>(run: impl FnOnce() -> R) -> Result<R, Caught> {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| hook(panic::take_hook()));
    let outer = IN_RUN.replace(true);
    // What a panic leaves half done is only read for its record of decisions and its counts.
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    IN_RUN.set(outer);
    result.map_err(|_| CAUGHT.take().expect("the hook saw the panic first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panicking(number: u64) -> Failure {
        catch(|| panic!("op {number} of 7 is gone")).unwrap_err().into_failure()
    }

    #[test]
    fn panics_that_differ_in_numbers_only_have_one_name() {
        assert_eq!(panicking(3).fingerprint(), panicking(456).fingerprint());
        let other = catch(|| panic!("another")).unwrap_err().into_failure();
        assert_ne!(panicking(3).fingerprint(), other.fingerprint());
        assert!(panicking(3).seen.contains("op 3 of 7"));
        assert_eq!(panicking(3).place, "sim/src/failure.rs");
    }

    #[test]
    fn violations_are_named_by_rule_and_not_by_what_was_seen() {
        let violation = |rule: &str, seen: &str| {
            Failure::of_violation(Violation {
                checker: "log".to_owned(),
                rule: rule.to_owned(),
                seen: seen.to_owned(),
                replica: None,
                op: None,
            })
        };
        assert_eq!(violation("a", "x").fingerprint(), violation("a", "y").fingerprint());
        assert_ne!(violation("a", "x").fingerprint(), violation("b", "x").fingerprint());
    }
}
