//! Verifying a data directory, against the speed of SHA-256 over the same bytes.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use kimberlite_crypto::Sha256;
use kimberlite_types::Layout;
use kmb::Failure;

use crate::arguments::{Shape, Verify};
use crate::cluster::{Cluster, RECORD_SIZE, Until};
use crate::figures::{Aim, Report, Series};
use crate::setting::{Setting, own_time};

/// Bytes that are read and hashed at once.
const PIECE: usize = 1 << 20;

/// Clients that fill the log: with small requests, prepares of some tens of entries.
const CLIENTS: u16 = 64;

/// Bytes of the log that a small request takes, about: an entry of 136 bytes, a command and a share of the prepare.
const SMALL_REQUEST: u64 = 320;

/// Small requests in the log at most: filling takes longer than all else.
const SMALL_REQUESTS_MAX: u64 = 200_000;

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
    let none = Series::default;
    let (mut speed, mut hash, mut ratio, mut worked) = (none(), none(), none(), none());
    let mut seen = 0;
    for round in 1..=setting.repetitions {
        setting.step(&format!("verify: {}, {round} of {}", shape.name(), setting.repetitions))?;
        let (begun, ran) = (Instant::now(), own_time());
        let verdict = kmb::verify::verify(&data, |_| {})?;
        let elapsed = begun.elapsed().as_secs_f64();
        let ran = own_time().saturating_sub(ran).as_secs_f64();
        if let Some(finding) = verdict.finding {
            return Err(Failure::failed(format!("{}: op {} is damaged", data.display(), finding.op)));
        }
        seen = verdict.totals.bytes;
        let own = megabytes(seen) / elapsed;
        let (bare, bare_ran) = hash_speed(&data, seen)?;
        speed.push(own);
        hash.push(bare);
        ratio.push(own / bare);
        worked.push(bare_ran / ran);
    }
    let mut report = Report::new(format!("verify: {:.0} MB, {}", megabytes(seen), shape.name()));
    report.row("kmb verify", "MB/s", speed);
    report.row("SHA-256 alone over the same bytes", "MB/s", hash);
    report.aimed("verified for each byte hashed", "", ratio, Aim::AtLeast(0.8));
    report.row("the same by processor time", "", worked);
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "sizes here are far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// How fast SHA-256 takes the first `bytes` bytes of the log, in MB/s, and how many seconds of processor time that is.
/// Reading them is not counted.
fn hash_speed(data: &Path, bytes: u64) -> Result<(f64, f64), Failure> {
    let mut buffer = vec![0; PIECE];
    let mut hasher = Sha256::new();
    let (mut left, mut place, mut seconds, mut ran) = (bytes, 0, 0.0, 0.0);
    while left > 0 {
        let size = Layout::PRODUCTION.segment_size;
        let path = data.join(format!("log/{:08}.segment", place / size));
        let file = File::open(&path).map_err(|error| Failure::on(&path, &error))?;
        let len = left.min(PIECE as u64).min(size - place % size) as usize;
        file.read_exact_at(&mut buffer[..len], place % size).map_err(|error| Failure::on(&path, &error))?;
        let (begun, before) = (Instant::now(), own_time());
        hasher.update(&buffer[..len]);
        seconds += begun.elapsed().as_secs_f64();
        ran += own_time().saturating_sub(before).as_secs_f64();
        left -= len as u64;
        place += len as u64;
    }
    black_box(hasher.finish());
    Ok((megabytes(bytes) / seconds, ran))
}
