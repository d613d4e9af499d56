//! All replicas, in all their lives, execute the same log to the same effect.

use std::collections::BTreeMap;

use kimberlite_crypto::{ChainHash, Checksum};
use kimberlite_kernel::{EntryVerdict, StateDigest};
use kimberlite_runtime::Note;
use kimberlite_types::{Instant, Op};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "agreement";
const PREPARE: &str = "one prepare per op";
const CHAIN: &str = "one chain hash per op";
const STATE: &str = "one state after an op";
const VERDICTS: &str = "one verdict per entry";

/// What the first replica to execute an op showed.
struct First {
    checksum: Checksum,
    chain: ChainHash,
    digest: StateDigest,
    verdicts: Vec<EntryVerdict>,
}

/// Compares every execution of an op with the first.
#[derive(Default)]
pub struct Agreement {
    first: BTreeMap<Op, First>,
    compared: u64,
}

impl Checker for Agreement {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[PREPARE, CHAIN, STATE, VERDICTS]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        let Observation::Note { replica, note: Note::Committed { prepare, applied, digest } } = seen else {
            return Ok(());
        };
        let (header, replica) = (&prepare.header, *replica);
        let op = header.op;
        hold!(
            applied.op == op && applied.verdicts.len() == header.entries as usize,
            VERDICTS,
            replica,
            op,
            "{replica:?} gives {} verdicts at op {} for the {} entries of op {op}",
            applied.verdicts.len(),
            applied.op,
            header.entries
        );
        let Some(first) = self.first.get(&op) else {
            let verdicts = applied.verdicts.clone();
            let first = First { checksum: header.checksum, chain: header.chain, digest: *digest, verdicts };
            self.first.insert(op, first);
            return Ok(());
        };
        self.compared += 1;
        hold!(
            first.checksum == header.checksum,
            PREPARE,
            replica,
            op,
            "op {op} is {:?} of {:?} on {replica:?} and {:?} elsewhere",
            header.checksum,
            header.view,
            first.checksum
        );
        hold!(
            first.chain == header.chain,
            CHAIN,
            replica,
            op,
            "the chain after op {op} is {:?} on {replica:?} and {:?} elsewhere",
            header.chain,
            first.chain
        );
        if first.verdicts != applied.verdicts {
            let differ = first.verdicts.iter().zip(&applied.verdicts).find(|(a, b)| a != b);
            hold!(false, VERDICTS, replica, op, "{replica:?} and the first to execute op {op}: {differ:?}");
        }
        hold!(
            first.digest == *digest,
            STATE,
            replica,
            op,
            "the state after op {op} is {digest} on {replica:?} and {} elsewhere",
            first.digest
        );
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
    use kimberlite_types::ReplicaId;
    use kimberlite_wire::Prepare;

    type Change = fn(&mut Prepare, &mut Vec<EntryVerdict>, &mut StateDigest);

    #[test]
    fn replicas_that_execute_the_same_agree() {
        let history = History::small(3);
        let mut checker = Agreement::default();
        history.play(&mut checker).unwrap();
        assert_eq!(checker.compared(), 2 * history.ops());
    }

    #[test]
    fn another_prepare_at_an_op_is_noticed_even_after_a_restart() {
        let history = History::small(3);
        let mut other = History::small(3);
        other.rebuild_last(|new| new.view = new.view.next());
        let mut checker = Agreement::default();
        history.play(&mut checker).unwrap();
        started(&mut checker, 0).unwrap();
        let last = other.ops();
        assert_broken(&checker_rules(&checker), commit(&mut checker, 0, &other, last), PREPARE);
    }

    #[test]
    fn another_chain_state_or_verdict_is_noticed() {
        let history = History::small(3);
        let changes: [(Change, &str); 4] = [
            (|prepare, _, _| prepare.header.chain = ChainHash::GENESIS, CHAIN),
            (|_, _, digest| digest.0[0] ^= 1, STATE),
            (|_, verdicts, _| verdicts[0].duplicate ^= true, VERDICTS),
            (|_, verdicts, _| verdicts.clear(), VERDICTS),
        ];
        for (change, rule) in changes {
            let mut checker = Agreement::default();
            history.play(&mut checker).unwrap();
            let Note::Committed { mut prepare, mut applied, mut digest } = history.committed(3) else {
                unreachable!("it makes no other note")
            };
            change(&mut prepare, &mut applied.verdicts, &mut digest);
            let note = Note::Committed { prepare, applied, digest };
            assert_broken(&checker_rules(&checker), noted(&mut checker, 2, &note), rule);
        }
        let mut checker = Agreement::default();
        history.play(&mut checker).unwrap();
        let before = checker.compared();
        let note = history.committed(1);
        let replica = ReplicaId(1);
        checker.observe(Instant::ZERO, &Observation::Note { replica, note: &note }).unwrap();
        assert_eq!(checker.compared(), before + 1);
    }
}
