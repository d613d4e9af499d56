//! One run as a line of JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::seeds::{Done, Plan};
use crate::told;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Passed,
    Excused,
    Failed,
}

/// What a swarm needs to know of a failure.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Failed {
    pub(super) fingerprint: String,
    pub(super) text: String,
    pub(super) event: u64,
}

/// What a swarm needs to know of a run. A line says more.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Line {
    pub(super) seed: u64,
    pub(super) outcome: Ended,
    pub(super) failure: Option<Failed>,
    pub(super) excuse: Option<String>,
    pub(super) bundle: Option<PathBuf>,
    pub(super) events: u64,
    pub(super) virtual_ns: u64,
    pub(super) cpu_seconds: f64,
    pub(super) memory_bytes: u64,
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) marks: BTreeMap<String, u64>,
    /// By fault and state.
    pub(super) cells: BTreeMap<String, BTreeMap<String, u64>>,
    /// Clauses of SQL.
    #[serde(default)]
    pub(super) grammar: BTreeMap<String, u64>,
    pub(super) compared: BTreeMap<String, u64>,
}

impl Line {
    /// Reads a line. Says what is wrong with one that is none.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        Self::deserialize(value).map_err(|error| error.to_string())
    }
}

/// The line of a run.
pub(super) fn value(plan: &Plan, done: &Done, bundle: Option<&Path>) -> Value {
    let Done { seed, config, report, cpu_seconds, wall_seconds, .. } = done;
    let bundle = bundle.and_then(Path::to_str);
    let mut value = told::json_of(plan.scenario.name(), *seed, config, report, *wall_seconds, bundle);
    value["cpu_seconds"] = json!(cpu_seconds);
    value
}
