//! One run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kimberlite_sim::{
    Bundle, HOLDS_MUTANTS, Luck, Mutant, Outcome, RunConfig, Scenario, draw, rules, run_with,
};
use serde_json::json;

use kimberlite_probe::Sight;

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
    let Run { scenario, seed, json, timeline, mutant, overrides, bundles } = arguments;
    if let Some(mutant) = mutant.filter(|_| !HOLDS_MUTANTS) {
        let name = mutant.name();
        return Err(Complaint {
            verdict: Verdict::Usage,
            text: format!(
                "this build holds no planted bugs; run one that does:\n  cargo run --release -p vopr --features \
                 mutants -- run {} --seed {seed} --mutant {name}",
                scenario.name()
            ),
        });
    }
    let config = configuration(*scenario, *seed, *overrides)?;
    let began = Instant::now();
    let held = if *timeline { telling_rules } else { rules };
    let ((report, _), sight) = run_with(*mutant, &config, *seed, Luck::Free, held);
    let seconds = began.elapsed().as_secs_f64();
    let bundle = match &report.outcome {
        Outcome::Failed(_) => Some(keep(*mutant, *scenario, &config, *seed, bundles)?),
        _ => None,
    };
    let name = scenario.name();
    if *json {
        let bundle = bundle.as_ref().map(|path| path.display().to_string());
        let mut value = told::json_of(name, *seed, &config, &report, seconds, bundle.as_deref());
        if let Some(mutant) = mutant {
            let Sight { reached, triggered } = sight;
            value["planted"] = json!({ "mutant": mutant.name(), "reached": reached, "triggered": triggered });
        }
        println!("{value}");
    } else {
        print!("{}", told::text_of(name, *seed, &config, &report, seconds));
        if let Some(mutant) = mutant {
            let Sight { reached, triggered } = sight;
            println!("{:<12} {}, in {}", "planted", mutant.name(), mutant.site());
            println!("{:<12} {reached} times reached, {triggered} times it made a difference", "");
        }
        if let Some(path) = bundle {
            println!("{:<12} {}", "bundle", path.display());
        }
    }
    Ok(verdict_of(&report.outcome))
}

/// Runs a failed seed again and writes its bundle.
pub(crate) fn keep(
    mutant: Option<Mutant>,
    scenario: Scenario,
    config: &RunConfig,
    seed: u64,
    directory: &Path,
) -> Result<PathBuf, Complaint> {
    let bundle =
        Bundle::capture_with(mutant, scenario.name(), config, seed, rules).map_err(|report| Complaint {
            verdict: Verdict::Failed,
            text: format!(
                "seed {seed} failed once and {} when it was run again: the simulation is not deterministic",
                told::word(&report.outcome)
            ),
        })?;
    fs::create_dir_all(directory).map_err(|error| Complaint::io("create", directory, &error))?;
    let planted = mutant.map(|mutant| format!("-{}", mutant.name())).unwrap_or_default();
    let path = directory.join(format!("{}-{seed}{planted}.kmb", scenario.name()));
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
