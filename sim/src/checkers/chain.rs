//! The committed log is one unbroken chain. Each op is verified once, when the first replica executes it.

use kimberlite_crypto::checksum;
use kimberlite_runtime::Note;
use kimberlite_types::limits::{PIPELINE_MAX, PREPARE_HEADER_SIZE, TIMESTAMP_LIMIT};
use kimberlite_types::{Config, Instant, Op};
use kimberlite_wire::{Malformed, Prepare, PrepareHeader};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "chain";
const ORDER: &str = "ops are first executed in order";
const SOUND: &str = "a committed prepare matches its checksums";
const ENTRIES: &str = "the entry chain continues through every prepare";
const CRC: &str = "every entry matches its CRC";
const TIME: &str = "time strictly increases along the log";
const LIMIT: &str = "time stays below its limit";
const PLACE: &str = "a prepare stands where its parent and the layout say";
const PARENT: &str = "the committed log is a chain of parents";
const PROPOSER: &str = "a prepare is proposed by the primary of its view, in views that never go back";
const AHEAD: &str = "a prepare is proposed at most one pipeline ahead of the commit";

/// Walks the committed log.
pub struct Chain {
    config: Config,
    last: PrepareHeader,
    compared: u64,
}

impl Chain {
    /// Nothing is committed but the root.
    pub fn new(config: &Config) -> Self {
        Self { config: *config, last: PrepareHeader::root(config.cluster), compared: 0 }
    }

    fn check(&self, prepare: &Prepare) -> Result<(), Violation> {
        let (header, last) = (&prepare.header, &self.last);
        let op = header.op;
        let body = &prepare.frame()[PREPARE_HEADER_SIZE..];
        hold!(
            header.timestamp.0 < TIMESTAMP_LIMIT,
            LIMIT,
            None,
            op,
            "op {op} is of {:?}, beyond what a timestamp may be",
            header.timestamp
        );
        hold!(
            header.is_sound() && checksum(body) == header.body_checksum && header.cluster == last.cluster,
            SOUND,
            None,
            op,
            "the prepare of op {op} is not what its checksum {:?} says",
            header.checksum
        );
        hold!(
            header.parent == last.checksum,
            PARENT,
            None,
            op,
            "op {op} names {:?} as parent, not {:?}",
            header.parent,
            last.checksum
        );
        if let Err(why) = prepare.verify_chain(&last.chain) {
            let rule = if why == Malformed::BodyChecksum { CRC } else { ENTRIES };
            hold!(false, rule, None, op, "the entries of op {op}: {why}");
        }
        hold!(
            header.timestamp > last.timestamp,
            TIME,
            None,
            op,
            "op {op} is of {:?}, the one before of {:?}",
            header.timestamp,
            last.timestamp
        );
        let due = last.next_place(header.size, &self.config.layout);
        hold!(
            (header.place, header.index) == due && header.size <= self.config.layout.prepare_size_max,
            PLACE,
            None,
            op,
            "op {op} of {} bytes stands at {} as number {} of its segment; its place is {due:?}",
            header.size,
            header.place,
            header.index
        );
        hold!(
            header.view >= last.view && header.proposer == self.config.primary(header.view),
            PROPOSER,
            None,
            op,
            "op {op} was proposed by {:?} in {:?}, after one of {:?}",
            header.proposer,
            header.view,
            last.view
        );
        hold!(
            header.commit < op && op.0 - header.commit.0 <= PIPELINE_MAX as u64,
            AHEAD,
            None,
            op,
            "op {op} was proposed when {} was committed",
            header.commit
        );
        Ok(())
    }
}

impl Checker for Chain {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[ORDER, SOUND, ENTRIES, CRC, TIME, LIMIT, PLACE, PARENT, PROPOSER, AHEAD]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        let Observation::Note { replica, note: Note::Committed { prepare, .. } } = seen else {
            return Ok(());
        };
        let op: Op = prepare.header.op;
        if op <= self.last.op {
            return Ok(());
        }
        hold!(
            op == self.last.op.next(),
            ORDER,
            *replica,
            op,
            "{replica:?} executes op {op}; nobody executed more than op {} before",
            self.last.op
        );
        self.check(prepare)?;
        self.last = prepare.header;
        self.compared += 1;
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use kimberlite_types::limits::ENTRY_HEADER_SIZE;
    use kimberlite_types::{ReplicaId, WallTime};

    type Change = fn(&mut PrepareHeader, &mut [u8]);

    fn run(prepare: Prepare) -> Result<(), Violation> {
        let history = History::small(3);
        let mut checker = Chain::new(&history.config);
        for op in 1..=2 {
            commit(&mut checker, 0, &history, op)?;
        }
        noted(&mut checker, 0, &with_prepare(&history.committed(3), prepare))
    }

    #[test]
    fn a_log_over_several_segments_holds() {
        let mut history = History::small(3);
        let segment = history.config.layout.segment_size;
        while history.header(history.ops()).place < 2 * segment {
            history.op(&[]);
        }
        let mut checker = Chain::new(&history.config);
        history.play(&mut checker).unwrap();
        assert_eq!(checker.compared(), history.ops());
    }

    #[test]
    fn every_broken_link_is_noticed_for_what_it_is() {
        let good = History::small(3).prepare(3).clone();
        run(good.clone()).unwrap();
        let rules = checker_rules(&Chain::new(&config(3)));
        let changes: [(&str, Change); 9] = [
            (PARENT, |header, _| header.parent = header.checksum),
            (ENTRIES, |header, _| header.chain = kimberlite_crypto::ChainHash::GENESIS),
            (ENTRIES, |_, body| body[0] ^= 1),
            (CRC, |_, body| body[ENTRY_HEADER_SIZE] ^= 1),
            (PLACE, |header, _| header.place += 4096),
            (PLACE, |header, _| header.index += 1),
            (PROPOSER, |header, _| header.proposer = ReplicaId(2)),
            (AHEAD, |header, _| header.commit = header.op),
            (ORDER, |header, _| header.op = Op(5)),
        ];
        for (rule, change) in changes {
            assert_broken(&rules, run(reseal(&good, change)), rule);
        }
        let mut unsound = good.clone();
        unsound.header.timestamp = WallTime(1);
        assert_broken(&rules, run(unsound), SOUND);
        let mut late = good.clone();
        late.header.timestamp = WallTime(TIMESTAMP_LIMIT);
        late.header.checksum = checksum(&late.header.encode()[32..]);
        assert_broken(&rules, run(late), LIMIT);
    }

    #[test]
    fn time_that_stands_still_and_views_that_go_back_are_noticed() {
        let rules = checker_rules(&Chain::new(&config(3)));
        let mut still = History::small(3);
        still.truncate(2);
        let time = still.header(2).timestamp;
        let earlier = still.append_unchecked(
            |parent| parent.timestamp = WallTime(0),
            |new| {
                new.timestamp = time;
            },
        );
        assert_broken(&rules, run(earlier), TIME);

        let mut history = History::small(3);
        history.view(kimberlite_types::View(3));
        let later = history.op(&[]);
        history.view(kimberlite_types::View(0));
        let back = history.op(&[]);
        let mut checker = Chain::new(&history.config);
        for op in 1..=later {
            commit(&mut checker, 1, &history, op).unwrap();
        }
        assert_broken(&rules, commit(&mut checker, 1, &history, back), PROPOSER);
    }
}
