//! A failure as a file: `.kmb`.
//!
//! ```text
//!  0   8  magic, "KMBUNDLE"
//!  8   2  format version, little-endian
//! 10   2  kind: 1 a simulated failure
//! 12   4  bytes of the body, little-endian
//! 16  32  BLAKE3 over bytes 0 to 16 and the body
//! 48      the body: zstd of the postcard encoding of `Bundle`
//! ```
//!
//! The decoder is bounded: by [`FILE_SIZE_MAX`] for the file and [`BODY_SIZE_MAX`] for what it unpacks to.

use std::fmt;
use std::io::Read;

use kimberlite_crypto::checksum;
use kimberlite_io_sim::{DecisionLog, Divergence};
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::failure::Failure;
use crate::run::{Checkpoint, Luck, Outcome, Record, Report, Rules, run};

/// The first bytes of every bundle.
pub(crate) const MAGIC: [u8; 8] = *b"KMBUNDLE";

/// The format this build writes and reads.
pub(crate) const VERSION: u16 = 1;

/// The kind of bundle written here.
const KIND_FAILURE: u16 = 1;

/// Bytes of a bundle at most.
pub(crate) const FILE_SIZE_MAX: usize = 64 << 20;

/// Bytes of its content, unpacked, at most.
pub(crate) const BODY_SIZE_MAX: usize = 512 << 20;

const HEAD_SIZE: usize = 48;

/// Compresses well and fast; decisions are small numbers.
const ZSTD_LEVEL: i32 = 6;

/// What a program was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The package's version.
    pub version: String,
    /// The commit, if the build was told.
    pub commit: String,
    /// Hash of the lock file.
    pub lock: String,
    /// The compiler.
    pub compiler: String,
    /// `debug` or `release`.
    pub profile: String,
}

impl Identity {
    /// This program's.
    pub fn current() -> Self {
        let lock = checksum(include_bytes!("../../Cargo.lock"));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("KIMBERLITE_COMMIT").unwrap_or("unknown").to_owned(),
            lock: hex(&lock.as_bytes()[..8]),
            compiler: env!("KIMBERLITE_RUSTC").to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }

    /// Where two identities differ: what, here, there.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        [
            ("version", &self.version, &other.version),
            ("commit", &self.commit, &other.commit),
            ("lock file", &self.lock, &other.lock),
            ("compiler", &self.compiler, &other.compiler),
            ("profile", &self.profile, &other.profile),
        ]
        .into_iter()
        .filter(|(_, mine, theirs)| mine != theirs)
        .map(|(what, mine, theirs)| (what, mine.clone(), theirs.clone()))
        .collect()
    }
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A failed run, with all that is needed to repeat it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The program that wrote it.
    pub identity: Identity,
    /// The name of the scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The configuration.
    pub config: RunConfig,
    /// Every decision.
    pub decisions: DecisionLog,
    /// The digest now and then.
    pub checkpoints: Vec<Checkpoint>,
    /// Events until the failure.
    pub events: u64,
    /// The digest at the failure.
    pub digest: [u8; 32],
    /// The failure.
    pub failure: Failure,
}

/// Why bytes are no bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// It does not begin like a bundle.
    Magic,
    /// It is shorter or longer than it says.
    Size,
    /// It is larger than any bundle.
    TooLarge,
    /// It has another format.
    Version(u16),
    /// It is of another kind.
    Kind(u16),
    /// Its hash does not match: it was damaged.
    Hash,
    /// Its content does not unpack.
    Compression,
    /// Its content does not decode.
    Content,
    /// Its configuration makes no sense.
    Config(&'static str),
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a bundle: it does not begin with KMBUNDLE"),
            Self::Size => f.write_str("the bundle is cut short or has bytes behind its end"),
            Self::TooLarge => write!(
                f,
                "the bundle exceeds a limit ({FILE_SIZE_MAX} bytes packed, {BODY_SIZE_MAX} unpacked)"
            ),
            Self::Version(found) => write!(f, "the bundle has format {found}, this program reads {VERSION}"),
            Self::Kind(found) => write!(f, "the bundle is of kind {found}, not a simulated failure"),
            Self::Hash => f.write_str("the bundle is damaged: its hash does not match"),
            Self::Compression => f.write_str("the bundle's content does not unpack"),
            Self::Content => f.write_str("the bundle's content does not decode"),
            Self::Config(reason) => write!(f, "the bundle's configuration makes no sense: {reason}"),
        }
    }
}

impl std::error::Error for BundleError {}

/// What a replay showed.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The replayed run.
    pub report: Report,
    /// Where the program that wrote the bundle differs from this one: what, there, here.
    pub identity: Vec<(&'static str, String, String)>,
    /// The first checkpoint whose digest differs, if any: what went before up to the one before is equal.
    pub first_difference: Option<Checkpoint>,
    /// Where the replay first asked for a decision the record does not have.
    pub divergence: Option<Divergence>,
    /// Whether everything was equal: digests, events and failure.
    pub exact: bool,
    /// Whether it failed under the same fingerprint.
    pub same_failure: bool,
}

impl Bundle {
    /// Runs a failed seed again, with a record, and packs it. The run must fail as it did before, or the
    /// simulation is not deterministic: then the failure found now is returned instead.
    pub fn capture(scenario: &str, config: &RunConfig, seed: u64, rules: Rules) -> Result<Self, Box<Report>> {
        let (report, Record { decisions, checkpoints, .. }) = run(config, seed, Luck::Recorded, rules);
        let Outcome::Failed(failure) = report.outcome.clone() else { return Err(Box::new(report)) };
        Ok(Self {
            identity: Identity::current(),
            scenario: scenario.to_owned(),
            seed,
            config: config.clone(),
            decisions,
            checkpoints,
            events: report.events,
            digest: report.digest,
            failure,
        })
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let content = postcard::to_allocvec(self).expect("our own bundles encode");
        let body = zstd::bulk::compress(&content, ZSTD_LEVEL).expect("memory can be compressed");
        let mut file = Vec::with_capacity(HEAD_SIZE + body.len());
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&KIND_FAILURE.to_le_bytes());
        file.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let hash = hash(&file, &body);
        file.extend_from_slice(&hash);
        file.extend_from_slice(&body);
        file
    }

    /// Reads a file. Never panics, and never holds more than the limits allow.
    pub fn decode(file: &[u8]) -> Result<Self, BundleError> {
        if file.len() > FILE_SIZE_MAX {
            return Err(BundleError::TooLarge);
        }
        let (magic, _) = file.split_first_chunk::<8>().ok_or(BundleError::Magic)?;
        if *magic != MAGIC {
            return Err(BundleError::Magic);
        }
        let (head, body) = file.split_at_checked(HEAD_SIZE).ok_or(BundleError::Size)?;
        let number = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        if number(8) != VERSION {
            return Err(BundleError::Version(number(8)));
        }
        let size = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        if body.len() != size as usize {
            return Err(BundleError::Size);
        }
        if hash(&head[..16], body)[..] != head[16..HEAD_SIZE] {
            return Err(BundleError::Hash);
        }
        if number(10) != KIND_FAILURE {
            return Err(BundleError::Kind(number(10)));
        }
        let bundle: Self = postcard::from_bytes(&unpack(body)?).map_err(|_| BundleError::Content)?;
        bundle.config.check().map_err(|fault| BundleError::Config(fault.reason))?;
        Ok(bundle)
    }

    /// Runs it again from its decisions, and compares.
    pub fn replay(&self, rules: Rules) -> Replayed {
        let (report, record) = run(&self.config, self.seed, Luck::Replayed(self.decisions.clone()), rules);
        let identity = self.identity.differences(&Identity::current());
        let pairs = self.checkpoints.iter().zip(&record.checkpoints);
        let differing = pairs.into_iter().find(|(then, now)| then != now).map(|(then, _)| *then);
        // The shorter run ended where the longer went on.
        let shorter = self.checkpoints.len().min(record.checkpoints.len());
        let first_difference =
            differing.or_else(|| self.checkpoints.get(shorter).or(record.checkpoints.get(shorter)).copied());
        let failure = match &report.outcome {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Passed | Outcome::Excused(_) => None,
        };
        let same_failure = failure.is_some_and(|now| now.fingerprint() == self.failure.fingerprint());
        let exact = first_difference.is_none()
            && record.divergence.is_none()
            && report.digest == self.digest
            && report.events == self.events
            && failure == Some(&self.failure);
        Replayed { identity, first_difference, divergence: record.divergence, exact, same_failure, report }
    }
}

fn hash(head: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// Unpacks a body up to its limit.
fn unpack(body: &[u8]) -> Result<Vec<u8>, BundleError> {
    let decoder = zstd::stream::read::Decoder::new(body).map_err(|_| BundleError::Compression)?;
    let mut content = Vec::new();
    let limit = BODY_SIZE_MAX as u64 + 1;
    decoder.take(limit).read_to_end(&mut content).map_err(|_| BundleError::Compression)?;
    if content.len() > BODY_SIZE_MAX { Err(BundleError::TooLarge) } else { Ok(content) }
}
