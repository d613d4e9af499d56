//! One run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kimberlite_sim::{Bundle, Luck, Outcome, RunConfig, Scenario, draw, rules, run as simulate};

use crate::arguments::{Overrides, Run};
use crate::timeline::telling_rules;
use crate::{Complaint, Verdict, told};

/// The configuration of a seed, with what was set by hand.
pub(crate) fn configuration(
    scenario: Scenario,
    seed: u64,
    overrides: Overrides,
) -> Result<RunConfig, Complaint> {
    let mut config = draw(scenario, seed);
    if let Some(replicas) = overrides.replicas {
        config.replicas = replicas;
        // The budget for damage follows from the number of replicas.
        config.faults.tolerated = config.faults.tolerated.min(config.tolerable());
    }
    config.work.clients = overrides.clients.unwrap_or(config.work.clients);
    config.work.requests = overrides.requests.unwrap_or(config.work.requests);
    match config.check() {
        Ok(()) => Ok(config),
        Err(fault) => Err(Complaint { verdict: Verdict::Usage, text: fault.to_string() }),
    }
}

/// Runs one seed.
pub(crate) fn run(arguments: &Run) -> Result<Verdict, Complaint> {
    let Run { scenario, seed, json, timeline, overrides, bundles } = arguments;
    let config = configuration(*scenario, *seed, *overrides)?;
    let began = Instant::now();
    let (report, _) = simulate(&config, *seed, Luck::Free, if *timeline { telling_rules } else { rules });
    let seconds = began.elapsed().as_secs_f64();
    let bundle = match &report.outcome {
        Outcome::Failed(_) => Some(keep(*scenario, &config, *seed, bundles)?),
        _ => None,
    };
    let name = scenario.name();
    if *json {
        let bundle = bundle.as_ref().map(|path| path.display().to_string());
        println!("{}", told::json_of(name, *seed, &config, &report, seconds, bundle.as_deref()));
    } else {
        print!("{}", told::text_of(name, *seed, &config, &report, seconds));
        if let Some(path) = bundle {
            println!("{:<12} {}", "bundle", path.display());
        }
    }
    Ok(verdict_of(&report.outcome))
}

/// Runs a failed seed again and writes its bundle.
pub(crate) fn keep(
    scenario: Scenario,
    config: &RunConfig,
    seed: u64,
    directory: &Path,
) -> Result<PathBuf, Complaint> {
    let bundle = Bundle::capture(scenario.name(), config, seed, rules).map_err(|report| Complaint {
        verdict: Verdict::Failed,
        text: format!(
            "seed {seed} failed once and {} when it was run again: the simulation is not deterministic",
            told::word(&report.outcome)
        ),
    })?;
    fs::create_dir_all(directory).map_err(|error| Complaint::io("create", directory, &error))?;
    let path = directory.join(format!("{}-{seed}.kmb", scenario.name()));
    fs::write(&path, bundle.encode()).map_err(|error| Complaint::io("write", &path, &error))?;
    Ok(path)
}

/// The exit code of a single run.
pub(crate) const fn verdict_of(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Passed => Verdict::Passed,
        Outcome::Excused(_) => Verdict::Excused,
        Outcome::Failed(_) => Verdict::Failed,
    }
}
