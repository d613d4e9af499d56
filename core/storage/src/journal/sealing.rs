//! Segments that never change again: when one can seal, its footer, and what is forgotten then.
//!
//! Also the headers that are told of, which reach into the sealed part.

use alloc::vec::Vec;

use kimberlite_io::{Io, Place};
use kimberlite_types::Op;
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::{HEADERS_MAX, Mark};

use super::{Entry, Journal, State};
use crate::Output;
use crate::asks::{Asks, WriteFor};
use crate::footer::{self, Footer};

impl Journal {
    /// Writes the footer of the next segment, if it can seal: all its prepares are durable, and the first of the
    /// segment behind it is committed.
    pub(crate) fn seal_ready(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        if self.sealing || self.head.place / self.layout.segment_size <= self.sealed_count() {
            return;
        }
        let Some(headers) = self.sealable() else { return };
        let footer = Footer::of(&headers, &self.layout);
        assert!(footer.head.segment == self.sealed_count(), "segments seal in order");
        self.write_footer(&footer, asks, io);
        self.sealing = true;
    }

    /// Writes a footer; [`Journal::footer_written`] hears of it, if the segment was not sealed before.
    pub(crate) fn write_footer(&self, footer: &Footer, asks: &mut Asks, io: &mut dyn Io) {
        let segment = footer.head.segment;
        let place = Place::log(footer::offset(segment, &self.layout));
        asks.write(io, place, footer.encode().freeze(), WriteFor::Footer { segment });
    }

    fn sealable(&self) -> Option<Vec<PrepareHeader>> {
        let mut headers: Vec<PrepareHeader> = Vec::new();
        let mut parent = self.sealed_tail;
        loop {
            let entry = self.index.get(&parent.op.next())?;
            if entry.header.parent != parent.checksum {
                return None;
            }
            if entry.header.place / self.layout.segment_size > self.sealed_count() {
                let settled = entry.header.op <= self.committed && !headers.is_empty();
                return settled.then_some(headers);
            }
            // A lone replica has nobody to repair a damaged copy: it seals the header that it knows, and whoever asks for
            // the prepare is told that it is lost.
            let lost_for_good = self.alone && entry.state == State::Missing(Mark::Unknown);
            if entry.state != State::Durable && !lost_for_good {
                return None;
            }
            parent = entry.header;
            headers.push(parent);
        }
    }

    /// The headers from behind the sealed part up to `last`, one list for each segment. For footers that
    /// were lost: that a later segment is sealed proves that these were.
    pub(crate) fn unsealed_segments(&self, last: Op) -> Vec<Vec<PrepareHeader>> {
        let mut segments: Vec<Vec<PrepareHeader>> = Vec::new();
        let unsealed = self.index.range(self.sealed_through().next()..);
        for entry in unsealed.map(|(_, entry)| entry).take_while(|entry| entry.header.op <= last) {
            if entry.header.place.is_multiple_of(self.layout.segment_size) {
                segments.push(Vec::new());
            }
            segments.last_mut().expect("a segment starts with its first prepare").push(entry.header);
        }
        segments
    }

    /// A footer is durable.
    pub(crate) fn footer_written(&mut self, segment: u64, out: &mut Vec<Output>) {
        if segment >= self.sealed_count() {
            assert!(self.sealing && segment == self.sealed_count(), "segments seal in order");
            self.sealing = false;
            let headers = self.index.range(self.sealed_through().next()..).map(|(_, entry)| entry.header);
            let inside: Vec<PrepareHeader> =
                headers.take_while(|header| header.place / self.layout.segment_size == segment).collect();
            let (first, last) = (inside[0], inside[inside.len() - 1]);
            self.found_sealed(first.op, last);
        }
        kimberlite_probe::reachable!("journal.seals");
        out.push(Output::Sealed { segment });
        self.prune();
        self.advance(out);
    }

    /// Forgets sealed ops, except the last few, which view changes ask about, and what is on its way.
    pub(super) fn prune(&mut self) {
        let sealed = self.sealed_through();
        let head = self.head.op;
        while let Some((op, entry)) = self.index.first_key_value() {
            let old = *op <= sealed && op.0 + HEADERS_MAX as u64 <= head.0;
            if !old || matches!(entry.state, State::Writing | State::Written | State::Ringing | State::Ringed)
            {
                break;
            }
            let op = *op;
            self.index.remove(&op);
        }
    }

    /// What the log names of the ops from `from` up to and without `until`, in order.
    pub(crate) fn named_between(&self, from: Op, until: Op) -> Vec<(PrepareHeader, Mark)> {
        let mark = |entry: &Entry| match entry.state {
            State::Missing(mark) => mark,
            _ => Mark::Present,
        };
        let root = (from == Op::ZERO && until > from).then_some((self.root, Mark::Present));
        let named = self.index.range(from..until).map(|(_, entry)| (entry.header, mark(entry)));
        root.into_iter().chain(named).collect()
    }

    /// The last headers of the log up to its head, in order, each the parent of the next.
    pub(crate) fn tail(&self) -> Vec<(PrepareHeader, Mark)> {
        let mut tail: Vec<(PrepareHeader, Mark)> = Vec::new();
        let mut op = self.head.op;
        while tail.len() < HEADERS_MAX {
            let (header, mark) = match self.index.get(&op) {
                Some(Entry { header, state: State::Missing(mark), .. }) => (*header, *mark),
                Some(entry) => (entry.header, Mark::Present),
                None if op == Op::ZERO => (self.root, Mark::Present),
                None if op == self.sealed_through() => (self.sealed_tail, Mark::Present),
                None => break,
            };
            if tail.last().is_some_and(|(child, _)| child.parent != header.checksum) {
                break;
            }
            tail.push((header, mark));
            if op == Op::ZERO {
                break;
            }
            op = op.previous();
        }
        tail.reverse();
        tail
    }
}
