//! A failure with less around it: the same fingerprint from fewer faults, requests, clients, replicas and events.
//!
//! Every step is an experiment: leave something out, run again from what is left of the decisions, and keep the step if
//! the run fails under the same fingerprint and takes no longer. What is kept is recorded anew, so the result replays
//! exactly. First whole parts of the configuration go, then single choices, in halves, quarters, and one by one (ddmin;
//! Zeller and Hildebrandt, 2002), and all of it again until nothing more can go or time is up.

use std::fmt;
use std::time::Duration;

use kimberlite_io_sim::{DecisionLog, DiskRates, Link};
use kimberlite_probe::Mutant;
use serde::Serialize;

use crate::bundle::Bundle;
use crate::choice::{Choice, Chosen, without};
use crate::config::{Family, RunConfig};
use crate::failure::Fingerprint;
use crate::planted::run_with;
use crate::run::{Luck, Outcome, Record, Report, Rules};
use crate::sql::SqlPlan;

/// How much there is around a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Replicas.
    pub replicas: u8,
    /// Clients.
    pub clients: u16,
    /// Requests that were asked.
    pub requests: usize,
    /// Families of faults that are on.
    pub families: usize,
    /// Times one of them struck.
    pub strikes: usize,
    /// Faults by rate.
    pub rate_faults: usize,
    /// Decisions.
    pub decisions: usize,
    /// Events until the failure.
    pub events: u64,
}

impl Size {
    fn of(config: &RunConfig, report: &Report, record: &Record) -> Self {
        let count =
            |kind: fn(&Chosen) -> bool| record.choices.iter().filter(|choice| kind(&choice.what)).count();
        Self {
            replicas: config.replicas,
            clients: config.clients(),
            requests: count(|what| matches!(what, Chosen::Request(_))),
            families: config.faults.families.len(),
            strikes: count(|what| matches!(what, Chosen::Strike(_))),
            rate_faults: count(|what| matches!(what, Chosen::Rate(..))),
            decisions: record.decisions.by_concern().iter().map(|(_, count)| count).sum(),
            events: report.events,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replicas, clients, requests, families, strikes, rate_faults, decisions, events } = self;
        write!(
            f,
            "{replicas} replicas, {clients} clients, {requests} requests, {families} fault families, {strikes} \
             strikes, {rate_faults} faults by rate, {decisions} decisions, {events} events"
        )
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Minimized {
    /// The smaller failure.
    pub bundle: Bundle,
    /// How much there was.
    pub before: Size,
    /// How much there is.
    pub after: Size,
    /// Runs that were tried.
    pub tried: u64,
    /// Those that were kept.
    pub kept: u64,
    /// Whether nothing more could be left out; otherwise time was up.
    pub complete: bool,
}

/// The smallest failing run so far.
struct Best {
    config: RunConfig,
    report: Report,
    record: Record,
}

struct Search<'a> {
    mutant: Option<Mutant>,
    seed: u64,
    fingerprint: Fingerprint,
    rules: Rules,
    best: Best,
    tried: u64,
    kept: u64,
    go_on: &'a mut dyn FnMut(&Size) -> bool,
    stopped: bool,
}

/// Makes a failure smaller while `go_on` says so; it is asked before each run, and told how far it got. When this program
/// does not fail as the bundle says, the report of what it does is returned instead.
pub fn minimize(
    bundle: &Bundle,
    rules: Rules,
    go_on: &mut dyn FnMut(&Size) -> bool,
) -> Result<Minimized, Box<Report>> {
    let fingerprint = bundle.failure.fingerprint();
    let (mutant, seed) = (bundle.mutant(), bundle.seed);
    let luck = Luck::Replayed(bundle.decisions.clone());
    let ((report, record), _) = run_with(mutant, &bundle.config, seed, luck, rules);
    if !fails_as(&report, fingerprint) {
        return Err(Box::new(report));
    }
    let before = Size::of(&bundle.config, &report, &record);
    let best = Best { config: bundle.config.clone(), report, record };
    let mut search =
        Search { mutant, seed, fingerprint, rules, best, tried: 0, kept: 0, go_on, stopped: false };
    loop {
        let kept = search.kept;
        search.configuration();
        search.choices(|what| matches!(what, Chosen::Strike(_)));
        search.choices(|what| matches!(what, Chosen::Rate(..)));
        search.choices(|what| matches!(what, Chosen::Request(_)));
        if search.stopped || search.kept == kept {
            break;
        }
    }
    let Search { best, tried, kept, stopped, .. } = search;
    let after = Size::of(&best.config, &best.report, &best.record);
    let mut smaller = Bundle::of_run(&bundle.scenario, &best.config, bundle.seed, best.report, best.record)?;
    smaller.planted.clone_from(&bundle.planted);
    smaller.origin = Some(bundle.origin.clone().unwrap_or_else(|| before.to_string()));
    Ok(Minimized { bundle: smaller, before, after, tried, kept, complete: !stopped })
}

fn fails_as(report: &Report, fingerprint: Fingerprint) -> bool {
    matches!(&report.outcome, Outcome::Failed(failure) if failure.fingerprint() == fingerprint)
}

impl Search<'_> {
    /// One experiment. Keeps it if it fails the same way and takes no longer.
    fn attempt(&mut self, config: RunConfig, log: DecisionLog) -> bool {
        let size = Size::of(&self.best.config, &self.best.report, &self.best.record);
        if self.stopped || !(self.go_on)(&size) {
            self.stopped = true;
            return false;
        }
        // A run that takes longer is cut short. The limit is no part of the failure, so the result keeps its own.
        let mut tried = config.clone();
        tried.events_max = tried.events_max.min(self.best.report.events);
        if tried.check().is_err() {
            return false;
        }
        self.tried += 1;
        let ((report, record), _) = run_with(self.mutant, &tried, self.seed, Luck::Replayed(log), self.rules);
        if !fails_as(&report, self.fingerprint) {
            return false;
        }
        self.kept += 1;
        self.best = Best { config, report, record };
        true
    }

    fn attempt_config(&mut self, change: impl FnOnce(&mut RunConfig)) -> bool {
        let mut config = self.best.config.clone();
        change(&mut config);
        if config == self.best.config {
            return false;
        }
        let log = self.best.record.decisions.clone();
        self.attempt(config, log)
    }

    /// Leaves out parts of the configuration.
    fn configuration(&mut self) {
        if !self.attempt_config(|config| config.faults.families.clear()) {
            for family in Family::ALL {
                self.attempt_config(|config| {
                    config.faults.families.remove(&family);
                });
            }
        }
        for simpler in SIMPLER {
            self.attempt_config(simpler);
        }
        for part in [2, 4, 8] {
            while self.attempt_config(|config| config.work.requests -= config.work.requests / part) {}
        }
        while self.attempt_config(|config| config.safety -= config.safety / 2) {
            if self.best.config.safety < Duration::from_millis(1) {
                break;
            }
        }
        for fewer in [|clients: u16| clients / 2, |clients: u16| clients - 1] {
            while self.best.config.work.clients > 1
                && self.attempt_config(|config| config.work.clients = fewer(config.work.clients).max(1))
            {
            }
        }
        self.sql();
        while self.best.config.replicas > 1
            && self.attempt_config(|config| {
                config.replicas -= 1;
                config.faults.tolerated = config.faults.tolerated.min(config.tolerable());
            })
        {}
    }

    /// Fewer statements, fewer clients that say them, and fewer themes.
    fn sql(&mut self) {
        let Some(sql) = self.best.config.sql.clone() else { return };
        for theme in sql.themes.keys() {
            self.attempt_config(|config| {
                if let Some(sql) = &mut config.sql {
                    sql.themes.remove(theme);
                }
            });
        }
        let simpler: [fn(&mut SqlPlan); 8] = [
            |sql| sql.statements /= 2,
            |sql| sql.statements -= sql.statements / 4,
            |sql| sql.clients = (sql.clients / 2).max(1),
            |sql| sql.tenants = 1,
            |sql| sql.savepoint_ppm = 0,
            |sql| sql.rollback_ppm = 0,
            |sql| sql.large_ppm = 0,
            |sql| sql.lists = 1,
        ];
        for simpler in simpler {
            let mut before = None;
            // As long as there is less of it.
            while before != self.best.config.sql {
                before.clone_from(&self.best.config.sql);
                self.attempt_config(|config| config.sql.iter_mut().for_each(simpler));
            }
        }
    }

    /// Leaves out single choices of a kind: ever smaller groups of them.
    fn choices(&mut self, kind: fn(&Chosen) -> bool) {
        let found = |record: &Record| -> Vec<Choice> {
            record.choices.iter().filter(|choice| kind(&choice.what)).cloned().collect()
        };
        let mut choices = found(&self.best.record);
        let mut group = choices.len();
        while group > 0 && !self.stopped {
            let mut from = 0;
            while from < choices.len() && !self.stopped {
                let until = choices.len().min(from + group);
                let log = without(&self.best.record.decisions, &choices[from..until]);
                if self.attempt(self.best.config.clone(), log) {
                    // What follows may be other choices now; those before were looked at.
                    choices = found(&self.best.record);
                } else {
                    from = until;
                }
            }
            group /= 2;
            group = group.min(choices.len());
        }
    }
}

/// Simpler configurations, one change each. What a liveness phase waits, and how disks and replicas are laid out, is
/// left alone: it decides what counts as a failure.
const SIMPLER: [fn(&mut RunConfig); 23] = [
    |config| config.sql = None,
    |config| config.work.requests = 0,
    |config| {
        config.faults.replica_link = Link::HEALTHY;
        config.faults.client_link = Link::HEALTHY;
        config.faults.disk = DiskRates::HEALTHY;
    },
    |config| config.faults.replica_link = Link::HEALTHY,
    |config| config.faults.client_link = Link::HEALTHY,
    |config| config.faults.disk = DiskRates::HEALTHY,
    |config| config.faults.asymmetric = false,
    |config| config.faults.partition_clients = false,
    |config| config.faults.crash_several_ppm = 0,
    |config| config.faults.crash_loop_ppm = 0,
    |config| config.faults.damage_superblock = false,
    |config| config.faults.damage_headers = false,
    |config| config.faults.damage_log = false,
    |config| config.faults.plots.truncate(1),
    |config| config.work.readers = 0,
    |config| config.work.query_ppm = 0,
    |config| config.work.refused_ppm = 0,
    |config| config.work.expected_ppm = 0,
    |config| config.work.huge_ppm = 0,
    |config| config.work.records_max = 1,
    |config| config.work.record_size_max = 32,
    |config| config.work.tenants = 1,
    |config| config.work.streams = 1,
];
