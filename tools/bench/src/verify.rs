//! Verifying a data directory, against the speed of SHA-256 on one thread: over the same bytes in one stream, and over the
//! same entries one by one, as the chain hashes them. Verification uses all processors; what it costs them is beside it. Nor
//! can it be faster than the device gives the log, which is measured too.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use kimberlite_crypto::Sha256;
use kimberlite_io::{Buf, Frame, sectors};
use kimberlite_types::Layout;
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_wire::{Entry, Prepare, PrepareHeader};
use kmb::Failure;

use crate::arguments::{Shape, Verify};
use crate::cluster::{Cluster, RECORD_SIZE, Until};
use crate::figures::{Aim, Report, Series};
use crate::setting::{Setting, all_time, own_time};

/// Bytes that are read and hashed at once.
const PIECE: usize = 1 << 20;

/// Readers at once, each with one piece under way: more of them get no more out of the device.
const READERS: u64 = 4;

/// Bytes that are read to learn the device's speed at most.
const READ_BYTES_MAX: u64 = 1 << 30;

/// Clients that fill the log: with small requests, prepares of some tens of entries.
const CLIENTS: u16 = 64;

/// Bytes of the log that a small request takes, about: an entry of 136 bytes, a command and a share of the prepare.
const SMALL_REQUEST: u64 = 320;

/// Small requests in the log at most: filling takes longer than all else. Fewer would measure how long opening takes.
const SMALL_REQUESTS_MAX: u64 = 600_000;

/// Runs the command.
pub(crate) fn measure(setting: &Setting, verify: &Verify) -> Result<Vec<Report>, Failure> {
    [Shape::Full, Shape::Small].into_iter().map(|shape| measure_one(setting, verify, shape)).collect()
}

fn measure_one(setting: &Setting, verify: &Verify, shape: Shape) -> Result<Report, Failure> {
    let bytes = verify.megabytes * 1_000_000;
    let requests = match shape {
        Shape::Full => bytes / (u64::from(shape.records()) * u64::from(RECORD_SIZE)),
        Shape::Small => (bytes / SMALL_REQUEST).min(SMALL_REQUESTS_MAX),
    };
    setting.step(&format!("verify: filling a log, {}", shape.name()))?;
    let mut cluster = Cluster::start(setting, 1)?;
    cluster.append(setting, CLIENTS, shape, Until::Requests(requests.max(u64::from(CLIENTS))))?;
    cluster.fleet.stop()?;
    let data = cluster.data(0);
    let mut rows = Rows::default();
    let mut seen = 0;
    for round in 1..=setting.repetitions {
        setting.step(&format!("verify: {}, {round} of {}", shape.name(), setting.repetitions))?;
        let (begun, ran) = (Instant::now(), all_time());
        let verdict = kmb::verify::verify(&data, |_| {})?;
        let elapsed = begun.elapsed().as_secs_f64();
        let ran = all_time().saturating_sub(ran).as_secs_f64();
        if let Some(finding) = verdict.finding {
            return Err(Failure::failed(format!("{}: op {} is damaged", data.display(), finding.op)));
        }
        seen = verdict.totals.bytes;
        let (own, stream) = (megabytes(seen) / elapsed, hash_stream(&data, seen)?);
        let entries = hash_entries(&data, verdict.totals.op.0)?;
        let given = megabytes(READ_BYTES_MAX.min(seen)) / read_all(&data, READ_BYTES_MAX.min(seen))?;
        rows.speed.push(own);
        rows.device.push(given);
        rows.of_device.push(own / given);
        rows.stream.push(megabytes(seen) / stream.seconds);
        rows.entries.push(megabytes(seen) / entries.seconds);
        rows.of_stream.push(own / (megabytes(seen) / stream.seconds));
        rows.of_entries.push(own / (megabytes(seen) / entries.seconds));
        rows.work_of_stream.push(stream.processor / ran);
        rows.work_of_entries.push(entries.processor / ran);
    }
    let mut report = Report::new(format!("verify: {:.0} MB, {}", megabytes(seen), shape.name()));
    report.row("kmb verify", "MB/s", rows.speed);
    report.row("the device, for readers that do nothing else", "MB/s", rows.device);
    report.row("SHA-256 alone over the same bytes", "MB/s", rows.stream);
    report.row("SHA-256 alone over the same entries", "MB/s", rows.entries);
    report.aimed("verified for each byte hashed", "", rows.of_stream, Aim::AtLeast(0.8));
    report.aimed("verified for each entry hashed", "", rows.of_entries, Aim::AtLeast(0.8));
    report.row("verified for each byte the device gives", "", rows.of_device);
    report.row("bytes by processor time", "", rows.work_of_stream);
    report.row("entries by processor time", "", rows.work_of_entries);
    Ok(report)
}

#[derive(Default)]
struct Rows {
    speed: Series,
    device: Series,
    of_device: Series,
    stream: Series,
    entries: Series,
    of_stream: Series,
    of_entries: Series,
    work_of_stream: Series,
    work_of_entries: Series,
}

/// What hashing took; reading is not counted.
#[derive(Clone, Copy, Default)]
struct Took {
    seconds: f64,
    processor: f64,
}

impl Took {
    fn add(&mut self, hash: impl FnOnce()) {
        let (begun, before) = (Instant::now(), own_time());
        hash();
        self.seconds += begun.elapsed().as_secs_f64();
        self.processor += own_time().saturating_sub(before).as_secs_f64();
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes here are far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Reads the log's bytes from `place` on.
fn read(data: &Path, place: u64, buffer: &mut [u8]) -> Result<(), Failure> {
    let size = Layout::PRODUCTION.segment_size;
    let path = data.join(format!("log/{:08}.segment", place / size));
    let file = File::open(&path).map_err(|error| Failure::on(&path, &error))?;
    file.read_exact_at(buffer, place % size).map_err(|error| Failure::on(&path, &error))
}

/// Seconds that it takes to read the first `bytes` bytes of the log from the device, past all caches, and do nothing with them.
fn read_all(data: &Path, bytes: u64) -> Result<f64, Failure> {
    let size = Layout::PRODUCTION.segment_size;
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let reader = || -> Result<(), Failure> {
        let mut piece = Buf::zeroed(PIECE);
        loop {
            let place = next.fetch_add(PIECE as u64, Ordering::Relaxed);
            if place >= bytes {
                return Ok(());
            }
            let path = data.join(format!("log/{:08}.segment", place / size));
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
                .open(&path)
                .map_err(|error| Failure::on(&path, &error))?;
            file.read_exact_at(&mut piece, place % size).map_err(|error| Failure::on(&path, &error))?;
            black_box(&piece);
        }
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader returns its errors"))
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// SHA-256 over the first `bytes` bytes of the log.
fn hash_stream(data: &Path, bytes: u64) -> Result<Took, Failure> {
    let mut buffer = vec![0; PIECE];
    let mut hasher = Sha256::new();
    let (mut took, mut left, mut place) = (Took::default(), bytes, 0);
    while left > 0 {
        let size = Layout::PRODUCTION.segment_size;
        let len = left.min(PIECE as u64).min(size - place % size) as usize;
        read(data, place, &mut buffer[..len])?;
        took.add(|| hasher.update(&buffer[..len]));
        left -= len as u64;
        place += len as u64;
    }
    black_box(hasher.finish());
    Ok(took)
}

/// SHA-256 over each entry of the first `ops` ops of the log: exactly what the hash chain is made of.
fn hash_entries(data: &Path, ops: u64) -> Result<Took, Failure> {
    let size = Layout::PRODUCTION.segment_size;
    let (mut took, mut place) = (Took::default(), 0);
    for op in 1..=ops {
        let header = match header_at(data, place)? {
            Some(header) if header.op.0 == op => header,
            _ => {
                place = (place / size + 1) * size;
                header_at(data, place)?
                    .filter(|header| header.op.0 == op)
                    .ok_or_else(|| Failure::failed(format!("op {op} is not where it should be")))?
            }
        };
        let mut bytes = vec![0; header.size as usize];
        read(data, place, &mut bytes)?;
        let prepare = Prepare::parse(&Frame::copy_from(&bytes));
        let prepare = prepare.map_err(|_| Failure::failed(format!("op {op} is damaged")))?;
        let entries: Vec<Entry<'_>> = prepare.entries().flatten().collect();
        took.add(|| {
            for entry in &entries {
                black_box(entry.hash());
            }
        });
        place += sectors(u64::from(header.size));
    }
    Ok(took)
}

/// The header of the prepare at `place`, if one stands there.
fn header_at(data: &Path, place: u64) -> Result<Option<PrepareHeader>, Failure> {
    let mut bytes = [0; SECTOR_SIZE];
    read(data, place, &mut bytes)?;
    Ok(PrepareHeader::decode(&bytes[..PREPARE_HEADER_SIZE]).ok())
}
