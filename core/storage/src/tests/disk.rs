//! A small disk, and one replica's storage on it.

use std::collections::{BTreeMap, BTreeSet};

use kimberlite_crypto::Checksum;
use kimberlite_io::{
    Address, Buf, Conn, Disk, Event, Frame, Machine, Net, Packet, Place, ReadFault, Token, WriteFault, Zone,
};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{
    ClusterId, Config, Instant, Layout, Now, Op, ReplicaId, RequestNumber, Rng, SessionId, TenantId, Timing,
    View, WallTime,
};
use kimberlite_wire::{NewEntry, NewPrepare, Prepare, PrepareHeader};

use crate::{FormatInput, FormatOutput, Formatter, Input, Output, Recovered, Storage};

/// A power cut tears writes in units of this many bytes.
const UNIT: usize = 512;

pub(super) fn config() -> Config {
    Config {
        cluster: ClusterId(7),
        replica: ReplicaId(1),
        replicas: 3,
        layout: Layout {
            ring_slots: 32,
            segment_size: 64 << 10,
            segment_ops_max: 6,
            prepare_size_max: 16 << 10,
        },
        timing: Timing::PRODUCTION,
        pipeline_max: 8,
        sessions_max: 4,
    }
}

#[derive(Clone, Debug)]
pub(super) enum Ask {
    Read(Token, Place, usize),
    Write(Token, Place, Frame),
}

/// Sectors on a platter, and asks that were not answered.
#[derive(Clone, Default)]
pub(super) struct Platter {
    sectors: BTreeMap<(Zone, u64), Vec<u8>>,
    pub(super) unreadable: BTreeSet<(Zone, u64)>,
    pub(super) asks: Vec<Ask>,
    /// Writes left until the disk is full; none: never.
    pub(super) room: Option<usize>,
    pub(super) broken: bool,
}

impl Disk for Platter {
    fn read(&mut self, token: Token, at: Place, buf: Buf) {
        assert!(at.is_aligned() && buf.len().is_multiple_of(SECTOR_SIZE));
        self.asks.push(Ask::Read(token, at, buf.len()));
    }

    fn write(&mut self, token: Token, at: Place, data: Frame) {
        assert!(at.is_aligned() && data.len().is_multiple_of(SECTOR_SIZE) && data.is_aligned());
        for ask in &self.asks {
            if let Ask::Write(_, other, bytes) = ask {
                let apart = other.zone != at.zone
                    || other.offset + bytes.len() as u64 <= at.offset
                    || at.offset + data.len() as u64 <= other.offset;
                assert!(apart, "writes in flight overlap at {at}");
            }
        }
        self.asks.push(Ask::Write(token, at, data));
    }

    fn trim(&mut self, _: Token, _: Place, _: u64) {
        panic!("storage trims nothing");
    }
}

impl Net for Platter {
    fn send(&mut self, _: ReplicaId, _: Packet) {
        panic!("storage knows no network");
    }
    fn connect(&mut self, _: Conn, _: Address) {
        panic!("storage knows no network");
    }
    fn stream(&mut self, _: Conn, _: Frame) {
        panic!("storage knows no network");
    }
    fn grant(&mut self, _: Conn, _: u32) {
        panic!("storage knows no network");
    }
    fn close(&mut self, _: Conn) {
        panic!("storage knows no network");
    }
}

fn keys(place: Place, len: usize) -> impl Iterator<Item = (Zone, u64)> {
    (0..len / SECTOR_SIZE).map(move |index| (place.zone, place.offset + (index * SECTOR_SIZE) as u64))
}

impl Platter {
    /// Answers the ask at `index`.
    pub(super) fn answer(&mut self, index: usize) -> Event {
        match self.asks.remove(index) {
            Ask::Read(token, place, len) => Event::Read { token, result: self.read_now(place, len) },
            Ask::Write(token, place, data) => {
                if self.broken {
                    return Event::Written { token, result: Err(WriteFault::Failed) };
                }
                if self.room == Some(0) {
                    return Event::Written { token, result: Err(WriteFault::NoSpace) };
                }
                self.room = self.room.map(|left| left - 1);
                for (key, bytes) in keys(place, data.len()).zip(data.chunks(SECTOR_SIZE)) {
                    self.unreadable.remove(&key);
                    self.sectors.insert(key, bytes.to_vec());
                }
                Event::Written { token, result: Ok(()) }
            }
        }
    }

    fn read_now(&self, place: Place, len: usize) -> Result<Buf, ReadFault> {
        let mut buf = Buf::zeroed(len);
        for (key, part) in keys(place, len).zip(buf.chunks_mut(SECTOR_SIZE)) {
            if self.unreadable.contains(&key) {
                return Err(ReadFault::Failed);
            }
            part.copy_from_slice(self.sectors.get(&key).ok_or(ReadFault::Absent)?);
        }
        Ok(buf)
    }

    /// The power goes: of every unanswered write any set of units lands, all asks are forgotten.
    pub(super) fn cut_power(&mut self, mut lands: impl FnMut() -> bool) {
        for ask in std::mem::take(&mut self.asks) {
            if let Ask::Write(_, place, data) = ask {
                for (key, bytes) in keys(place, data.len()).zip(data.chunks(SECTOR_SIZE)) {
                    for (unit, new) in bytes.chunks(UNIT).enumerate() {
                        if lands() {
                            let sector = self.sectors.entry(key).or_insert_with(|| vec![0; SECTOR_SIZE]);
                            sector[unit * UNIT..][..UNIT].copy_from_slice(new);
                        }
                    }
                }
            }
        }
    }

    /// Flips a bit.
    pub(super) fn flip(&mut self, place: Place, byte: usize) {
        let at = place.offset + byte as u64;
        let sector = at / SECTOR_SIZE as u64 * SECTOR_SIZE as u64;
        let within = (at - sector) as usize;
        self.sectors.get_mut(&(place.zone, sector)).expect("something was written there")[within] ^= 1;
    }

    /// Makes a sector unreadable until it is written again.
    pub(super) fn spoil(&mut self, place: Place) {
        self.unreadable.insert((place.zone, place.offset / SECTOR_SIZE as u64 * SECTOR_SIZE as u64));
    }

    /// What stands there, zeros where nothing was written.
    pub(super) fn bytes(&self, place: Place, len: usize) -> Vec<u8> {
        let blank = vec![0; SECTOR_SIZE];
        keys(place, len).flat_map(|key| self.sectors.get(&key).unwrap_or(&blank).clone()).collect()
    }

    /// Puts bytes there behind everyone's back.
    pub(super) fn put(&mut self, place: Place, bytes: &[u8]) {
        for (key, bytes) in keys(place, bytes.len()).zip(bytes.chunks(SECTOR_SIZE)) {
            self.sectors.insert(key, bytes.to_vec());
        }
    }

    pub(super) fn has(&self, place: Place) -> bool {
        self.sectors.contains_key(&(place.zone, place.offset))
    }
}

/// A data directory with a machine on it, and what the machine said.
pub(super) struct Node {
    pub(super) platter: Platter,
    pub(super) storage: Storage,
    pub(super) out: Vec<Output>,
    pub(super) now: u64,
    rng: Rng,
}

impl Node {
    /// A freshly formatted, opened node.
    pub(super) fn fresh(seed: u64) -> Self {
        let mut node = Self::on(format(), seed);
        node.open();
        node
    }

    /// A machine on a platter, not started.
    pub(super) fn on(mut platter: Platter, seed: u64) -> Self {
        platter.asks.clear();
        let rng = kimberlite_types::Streams::new(seed).stream("disk", 0);
        Self { platter, storage: Storage::new(config()), out: Vec::new(), now: 0, rng }
    }

    pub(super) fn input(&mut self, input: Input) {
        let now = Now { monotonic: Instant(self.now), wall: WallTime(self.now) };
        self.storage.on(now, input, &mut self.platter, &mut self.out);
    }

    /// Answers one ask, chosen by luck. False when there is none.
    pub(super) fn step(&mut self) -> bool {
        if self.platter.asks.is_empty() {
            return false;
        }
        let index = self.rng.index(self.platter.asks.len());
        self.answer(index);
        true
    }

    pub(super) fn answer(&mut self, index: usize) {
        let event = self.platter.answer(index);
        self.input(Input::Event(event));
    }

    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    /// Starts the machine and runs until it is open. Panics with the reason when it halts.
    pub(super) fn open(&mut self) -> Recovered {
        self.input(Input::Start);
        self.run();
        let recovered = self.out.iter().find_map(|output| match output {
            Output::Opened(recovered) => Some((**recovered).clone()),
            Output::Halted(reason) => panic!("{reason}"),
            _ => None,
        });
        recovered.expect("an open ends")
    }

    /// Loses power and opens again; every other time it loses power once more while it opens.
    pub(super) fn crash(&mut self) -> Recovered {
        self.cut_power();
        if self.rng.chance_ppm(500_000) {
            self.storage = Storage::new(config());
            self.input(Input::Start);
            for _ in 0..self.rng.below(60) {
                self.step();
            }
            self.cut_power();
        }
        self.reopen()
    }

    fn cut_power(&mut self) {
        let rng = &mut self.rng;
        self.platter.cut_power(|| rng.chance_ppm(500_000));
    }

    /// Opens the platter as it is with a new machine.
    pub(super) fn reopen(&mut self) -> Recovered {
        self.platter.asks.clear();
        self.storage = Storage::new(config());
        self.out.clear();
        self.open()
    }

    pub(super) fn durable(&self) -> Vec<u64> {
        self.out
            .iter()
            .filter_map(|output| match output {
                Output::Durable { op, .. } => Some(op.0),
                _ => None,
            })
            .collect()
    }

    /// Fetches an op and answers the result.
    pub(super) fn fetch(&mut self, op: u64) -> Result<Prepare, crate::FetchError> {
        self.fetch_as(op, None)
    }

    /// Fetches the op with this header and answers the result.
    pub(super) fn fetch_this(&mut self, header: &PrepareHeader) -> Result<Prepare, crate::FetchError> {
        self.fetch_as(header.op.0, Some(header.checksum))
    }

    fn fetch_as(&mut self, op: u64, checksum: Option<Checksum>) -> Result<Prepare, crate::FetchError> {
        self.out.clear();
        self.input(Input::Fetch { op: Op(op), checksum });
        self.run();
        // What was found beside it is told as well, of other ops.
        self.out.retain(|output| !matches!(output, Output::Fetched { op: of, .. } if of.0 != op));
        self.fetched()
    }

    /// The answer to the fetch since which nothing was forgotten.
    pub(super) fn fetched(&mut self) -> Result<Prepare, crate::FetchError> {
        let found = self.out.drain(..).find_map(|output| match output {
            Output::Fetched { result, .. } => Some(result),
            _ => None,
        });
        found.expect("every fetch is answered")
    }

    /// Appends prepares and commits them, one by one.
    pub(super) fn append_all(&mut self, log: &[Prepare]) {
        for prepare in log {
            self.input(Input::Append(prepare.clone()));
            self.run();
            self.input(Input::Committed(prepare.header.op));
        }
        self.run();
    }
}

/// A formatted platter.
pub(super) fn format() -> Platter {
    let mut platter = Platter::default();
    let mut formatter = Formatter::new(config());
    let mut out = Vec::new();
    formatter.on(Now::default(), FormatInput::Start, &mut platter, &mut out);
    while !platter.asks.is_empty() {
        let event = platter.answer(0);
        formatter.on(Now::default(), FormatInput::Event(event), &mut platter, &mut out);
    }
    assert_eq!(out, [FormatOutput::Done]);
    platter
}

/// Builds logs the way a primary does.
#[derive(Clone)]
pub(super) struct Author {
    pub(super) head: PrepareHeader,
}

impl Author {
    pub(super) fn new() -> Self {
        Self { head: PrepareHeader::root(config().cluster) }
    }

    /// The next prepare, with a command of `len` bytes of `fill`.
    pub(super) fn next(&mut self, view: u64, len: usize, fill: u8) -> Prepare {
        let layout = config().layout;
        let new = NewPrepare {
            parent: &self.head,
            view: View(view),
            commit: Op(self.head.op.0.saturating_sub(4)),
            timestamp: WallTime(self.head.timestamp.0 + 1),
            layout: &layout,
            proposer: ReplicaId(0),
        };
        let command = vec![fill; len];
        let entry = NewEntry {
            session: SessionId::NONE,
            request: RequestNumber(0),
            tenant: TenantId(1),
            command: &command,
        };
        let prepare = Prepare::build(&new, &[entry]);
        self.head = prepare.header;
        prepare
    }

    pub(super) fn log(&mut self, view: u64, count: usize) -> Vec<Prepare> {
        (0..count).map(|n| self.next(view, 100 + n * 997 % 9000, n as u8)).collect()
    }
}
