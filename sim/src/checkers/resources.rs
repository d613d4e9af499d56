//! What a run held is given back once it has come to rest, and nobody stops on the way.

use kimberlite_runtime::Node;
use kimberlite_types::limits::PIPELINE_MAX;
use kimberlite_types::{Instant, Op, ReplicaId};
use kimberlite_vsr::Status;

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "resources";
const UP: &str = "every healed replica runs and works in a view";
const BOUND: &str = "no replica has more ops in flight than its pipeline";
const PIPELINE: &str = "a healed replica at rest has no op in flight";
const WAITING: &str = "a healed replica at rest has no request waiting";
const JOURNAL: &str = "a healed replica at rest waits for nothing from its journal";

/// What a node holds at the end.
#[derive(Clone, Copy, Default)]
struct Held {
    works: bool,
    in_flight: usize,
    waiting: usize,
    pending: usize,
}

impl Held {
    fn by(node: &Node) -> Self {
        let (replica, storage) = (node.replica(), node.storage());
        Self {
            works: node.halted().is_none() && replica.status() == Status::Normal,
            in_flight: replica.in_flight(),
            waiting: replica.waiting(),
            pending: storage.pending(),
        }
    }
}

/// Looks at what nodes hold at the end.
#[derive(Default)]
pub struct Resources {
    compared: u64,
}

impl Resources {
    fn check(&mut self, replica: ReplicaId, core: bool, held: Held) -> Result<(), Violation> {
        let none: Option<Op> = None;
        let Held { works, in_flight, waiting, pending } = held;
        self.compared += 1;
        hold!(in_flight <= PIPELINE_MAX, BOUND, replica, none, "{replica:?} has {in_flight} ops in flight");
        if !core {
            return Ok(());
        }
        hold!(works, UP, replica, none, "{replica:?} is halted, opening, recovering or between views");
        hold!(in_flight == 0, PIPELINE, replica, none, "{replica:?} has {in_flight} ops in flight");
        hold!(waiting == 0, WAITING, replica, none, "{replica:?} has {waiting} requests waiting");
        hold!(pending == 0, JOURNAL, replica, none, "{replica:?} waits for {pending} answers");
        Ok(())
    }
}

impl Checker for Resources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[UP, BOUND, PIPELINE, WAITING, JOURNAL]
    }

    fn observe(&mut self, _at: Instant, _seen: &Observation<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        for (replica, node) in end.nodes.iter().enumerate() {
            let replica = ReplicaId(replica as u8);
            let core = end.core.contains(&replica);
            match node {
                Some(node) => self.check(replica, core, Held::by(node))?,
                None => hold!(!core, UP, replica, None, "{replica:?} is down"),
            }
        }
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

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Resources::default())
    }

    #[test]
    fn a_replica_at_rest_passes_and_each_leftover_is_noticed() {
        let rest = Held { works: true, ..Held::default() };
        let mut checker = Resources::default();
        checker.check(ReplicaId(0), true, rest).unwrap();
        let busy = Held { works: false, in_flight: PIPELINE_MAX, waiting: 5, pending: 5 };
        checker.check(ReplicaId(1), false, busy).unwrap();
        assert_eq!(checker.compared(), 2);
        let cases = [
            (UP, Held { works: false, ..rest }),
            (BOUND, Held { in_flight: PIPELINE_MAX + 1, ..rest }),
            (PIPELINE, Held { in_flight: 1, ..rest }),
            (WAITING, Held { waiting: 1, ..rest }),
            (JOURNAL, Held { pending: 1, ..rest }),
        ];
        for (rule, held) in cases {
            assert_broken(&rules(), checker.check(ReplicaId(0), true, held), rule);
        }
    }

    #[test]
    fn a_healed_replica_that_is_down_or_never_opened_is_noticed() {
        let history = History::small(3);
        let mut checker = Resources::default();
        assert_broken(&rules(), finish_on(&mut checker, &history, |_| {}), UP);
        let node = Node::new(history.config, &[1; 32], 1);
        let disks = Disks::of(&history);
        let result = finish(&mut checker, history.config, &disks, vec![Some(&node); 3]);
        assert_broken(&rules(), result, UP);
        let disk = |replica, zone, at, len| disks.read(replica, zone, at, len);
        let nodes = vec![Some(&node), None, None];
        checker.finish(&End { config: history.config, nodes, disk: &disk, core: vec![] }).unwrap();
    }
}
