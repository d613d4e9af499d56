//! What the device can do: durable writes, one after the other, to files laid out and written as a node's are.
//!
//! The writes go through the node's own driver to a data directory of the production layout: direct I/O to files
//! written before, each write durable when it is answered. One pattern is also written with plain system
//! calls, so that a slow driver cannot pass for a slow device.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kimberlite_io::{Buf, Disk as _, Event, Frame, Place, Token};
use kimberlite_io_real::{DataDirectory, Driver, Geometry, Options};
use kimberlite_types::Layout;
use kimberlite_types::limits::{SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kmb::failure::Kind;
use kmb::{Failure, Temporary};
use rustix::io::{ReadWriteFlags, pwritev2};

use crate::figures::{Report, Series};
use crate::setting::Setting;

const KIB: usize = 1 << 10;

/// What is written again and again, each step after the one before it was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// 4 KiB to the log.
    One,
    /// 4 KiB to the log, then 4 KiB to the header ring: what an op of a lone node needs.
    Two,
    /// 64 KiB to the log.
    Append64,
    /// 1 MiB to the log.
    Append1024,
    /// 4 KiB to each of three files, one after the other.
    ThreeInTurn,
    /// 4 KiB to three files at once, then again: what an op of three nodes on one disk needs.
    TwiceThree,
    /// 1 MiB to three files at once: what a full op of three nodes on one disk needs.
    ThreeLarge,
}

impl Pattern {
    const ALL: [Self; 7] = [
        Self::One,
        Self::Two,
        Self::Append64,
        Self::Append1024,
        Self::ThreeInTurn,
        Self::TwiceThree,
        Self::ThreeLarge,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "4 KiB durable write",
            Self::Two => "two dependent 4 KiB writes",
            Self::Append64 => "64 KiB durable append",
            Self::Append1024 => "1 MiB durable append",
            Self::ThreeInTurn => "three files in turn, 4 KiB",
            Self::TwiceThree => "three files at once, twice, 4 KiB",
            Self::ThreeLarge => "three files at once, 1 MiB",
        }
    }

    /// Which files are written, and how many bytes, step by step.
    const fn steps(self) -> &'static [&'static [(Target, usize)]] {
        use Target::{Headers, Segment};
        const SECTOR: usize = SECTOR_SIZE;
        const LARGE: usize = 1024 * KIB;
        match self {
            Self::One => &[&[(Segment(0), SECTOR)]],
            Self::Two => &[&[(Segment(0), SECTOR)], &[(Headers, SECTOR)]],
            Self::Append64 => &[&[(Segment(0), 64 * KIB)]],
            Self::Append1024 => &[&[(Segment(0), LARGE)]],
            Self::ThreeInTurn => &[&[(Segment(0), SECTOR)], &[(Segment(1), SECTOR)], &[(Segment(2), SECTOR)]],
            Self::TwiceThree => &[
                &[(Segment(0), SECTOR), (Segment(1), SECTOR), (Segment(2), SECTOR)],
                &[(Segment(0), SECTOR), (Segment(1), SECTOR), (Segment(2), SECTOR)],
            ],
            Self::ThreeLarge => &[&[(Segment(0), LARGE), (Segment(1), LARGE), (Segment(2), LARGE)]],
        }
    }
}

/// A file of the data directory.
#[derive(Clone, Copy, Debug)]
enum Target {
    Segment(usize),
    Headers,
}

/// Segments that are written to.
const SEGMENTS: usize = 3;

/// The sizes of the files, as a node's are.
const GEOMETRY: Geometry = Geometry {
    superblock_size: (SUPERBLOCK_COPIES * SUPERBLOCK_COPY_SIZE) as u64,
    headers_size: Layout::PRODUCTION.ring_size(),
    segment_size: Layout::PRODUCTION.segment_size,
};

/// A data directory that nothing but this writes to.
pub(crate) struct Floor {
    driver: Driver,
    /// Writes so far: each has its own token.
    written: u64,
    /// Where the next write to each segment goes, and to the headers.
    next: [u64; SEGMENTS + 1],
    content: Frame,
    plain: Plain,
    /// Last, so that it is removed when nobody writes to it any more.
    _dir: Temporary,
}

impl Floor {
    /// Makes the files below `dir`.
    pub(crate) fn make(dir: &Path) -> Result<Self, Failure> {
        let dir = Temporary::below(dir, "floor")?;
        let path = dir.path();
        let directory = DataDirectory::create(path, GEOMETRY)?;
        let mut floor = Self {
            driver: Driver::open(Options { data: Some(directory), ..Options::default() })?,
            written: 0,
            next: [0; SEGMENTS + 1],
            content: Frame::copy_from(&vec![0xa5; 1024 * KIB]),
            plain: Plain::make(&path.join("plain"))?,
            _dir: dir,
        };
        // The first writes order segments, the last of them one ahead of need, and that must not go on while it is
        // measured.
        for pattern in [Pattern::ThreeInTurn, Pattern::TwiceThree, Pattern::ThreeLarge] {
            floor.measure(pattern, Duration::from_millis(200))?;
        }
        Ok(floor)
    }

    /// How often in a second a pattern is done.
    pub(crate) fn measure(&mut self, pattern: Pattern, duration: Duration) -> Result<f64, Failure> {
        let begun = Instant::now();
        let mut count = 0.0;
        while begun.elapsed() < duration {
            for step in pattern.steps() {
                step.iter().for_each(|(target, len)| self.write(*target, *len));
                step.iter().try_for_each(|_| self.wait())?;
            }
            count += 1.0;
        }
        Ok(count / begun.elapsed().as_secs_f64())
    }

    /// Asks for a write at the next place of a file, which begins again at its start when it is used up.
    fn write(&mut self, target: Target, len: usize) {
        let (index, size) = match target {
            Target::Segment(segment) => (segment, GEOMETRY.segment_size),
            Target::Headers => (SEGMENTS, GEOMETRY.headers_size),
        };
        let next = &mut self.next[index];
        if *next + len as u64 > size {
            *next = 0;
        }
        let place = match target {
            Target::Segment(segment) => Place::log(segment as u64 * size + *next),
            Target::Headers => Place::headers(*next),
        };
        *next += len as u64;
        self.written += 1;
        self.driver.write(Token(self.written), place, self.content.slice(0..len));
    }

    fn wait(&mut self) -> Result<(), Failure> {
        loop {
            match self.driver.next(None)?.1 {
                Event::Written { result: Ok(()), .. } => return Ok(()),
                Event::Written { result: Err(fault), .. } => {
                    return Err(Failure::new(Kind::Io, format!("a durable write failed: {fault:?}")));
                }
                _ => {}
            }
        }
    }
}

/// A file written before, with plain system calls.
struct Plain {
    file: File,
    content: Buf,
    next: u64,
}

impl Plain {
    const SIZE: u64 = 8 << 20;

    fn make(path: &Path) -> Result<Self, Failure> {
        let on = |error: std::io::Error| Failure::on(path, &error);
        let mut zeros = File::create(path).map_err(on)?;
        zeros.write_all(&vec![0; Self::SIZE as usize]).and_then(|()| zeros.sync_all()).map_err(on)?;
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
            .open(path);
        // Some file systems have no direct I/O; then the node does without it as well.
        let file = direct.or_else(|_| OpenOptions::new().write(true).open(path)).map_err(on)?;
        Ok(Self { file, content: Buf::copy_from(&[0xa5; SECTOR_SIZE]), next: 0 })
    }

    fn measure(&mut self, duration: Duration) -> Result<f64, Failure> {
        let begun = Instant::now();
        let mut count = 0.0;
        while begun.elapsed() < duration {
            let content = [IoSlice::new(&self.content)];
            pwritev2(&self.file, &content, self.next, ReadWriteFlags::DSYNC)
                .map_err(|error| Failure::new(Kind::Io, format!("a durable write failed: {error}")))?;
            self.next = (self.next + SECTOR_SIZE as u64) % Self::SIZE;
            count += 1.0;
        }
        Ok(count / begun.elapsed().as_secs_f64())
    }
}

/// Runs the command.
pub(crate) fn measure(setting: &Setting) -> Result<Vec<Report>, Failure> {
    setting.step("floor: making files")?;
    let mut floor = Floor::make(setting.dir())?;
    let mut series = vec![Series::default(); Pattern::ALL.len()];
    let mut plain = Series::default();
    for round in 1..=setting.repetitions {
        for (series, pattern) in series.iter_mut().zip(Pattern::ALL) {
            setting.step(&format!("floor: {}, {round} of {}", pattern.name(), setting.repetitions))?;
            series.push(floor.measure(pattern, setting.seconds)?);
        }
        plain.push(floor.plain.measure(setting.seconds)?);
    }
    let mut report = Report::new("floor: what the device can do, through the node's own driver");
    for (series, pattern) in series.into_iter().zip(Pattern::ALL) {
        report.row(pattern.name(), "/s", series);
    }
    report.row("4 KiB durable write, plain system calls", "/s", plain);
    Ok(vec![report])
}
