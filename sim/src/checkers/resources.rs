//! What a run holds stays within its named limits, and is given back once it has come to rest.

use kimberlite_io_sim::Resources as World;
use kimberlite_runtime::Node;
use kimberlite_types::limits::{PIPELINE_MAX, SECTOR_SIZE};
use kimberlite_types::{Config, Instant, Op, ReplicaId};
use kimberlite_vsr::{Load, Status};

use super::hold;
use crate::{Checker, End, Observation, Sample, Violation};

const NAME: &str = "resources";
const UP: &str = "every healed replica runs and works in a view";
const BOUND: &str = "no replica holds more of a kind than its limit";
const TOKENS: &str = "a journal waits for as many answers as its disk owes it";
const WRITES: &str = "a journal has at most its limit of writes in flight";
const REST: &str = "a healed replica at rest holds on to nothing";
const JOURNAL: &str = "a healed replica at rest waits for nothing from its journal";
const CLIENTS: &str = "a healed replica at rest owes no client an answer";

/// Writes of prepares in flight at most: new ones, two pipelines of them, and as many repairs; and what execution needs
/// next always finds room.
const PREPARES_WRITING_MAX: u64 = 5 * PIPELINE_MAX as u64;

/// Writes in flight at most besides: one copy of the superblock, one footer, eight parts of a checkpoint, and as many pages that
/// came from peers as these are asked for at once.
const OTHERS_WRITING_MAX: u64 = 2 + 8 + 16;

/// What a node holds.
#[derive(Clone, Copy, Default)]
struct Held {
    works: bool,
    halted: bool,
    load: Load,
    /// Inputs that the journal has not answered.
    pending: usize,
    /// Answers that the journal waits for.
    in_flight: usize,
    /// Requests and queries of clients without an answer.
    unanswered: (usize, usize),
    /// What the world holds for it, where that is known.
    world: Option<World>,
}

impl Held {
    fn by(node: &Node, world: Option<World>) -> Self {
        let (replica, storage) = (node.replica(), node.storage());
        Self {
            works: node.halted().is_none() && replica.status() == Status::Normal,
            halted: node.halted().is_some(),
            load: replica.load(),
            pending: storage.pending(),
            in_flight: storage.in_flight(),
            unanswered: node.unanswered(),
            world,
        }
    }
}

/// Looks at what nodes hold, now and then and at the end.
#[derive(Default)]
pub struct Resources {
    compared: u64,
}

impl Resources {
    /// What holds at any time.
    fn check_bounds(&mut self, config: &Config, replica: ReplicaId, held: &Held) -> Result<(), Violation> {
        let none: Option<Op> = None;
        self.compared += 1;
        for ((kind, count), (_, most)) in held.load.kinds().into_iter().zip(Load::MAX.kinds()) {
            hold!(count <= most, BOUND, replica, none, "{replica:?} has {count} {kind}, of {most} at most");
        }
        // A journal that has stopped forgot what it waited for.
        let Some(world) = held.world.filter(|_| !held.halted) else { return Ok(()) };
        let (reads, writes, waits) = (world.reads, world.changes, held.in_flight);
        hold!(
            reads + writes == waits,
            TOKENS,
            replica,
            none,
            "{replica:?} waits for {waits} answers; its disk has {reads} reads and {writes} writes to answer"
        );
        // Each sector of the ring is written by one write at a time.
        let ring = config.layout.ring_size().div_ceil(SECTOR_SIZE as u64);
        let most = PREPARES_WRITING_MAX + OTHERS_WRITING_MAX + ring;
        hold!(
            writes as u64 <= most,
            WRITES,
            replica,
            none,
            "{replica:?} has {writes} writes in flight, of {most} at most"
        );
        Ok(())
    }

    /// What holds of a healed replica that has come to rest.
    fn check_rest(&mut self, replica: ReplicaId, held: &Held) -> Result<(), Violation> {
        let none: Option<Op> = None;
        let Held { works, load, pending, in_flight, unanswered: (requests, queries), .. } = *held;
        self.compared += 1;
        hold!(works, UP, replica, none, "{replica:?} is halted, opening, recovering or between views");
        for (kind, count) in load.kinds() {
            hold!(count == 0, REST, replica, none, "{replica:?} has {count} {kind}");
        }
        hold!(
            pending + in_flight == 0,
            JOURNAL,
            replica,
            none,
            "{replica:?} waits for {pending} answers of its journal, and that for {in_flight}"
        );
        hold!(
            requests + queries == 0,
            CLIENTS,
            replica,
            none,
            "{replica:?} owes answers to {requests} requests and {queries} queries"
        );
        Ok(())
    }
}

impl Checker for Resources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[UP, BOUND, TOKENS, WRITES, REST, JOURNAL, CLIENTS]
    }

    fn observe(&mut self, _at: Instant, _seen: &Observation<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn sample(&mut self, _at: Instant, sample: &Sample<'_>) -> Result<(), Violation> {
        for (replica, node) in (0..).map(ReplicaId).zip(&sample.nodes) {
            if let Some(node) = node {
                let world = sample.held.get(usize::from(replica.0)).copied();
                self.check_bounds(&sample.config, replica, &Held::by(node, world))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        for (replica, node) in (0..).map(ReplicaId).zip(&end.nodes) {
            let core = end.core.contains(&replica);
            let Some(node) = node else {
                hold!(!core, UP, replica, None, "{replica:?} is down");
                continue;
            };
            let held = Held::by(node, end.held.get(usize::from(replica.0)).copied());
            self.check_bounds(&end.config, replica, &held)?;
            if core {
                self.check_rest(replica, &held)?;
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
        checker.check_rest(ReplicaId(0), &rest).unwrap();
        assert_eq!(checker.compared(), 1);
        let load = |load| Held { load, ..rest };
        let cases = [
            (UP, Held { works: false, ..rest }),
            (REST, load(Load { in_flight: 1, ..Load::default() })),
            (REST, load(Load { wanted: 1, ..Load::default() })),
            (REST, load(Load { ahead: 1, ..Load::default() })),
            (JOURNAL, Held { pending: 1, ..rest }),
            (JOURNAL, Held { in_flight: 1, ..rest }),
            (CLIENTS, Held { unanswered: (1, 0), ..rest }),
            (CLIENTS, Held { unanswered: (0, 1), ..rest }),
        ];
        for (rule, held) in cases {
            assert_broken(&rules(), checker.check_rest(ReplicaId(0), &held), rule);
        }
    }

    #[test]
    fn a_limit_that_is_passed_and_an_answer_that_is_lost_are_noticed() {
        let config = config(3);
        let world = |reads, changes| Some(World { reads, changes, ..World::default() });
        let most = Held { load: Load::MAX, in_flight: 5, world: world(2, 3), ..Held::default() };
        let mut checker = Resources::default();
        checker.check_bounds(&config, ReplicaId(1), &most).unwrap();
        let writes = 5 * PIPELINE_MAX + OTHERS_WRITING_MAX as usize + 8;
        let busy = Held { in_flight: writes, world: world(0, writes), ..most };
        checker.check_bounds(&config, ReplicaId(1), &busy).unwrap();
        let halted = Held { halted: true, in_flight: 0, ..most };
        checker.check_bounds(&config, ReplicaId(1), &halted).unwrap();
        let beyond = Load { serving: Load::MAX.serving + 1, ..Load::MAX };
        let cases = [
            (BOUND, Held { load: beyond, ..most }),
            (TOKENS, Held { in_flight: 4, ..most }),
            (TOKENS, Held { in_flight: 6, ..most }),
            (WRITES, Held { in_flight: writes + 1, world: world(0, writes + 1), ..most }),
        ];
        for (rule, held) in cases {
            assert_broken(&rules(), checker.check_bounds(&config, ReplicaId(1), &held), rule);
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
        let seen = |replica, zone, at, len| Some(disks.read(replica, zone, at, len));
        let config = history.config;
        checker.finish(&End { config, nodes, held: vec![], disk: &disk, seen: &seen, core: vec![] }).unwrap();
    }
}
