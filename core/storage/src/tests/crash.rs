//! Power cuts at any moment, with and without damage at rest.

use std::collections::BTreeMap;

use kimberlite_io::Place;
use kimberlite_types::{Op, Rng, Streams, View};
use kimberlite_wire::message::Mark;
use kimberlite_wire::{Prepare, PrepareHeader};

use super::disk::{Ask, Author, Node, config, format};
use crate::{Input, Output, Recovered, ViewState};

/// What was promised, and what the log of the cluster is.
struct World {
    node: Node,
    author: Author,
    /// The log as the primary of the current view has it.
    log: Vec<Prepare>,
    /// The log before the view that is on its way.
    before: Vec<Prepare>,
    /// Ops said to be durable, with the checksum that was.
    durable: BTreeMap<u64, Prepare>,
    view: View,
    views: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            node: Node::fresh(seed),
            author: Author::new(),
            log: Vec::new(),
            before: Vec::new(),
            durable: BTreeMap::new(),
            view: View(0),
            views: 0,
        }
    }

    /// Takes note of what the machine said.
    fn listen(&mut self) {
        for output in self.node.out.drain(..) {
            match output {
                Output::Durable { op, checksum } => {
                    let named = |log: &[Prepare]| {
                        log.get(op.0 as usize - 1)
                            .filter(|prepare| prepare.header.checksum == checksum)
                            .cloned()
                    };
                    match named(&self.log) {
                        Some(prepare) => {
                            self.durable.insert(op.0, prepare);
                        }
                        None => assert!(named(&self.before).is_some(), "what is durable was appended"),
                    }
                }
                Output::ViewDurable { view, .. } => self.view = view,
                Output::Halted(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn committed(&self) -> u64 {
        // An op is committed when it is durable here and all before it are.
        (1..=self.log.len() as u64).take_while(|op| self.durable.contains_key(op)).count() as u64
    }

    /// Lets the primary propose, a view change, or the disk answer.
    fn act(&mut self, rng: &mut Rng) {
        match rng.below(12) {
            0..3 => {
                if self.author.head.op.0 < self.committed() + 8
                    && self.node.storage.view_state().view.0 == self.views
                {
                    let len = if rng.chance_ppm(300_000) { rng.below(15_000) } else { rng.below(900) };
                    let prepare = self.author.next(self.views, len as usize, self.views as u8);
                    self.log.push(prepare.clone());
                    self.node.input(Input::Append(prepare));
                }
            }
            3 => {
                let committed = self.committed().saturating_sub(rng.below(4));
                self.node.input(Input::Committed(Op(committed)));
            }
            4 if rng.chance_ppm(150_000) => self.change_view(rng),
            _ => {
                self.node.step();
            }
        }
        self.listen();
    }

    /// A new view adopts a log that ends anywhere behind what is committed.
    fn change_view(&mut self, rng: &mut Rng) {
        if self.node.storage.view_state().view.0 != self.views {
            return;
        }
        let committed = self.committed();
        let keep = rng.between(committed, self.log.len() as u64);
        self.before = self.log.clone();
        self.log.truncate(keep as usize);
        self.rewind();
        self.durable.retain(|op, _| *op <= keep);
        self.views += 1;
        let headers = self.headers(keep);
        let state =
            ViewState { view: View(self.views), log_view: View(self.views), commit: Op(committed), headers };
        self.node.input(Input::PersistView(state));
        // What the new view's log names and this replica does not hold is sent again.
        for prepare in self.log.clone() {
            if !self.durable.contains_key(&prepare.header.op.0) {
                self.node.input(Input::Append(prepare));
            }
        }
    }

    fn headers(&self, last: u64) -> Vec<PrepareHeader> {
        let root = PrepareHeader::root(config().cluster);
        let all: Vec<PrepareHeader> = std::iter::once(root)
            .chain(self.log.iter().map(|prepare| prepare.header))
            .take(last as usize + 1)
            .collect();
        all[all.len().saturating_sub(9)..].to_vec()
    }

    /// The author goes on behind the log.
    fn rewind(&mut self) {
        let mut author = Author::new();
        if let Some(last) = self.log.last() {
            author.head = last.header;
        }
        self.author = author;
    }

    /// Checks what an open found, without damage: all that was promised is present and nothing is invented.
    fn check(&mut self, recovered: &Recovered) {
        assert!(recovered.head_certain(), "nothing is unknown without damage");
        assert_eq!(recovered.unknown, []);
        assert!(recovered.view_state.view >= self.view, "a durable view never goes back");
        if recovered.view_state.view.0 < self.views {
            self.log = std::mem::take(&mut self.before);
            self.views = recovered.view_state.view.0;
        }
        let head = recovered.headers.last().unwrap().0.op.0;
        let said = self.durable.keys().last().copied().unwrap_or(0);
        assert!(head >= said, "op {said} was durable, the head is {head}");
        for (header, mark) in recovered.headers.iter().filter(|(header, _)| header.op.0 > 0) {
            let real = self.log.get(header.op.0 as usize - 1).map(|prepare| prepare.header);
            assert_eq!(real, Some(*header), "nothing is invented");
            if self.durable.contains_key(&header.op.0) {
                assert_eq!(*mark, Mark::Present, "op {} was durable", header.op);
            }
        }
        for (op, prepare) in self.durable.clone() {
            assert_eq!(self.node.fetch(op).as_ref(), Ok(&prepare), "op {op} was durable");
        }
    }

    /// After a restart: the log is what was found, and the primary sends the rest again.
    fn resume(&mut self, recovered: &Recovered) {
        let head = recovered.headers.last().unwrap().0.op.0;
        self.log.truncate(head as usize);
        self.rewind();
        self.views = self.views.max(recovered.view_state.view.0);
        for op in 1..=head {
            self.node.input(Input::Append(self.log[op as usize - 1].clone()));
        }
        self.node.run();
        self.listen();
        assert_eq!(self.committed(), head, "what was found or sent again is durable");
    }
}

#[test]
fn after_any_power_cut_all_that_was_durable_is_there_and_nothing_else() {
    let (mut ops, mut views, mut cuts) = (0, 0, 0);
    for seed in 0..120 {
        let mut rng = Streams::new(seed).stream("crash", 0);
        let mut world = World::new(seed);
        for _ in 0..4 {
            for _ in 0..rng.between(20, 500) {
                world.act(&mut rng);
            }
            let recovered = world.node.crash();
            world.check(&recovered);
            world.resume(&recovered);
            cuts += 1;
        }
        ops += world.log.len();
        views += world.views;
    }
    assert!(ops > 2_000 && views > 50 && cuts == 480, "{ops} ops, {views} views");
}

#[test]
fn an_op_that_was_durable_is_never_denied_whatever_is_damaged() {
    let (mut faulty, mut uncertain) = (0, 0);
    for seed in 0..150 {
        let mut rng = Streams::new(seed).stream("damage", 0);
        let mut world = World::new(seed);
        for _ in 0..rng.between(100, 700) {
            world.act(&mut rng);
        }
        let sure = rng.chance_ppm(500_000);
        let platter = &mut world.node.platter;
        platter.cut_power(|| sure || rng.chance_ppm(500_000));
        // One fault at rest: a prepare, or a sector of the ring, or both for the same op.
        let Some(victim) = world.durable.keys().last().map(|last| last - rng.below((*last).min(8))) else {
            continue;
        };
        let place = Place::log(world.durable[&victim].header.place);
        let slot = Place::headers(victim % u64::from(config().layout.ring_slots) * 512);
        let both = rng.below(3);
        if both != 0 {
            platter.spoil(place);
        }
        if both != 1 {
            platter.flip(slot, 33);
        }
        let recovered = world.node.reopen();
        assert!(recovered.view_state.view >= world.view);
        if recovered.view_state.view.0 < world.views {
            world.log = std::mem::take(&mut world.before);
        }
        let head = recovered.headers.last().unwrap().0.op.0;
        let marks: BTreeMap<u64, Mark> = recovered.headers.iter().map(|(h, mark)| (h.op.0, *mark)).collect();
        for op in world.durable.keys() {
            if *op > head {
                let until = recovered.doubt_until.0;
                assert!(*op <= until, "op {op} was durable, head {head}, doubt until {until} (seed {seed})");
            } else if let Some(mark) = marks.get(op) {
                assert_ne!(*mark, Mark::Nack, "op {op} was durable (seed {seed})");
            }
        }
        faulty += u64::from(recovered.headers.iter().any(|(_, mark)| *mark == Mark::Unknown));
        uncertain += u64::from(!recovered.head_certain() || recovered.gap.is_some());
        // It heals when the prepares come again; what is sealed is looked at only when it is fetched.
        if recovered.head_certain() && head == world.log.len() as u64 {
            for op in 1..=head {
                let _ = world.node.fetch(op);
            }
            world.resume(&recovered);
            world.node.crash();
            world.node.out.clear();
            for prepare in world.log.clone() {
                assert_eq!(world.node.fetch(prepare.header.op.0).as_ref(), Ok(&prepare));
            }
        }
    }
    assert!(faulty > 20 && uncertain > 5, "{faulty} faulty, {uncertain} uncertain");
}

/// Runs a short story and loses power after each number of answers, with nothing, everything, or every second unit of
/// the unanswered writes on disk.
#[test]
fn every_moment_of_a_short_story_survives_a_power_cut() {
    let mut author = Author::new();
    let log = author.log(0, 12);
    let mut fork = Author::new();
    let _ = fork.log(0, 10);
    let new = fork.next(2, 2000, 7);
    let mut moments = 0;
    for pattern in 0..3 {
        for stop in 0.. {
            let mut node = Node::on(format(), 5);
            let mut promised: BTreeMap<u64, PrepareHeader> = BTreeMap::new();
            let mut view = View(0);
            let finished = tell(&mut node, &log, &new, stop, &mut promised, &mut view);
            let mut unit = 0;
            node.platter.cut_power(|| {
                unit += 1;
                [false, true, unit % 2 == 0][pattern]
            });
            let recovered = node.reopen();
            assert!(recovered.head_certain() && recovered.unknown.is_empty());
            assert!(recovered.view_state.view >= view);
            for (op, header) in promised {
                assert_eq!(node.fetch(op).map(|prepare| prepare.header), Ok(header), "moment {stop}");
            }
            moments += 1;
            if finished {
                break;
            }
        }
    }
    assert!(moments > 80, "{moments} moments");
}

/// Open, append twelve in two bursts, change the view so that the last two go, append another. Stops after `stop` answers.
fn tell(
    node: &mut Node,
    log: &[Prepare],
    new: &Prepare,
    stop: usize,
    promised: &mut BTreeMap<u64, PrepareHeader>,
    view: &mut View,
) -> bool {
    let mut left = stop;
    let mut answer = |node: &mut Node| {
        while !node.platter.asks.is_empty() {
            if left == 0 {
                return false;
            }
            left -= 1;
            let last = node.platter.asks.len() - 1;
            let reads = matches!(node.platter.asks[0], Ask::Read(..));
            node.answer(if reads { 0 } else { last });
            for output in &node.out {
                match output {
                    Output::Durable { op, .. } if *op == new.header.op && *view == View(2) => {
                        promised.insert(op.0, new.header);
                    }
                    Output::Durable { op, .. } => {
                        promised.insert(op.0, log[op.0 as usize - 1].header);
                    }
                    Output::ViewDurable { view: durable, .. } => *view = *durable,
                    _ => {}
                }
            }
            node.out.clear();
        }
        true
    };
    node.input(Input::Start);
    if !answer(node) {
        return false;
    }
    for burst in log.chunks(6) {
        for prepare in burst {
            node.input(Input::Append(prepare.clone()));
        }
        if !answer(node) {
            return false;
        }
        node.input(Input::Committed(Op(burst[0].header.op.0 + 3)));
        if !answer(node) {
            return false;
        }
    }
    let headers: Vec<PrepareHeader> = log[4..10].iter().map(|p| p.header).chain([new.header]).collect();
    // From the moment the view is asked for, ops behind its log are no longer promised.
    node.input(Input::PersistView(ViewState { view: View(2), log_view: View(2), commit: Op(10), headers }));
    node.input(Input::Append(new.clone()));
    let ended = answer(node);
    let adopted = *view == View(2);
    promised.retain(|op, header| *op <= 10 || (adopted && header == &new.header));
    ended
}
