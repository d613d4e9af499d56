//! Where all luck of a world comes from, and how it is written down.
//!
//! Every random choice belongs to a *lane*: a concern and a key. A lane draws from its own ChaCha stream,
//! so switching one user of luck off never shifts another. What was drawn can be recorded as data and
//! given back later; a lane whose record ends goes on with its stream, at the place it would have reached.
//!
//! Whoever shrinks a record must know what in it is a fault. A fault by rate is a decision of its own, and its *no* is as
//! much part of the lane as its *yes*: turned off in place ([`DecisionLog::set_at`]) it moves no other decision. A
//! fault by the policy takes several decisions; [`Dice::positions`] before and after tell which, so that they can be
//! taken out together ([`DecisionLog::cut`]) and the next one finds its own.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use kimberlite_types::{Rng, Streams};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::steer::Steering;

/// What a choice is about. Part of the format of a [`DecisionLog`]: variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Concern {
    /// Packets between replicas: delay, loss, duplicates, corruption.
    Network,
    /// Byte streams between clients and replicas: delay, cuts, resets.
    Stream,
    /// Disks: latency and faults by rate.
    Disk,
    /// Clocks.
    Clock,
    /// What a crash leaves of work in flight, and when crashes come.
    Crash,
    /// Pauses, restarts, upgrades.
    Process,
    /// Which copies of a piece of data may be damaged.
    Atlas,
    /// What clients ask.
    Workload,
    /// When things happen that are neither of the above.
    Schedule,
    /// Which fault families are on, and sizes and rates of a run.
    Swarm,
    /// What a lying node says.
    Byzantine,
    /// Joining, leaving, replacing.
    Membership,
    /// Seeds handed to machines when they are opened.
    Machine,
}

impl Concern {
    /// Every concern, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Network,
        Self::Stream,
        Self::Disk,
        Self::Clock,
        Self::Crash,
        Self::Process,
        Self::Atlas,
        Self::Workload,
        Self::Schedule,
        Self::Swarm,
        Self::Byzantine,
        Self::Membership,
        Self::Machine,
    ];

    /// The name its streams are derived from. Never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Stream => "stream",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Crash => "crash",
            Self::Process => "process",
            Self::Atlas => "atlas",
            Self::Workload => "workload",
            Self::Schedule => "schedule",
            Self::Swarm => "swarm",
            Self::Byzantine => "byzantine",
            Self::Membership => "membership",
            Self::Machine => "machine",
        }
    }
}

/// Every decision of a run, by lane. Serialises to a few bytes per decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionLog {
    #[serde(deserialize_with = "few_lanes")]
    lanes: BTreeMap<(Concern, u64), Decisions>,
}

/// Lanes of a record at most. A run of 6 replicas and 16 clients has a few thousand.
const LANES_MAX: usize = 1 << 18;

/// Reads the lanes of a record, as many as there may be: an empty lane takes a few bytes in a file and many in memory.
fn few_lanes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<(Concern, u64), Decisions>, D::Error> {
    struct Lanes;
    impl<'de> Visitor<'de> for Lanes {
        type Value = BTreeMap<(Concern, u64), Decisions>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {LANES_MAX} lanes")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut lanes = BTreeMap::new();
            while let Some((key, lane)) = map.next_entry()? {
                lanes.insert(key, lane);
                if lanes.len() > LANES_MAX {
                    return Err(A::Error::custom("too many lanes"));
                }
            }
            Ok(lanes)
        }
    }
    deserializer.deserialize_map(Lanes)
}

/// The decisions of one lane, in order, as LEB128 numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Decisions {
    bytes: Vec<u8>,
}

impl Decisions {
    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// The value at byte `*at`, moving `at` behind it; nothing at the end or where the bytes make no sense.
    fn next(&self, at: &mut usize) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn values(&self) -> impl Iterator<Item = u64> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || self.next(&mut at))
    }
}

impl DecisionLog {
    /// The lanes that hold decisions, with how many each holds.
    pub fn lanes(&self) -> impl Iterator<Item = (Concern, u64, usize)> + '_ {
        self.lanes.iter().map(|((concern, key), lane)| (*concern, *key, lane.values().count()))
    }

    /// The decisions of one lane, in order.
    pub fn decisions(&self, concern: Concern, key: u64) -> Vec<u64> {
        self.lanes.get(&(concern, key)).map(|lane| lane.values().collect()).unwrap_or_default()
    }

    /// Replaces the decisions of one lane; what comes behind the last one is drawn from its stream.
    pub fn set(&mut self, concern: Concern, key: u64, values: impl IntoIterator<Item = u64>) {
        let mut lane = Decisions::default();
        values.into_iter().for_each(|value| lane.push(value));
        self.lanes.insert((concern, key), lane);
    }

    /// Forgets one lane: it is drawn afresh from its stream.
    pub fn forget(&mut self, concern: Concern, key: u64) {
        self.lanes.remove(&(concern, key));
    }

    /// Changes single decisions of one lane in place; the others stay where they are. Indexes behind its end are
    /// ignored.
    pub fn set_at(&mut self, concern: Concern, key: u64, changes: impl IntoIterator<Item = (u64, u64)>) {
        let mut values = self.decisions(concern, key);
        for (index, value) in changes {
            if let Some(there) = usize::try_from(index).ok().and_then(|index| values.get_mut(index)) {
                *there = value;
            }
        }
        self.set(concern, key, values);
    }

    /// Takes decisions out of one lane; those behind them move up. The ranges do not overlap.
    pub fn cut(&mut self, concern: Concern, key: u64, ranges: &[Range<u64>]) {
        let values = self.decisions(concern, key);
        let stays = |index: u64| !ranges.iter().any(|range| range.contains(&index));
        let left = (0..).zip(values).filter(|(index, _)| stays(*index)).map(|(_, value)| value);
        self.set(concern, key, left.collect::<Vec<_>>());
    }

    /// How many decisions there are for each concern, if any.
    pub fn by_concern(&self) -> Vec<(Concern, usize)> {
        let mut counts: BTreeMap<Concern, usize> = BTreeMap::new();
        for (concern, _, count) in self.lanes() {
            *counts.entry(concern).or_default() += count;
        }
        counts.into_iter().collect()
    }

    /// Bytes of all decisions.
    pub fn size(&self) -> usize {
        self.lanes.values().map(|lane| lane.bytes.len()).sum()
    }
}

/// A fault by rate that was decided to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The lane's concern.
    pub concern: Concern,
    /// The lane's key.
    pub key: u64,
    /// The number of the decision within its lane.
    pub index: u64,
}

/// How a replay first left its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The lane's concern.
    pub concern: Concern,
    /// The lane's key.
    pub key: u64,
    /// The number of the decision within its lane, counted from 0.
    pub index: u64,
    /// What the record said, if it said anything: then it was not below what was asked for.
    pub recorded: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Free,
    Recording,
    Replaying,
}

/// One lane: its stream, what is recorded of it, and how far a replay has come.
#[derive(Clone, Debug)]
struct Lane {
    concern: Concern,
    key: u64,
    rng: Rng,
    drawn: u64,
    made: Decisions,
    given: Decisions,
    given_at: usize,
}

/// All the luck of one world.
#[derive(Clone, Debug)]
pub struct Dice {
    streams: Streams,
    mode: Mode,
    lanes: Vec<Lane>,
    /// Lane number plus one by concern and small key, since most keys are small and this is on every path.
    near: [Vec<u32>; Concern::ALL.len()],
    far: BTreeMap<(Concern, u64), u32>,
    given: DecisionLog,
    divergence: Option<Divergence>,
    steering: Option<Steering>,
    fates: Vec<Fate>,
}

/// Fates remembered at most; those behind are decided and recorded all the same.
const FATES_MAX: usize = 1 << 20;

/// Keys below this are found by index.
const NEAR_KEYS: u64 = 1 << 15;

impl Dice {
    /// Draws from the streams of `seed` and keeps no record.
    pub fn free(seed: u64) -> Self {
        Self::new(seed, Mode::Free, DecisionLog::default())
    }

    /// Draws from the streams of `seed` and records every decision.
    pub fn recording(seed: u64) -> Self {
        Self::new(seed, Mode::Recording, DecisionLog::default())
    }

    /// Repeats the decisions of `log`, made with `seed`, and records what is really decided.
    pub fn replaying(seed: u64, log: DecisionLog) -> Self {
        Self::new(seed, Mode::Replaying, log)
    }

    /// Draws from the streams of `seed`, but for the decisions that `bytes` name, and records every decision.
    ///
    /// The bytes come in pairs, in the order in which decisions are made, whatever their lanes: how many decisions are
    /// left alone, and what becomes of the next one. Any bytes will do; without any, this is [`Dice::recording`].
    pub fn steered(seed: u64, bytes: Vec<u8>) -> Self {
        let steering = Some(Steering::new(bytes));
        Self { steering, ..Self::new(seed, Mode::Recording, DecisionLog::default()) }
    }

    fn new(seed: u64, mode: Mode, given: DecisionLog) -> Self {
        Self {
            streams: Streams::new(seed),
            mode,
            lanes: Vec::new(),
            near: std::array::from_fn(|_| Vec::new()),
            far: BTreeMap::new(),
            given,
            divergence: None,
            steering: None,
            fates: Vec::new(),
        }
    }

    /// A number below `bound`, which must be positive.
    pub fn draw(&mut self, concern: Concern, key: u64, bound: u64) -> u64 {
        self.decide(concern, key, bound, |rng| rng.below(bound))
    }

    /// Any 64-bit number.
    pub fn word(&mut self, concern: Concern, key: u64) -> u64 {
        self.decide(concern, key, u64::MAX, |rng| rng.next_u64().min(u64::MAX - 1))
    }

    /// A number in `low..=high`, which must not be all numbers.
    pub fn between(&mut self, concern: Concern, key: u64, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty range");
        low + self.draw(concern, key, high - low + 1)
    }

    /// True in `parts` of 1,000,000 cases. Draws nothing when it cannot be true.
    pub fn chance_ppm(&mut self, concern: Concern, key: u64, parts: u32) -> bool {
        let happens = parts > 0 && self.decide(concern, key, 2, |rng| u64::from(rng.chance_ppm(parts))) == 1;
        let by_rate = matches!(concern, Concern::Network | Concern::Stream | Concern::Disk);
        if happens && by_rate && self.mode != Mode::Free && self.fates.len() < FATES_MAX {
            let number = self.lane(concern, key);
            self.fates.push(Fate { concern, key, index: self.lanes[number].drawn - 1 });
        }
        happens
    }

    /// An exponentially distributed number with the given mean. Draws nothing when the mean is zero.
    pub fn exponential(&mut self, concern: Concern, key: u64, mean: u64) -> u64 {
        if mean == 0 { 0 } else { self.decide(concern, key, u64::MAX, |rng| rng.exponential(mean)) }
    }

    /// A uniform index below `len`, which must be positive.
    pub fn index(&mut self, concern: Concern, key: u64, len: usize) -> usize {
        self.draw(concern, key, len as u64) as usize
    }

    /// The faults by rate that were decided to happen, in the order of their decision; none when nothing is recorded.
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Whether decisions are written down.
    pub fn is_recorded(&self) -> bool {
        self.mode != Mode::Free
    }

    /// How many decisions each lane of a concern has made.
    pub fn positions(&self, concern: Concern) -> BTreeMap<u64, u64> {
        self.lanes.iter().filter(|lane| lane.concern == concern).map(|lane| (lane.key, lane.drawn)).collect()
    }

    /// How many decisions one lane has made.
    pub fn position(&self, concern: Concern, key: u64) -> u64 {
        let lane = self.lanes.iter().find(|lane| lane.concern == concern && lane.key == key);
        lane.map_or(0, |lane| lane.drawn)
    }

    /// Where a replay first left its record, if it did.
    pub const fn divergence(&self) -> Option<Divergence> {
        self.divergence
    }

    /// What was decided so far; empty when nothing is recorded.
    pub fn log(&self) -> DecisionLog {
        let lanes = self.lanes.iter().filter(|lane| !lane.made.bytes.is_empty());
        DecisionLog { lanes: lanes.map(|lane| ((lane.concern, lane.key), lane.made.clone())).collect() }
    }

    /// One decision. The stream always advances by one word, so that a lane whose record ends goes on
    /// where it would have been.
    fn decide(&mut self, concern: Concern, key: u64, bound: u64, roll: impl FnOnce(&mut Rng) -> u64) -> u64 {
        let number = self.lane(concern, key);
        let lane = &mut self.lanes[number];
        let mut value = roll(&mut lane.rng);
        if let Some(steering) = &mut self.steering {
            value = steering.decide(value, bound);
        }
        if self.mode == Mode::Replaying {
            let recorded = lane.given.next(&mut lane.given_at);
            match recorded {
                Some(given) if given < bound => value = given,
                _ => {
                    let index = lane.drawn;
                    self.divergence.get_or_insert(Divergence { concern, key, index, recorded });
                }
            }
        }
        lane.drawn += 1;
        if self.mode != Mode::Free {
            lane.made.push(value);
        }
        value
    }

    fn lane(&mut self, concern: Concern, key: u64) -> usize {
        let near = &self.near[concern as usize];
        let known = if key < NEAR_KEYS {
            near.get(key as usize).copied().unwrap_or(0)
        } else {
            self.far.get(&(concern, key)).copied().unwrap_or(0)
        };
        match known {
            0 => self.open_lane(concern, key),
            number => number as usize - 1,
        }
    }

    #[cold]
    fn open_lane(&mut self, concern: Concern, key: u64) -> usize {
        self.lanes.push(Lane {
            concern,
            key,
            rng: self.streams.stream(concern.name(), key),
            drawn: 0,
            made: Decisions::default(),
            given: self.given.lanes.remove(&(concern, key)).unwrap_or_default(),
            given_at: 0,
        });
        let number = u32::try_from(self.lanes.len()).expect("lanes are few");
        if key < NEAR_KEYS {
            let near = &mut self.near[concern as usize];
            if near.len() <= key as usize {
                near.resize(key as usize + 1, 0);
            }
            near[key as usize] = number;
        } else {
            self.far.insert((concern, key), number);
        }
        self.lanes.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_draws(dice: &mut Dice) -> Vec<u64> {
        (0..200)
            .map(|i| match i % 4 {
                0 => dice.draw(Concern::Network, i % 3, 1_000),
                1 => u64::from(dice.chance_ppm(Concern::Disk, 1, 300_000)),
                2 => dice.exponential(Concern::Crash, 1 << 40, 5_000),
                _ => dice.word(Concern::Workload, 7),
            })
            .collect()
    }

    #[test]
    fn a_replay_repeats_the_record_through_its_serialised_form() {
        let mut recorder = Dice::recording(5);
        let drawn = some_draws(&mut recorder);
        let bytes = postcard::to_allocvec(&recorder.log()).unwrap();
        let log: DecisionLog = postcard::from_bytes(&bytes).unwrap();
        let mut replay = Dice::replaying(5, log);
        assert_eq!(some_draws(&mut replay), drawn);
        assert_eq!(replay.divergence(), None);
        assert_eq!(replay.log(), recorder.log());
        assert_eq!(some_draws(&mut Dice::free(5)), drawn);
        assert_ne!(some_draws(&mut Dice::free(6)), drawn);
    }

    #[test]
    fn forgetting_one_lane_leaves_the_others_as_they_were() {
        let mut recorder = Dice::recording(5);
        let drawn = some_draws(&mut recorder);
        let mut log = recorder.log();
        log.set(Concern::Disk, 1, vec![1; 50]);
        let mut replay = Dice::replaying(5, log);
        for (index, (now, then)) in some_draws(&mut replay).into_iter().zip(drawn).enumerate() {
            assert_eq!(now, if index % 4 == 1 { 1 } else { then });
        }
    }

    #[test]
    fn a_record_that_ends_goes_on_with_the_stream_and_tells_where() {
        let mut recorder = Dice::recording(9);
        let drawn: Vec<u64> = (0..20).map(|_| recorder.draw(Concern::Schedule, 0, 1 << 20)).collect();
        let mut log = recorder.log();
        log.set(Concern::Schedule, 0, drawn[..12].to_vec());
        let mut replay = Dice::replaying(9, log);
        let again: Vec<u64> = (0..20).map(|_| replay.draw(Concern::Schedule, 0, 1 << 20)).collect();
        assert_eq!(again, drawn);
        let expected = Divergence { concern: Concern::Schedule, key: 0, index: 12, recorded: None };
        assert_eq!(replay.divergence(), Some(expected));
    }

    #[test]
    fn a_recorded_value_out_of_bounds_is_a_divergence_and_never_used() {
        let mut log = DecisionLog::default();
        log.set(Concern::Clock, 3, [10]);
        let mut replay = Dice::replaying(1, log);
        assert!(replay.draw(Concern::Clock, 3, 5) < 5);
        assert_eq!(replay.divergence().and_then(|divergence| divergence.recorded), Some(10));
    }

    #[test]
    fn steered_dice_change_what_they_are_told_and_their_record_repeats_it() {
        let drawn = some_draws(&mut Dice::free(5));
        assert_eq!(some_draws(&mut Dice::steered(5, Vec::new())), drawn);
        let mut steered = Dice::steered(5, vec![9, 1, 30, 255]);
        let changed = some_draws(&mut steered);
        let differing: Vec<usize> =
            (0..drawn.len()).filter(|index| drawn[*index] != changed[*index]).collect();
        assert!(
            !differing.is_empty() && differing.iter().all(|index| [9, 40].contains(index)),
            "{differing:?}"
        );
        assert_eq!(some_draws(&mut Dice::replaying(5, steered.log())), changed);
    }

    #[test]
    fn a_fault_turned_off_in_place_moves_no_other_decision() {
        let mut recorder = Dice::recording(5);
        let drawn = some_draws(&mut recorder);
        let fate = recorder.fates()[3];
        let mut log = recorder.log();
        log.set_at(fate.concern, fate.key, [(fate.index, 0)]);
        let mut replay = Dice::replaying(5, log);
        let again = some_draws(&mut replay);
        let differing: Vec<_> = again.iter().zip(&drawn).filter(|(now, then)| now != then).collect();
        assert_eq!(differing, [(&0, &1)]);
        assert_eq!(replay.fates().len(), recorder.fates().len() - 1);
        assert_eq!(replay.divergence(), None);
        assert!(Dice::free(5).fates().is_empty());
    }

    #[test]
    fn decisions_cut_out_leave_the_next_ones_their_own() {
        let mut recorder = Dice::recording(9);
        let draw = |dice: &mut Dice, count| -> Vec<u64> {
            (0..count).map(|_| dice.draw(Concern::Schedule, 3, 1 << 20)).collect()
        };
        let first = draw(&mut recorder, 4);
        let from = recorder.position(Concern::Schedule, 3);
        draw(&mut recorder, 5);
        let to = recorder.positions(Concern::Schedule)[&3];
        let last = draw(&mut recorder, 6);
        let mut log = recorder.log();
        log.cut(Concern::Schedule, 3, &[from..from + 2, from + 2..to]);
        let mut replay = Dice::replaying(9, log);
        assert_eq!(draw(&mut replay, 4), first);
        assert_eq!(draw(&mut replay, 6), last);
        assert_eq!(replay.divergence(), None);
    }

    #[test]
    fn a_record_of_too_many_lanes_is_refused() {
        let mut log = DecisionLog::default();
        for key in 0..=LANES_MAX as u64 {
            log.set(Concern::Clock, key, []);
        }
        let bytes = postcard::to_allocvec(&log).unwrap();
        assert!(postcard::from_bytes::<DecisionLog>(&bytes).is_err());
        log.forget(Concern::Clock, 0);
        let bytes = postcard::to_allocvec(&log).unwrap();
        assert_eq!(postcard::from_bytes::<DecisionLog>(&bytes), Ok(log));
    }

    #[test]
    fn damaged_records_end_instead_of_panicking() {
        let lane = Decisions { bytes: vec![0xff; 40] };
        assert!(lane.values().count() <= 40);
        assert_eq!(Decisions { bytes: vec![0x80] }.values().count(), 0);
    }
}
