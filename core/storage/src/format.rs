//! Makes an empty disk a data directory.
//!
//! The ring is written first, all slots reserved; then the superblock, copy after copy as ever. A format that
//! was cut short before two copies are intact left blank ones behind them, so it is seen as not formatted and can be
//! done again; one cut short later is opened, which writes the other copies. A directory that was opened once is
//! never formatted again.

use alloc::vec::Vec;
use core::fmt;

use kimberlite_io::{Buf, Event, Io, Machine, Place, ReadFault};
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{Config, Instant, Now};

use crate::HaltReason;
use crate::asks::{Asks, ReadFor, WriteFor};
use crate::bytes::put;
use crate::ring::reserved;
use crate::superblock::{Copies, CopyFault, Superblock, choose, copy_offset};
use crate::view::write_copy;

/// Bytes of the ring in one write.
const RING_WRITE: u64 = 1 << 20;

/// All that can happen to a [`Formatter`].
#[derive(Clone, Debug)]
pub enum FormatInput {
    /// Begin. The first input, once.
    Start,
    /// An answer to one of its asks.
    Event(Event),
}

/// What a [`Formatter`] tells its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatOutput {
    /// The data directory is formatted, durably.
    Done,
    /// It is not, and nothing more is asked.
    Failed(FormatError),
}

/// Why a data directory was not formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// There is a superblock already; what it belongs to is not known to be of no use.
    AlreadyFormatted,
    /// The disk failed a write.
    WriteFailed {
        /// Where.
        place: Place,
    },
    /// The disk is full.
    NoSpace,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyFormatted => f.write_str(
                "the data directory holds a replica already: remove it if it is of no use, or give another",
            ),
            Self::WriteFailed { place } => write!(f, "the disk failed a write at {place}: replace the disk"),
            Self::NoSpace => f.write_str("the disk is full: make room and format again"),
        }
    }
}

impl core::error::Error for FormatError {}

#[derive(Debug)]
enum Stage {
    New,
    Look { left: usize },
    Ring { left: usize },
    Copies { copy: usize },
    Over,
}

/// Formats the data directory of one replica.
#[derive(Debug)]
pub struct Formatter {
    config: Config,
    stage: Stage,
    copies: Copies,
    asks: Asks,
}

impl Formatter {
    /// A machine that formats for this replica. Send [`FormatInput::Start`] first.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            stage: Stage::New,
            copies: [const { Err(CopyFault::Blank) }; SUPERBLOCK_COPIES],
            asks: Asks::default(),
        }
    }

    fn start(&mut self, io: &mut dyn Io) {
        assert!(matches!(self.stage, Stage::New), "a data directory is formatted once");
        for copy in 0..SUPERBLOCK_COPIES {
            let place = Place::superblock(copy_offset(copy));
            self.asks.read(io, place, SUPERBLOCK_COPY_SIZE, ReadFor::Superblock { copy });
        }
        self.stage = Stage::Look { left: SUPERBLOCK_COPIES };
    }

    fn on_copy(
        &mut self,
        copy: usize,
        result: Result<Buf, ReadFault>,
        io: &mut dyn Io,
    ) -> Result<(), FormatError> {
        let Stage::Look { left } = &mut self.stage else { panic!("copies are read first") };
        self.copies[copy] = match result {
            Ok(bytes) => Superblock::decode(&bytes),
            Err(ReadFault::Absent) => Err(CopyFault::Blank),
            Err(ReadFault::Failed) => Err(CopyFault::Damaged),
        };
        *left -= 1;
        if *left > 0 {
            return Ok(());
        }
        match choose(&self.copies) {
            Err(HaltReason::NotFormatted) => {}
            _ => return Err(FormatError::AlreadyFormatted),
        }
        let size = self.config.layout.ring_size();
        let mut left = 0;
        for offset in (0..size).step_by(RING_WRITE as usize) {
            let len = RING_WRITE.min(size - offset) as usize;
            let mut part = Buf::zeroed(len);
            let first = offset / PREPARE_HEADER_SIZE as u64;
            for index in 0..len / PREPARE_HEADER_SIZE {
                let slot = reserved(self.config.cluster, first as u32 + index as u32);
                put(&mut part, index * PREPARE_HEADER_SIZE, &slot);
            }
            let sector = left as u32;
            self.asks.write(io, Place::headers(offset), part.freeze(), WriteFor::Ring { sector });
            left += 1;
        }
        self.stage = Stage::Ring { left };
        Ok(())
    }

    fn on_written(&mut self, io: &mut dyn Io, out: &mut Vec<FormatOutput>) {
        let superblock = Superblock::initial(&self.config);
        match &mut self.stage {
            Stage::Ring { left } if *left > 1 => *left -= 1,
            Stage::Ring { .. } => {
                write_copy(&superblock, 0, &mut self.asks, io);
                self.stage = Stage::Copies { copy: 0 };
            }
            Stage::Copies { copy } if *copy + 1 < SUPERBLOCK_COPIES => {
                *copy += 1;
                write_copy(&superblock, *copy, &mut self.asks, io);
            }
            Stage::Copies { .. } => {
                self.stage = Stage::Over;
                out.push(FormatOutput::Done);
            }
            Stage::New | Stage::Look { .. } | Stage::Over => panic!("nothing is written in this stage"),
        }
    }

    fn fail(&mut self, error: FormatError, out: &mut Vec<FormatOutput>) {
        self.stage = Stage::Over;
        self.asks.forget();
        out.push(FormatOutput::Failed(error));
    }
}

impl Machine for Formatter {
    type Input = FormatInput;
    type Output = FormatOutput;

    fn on(&mut self, now: Now, input: FormatInput, io: &mut dyn Io, out: &mut Vec<FormatOutput>) {
        match input {
            FormatInput::Start => self.start(io),
            FormatInput::Event(Event::Read { token, result }) => {
                if let Some(ReadFor::Superblock { copy }) = self.asks.take_read(token)
                    && let Err(error) = self.on_copy(copy, result, io)
                {
                    self.fail(error, out);
                }
            }
            FormatInput::Event(Event::Written { token, result }) => {
                let mut notes = Vec::new();
                match self.asks.take_write(now.monotonic, token, result, &mut notes) {
                    Ok(Some(_)) => self.on_written(io, out),
                    // A full disk is for whoever formats to see at once, not to be waited out.
                    Ok(None) if !notes.is_empty() => self.fail(FormatError::NoSpace, out),
                    Ok(None) => {}
                    Err(HaltReason::WriteFailed { place }) => {
                        self.fail(FormatError::WriteFailed { place }, out);
                    }
                    Err(_) => unreachable!("a write fails in one way only"),
                }
            }
            FormatInput::Event(_) => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }
}
