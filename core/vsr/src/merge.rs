//! The choice of a view's log from `DoViewChange`s.
//!
//! Only the newest `log_view` counts for what the log *says*; every sender counts for what is *held*.
//! From the first op not known to be committed upward, each op is
//!
//! | present with any sender | nacks | result |
//! |---|---|---|
//! | yes | any | kept |
//! | no | at least the nack quorum | cut, and all behind it: no replication quorum can have held it |
//! | no | fewer | undecided: it may be committed, and the copies are damaged or unheard |
//!
//! An op that every adopter of the newest log has lost together with its header is decided by the nacks alone. What one of
//! them names counts for all: the log is the union of what they know of it.
//!
//! A sender whose head is uncertain may have held a few ops more than anybody names. They are judged by the
//! same table: undecided, unless a nack quorum never held the first of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kimberlite_probe::mutant;
use kimberlite_types::{Op, Quorums, ReplicaId, View};
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::{HEADERS_MAX, Mark};

/// What one replica said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dvc {
    /// Who.
    pub replica: ReplicaId,
    /// The last view whose log it adopted.
    pub log_view: View,
    /// The highest op of its log.
    pub op: Op,
    /// What it knows to be committed.
    pub commit: Op,
    /// The last op behind `op` that it may have held; `op` itself if that is certainly its end.
    pub doubt_until: Op,
    /// Its last headers.
    pub headers: Vec<(PrepareHeader, Mark)>,
}

impl Dvc {
    /// What this sender says of an op behind its head.
    fn mark_behind(&self, op: Op) -> Mark {
        if op > self.doubt_until { Mark::Nack } else { Mark::Unknown }
    }

    /// What this sender holds of an op that the new log would contain.
    fn mark_of(&self, wanted: &PrepareHeader) -> Mark {
        if wanted.view > self.log_view {
            // Proposed in a view whose log it never adopted, so it never acknowledged it in any.
            let names = self.headers.iter().find(|(header, _)| header.checksum == wanted.checksum);
            return names.map_or(Mark::Nack, |(_, mark)| *mark);
        }
        if wanted.op > self.op {
            return self.mark_behind(wanted.op);
        }
        match self.headers.iter().find(|(header, _)| header.op == wanted.op) {
            Some((header, mark)) if header.checksum == wanted.checksum => *mark,
            Some(_) => Mark::Nack,
            // Older than what it names: it is long past this op and says nothing about it.
            None => Mark::Unknown,
        }
    }
}

/// The result of the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Fewer senders than a view-change quorum.
    NeedQuorum,
    /// This op may be committed, and nobody heard so far holds it.
    Undecided(Op),
    /// The log of the view.
    Log {
        /// Its last headers; the last one is its head.
        headers: Vec<PrepareHeader>,
        /// What is known to be committed.
        commit: Op,
    },
    /// Two senders of the same `log_view` contradict each other: one of them lies or is broken.
    Contradiction(ReplicaId, ReplicaId),
}

/// Chooses the log of a view.
pub fn choose(dvcs: &[Dvc], quorums: &Quorums) -> Choice {
    let quorum = usize::from(quorums.view_change);
    if dvcs.len() < quorum && !mutant!(ViewChangeQuorumShort, quorum > 1 && dvcs.len() + 1 == quorum) {
        kimberlite_probe::reachable!("merge.needs_quorum");
        return Choice::NeedQuorum;
    }
    let newest = dvcs.iter().map(|dvc| dvc.log_view).max().expect("a quorum is not empty");
    let mut canonical: Vec<&Dvc> = dvcs.iter().filter(|dvc| dvc.log_view == newest).collect();
    let longer = dvcs.iter().max_by_key(|dvc| dvc.op).filter(|dvc| canonical.iter().all(|it| it.op < dvc.op));
    if mutant!(LongestLogWins, longer.is_some()) {
        canonical = longer.into_iter().collect();
    }
    let longest = canonical.iter().max_by_key(|dvc| dvc.op).expect("somebody has the newest log");
    kimberlite_probe::sometimes!("merge.mixed_logs", canonical.len() < dvcs.len());
    let named = match union(&canonical, longest) {
        Ok(named) => named,
        Err((one, other)) => return Choice::Contradiction(one, other),
    };
    // A header of the log proves that what its proposer knew to be committed is.
    let proven = named.values().map(|header| header.commit);
    let known = dvcs.iter().map(|dvc| dvc.commit);
    let commit = proven.chain(known).max().expect("a quorum is not empty");
    if commit > longest.op {
        kimberlite_probe::unreachable!("merge.committed_is_missing");
        let knows = dvcs.iter().find(|dvc| dvc.commit == commit).unwrap_or(longest);
        return Choice::Contradiction(longest.replica, knows.replica);
    }
    let nack_quorum = usize::from(quorums.nack);
    let mut headers: Vec<PrepareHeader> = Vec::new();
    let mut cut = false;
    // Of what is committed only as much is looked at as the new log can name; a sender may be far behind.
    let named_at_most = Op((longest.op.0 + 1).saturating_sub(HEADERS_MAX as u64));
    for op in (named_at_most.min(commit.next()).0..=longest.op.0).map(Op) {
        let Some(header) = named.get(&op) else {
            // Lost with its header by all who adopted this log: an op of the newest view, or one that is committed.
            let nacks =
                dvcs.iter().filter(|dvc| dvc.log_view < newest || dvc.op < op && op > dvc.doubt_until);
            if op <= commit {
                kimberlite_probe::reachable!("merge.committed_is_unnamed");
                headers.clear();
            } else if nacks.count() >= nack_quorum {
                kimberlite_probe::reachable!("merge.cuts_unnamed");
                cut = true;
                break;
            } else {
                kimberlite_probe::reachable!("merge.undecided_unnamed");
                return Choice::Undecided(op);
            }
            continue;
        };
        if op > commit {
            let marks = dvcs.iter().map(|dvc| dvc.mark_of(header));
            let present = marks.clone().any(|mark| mark == Mark::Present);
            let mut nacks = marks.filter(|mark| *mark == Mark::Nack).count();
            if mutant!(NackQuorumShort, !present && nacks + 1 == nack_quorum) {
                nacks += 1;
            }
            if !present && nacks >= nack_quorum {
                kimberlite_probe::reachable!("merge.cuts");
                cut = true;
                break;
            }
            if !present {
                kimberlite_probe::reachable!("merge.undecided");
                return Choice::Undecided(op);
            }
        }
        headers.push(*header);
    }
    headers.drain(..headers.len().saturating_sub(HEADERS_MAX));
    // What stands behind the last op that anybody names is decided like any other op nobody holds. It would be of
    // the newest view, so those who did not adopt that view's log never held it.
    let behind = longest.op.next();
    let behind_of = |dvc: &Dvc| if dvc.log_view == newest { dvc.mark_behind(behind) } else { Mark::Nack };
    let marks = dvcs.iter().map(behind_of);
    let doubt = marks.clone().any(|mark| mark == Mark::Unknown);
    let nacks = marks.filter(|mark| *mark == Mark::Nack).count();
    kimberlite_probe::sometimes!("merge.doubt_overruled", doubt && nacks >= nack_quorum);
    if doubt && !cut && nacks < nack_quorum {
        kimberlite_probe::reachable!("merge.undecided_behind");
        return Choice::Undecided(behind);
    }
    kimberlite_probe::sometimes!(
        "merge.keeps_uncommitted",
        headers.last().is_some_and(|head| head.op > commit)
    );
    // The new log begins at a header that is committed at the latest; without one, more voices are needed.
    if headers.is_empty() { Choice::Undecided(commit) } else { Choice::Log { headers, commit } }
}

/// All headers that the adopters of one log name: one of them may have lost what another still has. Answers two
/// who contradict each other, if any do.
fn union(canonical: &[&Dvc], longest: &Dvc) -> Result<BTreeMap<Op, PrepareHeader>, (ReplicaId, ReplicaId)> {
    let mut named: BTreeMap<Op, PrepareHeader> =
        longest.headers.iter().map(|(header, _)| (header.op, *header)).collect();
    for other in canonical {
        for (header, _) in &other.headers {
            let here = named.entry(header.op).or_insert(*header);
            if here.checksum != header.checksum {
                kimberlite_probe::unreachable!("merge.voters_contradict");
                return Err((longest.replica, other.replica));
            }
        }
    }
    let broken = named.iter().any(|(op, header)| {
        named.get(&op.previous()).is_some_and(|below| *op > Op::ZERO && header.parent != below.checksum)
    });
    if broken { Err((longest.replica, longest.replica)) } else { Ok(named) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_types::{ClusterId, Layout, RequestNumber, SessionId, TenantId, WallTime};
    use kimberlite_wire::{NewEntry, NewPrepare, Prepare};
    use std::fmt::Write as _;

    /// A log written as letters: the n-th letter is op n; a different letter is a different prepare.
    fn chain(letters: &str) -> Vec<PrepareHeader> {
        let mut headers = vec![PrepareHeader::root(ClusterId(1))];
        for letter in letters.bytes() {
            let parent = *headers.last().unwrap();
            let new = NewPrepare {
                parent: &parent,
                view: View(0),
                commit: Op(0),
                timestamp: WallTime(parent.timestamp.0 + 1),
                layout: &Layout::SMALL,
                proposer: ReplicaId(0),
            };
            let entry = NewEntry {
                session: SessionId::NONE,
                request: RequestNumber(0),
                tenant: TenantId(0),
                command: &[letter],
            };
            headers.push(Prepare::build(&new, &[entry]).header);
        }
        headers
    }

    /// Runs a story: each line is `log_view letters marks commit`, one replica a line; marks are `+` present,
    /// `-` nack, `?` unknown; a `?` behind the last letter says that the replica may have held one op more.
    fn check(replicas: u8, story: &str, expect: &str) {
        let mut words = Vec::new();
        let dvcs: Vec<Dvc> = story
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .enumerate()
            .map(|(replica, line)| {
                let [log_view, letters, marks, commit] = line.split_whitespace().collect::<Vec<_>>()[..]
                else {
                    panic!("four words a line: {line}")
                };
                words.push(letters.to_owned());
                let headers = chain(letters)
                    .into_iter()
                    .zip(std::iter::once('+').chain(marks.chars()))
                    .filter(|(_, mark)| *mark != '_')
                    .map(|(header, mark)| {
                        let mark = match mark {
                            '+' => Mark::Present,
                            '-' => Mark::Nack,
                            _ => Mark::Unknown,
                        };
                        (header, mark)
                    })
                    .collect();
                Dvc {
                    replica: ReplicaId(replica as u8),
                    log_view: View(log_view.parse().unwrap()),
                    op: Op(letters.len() as u64),
                    doubt_until: Op(marks.len() as u64),
                    commit: Op(commit.parse().unwrap()),
                    headers,
                }
            })
            .collect();
        let mut got = String::new();
        match choose(&dvcs, &Quorums::of(replicas)) {
            Choice::NeedQuorum => got.push_str("need quorum"),
            Choice::Undecided(op) => write!(got, "undecided {op}").unwrap(),
            Choice::Contradiction(a, b) => write!(got, "contradiction {a} {b}").unwrap(),
            Choice::Log { headers, commit } => {
                let head = headers.last().unwrap();
                let word = words.iter().find(|word| chain(word).iter().any(|h| h.checksum == head.checksum));
                let name = word.unwrap().as_bytes()[head.op.0 as usize - 1] as char;
                write!(got, "head {}{} commit {commit}", head.op, name).unwrap();
            }
        }
        assert_eq!(got, expect, "{story}");
    }

    #[test]
    fn one_sender_of_three_is_no_quorum() {
        check(3, "0 ab ++ 0", "need quorum");
    }

    #[test]
    fn the_longest_log_of_the_newest_log_view_is_kept() {
        check(3, "0 abc +++ 1\n 0 ab ++ 1", "head 3c commit 1");
    }

    #[test]
    fn a_newer_log_view_beats_a_longer_log() {
        check(3, "0 abcd ++++ 1\n 1 abX +++ 1", "head 3X commit 1");
    }

    #[test]
    fn an_op_that_a_nack_quorum_never_held_is_cut_with_all_behind_it() {
        check(3, "0 abcd ++-- 1\n 0 ab ++ 1", "head 2b commit 1");
    }

    #[test]
    fn a_damaged_copy_is_not_a_nack() {
        check(3, "0 abc ++? 1\n 0 ab ++ 1", "undecided 3");
    }

    #[test]
    fn a_third_voice_decides_about_a_damaged_copy() {
        check(3, "0 abc ++? 1\n 0 ab ++ 1\n 0 ab ++ 1", "head 2b commit 1");
        check(3, "0 abc ++? 1\n 0 ab ++ 1\n 0 abc +++ 1", "head 3c commit 1");
    }

    #[test]
    fn a_copy_held_under_an_older_log_view_still_keeps_the_op() {
        check(3, "2 abc ++? 1\n 1 abc +++ 1", "head 3c commit 1");
    }

    #[test]
    fn committed_ops_are_never_questioned() {
        check(3, "0 abc ??? 3\n 0 abc ??? 3", "head 3c commit 3");
    }

    #[test]
    fn with_two_replicas_one_nack_cuts() {
        check(2, "0 abc ++? 1\n 0 ab ++ 1", "head 2b commit 1");
    }

    #[test]
    fn with_six_replicas_four_nacks_cut_and_three_do_not() {
        check(6, "0 abc ++? 1\n 0 ab ++ 1\n 0 ab ++ 1\n 0 ab ++ 1", "undecided 3");
        check(6, "0 abc ++? 1\n 0 ab ++ 1\n 0 ab ++ 1\n 0 ab ++ 1\n 0 ab ++ 1", "head 2b commit 1");
    }

    #[test]
    fn an_uncertain_head_is_settled_only_by_those_who_never_held_the_next_op() {
        check(3, "0 abc ++++ 1\n 0 abc +++ 1", "undecided 4");
        check(3, "0 abc ++++ 1\n 0 abc +++ 1\n 0 abc +++ 1", "head 3c commit 1");
        check(2, "0 abc ++++ 1\n 0 abc +++ 1", "head 3c commit 1");
        check(3, "0 abc ++++ 1\n 0 abcd ++++ 1", "head 4d commit 1");
        check(3, "0 abc +++++ 1\n 0 abcd ++++ 1", "undecided 5");
        check(3, "0 abc +++++ 1\n 0 abcd ++++ 1\n 0 a ++ 1", "head 4d commit 1");
        check(3, "0 ab +++ 1\n 0 abcd ++++? 1\n 0 a + 1", "head 4d commit 1");
    }

    #[test]
    fn what_one_lost_with_its_header_another_names() {
        check(3, "0 abc +_+ 1\n 0 abc +++ 1", "head 3c commit 1");
        check(3, "0 abc +_+ 1\n 0 ab ++ 1", "head 3c commit 1");
        check(3, "0 abcd +_++ 1\n 0 abc ++_ 1", "head 4d commit 1");
    }

    #[test]
    fn an_op_that_all_who_may_have_held_it_lost_with_its_header_is_cut_by_nacks_alone() {
        check(3, "0 abc +_+ 1\n 0 a + 1", "undecided 2");
        check(3, "0 abc +_+ 1\n 0 a + 1\n 0 a + 1", "head 1a commit 1");
        check(3, "1 abc +_+ 1\n 0 abX +++ 1\n 0 a + 1", "head 1a commit 1");
        check(3, "0 abc +_+ 1\n 0 a +? 1\n 0 a + 1", "undecided 2");
        check(3, "0 abc __+ 2\n 0 a + 1", "head 3c commit 2");
    }

    #[test]
    fn contradicting_logs_of_one_view_are_evidence() {
        check(3, "1 abc +++ 1\n 1 abX +++ 1", "contradiction 1 0");
    }
}
