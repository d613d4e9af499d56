//! A failure as a file: `.kmb`, of the kind *simulated failure*. The container is `kimberlite_bundle`'s; this is what is
//! in it.

use kimberlite_bundle::{FormatError, Identity, Kind, pack, unpack};
use kimberlite_io_sim::{DecisionLog, Divergence};
use kimberlite_probe::Mutant;
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::failure::Failure;
use crate::planted::{held, run_with};
use crate::run::{Checkpoint, Luck, Outcome, Record, Report, Rules};
use crate::trail::{Parting, Seen, Trail};

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
    /// Every event in a few bytes.
    pub trail: Trail,
    /// The first few thousand faults that took effect, in the order of time.
    pub faults: Vec<Seen>,
    /// Events until the failure.
    pub events: u64,
    /// The digest at the failure.
    pub digest: [u8; 32],
    /// The failure.
    pub failure: Failure,
    /// The name of the planted bug that was switched on, if one was.
    pub planted: Option<String>,
    /// What the run was before it was minimized, if it was: in one line.
    pub origin: Option<String>,
}

/// What a replay showed.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The replayed run.
    pub report: Report,
    /// Where the program that wrote the bundle differs from this one: what, there, here.
    pub identity: Vec<(&'static str, String, String)>,
    /// Whether this program must behave as the one that wrote the bundle.
    pub same_build: bool,
    /// The first event that differs, if any does.
    pub parting: Option<Parting>,
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
        Self::capture_with(None, scenario, config, seed, rules)
    }

    /// The same with a planted bug, in a build that holds them.
    pub fn capture_with(
        mutant: Option<Mutant>,
        scenario: &str,
        config: &RunConfig,
        seed: u64,
        rules: Rules,
    ) -> Result<Self, Box<Report>> {
        let ((report, record), _) = run_with(mutant, config, seed, Luck::Recorded, rules);
        let bundle = Self::of_run(scenario, config, seed, report, record)?;
        Ok(Self { planted: mutant.map(|mutant| mutant.name().to_owned()), ..bundle })
    }

    /// Packs a recorded run that failed.
    pub fn of_run(
        scenario: &str,
        config: &RunConfig,
        seed: u64,
        report: Report,
        record: Record,
    ) -> Result<Self, Box<Report>> {
        let Outcome::Failed(failure) = report.outcome.clone() else { return Err(Box::new(report)) };
        let Record { decisions, checkpoints, trail, faults, .. } = record;
        Ok(Self {
            identity: Identity::current(),
            scenario: scenario.to_owned(),
            seed,
            config: config.clone(),
            decisions,
            checkpoints,
            trail,
            faults,
            events: report.events,
            digest: report.digest,
            failure,
            planted: None,
            origin: None,
        })
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        pack(Kind::Failure, &postcard::to_allocvec(self).expect("our own bundles encode"))
    }

    /// Reads a file. Never panics, and never holds more than the limits allow.
    pub fn decode(file: &[u8]) -> Result<Self, FormatError> {
        let content = unpack(file, Kind::Failure)?;
        let bundle: Self = postcard::from_bytes(&content).map_err(|_| FormatError::Content)?;
        bundle.config.check().map_err(|fault| FormatError::Sense(fault.reason))?;
        if !bundle.trail.is_sound() {
            return Err(FormatError::Sense("the parts of a trail are equally long"));
        }
        bundle.planted.as_deref().map(held).transpose()?;
        Ok(bundle)
    }

    /// Its planted bug.
    pub(crate) fn mutant(&self) -> Option<Mutant> {
        self.planted
            .as_deref()
            .map(|name| held(name).expect("who made or decoded a bundle holds its planted bug"))
    }

    /// Runs it again from its decisions, with its planted bug, and compares.
    pub fn replay(&self, rules: Rules) -> Replayed {
        let luck = Luck::Replayed(self.decisions.clone());
        let ((report, record), _) = run_with(self.mutant(), &self.config, self.seed, luck, rules);
        let here = Identity::current();
        let identity = self.identity.differences(&here);
        let pairs = self.checkpoints.iter().zip(&record.checkpoints);
        let differing = pairs.into_iter().find(|(then, now)| then != now).map(|(then, _)| *then);
        // The shorter run ended where the longer went on.
        let shorter = self.checkpoints.len().min(record.checkpoints.len());
        let first_difference =
            differing.or_else(|| self.checkpoints.get(shorter).or(record.checkpoints.get(shorter)).copied());
        let parting = self.trail.parting(&record.trail);
        let failure = match &report.outcome {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Passed | Outcome::Excused(_) => None,
        };
        let same_failure = failure.is_some_and(|now| now.fingerprint() == self.failure.fingerprint());
        let exact = first_difference.is_none()
            && parting.is_none()
            && record.divergence.is_none()
            && report.digest == self.digest
            && report.events == self.events
            && failure == Some(&self.failure);
        Replayed {
            identity,
            same_build: self.identity.is_same_build(&here),
            parting,
            first_difference,
            divergence: record.divergence,
            exact,
            same_failure,
            report,
        }
    }
}
