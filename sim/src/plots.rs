//! Plots: a few faults in a row, aimed at who leads and at who holds what.
//!
//! Faults by timer strike blindly. Some histories need several of them to fit together: a primary that is cut off from
//! its peers, though not from its clients, just until another has committed something; a replica that forgets what it
//! acknowledged while those who know are away. A plot looks at the cluster as an adversary would who knows the protocol, and
//! does only what other faults do, too: paths that are blocked, clogged and lossy, crashes, damage within the budget,
//! and frames sent again that somebody kept.

use std::time::Duration;

use kimberlite_io::{Packet, Place, Zone};
use kimberlite_io_sim::{Damage, NodeId};
use kimberlite_types::limits::{HEADER_WINDOW, PREPARE_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_types::{Instant, Op, ReplicaId, View};
use kimberlite_wire::{FrameCommand, FrameHeader, PrepareHeader};

use crate::cluster::Cluster;
use crate::config::{Family, Plot};
use crate::failure::Failure;
use crate::faults::{Question, lane};
use crate::run::{Run, Tick};

/// A plot is looked after this often in the time a replica waits for its primary.
const LOOKS: u32 = 16;

/// What a replica waits for its primary, this many times, is as long as one stage of a plot takes at most.
const STAGE_MAX: u32 = 8;

/// The same for a plot that waits until somebody is far behind.
const OUTRUN_MAX: u32 = 30;

/// Ops committed until somebody is far behind, at least: more than the headers in memory.
const OUTRUN_MIN: u64 = HEADER_WINDOW as u64 + 2;

/// Deposed one after the other in one plot, less than.
const ROUNDS_MAX: u64 = 4;

/// Prepares at the end of a log that are damaged together with their ring slots, at most.
const FORGOTTEN_MAX: u64 = 4;

/// How often kept frames are sent again when a plot ends, less than.
const REPLAYS_MAX: u64 = 4;

/// A plot under way.
#[derive(Debug)]
pub(crate) struct Scheme {
    plot: Plot,
    number: u16,
    stage: Stage,
    /// Who is cut off, one bit each.
    side: u8,
    /// Whether what goes there is held back and not lost.
    held: bool,
    /// The view that is to end.
    view: View,
    /// What has to be committed before the plot goes on.
    goal: Op,
    /// When it goes on in any case.
    until: Instant,
    rounds: u64,
    victim: ReplicaId,
    /// Who is not heard while others vote, one bit each.
    mute: u8,
    /// Who led when it began.
    primary: ReplicaId,
}

/// Where a plot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What goes to those cut off is held back already; what they send still arrives.
    Muffled,
    /// They are cut off.
    CutOff,
    /// As before, a little longer.
    Lingering,
    /// The primary is gone, and another is waited for.
    Unseated,
    /// Everybody is together again, but prepares get lost on the way.
    Thin,
    /// Those who hold what others lack are away.
    Away,
    /// What was kept is sent again.
    Echoes,
}

/// Classes of frames: prepares are what paths may lose by themselves.
const VIEWS: usize = 0;
const PREPARES: usize = 1;
const ASKS: usize = 2;

/// Which frames somebody keeps: what a view begins with, prepares, and what asks for them.
pub(crate) fn is_worth_keeping(packet: &Packet) -> Option<usize> {
    match FrameHeader::decode(&packet.head).ok()?.command {
        FrameCommand::StartView | FrameCommand::DoViewChange => Some(VIEWS),
        FrameCommand::Prepare => Some(PREPARES),
        FrameCommand::RequestPrepare => Some(ASKS),
        _ => None,
    }
}

impl Run {
    fn plot_ask(&mut self, question: Question, bound: u64) -> u64 {
        self.draw(lane(Family::Plot, question), bound)
    }

    fn patience(&self) -> Duration {
        self.config.timing.view_change
    }

    /// Some part of `most`.
    fn a_while(&mut self, most: Duration) -> Duration {
        most * self.plot_ask(Question::Long, 1_001) as u32 / 1_000
    }

    fn members(&self, side: u8) -> Vec<NodeId> {
        let among = |replica: &ReplicaId| side & (1 << replica.0) != 0;
        self.cluster.replicas().filter(among).map(Cluster::node_of).collect()
    }

    const fn everybody(&self) -> u8 {
        ((1_u16 << self.config.replicas) - 1) as u8
    }

    /// A random set of `count` of those in `of`.
    fn some_of(&mut self, of: u8, count: u32) -> u8 {
        let mut left: Vec<u8> = (0..self.config.replicas).filter(|one| of & (1 << one) != 0).collect();
        let mut chosen = 0;
        for _ in 0..count.min(left.len() as u32) {
            let at = self.plot_ask(Question::Where, left.len() as u64) as usize;
            chosen |= 1 << left.swap_remove(at);
        }
        chosen
    }

    /// Begins a plot, unless one is under way.
    pub(crate) fn strike_plot(&mut self) -> Result<(), Failure> {
        if self.scheme.is_some() || self.config.faults.plots.is_empty() {
            return Ok(());
        }
        let Some(primary) = self.cluster.primary() else { return Ok(()) };
        let plots = self.config.faults.plots.len() as u64;
        let choice = self.plot_ask(Question::How, plots) as usize;
        let plot = self.config.faults.plots[choice];
        let Some(vsr) = self.cluster.node(primary).map(kimberlite_runtime::Node::replica) else {
            return Ok(());
        };
        let (view, commit) = (vsr.view(), vsr.commit_max());
        self.plots = self.plots.wrapping_add(1);
        self.scheme = Some(Scheme {
            plot,
            number: self.plots,
            stage: Stage::CutOff,
            side: 0,
            held: false,
            view,
            goal: commit,
            until: self.now(),
            rounds: self.plot_ask(Question::Again, ROUNDS_MAX),
            victim: primary,
            mute: 0,
            primary,
        });
        let begun = match plot {
            Plot::Depose | Plot::Outrun => self.depose(),
            Plot::Thin => self.stow(),
            Plot::Forget if self.plot_ask(Question::Detail, 2) == 0 => self.part_from_the_slow(false),
            Plot::Forget => self.unseat()?,
        };
        if begun {
            self.look_again();
        } else {
            self.scheme = None;
        }
        Ok(())
    }

    fn look_again(&mut self) {
        if let Some(scheme) = &self.scheme {
            let tick = Tick::Plot(scheme.number);
            self.schedule(self.patience() / LOOKS, tick);
        }
    }

    /// Time to look after a plot.
    pub(crate) fn on_plot_tick(&mut self, number: u16) -> Result<(), Failure> {
        let Some(scheme) = self.scheme.take_if(|scheme| scheme.number == number) else { return Ok(()) };
        self.scheme = self.go_on(scheme)?;
        self.look_again();
        Ok(())
    }

    /// The next stage of a plot, or the same; nothing when it is over.
    fn go_on(&mut self, mut scheme: Scheme) -> Result<Option<Scheme>, Failure> {
        if scheme.held {
            self.hold_back(scheme.side);
        }
        let late = self.now() >= scheme.until;
        let due = late || self.is_reached(&scheme);
        match (scheme.plot, scheme.stage) {
            (_, Stage::Muffled) if late => {
                let rest = self.everybody() & !scheme.side;
                let (inside, outside) = (self.members(scheme.side), self.members(rest));
                self.cluster.world.network_mut().block(&inside, &outside);
                let longest = self.longest(scheme.plot);
                self.enter(&mut scheme, Stage::CutOff, longest);
            }
            (Plot::Depose | Plot::Outrun, Stage::CutOff) if due => {
                let most = if self.plot_ask(Question::Detail, 2) == 0 {
                    self.patience() * 2
                } else {
                    Duration::ZERO
                };
                let wait = self.a_while(most);
                self.enter(&mut scheme, Stage::Lingering, wait);
            }
            (Plot::Depose | Plot::Outrun, Stage::Lingering) if late => {
                if scheme.rounds > 0 && scheme.plot == Plot::Depose {
                    // Whoever leads now is next, and those before are back in the same moment.
                    self.cluster.world.network_mut().heal();
                    scheme.rounds -= 1;
                    self.scheme = Some(scheme);
                    let begun = self.depose();
                    let scheme = self.scheme.take();
                    return Ok(scheme.filter(|_| begun));
                }
                self.echo(&mut scheme);
            }
            (Plot::Thin, Stage::CutOff) if due => {
                self.thin(&mut scheme)?;
            }
            (Plot::Thin, Stage::Thin) if due => {
                self.silence(&scheme);
                let longest = self.patience() * 2;
                self.enter(&mut scheme, Stage::Lingering, longest);
            }
            (Plot::Thin, Stage::Lingering) if late || self.gaps().is_some() => self.take_away(&mut scheme)?,
            (Plot::Forget, Stage::Unseated) if due => {
                self.scheme = Some(scheme);
                let begun = self.part_from_the_slow(true);
                let scheme = self.scheme.take();
                return Ok(scheme.filter(|_| begun));
            }
            (Plot::Forget, Stage::CutOff) if due => self.forget(&mut scheme)?,
            (_, Stage::Away) if due => {
                for replica in self.cluster.replicas() {
                    self.restart(Cluster::node_of(replica))?;
                }
                self.echo(&mut scheme);
            }
            (Plot::Forget, Stage::Away) => self.send_again(scheme.primary, scheme.victim, &[VIEWS]),
            (_, Stage::Echoes) if late => {
                if scheme.rounds == 0 {
                    self.cluster.world.network_mut().heal();
                    return Ok(None);
                }
                scheme.rounds -= 1;
                let behind: Vec<ReplicaId> =
                    self.cluster.replicas().filter(|one| scheme.side & (1 << one.0) != 0).collect();
                for to in behind {
                    for from in self.cluster.replicas() {
                        self.send_again(from, to, &[VIEWS, PREPARES, ASKS]);
                    }
                }
                let wait = self.patience() / 4;
                self.enter(&mut scheme, Stage::Echoes, wait);
            }
            _ => {}
        }
        Ok(Some(scheme))
    }

    fn longest(&self, plot: Plot) -> Duration {
        self.patience() * if plot == Plot::Outrun { OUTRUN_MAX } else { STAGE_MAX }
    }

    fn enter(&mut self, scheme: &mut Scheme, stage: Stage, for_at_most: Duration) {
        scheme.stage = stage;
        scheme.until = self.now().after(for_at_most);
    }

    /// Whether a later view has committed what the plot waits for; or, in a plot that waits for the present view, this one.
    fn is_reached(&self, scheme: &Scheme) -> bool {
        let within = matches!(scheme.plot, Plot::Forget | Plot::Thin) && scheme.stage == Stage::CutOff;
        self.cluster.replicas().filter_map(|replica| self.cluster.node(replica)).any(|node| {
            let vsr = node.replica();
            let reached = if scheme.plot == Plot::Thin && within { vsr.op() } else { vsr.commit_max() };
            if matches!(scheme.stage, Stage::Unseated | Stage::Thin) {
                return vsr.is_primary() && vsr.view() > scheme.view;
            }
            vsr.is_primary() && (within || vsr.view() > scheme.view) && reached >= scheme.goal
        })
    }

    // Depose.

    /// Cuts the primary off from its peers, alone or with others, and from no client.
    fn depose(&mut self) -> bool {
        let (Some(primary), Some(mut scheme)) = (self.cluster.primary(), self.scheme.take()) else {
            return false;
        };
        let Some(vsr) = self.cluster.node(primary).map(kimberlite_runtime::Node::replica) else {
            return false;
        };
        let (view, op) = (vsr.view(), vsr.op());
        let quorums = self.config.config(primary).quorums();
        let most = self.config.replicas - quorums.view_change;
        if most == 0 {
            return false;
        }
        let with = self.plot_ask(Question::Whom, u64::from(most)) as u32;
        let side = 1 << primary.0 | self.some_of(self.everybody() & !(1 << primary.0), with);
        let ahead = match scheme.plot {
            Plot::Outrun => OUTRUN_MIN + self.plot_ask(Question::Long, OUTRUN_MIN),
            _ => 1,
        };
        scheme.side = side;
        scheme.view = view;
        scheme.primary = primary;
        scheme.goal = Op(self.cluster.node(primary).map_or(op, |node| node.replica().commit_max()).0 + ahead);
        scheme.held = self.plot_ask(Question::Detail, 2) == 0;
        if scheme.held {
            self.hold_back(side);
            let wait = self.a_while(self.patience());
            self.enter(&mut scheme, Stage::Muffled, wait);
        } else {
            let (inside, outside) = (self.members(side), self.members(self.everybody() & !side));
            let network = self.cluster.world.network_mut();
            network.block(&inside, &outside);
            network.block(&outside, &inside);
            let longest = self.longest(scheme.plot);
            self.enter(&mut scheme, Stage::CutOff, longest);
        }
        self.scheme = Some(scheme);
        true
    }

    /// Holds everything back that goes to those cut off, until somebody looks again.
    fn hold_back(&mut self, side: u8) {
        let (inside, outside) = (self.members(side), self.members(self.everybody() & !side));
        let until = self.now().after(self.patience() / LOOKS);
        let network = self.cluster.world.network_mut();
        for from in &outside {
            for to in &inside {
                network.clog(*from, *to, until);
            }
        }
    }

    /// Everybody is back, and what was kept comes again.
    fn echo(&mut self, scheme: &mut Scheme) {
        self.cluster.world.network_mut().heal();
        if scheme.plot != Plot::Forget && self.plot_ask(Question::Detail, 2) == 0 {
            // Those who were away get little at first.
            for from in self.members(self.everybody()) {
                for to in self.members(scheme.side) {
                    self.cluster.world.network_mut().thin(from, to, PREPARES, 800_000);
                }
            }
        }
        scheme.held = false;
        scheme.rounds = self.plot_ask(Question::Again, REPLAYS_MAX);
        let wait = self.a_while(self.patience() / 4);
        self.enter(scheme, Stage::Echoes, wait);
    }

    fn send_again(&mut self, from: ReplicaId, to: ReplicaId, classes: &[usize]) {
        let within = self.patience() / 4;
        for class in classes {
            if from != to {
                self.cluster.world.replay_kept(Cluster::node_of(from), Cluster::node_of(to), *class, within);
            }
        }
    }

    // Thin.

    /// Lets the primary gather prepares that nobody else has.
    fn stow(&mut self) -> bool {
        if self.config.replicas < 3 {
            return false;
        }
        let ahead = 2 + self.plot_ask(Question::Long, 7);
        let until = self.now().after(self.patience() / 2);
        let Some(scheme) = &mut self.scheme else { return false };
        scheme.side = 1 << scheme.primary.0;
        scheme.goal = Op(scheme.goal.0 + ahead);
        scheme.until = until;
        let side = scheme.side;
        let (inside, outside) = (self.members(side), self.members(self.everybody() & !side));
        let network = self.cluster.world.network_mut();
        network.block(&inside, &outside);
        network.block(&outside, &inside);
        true
    }

    /// The primary loses its power, and comes back among those who elect another; each path loses packets at a rate of
    /// its own.
    fn thin(&mut self, scheme: &mut Scheme) -> Result<(), Failure> {
        if let Some(node) = self.cluster.node(scheme.primary) {
            scheme.goal = node.replica().commit_max().next();
        }
        self.crash_replica(scheme.primary)?;
        let wait = self.a_while(self.patience() / 8);
        self.schedule(wait, Tick::Restart(Cluster::node_of(scheme.primary)));
        self.cluster.world.network_mut().heal();
        // Those whose votes are not needed are not heard while the others vote.
        let config = self.config.config(scheme.primary);
        let next = config.primary(scheme.view.next());
        let voters = 1 << next.0 | 1 << scheme.primary.0;
        let mute = u32::from(self.config.replicas - config.quorums().view_change);
        scheme.mute = self.some_of(self.everybody() & !voters, mute);
        let (mute, all) = (self.members(scheme.mute), self.members(self.everybody()));
        self.cluster.world.network_mut().block(&mute, &all);
        for from in self.members(self.everybody()) {
            for to in self.members(self.everybody()) {
                let loss = [600_000, 800_000, 900_000, 950_000][self.plot_ask(Question::Where, 4) as usize];
                if from != to {
                    self.cluster.world.network_mut().thin(from, to, PREPARES, loss);
                }
            }
        }
        self.enter(scheme, Stage::Thin, self.patience() * STAGE_MAX);
        Ok(())
    }

    /// Some no longer hear from who leads now.
    fn silence(&mut self, scheme: &Scheme) {
        let (mute, all) = (self.members(scheme.mute), self.members(self.everybody()));
        self.cluster.world.network_mut().open(&mute, &all);
        let leads = Cluster::node_of(self.cluster.primary().unwrap_or(scheme.primary));
        for to in self.members(self.everybody()).into_iter().filter(|to| *to != leads) {
            if self.plot_ask(Question::Where, 2) == 0 {
                self.cluster.world.network_mut().block(&[leads], &[to]);
            }
        }
    }

    /// The primary and another who each lack something that the other has, while more is committed than either has without
    /// gaps, and the other has not heard of it.
    fn gaps(&self) -> Option<(ReplicaId, ReplicaId)> {
        let leads = self.cluster.primary()?;
        let vsr = self.cluster.node(leads)?.replica();
        let commit = vsr.commit_max();
        let lacks: Vec<Op> = vsr.wanted().collect();
        let other = self.cluster.replicas().filter(|other| *other != leads).find(|other| {
            let Some(node) = self.cluster.node(*other) else { return false };
            let other = node.replica();
            let mut gaps = other.wanted().filter(|op| *op > other.commit_max());
            let Some(first) = gaps.next() else { return false };
            other.view() == vsr.view()
                && first <= commit
                && lacks.iter().any(|op| *op <= commit)
                && !lacks.contains(&first)
                && gaps.all(|op| !lacks.contains(&op))
        })?;
        Some((leads, other))
    }

    /// As many as others can do without are cut off, and who leads forgets what is not on its disk.
    fn take_away(&mut self, scheme: &mut Scheme) -> Result<(), Failure> {
        let leads = self.cluster.primary().unwrap_or(scheme.primary);
        let gaps = self.gaps().map_or(0, |(_, other)| 1 << other.0);
        if let Some(node) = self.cluster.node(leads) {
            scheme.view = node.replica().view();
            scheme.goal = node.replica().commit_max().next();
        }
        let far = self.plot_ask(Question::Detail, 2) == 0;
        if far {
            scheme.goal = Op(scheme.goal.0 + OUTRUN_MIN + self.plot_ask(Question::Long, OUTRUN_MIN));
        }
        let quorums = self.config.config(leads).quorums();
        let most = u32::from(self.config.replicas - quorums.view_change);
        let first = if leads == scheme.primary { 0 } else { 1 << scheme.primary.0 };
        let others = self.everybody() & !first & !(1 << leads.0) & !gaps;
        let side = first | self.some_of(others, most.saturating_sub(first.count_ones()));
        let (inside, outside) = (self.members(side), self.members(self.everybody() & !side));
        if self.plot_ask(Question::Detail, 3) == 0 {
            for node in &inside {
                self.damage_end(*node, false);
            }
        }
        scheme.side = side;
        let network = self.cluster.world.network_mut();
        network.heal();
        network.block(&inside, &outside);
        network.block(&outside, &inside);
        self.crash_replica(leads)?;
        let wait = self.a_while(self.patience() / 2);
        self.schedule(wait, Tick::Restart(Cluster::node_of(leads)));
        let longest = self.patience() * if far { OUTRUN_MAX } else { STAGE_MAX };
        self.enter(scheme, Stage::Away, longest);
        Ok(())
    }

    // Forget.

    /// Leaves as many behind as a commit can do without.
    fn part_from_the_slow(&mut self, young: bool) -> bool {
        let candidates: Vec<ReplicaId> = self.cluster.replicas().collect();
        let atlas = self.cluster.world.atlas_mut();
        let mut may: u8 = 0;
        for replica in candidates {
            let ring = atlas.permits(replica, Place::headers(0), SECTOR_SIZE as u64);
            may |= u8::from(ring && atlas.permits(replica, Place::log(0), SECTOR_SIZE as u64)) << replica.0;
        }
        let victim = self.some_of(may, 1);
        let Some(primary) = self.cluster.primary() else { return false };
        let Some((view, op)) =
            self.cluster.node(primary).map(|node| (node.replica().view(), node.replica().op()))
        else {
            return false;
        };
        let quorums = self.config.config(primary).quorums();
        if victim == 0 || self.config.replicas < 3 {
            return false;
        }
        let holders = victim | 1 << primary.0;
        let needed = u32::from(quorums.replication);
        let more = self.some_of(self.everybody() & !holders, needed.saturating_sub(holders.count_ones()));
        let ahead = 1 + self.plot_ask(Question::Long, if young { 2 } else { FORGOTTEN_MAX });
        let until = self.now().after(self.patience() * STAGE_MAX);
        let Some(scheme) = &mut self.scheme else { return false };
        scheme.stage = Stage::CutOff;
        scheme.primary = primary;
        scheme.view = view;
        scheme.victim = ReplicaId(victim.trailing_zeros() as u8);
        scheme.side = holders | more;
        scheme.goal = Op(op.0 + ahead);
        scheme.until = until;
        let side = scheme.side;
        let (inside, outside) = (self.members(side), self.members(self.everybody() & !side));
        let network = self.cluster.world.network_mut();
        network.block(&inside, &outside);
        network.block(&outside, &inside);
        true
    }

    /// Takes the primary away for a moment: what follows happens in a view that has hardly begun.
    fn unseat(&mut self) -> Result<bool, Failure> {
        let until = self.now().after(self.patience() * STAGE_MAX);
        let Some(scheme) = &mut self.scheme else { return Ok(false) };
        scheme.stage = Stage::Unseated;
        scheme.until = until;
        let primary = scheme.primary;
        self.crash_replica(primary)?;
        let wait = self.a_while(self.patience() / 2);
        self.schedule(wait, Tick::Restart(Cluster::node_of(primary)));
        Ok(true)
    }

    /// All who hold what was committed are down, and one of them comes back without it.
    fn forget(&mut self, scheme: &mut Scheme) -> Result<(), Failure> {
        for replica in self.cluster.replicas() {
            if scheme.side & (1 << replica.0) != 0 {
                self.crash_replica(replica)?;
            }
        }
        let victim = Cluster::node_of(scheme.victim);
        let slots_too = self.plot_ask(Question::Detail, 4) > 0;
        self.damage_end(victim, slots_too);
        self.cluster.world.network_mut().heal();
        let wait = self.a_while(self.patience() / 4);
        self.schedule(wait, Tick::Restart(victim));
        scheme.goal = Op(scheme.goal.0.saturating_sub(FORGOTTEN_MAX));
        self.enter(scheme, Stage::Away, self.patience() * STAGE_MAX);
        Ok(())
    }

    /// Damages the last prepares of a log, perhaps together with their ring slots, as far as the budget permits.
    fn damage_end(&mut self, node: NodeId, slots_too: bool) {
        let count = 1 + self.plot_ask(Question::Long, FORGOTTEN_MAX) as usize;
        let disk = self.cluster.world.disk(node);
        let sectors = disk.extent(Zone::Log) / SECTOR_SIZE as u64;
        let header = |sector: u64| {
            let bytes = disk.peek(Zone::Log, sector * SECTOR_SIZE as u64, SECTOR_SIZE);
            PrepareHeader::decode(&bytes).ok().filter(|header| header.place == sector * SECTOR_SIZE as u64)
        };
        let recent = 2 * self.config.layout.segment_size / SECTOR_SIZE as u64;
        let mut found: Vec<PrepareHeader> =
            (sectors.saturating_sub(recent)..sectors).filter_map(header).collect();
        found.sort_by_key(|header| header.op);
        let slots = u64::from(self.config.layout.ring_slots);
        for header in found.iter().rev().take(count) {
            let slot = header.op.0 % slots * PREPARE_HEADER_SIZE as u64;
            let ring = Place::headers(slot - slot % SECTOR_SIZE as u64);
            for place in [Place::log(header.place), ring].into_iter().take(1 + usize::from(slots_too)) {
                let damage = match self.plot_ask(Question::Detail, 2) {
                    0 => Damage::Latent,
                    _ if place.zone == Zone::Log => {
                        Damage::FlipBit(self.plot_ask(Question::Where, 4_096) as u32)
                    }
                    _ => {
                        let bit = self.plot_ask(Question::Where, 4_096);
                        Damage::FlipBit(((slot % SECTOR_SIZE as u64) * 8 + bit) as u32)
                    }
                };
                self.cluster.world.damage(node, place, damage);
            }
        }
    }
}
