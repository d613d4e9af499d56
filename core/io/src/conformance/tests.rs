//! The suite against a small driver: honest, it passes; with one flaw, the case that is about it fails.

use alloc::vec::Vec;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::loopback::{Flaw, Loopback};
use super::{Bench, Geometry, MachineFactory, Verdict, Verdicts, cases, watched};

const SILENCE: &str = "did not happen in time";
const CONTENT: &str = "other bytes than were handed over";

/// Each flaw, the case that must find it, and what that case must say of it.
const FLAWS: [(Flaw, &str, &str); 33] = [
    (Flaw::LosesMessages, "messages_arrive_whole", SILENCE),
    (Flaw::DamagesHeads, "messages_arrive_whole", "another head"),
    (Flaw::CutsBodies, "messages_arrive_whole", "another head"),
    (Flaw::MovesBodies, "messages_arrive_whole", "does not start on a sector boundary"),
    (Flaw::DirtiesPadding, "messages_arrive_whole", "not followed by zeros"),
    (Flaw::ForgesSenders, "messages_arrive_whole", "claims to be from"),
    (Flaw::SwapsBytes, "streams_keep_their_order", CONTENT),
    (Flaw::DropsBytes, "streams_keep_their_order", CONTENT),
    (Flaw::IgnoresCredit, "credit_holds_the_sender", "65536 granted"),
    (Flaw::KeepsLastCredit, "credit_holds_the_sender", SILENCE),
    (Flaw::LosesSent, "sent_follows_the_last_byte", SILENCE),
    (Flaw::RepeatsSent, "sent_follows_the_last_byte", "nothing was queued since"),
    (Flaw::ForgetsOnClose, "close_delivers_what_was_queued", "closed after 0 of"),
    (Flaw::NeverRefuses, "nobody_listening_is_refused", SILENCE),
    (Flaw::RefusesAsBroken, "nobody_listening_is_refused", "closed as Broken"),
    (Flaw::SpeaksAfterClose, "closed_streams_are_silent", "speaks after it was closed"),
    (Flaw::LosesWrites, "a_write_is_read_back", CONTENT),
    (Flaw::TearsWrites, "a_write_is_read_back", "from byte 24576"),
    (Flaw::LosesWritesAtKill, "a_write_survives_the_process", "phase 1"),
    (Flaw::SwallowsAnswers, "concurrent_writes_are_all_answered", SILENCE),
    (Flaw::StartsWithGarbage, "fixed_zones_start_as_zeros", "expected Zeros"),
    (Flaw::ZerosPastTheEnd, "past_the_end_is_absent", "expected Absent, found zeros"),
    (Flaw::RefusesLaterSegments, "a_later_segment_can_come_first", "answered as a write"),
    (Flaw::AliasesSegments, "the_log_rolls_over_segments", CONTENT),
    (Flaw::AnswersTwice, "asks_are_answered_once", "not in flight"),
    (Flaw::HalvesTokens, "asks_are_answered_once", "not in flight"),
    (Flaw::KeepsTrimmed, "trimmed_bytes_are_gone", "expected ZerosOrAbsent"),
    (Flaw::TrimsTooMuch, "trimmed_bytes_are_gone", CONTENT),
    (Flaw::LosesWakes, "wakes_come_when_asked", SILENCE),
    (Flaw::WakesLate, "wakes_come_when_asked", "2s after it was due"),
    (Flaw::IgnoresCloserWakes, "wakes_come_when_asked", "after it was due"),
    (Flaw::TimeGoesBack, "time_never_goes_back", "time went back"),
    (Flaw::StarvesUnderWakes, "wake_storms_starve_nobody", SILENCE),
];

#[test]
fn an_honest_driver_passes_every_case() {
    for case in cases() {
        assert_eq!(case.run(&mut Loopback::new(None)), Ok(()), "{}", case.name);
    }
}

/// The small driver, with every machine watched.
struct Strict(Loopback);

impl Bench for Strict {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict> {
        self.0.phase(machines.into_iter().map(watched).collect(), limit)
    }
}

#[test]
fn the_rules_of_the_waist_hold_in_every_case_on_an_honest_driver() {
    for case in cases() {
        assert_eq!(case.run(&mut Strict(Loopback::new(None))), Ok(()), "{}", case.name);
    }
}

#[test]
fn a_watched_machine_stops_at_a_broken_rule() {
    let case = cases().into_iter().find(|case| case.name == "credit_holds_the_sender").expect("there is one");
    let mut bench = Strict(Loopback::new(Some(Flaw::IgnoresCredit)));
    let caught = catch_unwind(AssertUnwindSafe(|| case.run(&mut bench))).expect_err("a rule is broken");
    let text = caught.downcast_ref::<std::string::String>().expect("a message");
    assert!(text.contains("received more than was granted"), "{text}");
}

#[test]
fn every_flaw_is_found_by_the_case_that_is_about_it() {
    let cases = cases();
    for (flaw, name, reason) in FLAWS {
        let case = cases.iter().find(|case| case.name == name).expect("the table names a case");
        let found = case.run(&mut Loopback::new(Some(flaw))).expect_err(name);
        assert!(found.contains(reason), "{name} says of {flaw:?}: {found}");
    }
}

#[test]
fn every_case_has_a_flaw_that_it_finds() {
    for case in cases() {
        assert!(FLAWS.iter().any(|(_, name, _)| *name == case.name), "{} is never seen to fail", case.name);
    }
}

#[test]
fn a_flaw_in_one_half_of_the_waist_leaves_the_other_half_passing() {
    let cases = cases();
    let run = |name: &str, flaw| {
        let case = cases.iter().find(|case| case.name == name).expect("a case of that name");
        case.run(&mut Loopback::new(Some(flaw)))
    };
    assert_eq!(run("a_write_is_read_back", Flaw::SwapsBytes), Ok(()));
    assert_eq!(run("streams_keep_their_order", Flaw::LosesWrites), Ok(()));
    assert_eq!(run("messages_arrive_whole", Flaw::IgnoresCredit), Ok(()));
}

#[test]
fn a_failure_overrides_a_pass_and_silence_is_a_failure() {
    let mut verdicts = Verdicts::new(2);
    verdicts.hear(0, Verdict::Passed);
    assert!(!verdicts.complete());
    verdicts.hear(0, Verdict::Failed("late".into()));
    verdicts.hear(0, Verdict::Passed);
    assert!(verdicts.complete(), "one failure is enough");
    let verdicts = verdicts.finish();
    assert_eq!(verdicts[0], Verdict::Failed("late".into()));
    assert!(matches!(&verdicts[1], Verdict::Failed(why) if why.contains("did not happen")));
}
